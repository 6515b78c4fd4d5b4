"""Ranking quality per query, by `ir-measures`.

`ir-measures` is chosen over `ranx` and bare `pytrec-eval-terrier`: it calls the latter, so its figures
are those of trec_eval, names measures as papers do (`nDCG@10`), gives them per query, and compiles
nothing at first use.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import ir_measures
import numpy as np

DEFAULT_MEASURES = ("nDCG@10", "MRR@10", "R@1", "R@10", "R@100")


@dataclass(frozen=True)
class RankingQuality:
    """Measures of a run, per query.

    Args:
        query_ids: The queries that have judgements, in a fixed order.
        per_query: Measure name to values in [0, 1], one per query.
    """

    query_ids: list[str]
    per_query: dict[str, np.ndarray]

    @property
    def mean(self) -> dict[str, float]:
        """The mean over queries of each measure."""
        return {name: float(values.mean()) for name, values in self.per_query.items()}


def ranking_quality(
    results: Mapping[str, Sequence[Mapping[str, object]]],
    qrels: Mapping[str, Mapping[str, int]],
    measures: Iterable[str] = DEFAULT_MEASURES,
) -> RankingQuality:
    """Measure rankings against relevance judgements.

    `R@1` is the share of queries whose first document is relevant, as papers on dense retrieval use
    it; `R@k` for greater k is the share of the relevant documents among the first k.

    Args:
        results: For each query id its hits, best first, as `Retriever.search` returns them:
            `{"corpus_id": ..., "score": ...}`. The order given is the order measured.
        qrels: For each query id its relevant documents and their grades; every one of these queries
            counts, with 0 where it has no results.
        measures: Names such as `"nDCG@10"`, `"MRR@10"`, `"R@100"`.

    Returns:
        The measures per query, with `.mean`.

    Raises:
        ValueError: If there are no judgements, or a measure is unknown.

    Example:
        >>> hits = {"q": [{"corpus_id": "b", "score": 0.9}, {"corpus_id": "a", "score": 0.8}]}
        >>> ranking_quality(hits, {"q": {"a": 1}}, ["MRR@10"]).mean
        {'MRR@10': 0.5}
    """
    query_ids = [
        query_id for query_id, judged in qrels.items() if any(grade > 0 for grade in judged.values())
    ]
    if not query_ids:
        raise ValueError("qrels must hold at least one query with a relevant document, got none.")
    parsed = {name: parse_measure(name) for name in measures}
    # trec_eval sorts by score itself and breaks ties by id: ranks as scores keep the order as it is.
    run = {
        query_id: {str(hit["corpus_id"]): -float(rank) for rank, hit in enumerate(results.get(query_id, ()))}
        for query_id in query_ids
    }
    row = {query_id: i for i, query_id in enumerate(query_ids)}
    by_measure = {measure: np.zeros(len(query_ids)) for measure in parsed.values()}
    judged = {query_id: dict(qrels[query_id]) for query_id in query_ids}
    for value in ir_measures.iter_calc(list(by_measure), judged, run):
        by_measure[value.measure][row[value.query_id]] = value.value
    return RankingQuality(query_ids, {name: by_measure[measure] for name, measure in parsed.items()})


def named_rankings(
    query_ids: Iterable[str], document_ids: Sequence[str], rows: np.ndarray
) -> dict[str, list[dict[str, str]]]:
    """Return rankings of rows as `ranking_quality` takes them, by query id.

    Args:
        query_ids: Ids of the queries, `n`.
        document_ids: Ids of the corpus.
        rows: Rows of the documents ranked for each query, best first, `(n, k)`.

    Example:
        >>> named_rankings(["q"], ["a", "b"], np.array([[1, 0]]))
        {'q': [{'corpus_id': 'b'}, {'corpus_id': 'a'}]}
    """
    return {
        query_id: [{"corpus_id": document_ids[row]} for row in ranking]
        for query_id, ranking in zip(query_ids, rows.tolist(), strict=True)
    }


def parse_measure(name: str) -> ir_measures.measures.Measure:
    """Return the measure of `ir-measures` that a name such as `"nDCG@10"` stands for.

    Raises:
        ValueError: If there is no such measure.
    """
    if name == "R@1":
        return ir_measures.Success @ 1
    try:
        measure = ir_measures.parse_measure(name.replace("MRR", "RR"))
        measure.validate_params()
    except (AssertionError, NameError, SyntaxError, ValueError) as error:
        raise ValueError(
            f"measure must be one such as {', '.join(DEFAULT_MEASURES)}, got {name!r}."
        ) from error
    return measure
