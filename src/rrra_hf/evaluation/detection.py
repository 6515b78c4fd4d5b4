"""How well false negatives are found, measured against ground truth (see `hidden_positives`).

What is judged are pairs of a query and a candidate that is not labelled for it. A hidden positive among
them counts as 1, everything else as 0: since collections miss some labels of their own, precisions are
lower bounds, and a well calibrated probability may look a little too high.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from sklearn.metrics import average_precision_score, roc_auc_score

from .calibration import expected_calibration_error, reliability_bins
from .checks import check_between, check_count, check_shape


class DetectionQuality(NamedTuple):
    """How well a score finds the hidden positives among all pairs.

    Args:
        average_precision: Area under the precision-recall curve, as a step function; `base_rate`
            for a score that tells nothing.
        average_precision_interval: 95 % bootstrap interval over queries, (low, high).
        auroc: Probability that a hidden positive scores above another pair, ties counted half.
        precision_at_1_percent: Share of hidden positives among the highest-scoring 1 % of the pairs.
        precision_at_5_percent: The same among 5 %.
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
    """How well probabilities agree with the share of hidden positives.

    Args:
        expected_calibration_error: Mean gap between probability and share over bins of equal size.
        brier_score: Mean squared distance of probability and outcome.
        mean_probability: Mean probability in each bin, ascending, `(bins,)`: x of the reliability plot.
        share: Share of hidden positives in each bin, `(bins,)`: its y.
        num_pairs: Number of pairs in each bin, `(bins,)`.
    """

    expected_calibration_error: float
    brier_score: float
    mean_probability: np.ndarray
    share: np.ndarray
    num_pairs: np.ndarray


class _Pairs(NamedTuple):
    """The pairs that count, flat: their values, whether each is a hidden positive, and its query's row."""

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
    """Measure how well a score tells hidden positives from the other candidates.

    All pairs are ranked together, over queries: a score must be comparable between them.

    Args:
        scores: Any score of each query's candidates, `(n, k)`; the greater, the likelier relevant.
        hidden: Whether the candidate is a hidden positive, `(n, k)` bool (see `membership`).
        mask: Which pairs count, `(n, k)` bool: those that exist and are not labelled; if not given,
            all. What is outside may hold anything, NaN too.
        resamples: Bootstrap resamples of the interval.
        seed: Their seed.

    Returns:
        The measures. Pairs of equal score share a step of the precision-recall curve; where the cut
        of the highest 1 or 5 % falls among equals, the precision is its expectation over random orders.

    Raises:
        ValueError: If no pair or every pair is a hidden positive, a shape or type is wrong, or a score
            that counts is not finite.

    Source:
        Davis & Goadrich 2006 on precision-recall curves of rare classes; the interval is a cluster
        bootstrap (`average_precision_resamples`), since pairs of one query are not independent.

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
    spread = _resampled_average_precision(pairs, resamples, seed)
    return DetectionQuality(
        average_precision=float(average_precision_score(pairs.hidden, pairs.values)),
        average_precision_interval=(
            float(np.nanquantile(spread, 0.025)),
            float(np.nanquantile(spread, 0.975)),
        ),
        auroc=float(roc_auc_score(pairs.hidden, pairs.values)),
        precision_at_1_percent=_precision_at_top(pairs, 0.01),
        precision_at_5_percent=_precision_at_top(pairs, 0.05),
        base_rate=float(pairs.hidden.mean()),
        num_pairs=len(pairs.hidden),
        num_queries=len(np.unique(pairs.queries)),
    )


def average_precision_resamples(
    scores: np.ndarray,
    hidden: np.ndarray,
    mask: np.ndarray | None = None,
    *,
    resamples: int = 1000,
    seed: int = 0,
) -> np.ndarray:
    """Return the average precision under resamplings of the queries, with replacement.

    With the same `hidden`, `mask` and `seed`, two scores see the same resamples, so that quantiles of
    the difference of two results are a paired confidence interval.

    Args:
        scores: As for `detection_quality`.
        hidden: As for `detection_quality`.
        mask: As for `detection_quality`.
        resamples: Number of resamples.
        seed: Their seed.

    Returns:
        `(resamples,)`, NaN for a resample that happens to hold no hidden positive.

    Raises:
        ValueError: As `detection_quality` does.

    Source:
        Field & Welsh 2007, "Bootstrapping clustered data": whole clusters, here queries, are drawn.

    Example:
        >>> hidden = np.array([[True, False], [True, False]])
        >>> average_precision_resamples(np.array([[2, 1], [2, 1]]), hidden, resamples=3).tolist()
        [1.0, 1.0, 1.0]
    """
    return _resampled_average_precision(_select(scores, hidden, mask, "scores"), resamples, seed)


def calibration_quality(
    probabilities: np.ndarray, hidden: np.ndarray, mask: np.ndarray | None = None, *, bins: int = 15
) -> CalibrationQuality:
    """Measure whether false-negative probabilities mean what they say.

    Args:
        probabilities: False-negative probability of each query's candidates, `(n, k)`, in [0, 1].
        hidden: Whether the candidate is a hidden positive, `(n, k)` bool.
        mask: Which pairs count, `(n, k)` bool; if not given, all.
        bins: Number of bins, each of as many pairs, as in `expected_calibration_error`.

    Returns:
        The measures and the points of the reliability plot.

    Raises:
        ValueError: If there is no hidden positive, a shape or type is wrong, or a probability that
            counts is outside [0, 1].

    Source:
        Brier 1950; for the rest see `expected_calibration_error`.

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
        expected_calibration_error(pairs.values, pairs.hidden, bins),
        float(np.mean((pairs.values - pairs.hidden) ** 2)),
        *reliability_bins(pairs.values, pairs.hidden, bins),
    )


