"""Searching and reranking: embeddings and words of queries in, rows, scores and probabilities out."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch

from ..candidates import read_candidates
from ..models.adapter_rrra import Reading, RetrieverAdapter
from .corpus_index import IndexedDocuments
from .searching import EncodedQueries, Found, fuse, hybrid_candidates, search_dense


class Reranked(NamedTuple):
    """What `rerank` returns, best first.

    Args:
        rows: Rows of the documents, `(n, k)`.
        scores: Reranking scores of the candidates, cosines of the documents below them, `(n, k)`.
        probabilities: Probabilities that the candidates are relevant, `(n, candidates)`.
        cosines: Cosines of the candidates, `(n, candidates)`.
    """

    rows: np.ndarray
    scores: np.ndarray
    probabilities: np.ndarray
    cosines: np.ndarray


def search_and_rerank(
    adapter: RetrieverAdapter | None,
    documents: IndexedDocuments,
    queries: EncodedQueries,
    k: int,
    depth: int,
    *,
    hybrid: bool = False,
    probabilities: bool = False,
) -> Reranked:
    """Return the best documents for each query.

    Args:
        adapter: The adapter.
        documents: The documents to search.
        queries: The queries.
        k: Number of documents to return per query, at least `depth`.
        depth: Number of documents to rerank per query; 0 for none.
        hybrid: Search by words too.
        probabilities: Return the probabilities of all documents, not only of those that are reranked.

    Raises:
        ValueError: If the adapter gives NaN or infinite scores.
    """
    dense = search_dense(documents, queries, k)
    if adapter is None or depth == 0:
        found = fuse(documents, queries, dense) if hybrid else dense
        none = np.empty((len(found.rows), 0), dtype=np.float32)
        ranked = Reranked(*found, probabilities=none, cosines=none)
    else:
        candidates = dense.rows[:, :depth]
        if hybrid:
            candidates = hybrid_candidates(documents, queries, dense, depth)
        ranked = rerank(adapter, documents, queries, candidates, dense)
    if adapter is not None and probabilities and ranked.probabilities.shape != ranked.rows.shape:
        judged = torch.sigmoid(_read(adapter, documents, queries, ranked.rows).relevance).numpy()
        ranked = ranked._replace(probabilities=judged)
    return ranked


def rerank(
    adapter: RetrieverAdapter,
    documents: IndexedDocuments,
    queries: EncodedQueries,
    candidates: np.ndarray,
    dense: Found,
) -> Reranked:
    """Sort the candidates of each query by their reranking scores.

    Equal scores keep their order. The other documents that the dense search found follow as they are.

    Args:
        adapter: The adapter.
        documents: The documents that were searched.
        queries: The queries.
        candidates: Rows of the documents to rerank, `(n, depth)`: the first of the dense search, or
            `hybrid_candidates`.
        dense: What the dense search found, `(n, k)`.

    Returns:
        `k` documents per query.

    Raises:
        ValueError: If the adapter gives NaN or infinite scores.
    """
    reading = _read(adapter, documents, queries, candidates)
    scores = adapter.combine(reading.cosines, reading.ranking).numpy()
    if not np.isfinite(scores[candidates >= 0]).all():
        raise ValueError("The adapter gave NaN or infinite scores; its weights may be damaged.")
    best = np.arange(len(scores))[:, None], np.argsort(-scores, axis=1, kind="stable")
    values = (candidates, scores, torch.sigmoid(reading.relevance).numpy(), reading.cosines.numpy())
    rows, scores, probabilities, cosines = (value[best] for value in values)
    return Reranked(*_followed_by(Found(rows, scores), dense), probabilities, cosines)


def _read(
    adapter: RetrieverAdapter, documents: IndexedDocuments, queries: EncodedQueries, rows: np.ndarray
) -> Reading:
    take = documents.index.reconstruct
    return read_candidates(adapter, queries.embeddings, rows, take, documents.features, queries.words)


def _followed_by(best: Found, dense: Found) -> Found:
    """Return the best documents and then the others that the dense search found, `(n, k)` as it did."""
    k = dense.rows.shape[1]
    if best.rows.shape[1] == k:
        return best
    repeated = np.array([np.isin(*rows) for rows in zip(dense.rows, best.rows, strict=True)])
    rows = np.concatenate([best.rows, np.where(repeated, -1, dense.rows)], axis=1)
    scores = np.concatenate([best.scores, dense.scores], axis=1)
    order = (rows < 0).argsort(axis=1, kind="stable")[:, :k]
    return Found(np.take_along_axis(rows, order, axis=1), np.take_along_axis(scores, order, axis=1))
