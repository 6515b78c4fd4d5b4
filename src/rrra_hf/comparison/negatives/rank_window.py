"""Rank window: keep the candidates of some ranks, skipping the top ones."""

from __future__ import annotations

import numpy as np

from ...evaluation.arrays import ranks
from ...evaluation.checks import check_scores


def rank_window_weights(scores: np.ndarray, *, start: int = 10, end: int = 210) -> np.ndarray:
    """Keep candidates at the ranks `[start, end)`.

    Most false negatives are among the top ranks, so these are skipped. A query with `start` candidates or
    fewer keeps none.

    Args:
        scores: Scores of the candidates, `(n, k)`; -inf marks an empty place.
        start: First rank to keep, counted from 0.
        end: Rank after the last one to keep.

    Returns:
        Weights, 0 or 1, `(n, k)` float64. Empty places get 0.

    Raises:
        ValueError: If `scores` isn't two-dimensional or holds NaN or +inf, or unless `0 <= start < end`.

    Source:
        FlagEmbedding's script for mining hard negatives: uniform draws from the ranks 10 to 210. In
        NV-Retriever (arXiv 2407.15831), "top-k shifted by N".

    Example:
        >>> rank_window_weights(np.array([[0.9, 0.8, 0.7, -np.inf]]), start=1, end=10).tolist()
        [[0.0, 1.0, 1.0, 0.0]]
    """
    scores = check_scores(scores)
    if not 0 <= start < end:
        raise ValueError(f"start and end must be ranks with 0 <= start < end, got {start} and {end}.")
    rank = ranks(scores)
    return (np.isfinite(scores) & (rank >= start) & (rank < end)).astype(np.float64)
