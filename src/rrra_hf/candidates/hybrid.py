"""Candidates of dense search and word search together."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.sparse import csr_array

from ..indexes import WordIndex
from ..indexes.checks import normalized

# Candidates per query: half of them by each search, if they have none in common.
DEPTH = 150
# Pairs of query and document whose cosines are computed at a time.
PAIRS = 65_536

Take = Callable[[np.ndarray], np.ndarray]
"""From rows of documents `(n, k)` to their embeddings as indexed, of length 1, `(n, k, dim)`."""


def take_from(documents: np.ndarray) -> Take:
    """Return what takes embeddings, of length 1, from those of all documents, of any length, `(m, dim)`.

    Example:
        >>> take_from(np.array([[2.0, 0.0], [0.0, 5.0]]))(np.array([[1, 0]])).tolist()
        [[[0.0, 1.0], [1.0, 0.0]]]
    """

    def take(rows: np.ndarray) -> np.ndarray:
        return normalized(documents[rows.ravel()]).reshape(*rows.shape, documents.shape[1])

    return take


def add_words(
    rows: np.ndarray,
    words: WordIndex,
    queries: csr_array,
    depth: int,
    allowed: np.ndarray | None = None,
) -> np.ndarray:
    """Merge the documents that a dense search found with those that a word search finds.

    Args:
        rows: Rows of documents that the dense search found for each query, best first, `(n, k)`; -1 where
            there is none. `k` should be at least `depth`, if there are as many documents.
        words: The words of the corpus.
        queries: Counts of the queries' words, `(n, v)`.
        depth: Number of candidates per query.
        allowed: Rows of the documents to search among, all by default.

    Returns:
        Rows of the candidates, `(n, depth)`, in the order of `merge_ranks`.
    """
    _, found = words.search(queries, depth, allowed)
    return merge_ranks(rows[:, :depth], found, depth)


def merge_ranks(first: np.ndarray, second: np.ndarray, depth: int) -> np.ndarray:
    """Merge two rankings of each query: first, second, first, second, ..., each document once.

    Args:
        first: Rows of documents, best first, `(n, k)`; -1 where there is none.
        second: Rows of documents, `(n, l)`.
        depth: Number of documents to keep.

    Returns:
        `(n, min(depth, k + l))`, with -1 at the end where the two have fewer documents.

    Example:
        >>> merge_ranks(np.array([[5, 3, 1]]), np.array([[3, 4, -1]]), depth=4).tolist()
        [[5, 3, 4, 1]]
    """
    width, lines = max(first.shape[1], second.shape[1]), np.arange(len(first))[:, None]
    both = np.full((len(first), width, 2), -1, dtype=np.int64)
    both[:, : first.shape[1], 0], both[:, : second.shape[1], 1] = first, second
    merged = both.reshape(len(first), 2 * width)
    order = merged.argsort(axis=1, kind="stable")
    in_order = merged[lines, order]
    last = merged < 0
    last[lines, order[:, 1:]] |= in_order[:, 1:] == in_order[:, :-1]
    merged[last] = -1
    places = last.argsort(axis=1, kind="stable")[:, : min(depth, first.shape[1] + second.shape[1])]
    return merged[lines, places]


def cosines_of(queries: np.ndarray, rows: np.ndarray, take: Take) -> np.ndarray:
    """Return the cosine of each query with its candidates.

    Args:
        queries: Embeddings of any length, `(n, dim)`.
        rows: Rows of the candidates, `(n, k)`; -1 where there is none.
        take: Returns the embeddings of documents, of length 1.

    Returns:
        `(n, k)` float32; -inf where there is no candidate.
    """
    cosines = np.empty(rows.shape, dtype=np.float32)
    size = max(1, PAIRS // max(1, rows.shape[1]))
    for start in range(0, len(rows), size):
        block = slice(start, start + size)
        cosines[block] = np.einsum("nd,nkd->nk", normalized(queries[block]), take(rows[block]))
    return np.where(rows >= 0, cosines, np.float32(-np.inf))
