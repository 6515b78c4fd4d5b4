"""Searching documents by embeddings and by words: arrays in, arrays out."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.sparse import csr_array

from ..candidates import add_words
from ..models.features_rrra import RRF
from .corpus_index import IndexedDocuments

MODES = ("hybrid", "dense")


class EncodedQueries(NamedTuple):
    """Queries as they are searched with.

    Args:
        embeddings: Their embeddings, after the adapter's linear map, `(n, dim)`.
        words: Counts of their words, of the vocabulary of the documents', `(n, v)`; None to search and rerank
            by embeddings alone.
    """

    embeddings: np.ndarray
    words: csr_array | None = None


class Found(NamedTuple):
    """Documents found for each query, best first.

    Args:
        rows: Their rows, `(n, k)`.
        scores: Their cosines or fused scores, `(n, k)`.
    """

    rows: np.ndarray
    scores: np.ndarray


def search_dense(
    documents: IndexedDocuments, queries: EncodedQueries, k: int, allowed: np.ndarray | None = None
) -> Found:
    """Find the `k` documents with the highest cosines among the allowed, all of them if there are fewer."""
    cosines, rows = documents.index.search(queries.embeddings, k, allowed)
    return Found(rows, cosines)


def hybrid_candidates(
    documents: IndexedDocuments,
    queries: EncodedQueries,
    dense: Found,
    depth: int,
    allowed: np.ndarray | None = None,
) -> np.ndarray:
    """Return the rows of the best documents by embeddings and by words, half of each if none is in both.

    Args:
        documents: The documents, with words.
        queries: The queries, with words.
        dense: What `search_dense` found, at least `depth` documents per query if there are as many.
        depth: Number of candidates per query.
        allowed: Rows of the documents to search among, all if None.

    Returns:
        `(n, depth)`, or all documents if there are fewer.
    """
    assert documents.words is not None and queries.words is not None
    most = len(documents.index) if allowed is None else len(allowed)
    return add_words(dense.rows, documents.words, queries.words, min(depth, most), allowed)


def fuse(
    documents: IndexedDocuments, queries: EncodedQueries, dense: Found, allowed: np.ndarray | None = None
) -> Found:
    """Merge a search by embeddings with one by words, by reciprocal rank fusion.

    A document scores `1 / (60 + rank)` in each of the two rankings that it is in.

    Args:
        documents: The documents, with words.
        queries: The queries, with words.
        dense: What `search_dense` found, `(n, k)`. As many are searched by words.
        allowed: Rows of the documents to search among, all if None.

    Returns:
        The best `k` documents, and their fused scores. Of equal scores, the first by embeddings is first.

    Source:
        Cormack, Clarke & Büttcher 2009, "Reciprocal Rank Fusion outperforms Condorcet and individual Rank
        Learning Methods".
    """
    assert documents.words is not None and queries.words is not None
    k = dense.rows.shape[1]
    _, by_words = documents.words.search(queries.words, k, allowed)
    both = np.concatenate([dense.rows, by_words], axis=1)
    of_rank = np.tile(1 / (RRF + 1 + np.arange(k)), 2)
    fused = [_sums(rows[rows >= 0], of_rank[rows >= 0], k) for rows in both]
    return Found(np.stack([found.rows for found in fused]), np.stack([found.scores for found in fused]))


def _sums(rows: np.ndarray, scores: np.ndarray, k: int) -> Found:
    """Return the `k` rows with the highest sums of scores. Of equal sums, the row named first is first."""
    names, first, places = np.unique(rows, return_index=True, return_inverse=True)
    sums = np.bincount(places, scores)
    best = np.lexsort((first, -sums))[:k]
    return Found(names[best], sums[best].astype(np.float32))
