"""`rrra mine`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .common import (
    DEFAULT_MODEL,
    BatchSize,
    CacheDir,
    CollectionName,
    Columns,
    Json,
    MaxLength,
    ModelName,
    Pairs,
    Seed,
    SkipBad,
    check_out,
    load_collection,
    load_model,
    print_json,
)


def mine(
    collection: CollectionName,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the candidate pool.")],
    model: ModelName = DEFAULT_MODEL,
    depth: Annotated[int, typer.Option(min=1, help="Candidates per query.")] = 100,
    split: Annotated[str, typer.Option(help="Split of the queries.")] = "train",
    probabilities: Annotated[
        bool, typer.Option("--probabilities", help="Add cross-fitted false-negative probabilities.")
    ] = False,
    pairs: Pairs = None,
    column: Columns = None,
    skip_bad: SkipBad = False,
    max_length: MaxLength = None,
    batch_size: BatchSize = 64,
    cache_dir: CacheDir = None,
    seed: Seed = 0,
    json: Json = False,
) -> None:
    """Mine hard negatives for each query, with the probability that each is a false negative.

    Example: `rrra mine data/scifact --out pools/scifact --probabilities`
    """
    from ..candidates import mine_collection
    from ..embeddings import embed_collection
    from ..fitting import FitArguments, cross_fit, words_to_read

    arguments = FitArguments(depth=depth, seed=seed)
    check_out(out, "pool.json", "a candidate pool")
    part = load_collection(collection, pairs, column, skip_bad).split(split)
    encoder = load_model(model, max_length).to_sentence_transformer()
    embeddings = embed_collection(part, encoder, cache_dir=cache_dir, batch_size=batch_size)
    pool = mine_collection(part, embeddings, depth)
    if probabilities:
        pool = cross_fit(
            pool,
            embeddings.queries,
            embeddings.documents,
            arguments=arguments,
            query_words=words_to_read(arguments, encoder, part.query_texts),
            document_words=words_to_read(arguments, encoder, part.document_texts),
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
