"""`rrra evaluate`."""

from __future__ import annotations

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
    bad_arguments,
    print_json,
    print_quality,
    reads_collections,
)
from .opening import MaxLength, Opening, load_retriever, opens_models

TITLES = {
    "all": "queries",
    "unseen": "queries with unseen documents only",
    "seen": "queries with a seen document",
}


@opens_models
@reads_collections
def evaluate(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="Saved model or encoder: folder or Hub name.")
    ],
    collection: CollectionName,
    split: Annotated[str, typer.Option(help="Split whose queries are used.")] = "test",
    measure: Annotated[
        list[str] | None, typer.Option(help="Measure, such as nDCG@10, MRR@10 or R@100. Repeatable.")
    ] = None,
    depth: Annotated[int, typer.Option(min=1, help="Number of documents to rerank per query.")] = DEPTH,
    adapter: UseAdapter = True,
    reading: Reading = Reading(),
    max_length: MaxLength = None,
    opening: Opening = Opening(),
    batch_size: BatchSize = 64,
    cache_dir: CacheDir = None,
    json: Json = False,
) -> None:
    """Measure a model on a split, without and with its adapter.

    The index of a retriever is used if it is of this corpus. Otherwise the corpus is indexed.

    A query is seen if one of its relevant documents was labelled in training. Seen and unseen queries are
    reported separately, because gains on seen queries may not carry over to new documents.

    Example: `rrra evaluate models/scifact data/scifact`
    """
    from ..evaluation import DEFAULT_MEASURES, parse_measure
    from ..retrieval import evaluate as evaluate_retriever
    from ..retrieval.corpus_index import CorpusIndex
    from ..retrieval.evaluate import group_quality, is_index_of

    with bad_arguments():
        for name in measure or ():
            parse_measure(name)
    loaded = reading.load(collection)
    part = loaded.split(split)
    retriever = load_retriever(model, adapter, max_length, opening)
    saved = retriever.corpus if retriever.has_index else None
    if saved is None or not is_index_of(saved, loaded):
        saved_split = saved.split if isinstance(saved, CorpusIndex) else None
        retriever.index(loaded, cache_dir=cache_dir, batch_size=batch_size, split=saved_split)
    result = evaluate_retriever(
        retriever, part, measure or DEFAULT_MEASURES, depth=depth, batch_size=batch_size
    )
    grouped = group_quality(result.quality, loaded, part)
    if json:
        print_json({"split": split, **grouped._asdict(), "milliseconds": result.milliseconds})
        return
    for name, rows in grouped.quality.items():
        print_quality(f"{loaded.name}, {split}: {grouped.queries[name]} {TITLES[name]}", rows)
    costs = ", ".join(f"{part} {cost:.2f}" for part, cost in result.milliseconds.items())
    typer.echo(f"ms per query: {costs}")
