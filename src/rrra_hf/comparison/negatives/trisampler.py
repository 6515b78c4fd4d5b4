"""TriSampler: prefer candidates that form a near-triangle with the query and its positive."""

from __future__ import annotations

import numpy as np

from ...evaluation.checks import (
    COSINE_TOLERANCE,
    check_between,
    check_positive_scores,
    check_scores,
    check_shape,
)


def trisampler_weights(
    scores: np.ndarray,
    positive_scores: np.ndarray,
    positive_candidate_scores: np.ndarray,
    *,
    max_angle: float = 60.0,
) -> np.ndarray:
    """Weight candidates within an angle by `exp(-(s_i - s+) ** 2 / 4) * relu(s(p, c_i) - s_i)`.

    A candidate is within the angle if `|angle(q, p) - angle(q, c_i)| <= max_angle`. Others get weight 0, and
    so do candidates that are no closer to the positive than to the query. Scores must be cosines. For
    cosines, the first factor is never below `exp(-1)`, so the second one decides.

    Args:
        scores: Cosines `s_i` of query `q` and candidates `c_i`, `(n, k)`; -inf marks an empty place.
        positive_scores: Cosine `s+` of query and positive `p`, one per query, `(n,)`.
        positive_candidate_scores: Cosines `s(p, c_i)`, `(n, k)`. Empty places may hold anything.
        max_angle: Largest allowed difference between the angles, in degrees.

    Returns:
        Weights, 0 or more, `(n, k)` float64, not normalised. Empty places get 0.

    Raises:
        ValueError: If a shape is wrong, a score isn't a cosine, or `max_angle` isn't in [0, 180].

    Source:
        TriSampler (arXiv 2402.11855): the quasi-triangular principle with a boundary at 60 degrees, and two
        distributions, `exp(-(s- - s+) ** 2 / 4)` over the top K and `relu(s(d+, d-) - s(q, d-))`, applied in
        turn. We read this as their product. K isn't published, so all candidates are considered. To
        consider fewer, set the scores of the others to -inf.

    Example:
        >>> weights = trisampler_weights(np.array([[0.6, 0.6]]), np.array([0.6]), np.array([[0.8, 0.5]]))
        >>> weights.round(3).tolist()
        [[0.2, 0.0]]
    """
    scores = check_scores(scores)
    positive = check_positive_scores(positive_scores, scores)
    between = check_shape("positive_candidate_scores", positive_candidate_scores, scores)
    present = np.isfinite(scores)
    cosines = {"scores": scores[present], "positive_scores": positive}
    for name, values in (cosines | {"positive_candidate_scores": between[present]}).items():
        check_between(name, values, -1 - COSINE_TOLERANCE, 1 + COSINE_TOLERANCE)
    if not 0 <= max_angle <= 180:
        raise ValueError(f"max_angle must be in degrees, in [0, 180], got {max_angle}.")
    within = present & (np.abs(_angles(positive) - _angles(scores)) <= max_angle)
    nearer = np.maximum(np.where(within, between, 0.0) - np.where(within, scores, 0.0), 0.0)
    return np.exp(-((scores - positive) ** 2) / 4) * nearer


def _angles(cosines: np.ndarray) -> np.ndarray:
    return np.degrees(np.arccos(np.clip(cosines, -1.0, 1.0)))
