"""SimANS: prefer candidates whose score is close to that of the positive."""

from __future__ import annotations

import numpy as np

from ...evaluation.checks import check_positive, check_positive_scores, check_scores


def simans_weights(
    scores: np.ndarray,
    positive_scores: np.ndarray,
    *,
    a: float = 0.5,
    b: float = 0.0,
    tau: float = 0.05,
) -> np.ndarray:
    """Weight candidates by `exp(-a * ((s_i - s+) / tau - b) ** 2)`, scaled to a maximum of 1 per query.

    The paper chose `a` for dot products. An encoder's training softmax uses cosines divided by a temperature,
    so cosine / `tau` is on the scale of a dot product. With the default `a`, the weights are a normal density
    with a standard deviation of `tau` in cosines. For dot products, `tau=1` gives the paper's formula.

    A candidate far from the peak can underflow to weight 0; it is never drawn.

    Args:
        scores: Scores `s_i` of the candidates, `(n, k)`; -inf marks an empty place.
        positive_scores: Score `s+` of the positive, one per query, `(n,)`.
        a: How steeply the weight falls off around its peak.
        b: Position of the peak, `s_i = s+ + b * tau`. The sign is that of the paper's formula. The released
            code has the opposite sign; pass `-b` for it.
        tau: Temperature that the encoder was trained with, or 1 for dot products.

    Returns:
        Weights in [0, 1], `(n, k)` float64. Empty places get 0.

    Raises:
        ValueError: If a shape is wrong, a score is NaN or +inf, `a` or `tau` isn't positive, or `b` isn't
            finite.

    Source:
        SimANS (arXiv 2210.11773): `p_i ~ exp(-a (s(q, d_i) - s(q, d+) - b) ** 2)`, with `a = .5` and
        `b = 0`. The division by `tau` is ours.

    Example:
        >>> simans_weights(np.array([[0.85, 0.80, 0.75]]), np.array([0.80])).round(3).tolist()
        [[0.607, 1.0, 0.607]]
    """
    scores = check_scores(scores)
    positive = check_positive_scores(positive_scores, scores)
    check_positive("a", a)
    check_positive("tau", tau)
    if not np.isfinite(b):
        raise ValueError(f"b must be finite, got {b}.")
    log_weights = -a * ((scores - positive) / tau - b) ** 2
    greatest = log_weights.max(axis=1, keepdims=True, initial=-np.inf)
    return np.exp(log_weights - np.where(np.isfinite(greatest), greatest, 0.0))
