"""How many labels are probably missing."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from ..candidates import CandidatePool
from .review.decisions import Decision
from .review.recalibration import decided, recalibrate

# Last places of the candidates that are counted together.
DEPTHS = (10, 20, 50, 100)
# Standard deviation of the logarithm of estimated by true number, on 12 collections with three encoders.
LOG_ERROR = 0.77
# Standard deviations from the middle of an interval to its ends, for 80 %.
EIGHTY_PERCENT = 1.2816


class Missing(NamedTuple):
    """An estimate of how many relevant documents have no label, among the candidates that were read.

    Args:
        expected: The sum of their probabilities.
        low: Lower end of an 80 % interval.
        high: Upper end.
        by_depth: First and last place among the candidates, and the number that is expected there.
        decisions: Decisions of persons and judges that the probabilities follow.
    """

    expected: float
    low: float
    high: float
    by_depth: list[tuple[int, int, float]]
    decisions: int


def missing_labels(pool: CandidatePool, decisions: Iterable[Decision] = ()) -> Missing:
    """Estimate how many labels are missing.

    The interval has two parts. Probabilities are off by a factor that all of them share: on collections with
    known labels, its logarithm had a standard deviation of .77; decisions make it smaller. And each document
    is relevant or not, by chance.

    Args:
        pool: Candidates with their probabilities.
        decisions: Decisions about some of them, which the probabilities follow. Labels that were found are
            still missing in the collection.

    Returns:
        The estimate.

    Raises:
        ValueError: If the pool has no probabilities.

    Example:
        >>> pool = CandidatePool(
        ...     query_ids=["q"], document_ids=["a", "b"], positives=[np.array([], int)],
        ...     candidates=np.array([[0, 1]]), scores=np.array([[0.5, 0.25]]),
        ...     probability=np.array([[0.5, 0.25]]),
        ... )
        >>> missing_labels(pool)[:1], missing_labels(pool).by_depth
        ((0.75,), [(1, 2, 0.75)])
    """
    made = list(decisions)
    changed, line = recalibrate(pool, made)
    assert changed.probability is not None
    p = np.nan_to_num(changed.probability.astype(np.float64))
    expected, chance = float(p.sum()), float((p * (1 - p)).sum())
    known = ~np.isnan(decided(pool, made)[0])
    assert pool.probability is not None
    low, high = _interval(expected, chance, level_error(p, pool.probability[known]))
    possible = (pool.candidates >= 0) & ~(known & (p == 0))
    low, high = max(low, float(p[known].sum())), min(high, float(possible.sum()))
    depth = int((pool.candidates >= 0).sum(axis=1).max(initial=0))
    return Missing(expected, low, high, _by_depth(p[:, :depth]), line.decisions)


def level_error(probability: np.ndarray, decided: np.ndarray) -> float:
    """Return the standard deviation of the level that the log-odds of all candidates share.

    Args:
        probability: Probabilities of the candidates, of any shape; NaN where there is none.
        decided: What the adapter gave pairs that were decided; each of them makes the level more certain.
    """
    p, asked = (np.nan_to_num(values.astype(np.float64)) for values in (probability, decided))
    chance = (p * (1 - p)).sum()
    if chance == 0:
        return 0.0
    # A step of the log-odds changes the logarithm of the expected number by so much.
    effect = chance / p.sum()
    return float(1 / np.sqrt((effect / LOG_ERROR) ** 2 + (asked * (1 - asked)).sum()))


def _interval(expected: float, chance: float, error: float) -> tuple[float, float]:
    """Return the ends of the interval.

    Args:
        expected: The expected number.
        chance: Variance of the number, given the probabilities.
        error: Standard deviation of the level of log-odds.
    """
    if expected == 0 or chance == 0:
        return expected, expected
    factor = math.exp(EIGHTY_PERCENT * error * chance / expected)
    by_chance = EIGHTY_PERCENT * math.sqrt(chance)
    below = math.hypot(expected - expected / factor, by_chance)
    return expected - below, expected + math.hypot(expected * factor - expected, by_chance)


def _by_depth(probability: np.ndarray) -> list[tuple[int, int, float]]:
    depth = probability.shape[1]
    ends = [end for end in DEPTHS if end < depth] + [depth] * (depth > 0)
    starts = [0, *ends[:-1]]
    return [
        (start + 1, end, float(probability[:, start:end].sum()))
        for start, end in zip(starts, ends, strict=True)
    ]
