"""Resampling weights: candidates that are probably relevant count little as negatives."""

from __future__ import annotations

import numpy as np

from ..candidates import CandidatePool


def rrra_weights(probability: np.ndarray, gamma: float = 1.0) -> np.ndarray:
    """Return the resampling weight `(1 - p) ** gamma` of each candidate.

    Args:
        probability: False-negative probabilities in [0, 1], `(n, k)`; NaN where there is no candidate.
        gamma: Exponent, at least 0. The greater it is, the less a probable false negative counts; with 0
            all candidates weigh 1.

    Returns:
        Weights in [0, 1], `(n, k)` float32; 0 where there is no candidate.

    Raises:
        ValueError: If a probability is outside [0, 1], or gamma is negative or not finite.

    Source:
        RRRA, arXiv 2508.11670: `s_RS = s_HN * (1 - s_FN) ** gamma`, here with `s_HN = 1`.

    Example:
        >>> rrra_weights(np.array([[0.0, 0.5, np.nan]]), gamma=2.0).tolist()
        [[1.0, 0.25, 0.0]]
    """
    check_gamma(gamma)
    p = np.asarray(probability, dtype=np.float64)
    outside = (p < 0) | (p > 1)
    if p.ndim != 2 or outside.any():
        raise ValueError(
            "probability must be (n, k) in [0, 1], or NaN where there is no candidate; "
            f"got shape {p.shape} with {int(outside.sum())} values outside."
        )
    return np.where(np.isnan(p), 0.0, (1.0 - p) ** gamma).astype(np.float32)


def rrra_strategy(pool: CandidatePool, gamma: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Return how likely each candidate is to be drawn as a negative, and its weight in the loss.

    Every candidate is equally likely to be drawn, and has its resampling weight.

    Args:
        pool: Candidates with their false-negative probabilities, `n` queries, `k` candidates each.
        gamma: As in `rrra_weights`.

    Returns:
        Chances, `(n, k)` float32, 1 where there is a candidate and 0 elsewhere; and weights, `(n, k)`
        float32.

    Raises:
        ValueError: If the pool has no probabilities, or gamma is negative or not finite.

    Example:
        >>> pool = CandidatePool(
        ...     query_ids=["q"], document_ids=["a", "b"], positives=[np.array([0])],
        ...     candidates=np.array([[1, -1]]), scores=np.array([[0.5, -np.inf]]),
        ...     probability=np.array([[0.25, np.nan]]),
        ... )
        >>> [values.tolist() for values in rrra_strategy(pool)]
        [[[1.0, 0.0]], [[0.75, 0.0]]]
    """
    return (pool.candidates >= 0).astype(np.float32), rrra_weights(pool.required_probability, gamma)


def check_gamma(gamma: float) -> None:
    """Raise a ValueError unless gamma is finite and at least 0."""
    if not 0 <= gamma < float("inf"):
        raise ValueError(f"gamma must be a number of at least 0, got {gamma}.")
