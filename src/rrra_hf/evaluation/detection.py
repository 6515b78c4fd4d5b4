"""Measures of false-negative detection and of its calibration.

They score pairs of a query and a candidate without a label. Pairs known to be relevant, the hidden
positives, count as 1 and all others as 0. Collections miss some labels of their own, so precisions are lower
bounds, and a well calibrated probability may look slightly too high.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from sklearn.metrics import average_precision_score, roc_auc_score

from .calibration import ReliabilityBins, expected_calibration_error, reliability_bins
from .checks import check_between, check_count, check_shape


class DetectionQuality(NamedTuple):
    """How well a score separates hidden positives from other candidates.

    Args:
        average_precision: Area under the precision-recall step function. An uninformative score gets
            `base_rate`.
        average_precision_interval: 95 % bootstrap interval over queries, (low, high).
        auroc: Probability that a hidden positive scores higher than another pair; ties count half.
        precision_at_1_percent: Share of hidden positives among the 1 % of pairs with the highest scores.
        precision_at_5_percent: The same among the top 5 %.
        base_rate: Share of hidden positives among all pairs.
        num_pairs: Number of pairs.
        num_queries: Number of queries with at least one pair.
    """

    average_precision: float
    average_precision_interval: tuple[float, float]
    auroc: float
    precision_at_1_percent: float
    precision_at_5_percent: float
    base_rate: float
    num_pairs: int
    num_queries: int


class CalibrationQuality(NamedTuple):
    """How well probabilities match the observed share of hidden positives.

    Args:
        expected_calibration_error: Mean gap between probability and share, see
            `expected_calibration_error`.
        brier_score: Mean squared difference between probability and label.
        bins: The points of the reliability plot.
    """

    expected_calibration_error: float
    brier_score: float
    bins: ReliabilityBins


class _Pairs(NamedTuple):
    """The selected pairs as flat arrays: values, labels, and the row of each pair's query."""

    values: np.ndarray
    hidden: np.ndarray
    queries: np.ndarray


def detection_quality(
    scores: np.ndarray,
    hidden: np.ndarray,
    mask: np.ndarray | None = None,
    *,
    resamples: int = 1000,
    seed: int = 0,
) -> DetectionQuality:
    """Measure how well a score separates hidden positives from other candidates.

    All pairs are ranked in one list, so scores must be comparable across queries.

    Args:
        scores: Scores of the candidates, `(n, k)`. Higher means more likely to be relevant.
        hidden: Which candidates are hidden positives, `(n, k)` bool, see `membership`.
        mask: Which pairs to count, `(n, k)` bool, by default all. Exclude labelled pairs and empty places;
            their values may be anything, including NaN.
        resamples: Number of bootstrap resamples for the interval.
        seed: Random seed of the bootstrap.

    Returns:
        The measures. Pairs with equal scores share one step of the precision-recall curve. If the 1 % or
        5 % cutoff falls among equal scores, the precision is its expectation over random orders.

    Raises:
        ValueError: If none or all of the pairs are hidden positives, a shape or type is wrong, or a score
            inside the mask isn't finite.

    Source:
        Davis & Goadrich 2006 on precision-recall curves for rare classes. Field & Welsh 2007,
        "Bootstrapping clustered data": the bootstrap draws whole queries, because the pairs of one query
        are not independent.

    Example:
        >>> scores = np.array([[0.9, 0.2], [0.8, 0.1]])
        >>> hidden = np.array([[True, False], [False, False]])
        >>> quality = detection_quality(scores, hidden)
        >>> quality.average_precision, quality.auroc, quality.base_rate
        (1.0, 1.0, 0.25)
    """
    pairs = _select(scores, hidden, mask, "scores")
    if pairs.hidden.all():
        raise ValueError(f"hidden must be False for some pair, all {len(pairs.hidden)} are True.")
    return DetectionQuality(
        average_precision=float(average_precision_score(pairs.hidden, pairs.values)),
        average_precision_interval=_average_precision_interval(pairs, resamples, seed),
        auroc=float(roc_auc_score(pairs.hidden, pairs.values)),
        precision_at_1_percent=_precision_at_top(pairs, 0.01),
        precision_at_5_percent=_precision_at_top(pairs, 0.05),
        base_rate=float(pairs.hidden.mean()),
        num_pairs=len(pairs.hidden),
        num_queries=len(np.unique(pairs.queries)),
    )


