"""Ranking quality of rankings held as arrays, for tuning loops that score thousands of them.

Reports come from `ranking_metrics`, which asks a library; the two agree to rounding (tested).
"""

from __future__ import annotations

import numpy as np


def ndcg_per_query(relevant: np.ndarray, num_relevant: np.ndarray, k: int = 10) -> np.ndarray:
    """Return each query's nDCG@k with binary gains.

    Args:
        relevant: Whether the document at each rank is relevant, best rank first, `(n, depth)`.
        num_relevant: Number of relevant documents of each query in the whole corpus, `(n,)`, at least 1.
        k: Rank to cut at.

    Returns:
        nDCG@k, `(n,)`.

    Source:
        Järvelin & Kekäläinen 2002; the ideal ranking counts documents that were not retrieved too.

    Example:
        >>> ndcg_per_query(np.array([[0, 1], [1, 0]]), np.array([1, 1])).round(2).tolist()
        [0.63, 1.0]
    """
    discounts = 1.0 / np.log2(np.arange(2, k + 2))
    gained = np.asarray(relevant, dtype=np.float64)[:, :k] @ discounts[: min(k, np.shape(relevant)[1])]
    return gained / np.cumsum(discounts)[np.minimum(num_relevant, k) - 1]


def reorder(values: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Return each row of `values` in the order of descending `scores`; ties keep their order.

    Args:
        values: `(n, depth)`.
        scores: `(n, depth)`.

    Example:
        >>> reorder(np.array([[7, 8, 9]]), np.array([[0.1, 0.5, 0.1]])).tolist()
        [[8, 7, 9]]
    """
    return np.take_along_axis(values, np.argsort(-scores, axis=1, kind="stable"), axis=1)
