"""Choosing a strength on development queries without being fooled by noise."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def smallest_within_one_standard_error(strengths: Sequence[float], quality: np.ndarray) -> int:
    """Return the position of the smallest strength that is within one standard error of the best.

    The standard error is that of the per-query differences from the best strength, so that a gain
    which a few queries made by chance does not buy a harmful strength. A strength that is worse than
    the first on average is never chosen, however large its standard error.

    Args:
        strengths: Ascending, the first being the harmless choice.
        quality: Quality of each query under each strength, `(len(strengths), n)`.

    Source:
        The one-standard-error rule of Breiman et al. 1984, on paired differences.

    Example:
        >>> smallest_within_one_standard_error([0.0, 1.0], np.array([[0.5, 0.5, 0.5], [0.7, 0.3, 0.6]]))
        0
        >>> smallest_within_one_standard_error([0.0, 1.0], np.array([[0.5, 0.5, 0.5], [0.7, 0.6, 0.6]]))
        1
    """
    if len(strengths) != len(quality) or list(strengths) != sorted(strengths):
        raise ValueError(f"strengths must ascend, one for each row of quality, got {list(strengths)}.")
    means = quality.mean(axis=1)
    losses = quality[means.argmax()] - quality
    n = quality.shape[1]
    standard_errors = losses.std(axis=1, ddof=1) / np.sqrt(n) if n > 1 else np.full(len(losses), np.inf)
    return int(np.argmax((losses.mean(axis=1) <= standard_errors) & (means >= means[0])))