def calibration_quality(
    probabilities: np.ndarray, hidden: np.ndarray, mask: np.ndarray | None = None, *, bins: int = 15
) -> CalibrationQuality:
    """Measure how well false-negative probabilities are calibrated.

    Args:
        probabilities: False-negative probabilities of the candidates, `(n, k)`, in [0, 1].
        hidden: Which candidates are hidden positives, `(n, k)` bool.
        mask: Which pairs to count, `(n, k)` bool, by default all.
        bins: Number of bins. All bins hold the same number of pairs, see `expected_calibration_error`.

    Returns:
        The measures and the points of the reliability plot.

    Raises:
        ValueError: If there is no hidden positive, a shape or type is wrong, or a probability inside the
            mask is outside [0, 1].

    Source:
        Brier 1950; for the calibration error see `expected_calibration_error`.

    Example:
        >>> probabilities = np.array([[0.25, 0.25, 0.25, 0.25]])
        >>> quality = calibration_quality(probabilities, np.array([[True, False, False, False]]), bins=1)
        >>> quality.expected_calibration_error, quality.brier_score
        (0.0, 0.1875)
    """
    check_count("bins", bins)
    pairs = _select(probabilities, hidden, mask, "probabilities")
    check_between("probabilities", pairs.values, 0, 1)
    return CalibrationQuality(
        expected_calibration_error=expected_calibration_error(pairs.values, pairs.hidden, bins),
        brier_score=float(np.mean((pairs.values - pairs.hidden) ** 2)),
        bins=reliability_bins(pairs.values, pairs.hidden, bins),
    )


def _select(values: np.ndarray, hidden: np.ndarray, mask: np.ndarray | None, name: str) -> _Pairs:
    values = np.asarray(values, dtype=np.float64)
    if values.ndim != 2:
        raise ValueError(f"{name} must have shape (n, k), one row per query, got {values.shape}.")
    counts = np.ones(values.shape, dtype=bool) if mask is None else mask
    for label, flags in (("hidden", hidden), ("mask", counts)):
        if check_shape(label, flags, values).dtype != np.bool_:
            raise ValueError(f"{label} must be boolean, got {np.asarray(flags).dtype}.")
    pairs = _Pairs(values[counts], np.asarray(hidden)[counts], np.nonzero(counts)[0])
    illegal = int((~np.isfinite(pairs.values)).sum())
    if illegal:
        raise ValueError(
            f"{name} must be finite where mask is True; {illegal} of {len(pairs.values)} are not."
        )
    if not pairs.hidden.any():
        raise ValueError(
            f"hidden must be True for at least one pair inside the mask, got {len(pairs.hidden)} pairs "
            "without a hidden positive."
        )
    return pairs


def _precision_at_top(pairs: _Pairs, share: float) -> float:
    """Return the precision among the highest-scoring share of the pairs, at least one pair."""
    count = max(1, round(share * len(pairs.values)))
    cut = np.partition(pairs.values, -count)[-count]
    above, tied = pairs.values > cut, pairs.values == cut
    hits = pairs.hidden[above].sum() + (count - above.sum()) * pairs.hidden[tied].mean()
    return float(hits / count)


def _average_precision_interval(pairs: _Pairs, resamples: int, seed: int) -> tuple[float, float]:
    """Return the 95 % interval of the average precision when queries are drawn with replacement."""
    check_count("resamples", resamples)
    # Sort once: a resample changes only how often each pair counts.
    order = np.argsort(-pairs.values, kind="stable")
    values, hidden = pairs.values[order], pairs.hidden[order]
    ends = np.append(np.flatnonzero(np.diff(values)), len(values) - 1)
    names, queries = np.unique(pairs.queries[order], return_inverse=True)
    rng = np.random.default_rng(seed)
    found = np.empty(resamples)
    for i in range(resamples):
        times = np.bincount(rng.integers(0, len(names), len(names)), minlength=len(names))[queries]
        found[i] = _average_precision(np.cumsum(times * hidden)[ends], np.cumsum(times)[ends])
    # A resample without a hidden positive has no average precision.
    return float(np.nanquantile(found, 0.025)), float(np.nanquantile(found, 0.975))


def _average_precision(found: np.ndarray, ranked: np.ndarray) -> float:
    """Return the average precision of a ranking cut at each distinct score; NaN without positives.

    `sklearn.metrics.average_precision_score` gives the same with weights, but sorts on each call.

    Args:
        found: Number of positives up to each cut, `(cuts,)`.
        ranked: Number of pairs up to each cut, `(cuts,)`.
    """
    if found[-1] == 0:
        return float("nan")
    gained = np.diff(found, prepend=0)
    hits = np.flatnonzero(gained)
    return float((gained[hits] * found[hits] / ranked[hits]).sum() / found[-1])
