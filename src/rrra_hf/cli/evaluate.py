"""`rrra evaluate`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from .common import (
    BatchSize,
    CacheDir,
    CollectionName,
    Columns,
    Json,
    MaxLength,
    Pairs,
    SkipBad,
    bad_arguments,
    load_collection,
    load_model,
    print_json,
    print_quality,
)

if TYPE_CHECKING:
    from ..data import Collection
    from ..evaluation import RankingQuality

TITLES = {
    "all": "queries",
    "unseen": "queries with unseen documents only",
    "seen": "queries with a seen document",
}


def evaluate(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="A saved model, or an encoder: folder or Hub name.")
    ],
    collection: CollectionName,
    split: Annotated[str, typer.Option(help="Split whose queries are used.")] = "test",
    measure: Annotated[
        list[str] | None, typer.Option(help="Such as nDCG@10, MRR@10, R@100; may be repeated.")
    ] = None,
    depth: Annotated[int, typer.Option(min=1, help="Documents reranked a query.")] = 100,
    pairs: Pairs = None,
    column: Columns = None,
    skip_bad: SkipBad = False,
    max_length: MaxLength = None,
    batch_size: BatchSize = 64,
    cache_dir: CacheDir = None,
    json: Json = False,
) -> None:
    """Measure a model on a split, without and with its adapter.

    Queries whose relevant documents were all unlabelled in training (unseen) are reported apart: gains
    on documents that training queries had for positives don't carry over to new ones.

    Example: `rrra evaluate models/scifact data/scifact`
    """
    from ..evaluation import DEFAULT_MEASURES, parse_measure
    from ..retrieval import Retriever
    from ..retrieval import evaluate as evaluate_retriever

    with bad_arguments():
        for name in measure or ():
            parse_measure(name)
    loaded = load_collection(collection, pairs, column, skip_bad)
    part = loaded.split(split)
    retriever = Retriever(load_model(model, max_length))
    retriever.index(loaded, cache_dir=cache_dir, batch_size=batch_size)
    result = evaluate_retriever(
        retriever, part, measure or DEFAULT_MEASURES, depth=depth, batch_size=batch_size
    )
    groups = _groups(loaded, part)
    means = {
        name: {system: _means(quality, query_ids) for system, quality in result.quality.items()}
        for name, query_ids in groups.items()
    }
    if json:
        counts = {name: len(query_ids) for name, query_ids in groups.items()}
        print_json({"split": split, "queries": counts, "quality": means, "milliseconds": result.milliseconds})
        return
    for name, rows in means.items():
        print_quality(f"{loaded.name}, {split}: {len(groups[name])} {TITLES[name]}", rows)
    costs = ", ".join(f"{part} {cost:.2f}" for part, cost in result.milliseconds.items())
    typer.echo(f"ms per query: {costs}")


def _groups(collection: Collection, part: Collection) -> dict[str, set[str]]:
    """Return the ids of all queries and, where there are both, of those without and with a seen document."""
    from ..evaluation import seen_queries

    relevant = {query: _relevant(grades) for query, grades in part.qrels.items()}
    labelled = map(_relevant, collection.qrels_by_split.get("train", {}).values())
    is_seen = seen_queries(list(relevant.values()), labelled)
    groups = {"all": set(relevant)}
    if is_seen.any() and not is_seen.all():
        seen = {query for query, one in zip(relevant, is_seen, strict=True) if one}
        groups.update(unseen=set(relevant) - seen, seen=seen)
    return groups


def _relevant(grades: dict[str, int]) -> list[str]:
    return [document for document, grade in grades.items() if grade > 0]


def _means(quality: RankingQuality, query_ids: set[str]) -> dict[str, Any]:
    rows = [row for row, query_id in enumerate(quality.query_ids) if query_id in query_ids]
    return {name: float(values[rows].mean()) for name, values in quality.per_query.items()}
