"""Calibration of probabilities."""

from __future__ import annotations

import numpy as np


def expected_calibration_error(probabilities: np.ndarray, labels: np.ndarray, bins: int = 15) -> float:
    """Return the expected calibration error over bins of equal size.

    Bins hold equally many probabilities, since those of relevance crowd near zero, where bins of
    equal width would put nearly everything into one.

    Args:
        probabilities: Probabilities in [0, 1], any shape.
        labels: 0 or 1, of the same shape.
        bins: Number of bins.

    Returns:
        The mean distance between the mean probability and the share of ones, weighted by bin size.

    Source:
        Guo et al. 2017, "On Calibration of Modern Neural Networks", section 2; bins as in
        Nguyen & O'Connor 2015.

    Example:
        >>> expected_calibration_error(np.array([0.5, 0.5]), np.array([0, 1]), bins=1)
        0.0
    """
    probabilities, labels = np.ravel(probabilities).astype(np.float64), np.ravel(labels)
    order = np.argsort(probabilities, kind="stable")
    gaps = [
        len(rows) * abs(probabilities[rows].mean() - labels[rows].mean())
        for rows in np.array_split(order, min(bins, len(order)))
    ]
    return float(sum(gaps) / len(order))
