"""Ranking quality of rankings held as arrays, for tuning loops that score thousands of them.

Reports come from `ranking_metrics`, which asks a library; the two agree to rounding (tested).
"""

from __future__ import annotations

from collections.abc import Sequence

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


def membership(candidates: np.ndarray, documents: Sequence[np.ndarray]) -> np.ndarray:
    """Return which of each query's candidates are among the documents named for it.

    Args:
        candidates: Rows of the candidates, `(n, k)`; -1, for none, is never a member.
        documents: For each query some rows, for example its hidden positives.

    Returns:
        `(n, k)` bool.

    Raises:
        ValueError: If the shapes don't match.

    Example:
        >>> membership(np.array([[7, 3, -1]]), [np.array([3, 5])]).tolist()
        [[False, True, False]]
    """
    candidates = np.asarray(candidates)
    if candidates.ndim != 2 or len(candidates) != len(documents):
        raise ValueError(
            f"candidates must have shape ({len(documents)}, k), one row a query, got {candidates.shape}."
        )
    found = [np.isin(row, rows) for row, rows in zip(candidates, documents, strict=True)]
    return np.array(found, dtype=bool).reshape(candidates.shape) & (candidates >= 0)
