"""Ranking measures per query, computed by `ir-measures`.

`ir-measures` calls `pytrec-eval-terrier`, so its figures are those of trec_eval. It returns them per query,
uses the names that papers use (`nDCG@10`) and, unlike `ranx`, compiles nothing at first use.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import ir_measures
import numpy as np

logger = logging.getLogger(__name__)

DEFAULT_MEASURES = ("nDCG@10", "MRR@10", "R@1", "R@10", "R@100")


@dataclass(frozen=True)
class RankingQuality:
    """Ranking measures per query.

    Args:
        query_ids: Ids of the queries with judgements.
        per_query: Values in [0, 1] per measure, one per query, in the order of `query_ids`.
    """

    query_ids: list[str]
    per_query: dict[str, np.ndarray]

    @property
    def mean(self) -> dict[str, float]:
        """Mean of each measure over queries."""
        return {name: float(values.mean()) for name, values in self.per_query.items()}


def ranking_quality(
    results: Mapping[str, Sequence[Mapping[str, object]]],
    qrels: Mapping[str, Mapping[str, int]],
    measures: Iterable[str] = DEFAULT_MEASURES,
    *,
    exclude_self: bool = True,
) -> RankingQuality:
    """Evaluate rankings against relevance judgements.

    As in papers on dense retrieval, `R@1` is the share of queries whose first document is relevant. For
    greater k, `R@k` is the share of relevant documents among the first k.

    Args:
        results: Hits per query id, best first, as returned by `Retriever.search`:
            `{"corpus_id": ..., "score": ...}`. The order of the hits is evaluated, not their scores.
        qrels: Judged documents and their grades per query id, above 0 if relevant. Queries without results
            count as 0.
        measures: Names such as `"nDCG@10"`, `"MRR@10"`, `"R@100"`.
        exclude_self: Leave out a hit with the id of its query, unless it is labelled relevant. In
            collections of duplicate questions and of citations, queries are documents too, and BEIR measures
            them so.

    Returns:
        The measures per query, with their `.mean`.

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
        raise ValueError("qrels must have at least one query with a relevant document, got none.")
    parsed = {name: parse_measure(name) for name in measures}
    # trec_eval sorts by score and breaks ties by id. Using ranks as scores keeps the given order.
    run = {
        query_id: {str(hit["corpus_id"]): -float(rank) for rank, hit in enumerate(results.get(query_id, ()))}
        for query_id in query_ids
    }
    if exclude_self:
        _remove_own(run, qrels)
    row = {query_id: i for i, query_id in enumerate(query_ids)}
    by_measure = {measure: np.zeros(len(query_ids)) for measure in parsed.values()}
    # Measures that sum grades would subtract those below 0.
    judged = {
        query_id: {name: max(grade, 0) for name, grade in qrels[query_id].items()} for query_id in query_ids
    }
    for value in ir_measures.iter_calc(list(by_measure), judged, run):
        by_measure[value.measure][row[value.query_id]] = value.value
    return RankingQuality(query_ids, {name: by_measure[measure] for name, measure in parsed.items()})


def _remove_own(run: dict[str, dict[str, float]], qrels: Mapping[str, Mapping[str, int]]) -> None:
    """Remove from each query's hits the document with its id, unless it is relevant."""
    own = [name for name, hits in run.items() if name in hits and qrels[name].get(name, 0) <= 0]
    for name in own:
        del run[name][name]
    if own:
        logger.info(
            "%d of %d queries found a document with their own id, which is left out as BEIR does; "
            "exclude_self=False counts it.",
            *(len(own), len(run)),
        )


def named_rankings(
    query_ids: Iterable[str], document_ids: Sequence[str], rows: np.ndarray
) -> dict[str, list[dict[str, str]]]:
    """Convert rankings of row numbers to the hits that `ranking_quality` takes.

    Args:
        query_ids: Ids of the queries, `n`.
        document_ids: Ids of the corpus.
        rows: Row numbers of the ranked documents, best first, `(n, k)`; -1 where there is none.

    Example:
        >>> named_rankings(["q"], ["a", "b"], np.array([[1, 0]]))
        {'q': [{'corpus_id': 'b'}, {'corpus_id': 'a'}]}
    """
    return {
        query_id: [{"corpus_id": document_ids[row]} for row in ranking if row >= 0]
        for query_id, ranking in zip(query_ids, rows.tolist(), strict=True)
    }


def parse_measure(name: str) -> ir_measures.measures.Measure:
    """Return the measure of `ir-measures` for a name such as `"nDCG@10"`.

    Raises:
        ValueError: If the measure is unknown.
    """
    if name == "R@1":
        return ir_measures.Success @ 1
    try:
        measure = ir_measures.parse_measure(name.replace("MRR", "RR"))
        measure.validate_params()
    except (AssertionError, NameError, SyntaxError, ValueError) as error:
        raise ValueError(
            f"measure must be a name such as {', '.join(DEFAULT_MEASURES)}, got {name!r}."
        ) from error
    return measure
