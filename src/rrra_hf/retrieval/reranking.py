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

    def first(self, k: int) -> Reranked:
        """Return the best `k` documents."""
        return Reranked(*(values[:, :k] for values in self))


def search_and_rerank(
    adapter: RetrieverAdapter | None,
    documents: IndexedDocuments,
    queries: EncodedQueries,
    k: int,
    depth: int,
    *,
    reranks: bool = True,
    hybrid: bool = False,
    fused: bool = False,
    probabilities: bool = False,
    allowed: np.ndarray | None = None,
) -> Reranked:
    """Return the best documents for each query.

    The adapter compares a document with the query's candidates. They are the same for all that is asked of a
    query, so that a document has the same probability whether it is reranked or not. Allowed documents are
    compared with the candidates of a search among all.

    Args:
        adapter: The adapter.
        documents: The documents to search.
        queries: The queries.
        k: Number of documents to return per query.
        depth: Number of candidates per query.
        reranks: Sort the candidates by their reranking scores.
        hybrid: Find candidates by words too.
        fused: Merge a ranking that isn't reranked with one by words.
        probabilities: Return the probabilities of all documents, not only of those that are reranked.
        allowed: Rows of the documents to search among, ascending; all by default.

    Raises:
        ValueError: If the adapter gives NaN or infinite scores.
    """
    reads = adapter is not None and (reranks or probabilities)
    dense = search_dense(documents, queries, max(k, depth) if reads or fused else k, allowed)
    found = fuse(documents, queries, dense, allowed) if fused and not (adapter and reranks) else dense
    ranked = Reranked(*found, *np.empty((2, len(found.rows), 0), dtype=np.float32))
    if adapter is None or not reads:
        return ranked.first(k)
    candidates = dense.rows[:, :depth]
    if hybrid:
        candidates = hybrid_candidates(documents, queries, dense, depth, allowed)
    beside = None if allowed is None else _candidates(documents, queries, depth, hybrid)
    reranked = rerank(adapter, documents, queries, candidates, dense, beside)
    ranked = (reranked if reranks else ranked).first(k)
    if probabilities:
        judged = _probabilities(adapter, documents, queries, ranked.rows, reranked, beside)
        ranked = ranked._replace(probabilities=judged)
    return ranked


def _candidates(documents: IndexedDocuments, queries: EncodedQueries, depth: int, hybrid: bool) -> np.ndarray:
    """Return the candidates of each query among all documents."""
    dense = search_dense(documents, queries, depth)
    return hybrid_candidates(documents, queries, dense, depth) if hybrid else dense.rows


def _probabilities(
    adapter: RetrieverAdapter,
    documents: IndexedDocuments,
    queries: EncodedQueries,
    rows: np.ndarray,
    reranked: Reranked,
    beside: np.ndarray | None,
) -> np.ndarray:
    """Return the probabilities of documents, `(n, k)`.

    Those of the candidates are known. The other documents are read together with the candidates.
    """
    depth = reranked.probabilities.shape[1]
    candidates = reranked.rows[:, :depth]
    places = _places(rows, candidates, len(documents.index))
    known = np.take_along_axis(reranked.probabilities, np.maximum(places, 0), axis=1)
    if (places >= 0).all():
        return known
    others = np.where(places < 0, rows, -1)
    reading = _read_beside(adapter, documents, queries, others, candidates if beside is None else beside)
    return np.where(places < 0, torch.sigmoid(reading.relevance).numpy(), known)


def _places(rows: np.ndarray, candidates: np.ndarray, size: int) -> np.ndarray:
    """Return at which place each row is among the candidates of its query, `(n, k)`; -1 if it isn't.

    Args:
        rows: Rows of documents, `(n, k)`.
        candidates: Rows of the candidates, `(n, depth)`.
        size: Number of documents.
    """
    lines = np.arange(len(rows))[:, None] * (size + 1)
    keys, wanted = (candidates + lines).ravel(), rows + lines
    order = keys.argsort()
    place = order[np.searchsorted(keys, wanted, sorter=order).clip(max=len(keys) - 1)]
    return np.where((keys[place] == wanted) & (rows >= 0), place % candidates.shape[1], -1)


def rerank(
    adapter: RetrieverAdapter,
    documents: IndexedDocuments,
    queries: EncodedQueries,
    candidates: np.ndarray,
    dense: Found,
    beside: np.ndarray | None = None,
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
        beside: Rows of the documents that the adapter compares them with, `(n, d)`; with each other by
            default.

    Returns:
        `k` documents per query.

    Raises:
        ValueError: If the adapter gives NaN or infinite scores.
    """
    if beside is None:
        reading = _read(adapter, documents, queries, candidates)
    else:
        reading = _read_beside(adapter, documents, queries, candidates, beside)
    scores = adapter.combine(reading.cosines, reading.ranking).numpy()
    if not np.isfinite(scores[candidates >= 0]).all():
        raise ValueError("The adapter gave NaN or infinite scores; its weights may be damaged.")
    best = np.arange(len(scores))[:, None], np.argsort(-scores, axis=1, kind="stable")
    values = (candidates, scores, torch.sigmoid(reading.relevance).numpy(), reading.cosines.numpy())
    rows, scores, probabilities, cosines = (value[best] for value in values)
    return Reranked(*_followed_by(Found(rows, scores), dense), probabilities, cosines)


def _read_beside(
    adapter: RetrieverAdapter,
    documents: IndexedDocuments,
    queries: EncodedQueries,
    rows: np.ndarray,
    beside: np.ndarray,
) -> Reading:
    """Read documents as they are read beside others, which they may be among, `(n, k)`."""
    places = _places(rows, beside, len(documents.index))
    at = torch.from_numpy(np.maximum(places, 0))
    known = [value.gather(1, at) for value in _read(adapter, documents, queries, beside)]
    if (places >= 0).all():
        return Reading(*known)
    whole = np.concatenate([beside, np.where(places < 0, rows, -1)], axis=1)
    others = [value[:, beside.shape[1] :] for value in _read(adapter, documents, queries, whole)]
    among = torch.from_numpy(places >= 0)
    return Reading(*(torch.where(among, *both) for both in zip(known, others, strict=True)))


def _read(
    adapter: RetrieverAdapter, documents: IndexedDocuments, queries: EncodedQueries, rows: np.ndarray
) -> Reading:
    def take(rows: np.ndarray) -> np.ndarray:
        # An index gives no embeddings of -1, where there is no document.
        return documents.index.reconstruct(np.maximum(rows, 0))

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
