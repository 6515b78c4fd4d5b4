"""Rank window: uniform over the candidates of some ranks, skipping the very best."""

from __future__ import annotations

import numpy as np

from ...evaluation.checks import check_scores, ranks


def rank_window_weights(scores: np.ndarray, *, start: int = 10, end: int = 210) -> np.ndarray:
    """Return 1 for candidates of the ranks `[start, end)`, 0 for others.

    The best candidates are skipped because that is where false negatives gather. A query with `start`
    candidates or fewer is left with none.

    Args:
        scores: Scores of each query's candidates, `(n, k)`; -inf where there is no candidate.
        start: First rank, counted from 0.
        end: Rank after the last.

    Returns:
        Weights 0 or 1, `(n, k)` float64, 0 where there is no candidate.

    Raises:
        ValueError: If `scores` has not two dimensions, or NaN or +inf; or not `0 <= start < end`.

    Source:
        FlagEmbedding's script for mining hard negatives: ranks 10 to 210, drawn from uniformly.
        In NV-Retriever (arXiv 2407.15831), "top-k shifted by N".

    Example:
        >>> rank_window_weights(np.array([[0.9, 0.8, 0.7, -np.inf]]), start=1, end=10).tolist()
        [[0.0, 1.0, 1.0, 0.0]]
    """
    scores = check_scores(scores)
    if not 0 <= start < end:
        raise ValueError(f"start and end must be ranks with 0 <= start < end, got {start} and {end}.")
    rank = ranks(scores)
    return (np.isfinite(scores) & (rank >= start) & (rank < end)).astype(np.float64)
