"""Calibration of probabilities: reliability bins and the expected calibration error."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class ReliabilityBins(NamedTuple):
    """The points of a reliability plot, in ascending order of probability.

    Args:
        mean_probability: Mean probability per bin, `(bins,)`; the x axis.
        share: Share of positive labels per bin, `(bins,)`; the y axis.
        num_pairs: Number of probabilities per bin, `(bins,)`.
    """

    mean_probability: np.ndarray
    share: np.ndarray
    num_pairs: np.ndarray

    def to_dict(self) -> dict[str, list[float]]:
        """Return the bins as a JSON object."""
        return {
            "probability": self.mean_probability.tolist(),
            "share": self.share.tolist(),
            "pairs": self.num_pairs.tolist(),
        }


def reliability_bins(
    probabilities: np.ndarray, labels: np.ndarray, bins: int = 15, *, equal_width: bool = False
) -> ReliabilityBins:
    """Group probabilities into bins and compare their mean with the share of positive labels.

    Args:
        probabilities: Probabilities in [0, 1], of any shape.
        labels: 0 or 1, of the same shape.
        bins: Number of bins.
        equal_width: Use bins of equal width and leave out empty ones. By default, all bins hold the same
            number of probabilities.

    Example:
        >>> reliability_bins(np.array([0.9, 0.1, 0.3, 0.7]), np.array([1, 0, 0, 1]), bins=2).to_dict()
        {'probability': [0.2, 0.8], 'share': [0.0, 1.0], 'pairs': [2, 2]}
    """
    probabilities, labels = np.ravel(probabilities).astype(np.float64), np.ravel(labels)
    if equal_width:
        place = np.minimum((probabilities * bins).astype(int), bins - 1)
        members = [np.flatnonzero(place == i) for i in np.unique(place)]
    else:
        order = np.argsort(probabilities, kind="stable")
        members = np.array_split(order, min(bins, len(order)))
    return ReliabilityBins(
        mean_probability=np.array([probabilities[rows].mean() for rows in members]),
        share=np.array([labels[rows].mean() for rows in members]),
        num_pairs=np.array([len(rows) for rows in members]),
    )


def expected_calibration_error(probabilities: np.ndarray, labels: np.ndarray, bins: int = 15) -> float:
    """Compute the expected calibration error over bins with equally many probabilities.

    Most probabilities of relevance are close to zero. With bins of equal width, nearly all of them would
    fall into the first bin.

    Args:
        probabilities: Probabilities in [0, 1], of any shape.
        labels: 0 or 1, of the same shape.
        bins: Number of bins.

    Returns:
        Distance between mean probability and share of positive labels, averaged over all probabilities.

    Source:
        Guo et al. 2017, "On Calibration of Modern Neural Networks", section 2; bins as in
        Nguyen & O'Connor 2015.

    Example:
        >>> expected_calibration_error(np.array([0.5, 0.5]), np.array([0, 1]), bins=1)
        0.0
    """
    found = reliability_bins(probabilities, labels, bins)
    gaps = np.abs(found.mean_probability - found.share)
    return float((gaps * found.num_pairs).sum() / found.num_pairs.sum())
