"""nDCG, ranks, reordering and membership for rankings held as arrays, fast enough for tuning loops.

Reported figures come from `ranking_quality`, which calls a library. Both agree up to rounding.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def ndcg_per_query(relevant: np.ndarray, num_relevant: np.ndarray, k: int = 10) -> np.ndarray:
    """Compute nDCG@k with binary gains for each query.

    Args:
        relevant: Whether the document at each rank is relevant, best rank first, `(n, depth)`.
        num_relevant: Number of relevant documents per query in the whole corpus, `(n,)`, at least 1.
        k: Cutoff rank.

    Returns:
        nDCG@k, `(n,)`. The ideal ranking also counts relevant documents that were not retrieved.

    Source:
        Järvelin & Kekäläinen 2002.

    Example:
        >>> ndcg_per_query(np.array([[0, 1], [1, 0]]), np.array([1, 1])).round(2).tolist()
        [0.63, 1.0]
    """
    discounts = 1.0 / np.log2(np.arange(2, k + 2))
    gained = np.asarray(relevant, dtype=np.float64)[:, :k] @ discounts[: min(k, np.shape(relevant)[1])]
    return gained / np.cumsum(discounts)[np.minimum(num_relevant, k) - 1]


def reorder(values: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Sort each row of `values` by descending `scores`. Ties keep their order.

    Args:
        values: Values to sort, `(n, depth)`.
        scores: Scores to sort by, `(n, depth)`.

    Example:
        >>> reorder(np.array([[7, 8, 9]]), np.array([[0.1, 0.5, 0.1]])).tolist()
        [[8, 7, 9]]
    """
    return np.take_along_axis(values, np.argsort(-scores, axis=1, kind="stable"), axis=1)


def ranks(scores: np.ndarray) -> np.ndarray:
    """Return the rank of each candidate in its row, 0 for the best. Ties keep their order.

    Args:
        scores: Scores of the candidates, `(n, k)`; -inf marks an empty place and ranks last.

    Returns:
        Ranks, `(n, k)` int64.

    Example:
        >>> ranks(np.array([[0.1, 0.9, -np.inf, 0.9]])).tolist()
        [[2, 0, 3, 1]]
    """
    order = np.argsort(-scores, axis=1, kind="stable")
    return np.argsort(order, axis=1, kind="stable")


def membership(candidates: np.ndarray, documents: Sequence[np.ndarray]) -> np.ndarray:
    """Return which candidates are in a given set of documents, per query.

    Args:
        candidates: Row numbers of the candidates, `(n, k)`; -1 marks an empty place and is never a member.
        documents: For each query, row numbers of the documents in its set, for example its positives.

    Returns:
        Boolean array, `(n, k)`.

    Raises:
        ValueError: If the shapes don't match.

    Example:
        >>> membership(np.array([[7, 3, -1]]), [np.array([3, 5])]).tolist()
        [[False, True, False]]
    """
    candidates = np.asarray(candidates)
    if candidates.ndim != 2 or len(candidates) != len(documents):
        raise ValueError(
            f"candidates must have shape ({len(documents)}, k), one row per query, got {candidates.shape}."
        )
    found = [np.isin(row, rows) for row, rows in zip(candidates, documents, strict=True)]
    return np.array(found, dtype=bool).reshape(candidates.shape) & (candidates >= 0)
