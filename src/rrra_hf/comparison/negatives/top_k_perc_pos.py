"""TopK-PercPos: drop candidates that score nearly as high as the positive, relative to its score."""

from __future__ import annotations

import numpy as np

from ...evaluation.checks import check_margin, check_positive_scores, check_scores


def top_k_perc_pos_weights(
    scores: np.ndarray, positive_scores: np.ndarray, *, margin: float = 0.05
) -> np.ndarray:
    """Return 1 for candidates with `s_i < s+ - margin * |s+|`, 0 for others.

    For a query with several positives, give a row for each of them.

    Args:
        scores: Scores `s_i` of each query's candidates, `(n, k)`; -inf where there is no candidate.
        positive_scores: Score `s+` of each query's positive, `(n,)`.
        margin: Share of the positive's score that a candidate must stay below it.

    Returns:
        Weights 0 or 1, `(n, k)` float64, 0 where there is no candidate.

    Raises:
        ValueError: If a shape is wrong, a score is NaN or +inf, or `margin` is negative.

    Source:
        NV-Retriever (arXiv 2407.15831), "TopK-PercPos": a negative's score is at most 95 % of the
        positive's, and the k best of those are taken (see `top_k_weights`). The paper multiplies
        the positive's score by .95, which would raise a negative one; with `|s+|`, the limit lies below
        the positive for either sign.

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
