"""TopK-PercPos: drop candidates that score within a percentage of the positive."""

from __future__ import annotations

import numpy as np

from ...evaluation.checks import check_margin, check_positive_scores, check_scores


def top_k_perc_pos_weights(
    scores: np.ndarray, positive_scores: np.ndarray, *, margin: float = 0.05
) -> np.ndarray:
    """Keep candidates with `s_i < s+ - margin * |s+|`.

    For a query with several positives, pass one row per positive.

    Args:
        scores: Scores `s_i` of the candidates, `(n, k)`; -inf marks an empty place.
        positive_scores: Score `s+` of the positive, one per query, `(n,)`.
        margin: Minimum distance below the positive's score, as a share of that score.

    Returns:
        Weights, 0 or 1, `(n, k)` float64. Empty places get 0.

    Raises:
        ValueError: If a shape is wrong, a score is NaN or +inf, or `margin` is negative.

    Source:
        NV-Retriever (arXiv 2407.15831), "TopK-PercPos": negatives score at most 95 % of the positive, and
        the method takes the top k of those, see `top_k_weights`. The paper multiplies the positive's score
        by .95, which would raise a negative score. With `|s+|`, the limit is below the positive for either
        sign.

    Example:
        >>> top_k_perc_pos_weights(np.array([[0.80, 0.77, 0.70]]), np.array([0.80])).tolist()
        [[0.0, 0.0, 1.0]]
        >>> top_k_perc_pos_weights(np.array([[-0.80, -0.83, -0.90]]), np.array([-0.80])).tolist()
        [[0.0, 0.0, 1.0]]
    """
    scores = check_scores(scores)
    positive = check_positive_scores(positive_scores, scores)
    check_margin(margin)
    return (np.isfinite(scores) & (scores < positive - margin * np.abs(positive))).astype(np.float64)