def _select(values: np.ndarray, hidden: np.ndarray, mask: np.ndarray | None, name: str) -> _Pairs:
    values = np.asarray(values, dtype=np.float64)
    if values.ndim != 2:
        raise ValueError(f"{name} must have shape (n, k), one row a query, got {values.shape}.")
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
            f"hidden must be True for some pair that counts, none of the {len(pairs.hidden)} is: "
            "no hidden positive is among the candidates."
        )
    return pairs


def _precision_at_top(pairs: _Pairs, share: float) -> float:
    """Return the precision among the highest-scoring share of the pairs, at least one pair."""
    count = max(1, round(share * len(pairs.values)))
    cut = np.partition(pairs.values, -count)[-count]
    above, tied = pairs.values > cut, pairs.values == cut
    hits = pairs.hidden[above].sum() + (count - above.sum()) * pairs.hidden[tied].mean()
    return float(hits / count)


def _resampled_average_precision(pairs: _Pairs, resamples: int, seed: int) -> np.ndarray:
    check_count("resamples", resamples)
    # Sorted once: a resample only changes how often each pair counts.
    order = np.argsort(-pairs.values, kind="stable")
    values, hidden = pairs.values[order], pairs.hidden[order]
    ends = np.append(np.flatnonzero(np.diff(values)), len(values) - 1)
    names, queries = np.unique(pairs.queries[order], return_inverse=True)
    rng = np.random.default_rng(seed)
    result = np.empty(resamples)
    for i in range(resamples):
        times = np.bincount(rng.integers(0, len(names), len(names)), minlength=len(names))[queries]
        result[i] = _average_precision(np.cumsum(times * hidden)[ends], np.cumsum(times)[ends])
    return result


def _average_precision(found: np.ndarray, ranked: np.ndarray) -> float:
    """Return the average precision of a ranking cut at each distinct score; NaN without positives.

    `sklearn.metrics.average_precision_score` gives the same with weights, but sorts every time.

    Args:
        found: Positives up to each cut, `(cuts,)`.
        ranked: Pairs up to each cut, `(cuts,)`.
    """
    if found[-1] == 0:
        return float("nan")
    gained = np.diff(found, prepend=0)
    hits = np.flatnonzero(gained)
    return float((gained[hits] * found[hits] / ranked[hits]).sum() / found[-1])
