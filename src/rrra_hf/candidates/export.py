"""Pools in the formats of other tools: runs of TREC and JSONL of FlagEmbedding."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from ..data.export import write_jsonl
from ..data.trec import Run
from .pool import CandidatePool

if TYPE_CHECKING:
    from ..data import Collection


def pool_run(pool: CandidatePool) -> Run:
    """Return the candidates of a pool as hits, with their cosines, for `write_run`.

    Example:
        >>> pool = CandidatePool(["q"], ["a", "b"], [np.array([0])], np.array([[1]]), np.array([[0.5]]))
        >>> pool_run(pool)
        {'q': [{'corpus_id': 'b', 'score': 0.5}]}
    """
    queries = zip(pool.query_ids, pool.candidate_ids, pool.scores.tolist(), strict=True)
    return {
        query_id: [{"corpus_id": name, "score": score} for name, score in zip(ids, scores, strict=False)]
        for query_id, ids, scores in queries
    }


def write_pool_flag_embedding(
    path: str | os.PathLike[str],
    pool: CandidatePool,
    collection: Collection,
    *,
    relabel_from: float | None = None,
) -> None:
    """Write a pool as JSONL of FlagEmbedding, with the probabilities of the candidates as scores.

    Args:
        path: The file.
        pool: The pool. With probabilities, each line has `pos_scores`, 1 for labelled documents, and
            `neg_scores`.
        collection: The collection that it was mined from.
        relabel_from: Candidates with at least this probability become positives. None relabels none.

    Raises:
        ValueError: If `relabel_from` isn't in (0, 1], the pool has no probabilities for it, or collection and
            pool have other documents or queries.
    """
    if relabel_from is not None and not 0 < relabel_from <= 1:
        raise ValueError(f"relabel_from must be in (0, 1], got {relabel_from}.")
    if relabel_from is not None and pool.probability is None:
        raise ValueError("relabel_from needs a pool with probabilities; mine it with an adapter.")
    unknown = set(pool.query_ids) - set(collection.query_ids)
    if pool.document_ids != collection.document_ids or unknown:
        raise ValueError(f"The pool was mined from another collection than {collection.name}.")
    write_jsonl(path, _records(pool, collection, relabel_from or np.inf))


def _records(pool: CandidatePool, collection: Collection, relabel_from: float) -> Iterator[dict[str, Any]]:
    texts = collection.document_texts
    query_texts = dict(zip(collection.query_ids, collection.query_texts, strict=True))
    for row, query_id in enumerate(pool.query_ids):
        candidates = pool.candidates[row][pool.candidates[row] >= 0]
        record: dict[str, Any] = {"query": query_texts[query_id]}
        if pool.probability is None:
            chances = np.zeros(len(candidates))
        else:
            chances = pool.probability[row, : len(candidates)]
        relevant = chances >= relabel_from
        record["pos"] = [texts[at] for at in (*pool.positives[row], *candidates[relevant])]
        record["neg"] = [texts[at] for at in candidates[~relevant]]
        if pool.probability is not None:
            record["pos_scores"] = [1.0] * len(pool.positives[row]) + chances[relevant].tolist()
            record["neg_scores"] = chances[~relevant].tolist()
        yield record
