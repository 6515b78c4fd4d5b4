"""SimANS: prefer candidates that score about as high as the positive."""

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
    """Return weights in proportion to `exp(-a * ((s_i - s+) / tau - b) ** 2)`, the row's greatest being 1.

    The source's `a` is for dot products, which an encoder's training softmax takes as they are. It
    takes cosines divided by a temperature, so a cosine over `tau` is the number that compares to a dot
    product. Cosines have a range smaller by `tau`, and what multiplies their square, `a / tau ** 2`, is
    greater by as much: `a * range ** 2` is the same. With the default `a`, the weights are a normal
    density whose standard deviation is `tau` in cosines. For dot products, `tau=1` is the source's formula.

    A candidate so far from the peak that its weight underflows weighs 0 and is not drawn.

    Args:
        scores: Scores `s_i` of each query's candidates, `(n, k)`; -inf where there is no candidate.
        positive_scores: Score `s+` of each query's positive, `(n,)`.
        a: How sharply the weight falls around its peak.
        b: Where the peak is, in scores over `tau`: at `s_i = s+ + b * tau`. The paper's formula has
            `- b`, as here; the released code has `+ b`: for that form, give `-b`.
        tau: Temperature that the encoder was trained with; 1 for dot products.

    Returns:
        Weights in [0, 1], `(n, k)` float64, unnormalised, 0 where there is no candidate.

    Raises:
        ValueError: If a shape is wrong, a score is NaN or +inf, `a` or `tau` is not positive, or
            `b` is not finite.

    Source:
        SimANS (arXiv 2210.11773): `p_i ~ exp(-a (s(q, d_i) - s(q, d+) - b) ** 2)`, with `a = .5`
        and `b = 0`. The division by `tau` is ours.

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
