"""Oracle: drop the false negatives that the ground truth names, the ceiling of all strategies."""

from __future__ import annotations

import numpy as np

from ...evaluation.checks import check_scores, check_shape


def oracle_weights(scores: np.ndarray, false_negative: np.ndarray) -> np.ndarray:
    """Return 1 for candidates that are no false negatives, 0 for others.

    Args:
        scores: Scores of each query's candidates, `(n, k)`; -inf where there is no candidate.
        false_negative: Whether the candidate is relevant by the ground truth, `(n, k)` bool; anything
            where there is no candidate.

    Returns:
        Weights 0 or 1, `(n, k)` float64, 0 where there is no candidate.

    Raises:
        ValueError: If a shape is wrong, a score is NaN or +inf, or `false_negative` is not boolean.

    Source:
        None: it needs to know which positives were hidden, so it only serves as the best to be had.

    Example:
        >>> oracle_weights(np.array([[0.9, 0.8, -np.inf]]), np.array([[True, False, False]])).tolist()
        [[0.0, 1.0, 0.0]]
    """
    scores = check_scores(scores)
    false_negative = check_shape("false_negative", false_negative, scores)
    if false_negative.dtype != np.bool_:
        raise ValueError(f"false_negative must be boolean, got {false_negative.dtype}.")
    return (np.isfinite(scores) & ~false_negative).astype(np.float64)
