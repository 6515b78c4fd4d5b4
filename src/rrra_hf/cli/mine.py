"""`rrra mine`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .common import (
    DEPTH,
    BatchSize,
    CacheDir,
    CollectionName,
    Json,
    Reading,
    UseAdapter,
    print_json,
    reads_collections,
)
from .opening import (
    DEFAULT_MODEL,
    IndexName,
    MaxLength,
    ModelName,
    Opening,
    encoder_or_index,
    opens_models,
)
from .output import ENCODED, writes


@writes(marker="pool.json", what="a candidate pool", resumes=ENCODED)
@opens_models
@reads_collections
def mine(
    collection: CollectionName,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the candidate pool.")],
    model: ModelName = DEFAULT_MODEL,
    index: IndexName = None,
    depth: Annotated[int, typer.Option(min=1, help="Candidates per query.")] = DEPTH,
    split: Annotated[str, typer.Option(help="Split of the queries.")] = "train",
    adapter: UseAdapter = True,
    reading: Reading = Reading(),
    max_length: MaxLength = None,
    opening: Opening = Opening(),
    batch_size: BatchSize = 64,
    cache_dir: CacheDir = None,
    json: Json = False,
) -> None:
    """Mine hard negatives for each query, with the probability that each is a false negative.

    Candidates are found by embeddings and by words. The adapter that comes trained gives the probabilities,
    also for a model with an adapter of its own, which may have been fitted on these labels. With `--index`,
    the candidates are documents of a retriever's index, which may be in Milvus. None is encoded again.

    Example: `rrra mine data/scifact --out pools/scifact`
    """
    from ..candidates import mine as mine_pool

    part = reading.load(collection).split(split)
    encoder, retriever = encoder_or_index(model, index, max_length, opening)
    pool = mine_pool(
        part,
        encoder,
        depth,
        index=retriever,
        split=split,
        adapter="pretrained" if adapter else None,
        cache_dir=cache_dir,
        batch_size=batch_size,
    )
    pool.save(out)

    summary = {
        "pool": str(out),
        "queries": len(pool),
        "documents": len(pool.document_ids),
        "candidates": int((pool.candidates >= 0).sum()),
    }
    if pool.probability is not None:
        likely = (pool.probability >= 0.5).sum()
        summary["probable_false_negatives"] = int(likely)
    if json:
        print_json(summary)
        return
    for name, value in summary.items():
        typer.echo(f"{name.replace('_', ' ')}: {value}")
