"""Oracle: drop all known false negatives, what leaving out false negatives can reach."""

from __future__ import annotations

import numpy as np

from ...evaluation.checks import check_scores, check_shape


def oracle_weights(scores: np.ndarray, false_negative: np.ndarray) -> np.ndarray:
    """Keep candidates that are not known to be false negatives.

    Args:
        scores: Scores of the candidates, `(n, k)`; -inf marks an empty place.
        false_negative: Which candidates are relevant according to the ground truth, `(n, k)` bool. Empty
            places may hold anything.

    Returns:
        Weights, 0 or 1, `(n, k)` float64. Empty places get 0.

    Raises:
        ValueError: If a shape is wrong, a score is NaN or +inf, or `false_negative` is not boolean.

    Source:
        None. It needs to know which positives were hidden, which no real strategy does.

    Example:
        >>> oracle_weights(np.array([[0.9, 0.8, -np.inf]]), np.array([[True, False, False]])).tolist()
        [[0.0, 1.0, 0.0]]
    """
    scores = check_scores(scores)
    false_negative = check_shape("false_negative", false_negative, scores)
    if false_negative.dtype != np.bool_:
        raise ValueError(f"false_negative must be boolean, got {false_negative.dtype}.")
    return (np.isfinite(scores) & ~false_negative).astype(np.float64)
