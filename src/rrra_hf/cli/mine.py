"""`rrra mine`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from .common import (
    DEFAULT_MODEL,
    BatchSize,
    CacheDir,
    CollectionName,
    Columns,
    FitSteps,
    Json,
    MaxLength,
    ModelName,
    Pairs,
    Seed,
    SkipBad,
    bad_arguments,
    check_out,
    load_collection,
    load_model,
    print_json,
)


def mine(
    collection: CollectionName,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the candidate pool.")],
    model: ModelName = DEFAULT_MODEL,
    depth: Annotated[int, typer.Option(min=1, help="Candidates a query.")] = 100,
    split: Annotated[str, typer.Option(help="Split whose queries are used.")] = "train",
    probabilities: Annotated[
        bool, typer.Option("--probabilities", help="Add cross-fitted false-negative probabilities.")
    ] = False,
    fit_steps: FitSteps = None,
    pairs: Pairs = None,
    column: Columns = None,
    skip_bad: SkipBad = False,
    max_length: MaxLength = None,
    batch_size: BatchSize = 64,
    cache_dir: CacheDir = None,
    seed: Seed = 0,
    json: Json = False,
) -> None:
    """Mine each training query's hard negatives, with the probability that they are false.

    Example: `rrra mine data/scifact --out pools/scifact --probabilities`
    """
    from ..candidates import mine_collection
    from ..embeddings import embed_collection
    from ..fitting import FitArguments, cross_fit

    changes: dict[str, Any] = {} if fit_steps is None else {"max_steps": fit_steps}
    with bad_arguments(max_steps="--fit-steps"):
        arguments = FitArguments(depth=depth, seed=seed, **changes)
    check_out(out, "pool.json", "a candidate pool")
    part = load_collection(collection, pairs, column, skip_bad).split(split)
    encoder = load_model(model, max_length).to_sentence_transformer()
    embeddings = embed_collection(part, encoder, cache_dir=cache_dir, batch_size=batch_size)
    pool = mine_collection(part, embeddings, depth)
    if probabilities:
        pool = cross_fit(pool, embeddings.queries, embeddings.documents, arguments=arguments)
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
