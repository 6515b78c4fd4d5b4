"""The level of probabilities: where labelled documents stand tells how many unlabelled ones are relevant."""

from __future__ import annotations

import logging
from typing import NamedTuple

import numpy as np
from scipy.optimize import brentq, minimize
from scipy.special import expit

logger = logging.getLogger(__name__)

# Queries with a label to learn the level from: fewer say too little. Labels: more are sampled.
MIN_QUERIES, MAX_LABELS = 20, 1000
# One in so many candidates counts, the most probable ones. There, hardly any relevant document is missing.
TOP = 3
# What other collections say of log-odds that come trained: mean and deviation of the logarithm of the slope,
# and of the offset.
SLOPE_PRIOR, OFFSET_PRIOR = (np.log(0.85), 0.25), (0.3, 1.7)
# A slope for log-odds that read a labelled document too, relative to that of those that don't.
GIVEN_ONE = 0.8
# Log-odds of nothing, and of certainty.
FARTHEST = 30.0


class Level(NamedTuple):
    """A slope and an offset for log-odds.

    Args:
        slope: Factor of the log-odds.
        offset: What is added to the product.
    """

    slope: float = 1.0
    offset: float = 0.0

    def probability(self, log_odds: np.ndarray) -> np.ndarray:
        """Return probabilities, of the same shape and type as the log-odds."""
        return expit(self.slope * log_odds + self.offset).astype(log_odds.dtype)


def sampled(count: int) -> np.ndarray:
    """Return which of the labels to learn the level from, evenly spaced."""
    return np.unique(np.linspace(0, count - 1, min(count, MAX_LABELS)).astype(np.int64))


def level_of(alone: np.ndarray, query: np.ndarray, given_one: np.ndarray) -> Level:
    """Return the level of log-odds of relevance, from where labelled documents stand.

    Suppose that a query's labelled document is one of its relevant documents, any of them with the same
    chance. Then labelled documents stand as high among the candidates as relevant documents do. If they are
    nearly always the first, there is hardly another. If one in ten is the first, there are about ten. Of
    several labelled documents of a query, each is compared with the candidates without a label alone. Each
    query counts once, however many labels it has.

    The slope and offset of the log-odds are those with the greatest posterior probability, given where the
    labelled documents stand. The offset for log-odds that know a labelled document then makes the sum of
    probabilities equal to the number of relevant documents that is expected without a label.

    Args:
        alone: Log-odds for each of `l` labels that don't know of it, `(l, 1 + k)`, -inf where there is no
            candidate. The first belongs to the labelled document, the others to unlabelled candidates.
        query: Row of the query of each label, `(l,)`.
        given_one: Log-odds of the unlabelled candidates of `n` queries that know one labelled document,
            `(n, k)`.

    Returns:
        The level for log-odds that know one labelled document. Slope 1 and offset 0 if fewer than 20 queries
        have a labelled document among the more probable third of the candidates.

    Source:
        Labels are "selected completely at random" among relevant documents: Elkan & Noto 2008, "Learning
        classifiers from only positive and unlabeled data", here within each query.

    Example:
        >>> def level(places):
        ...     others = np.linspace(2, -5, 29)
        ...     rows = np.array([np.r_[others[place], others] for place in places])
        ...     found = level_of(rows, np.arange(len(rows)), rows[:, 1:])
        ...     return found.probability(rows[:, 1:]).sum(axis=1).mean().round(1)
        >>> float(level([0] * 100)), float(level([0, 2, 4, 6, 8] * 20))
        (0.6, 14.8)
    """
    top = np.argsort(-alone, axis=1, kind="stable")[:, : max(2, alone.shape[1] // TOP)]
    kept = np.flatnonzero((top == 0).any(axis=1))
    queries, query, labels = np.unique(query[kept], return_inverse=True, return_counts=True)
    if len(queries) < MIN_QUERIES:
        return Level()
    top, place, weight = top[kept], np.argmax(top[kept] == 0, axis=1), 1 / labels[query]
    alone, given_one = (
        np.clip(values.astype(np.float64), -FARTHEST, FARTHEST)
        for values in (alone[kept], given_one[queries])
    )
    best = np.take_along_axis(alone, top, axis=1)
    slope, offset = minimize(_loss, (0.0, 0.0), (best, place, weight), method="L-BFGS-B").x
    slope = float(np.exp(slope))
    p, rate = _rates(slope, offset, best, place)
    below = expit(slope * alone + offset).sum(axis=1) - p.sum(axis=1)
    beside = float(weight @ (1 / _share(rate) - 1 + below))
    logger.info("%.2f more documents are relevant per query with a label", beside / len(queries))
    slope *= GIVEN_ONE
    return Level(slope, _offset(slope * given_one, beside))


def _rates(
    slope: float, offset: float, alone: np.ndarray, place: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the probability of each candidate, and the sum of those beside the labelled one."""
    p = expit(slope * alone + offset)
    return p, p.sum(axis=1) - p[np.arange(len(p)), place]


def _share(rate: np.ndarray) -> np.ndarray:
    """Return the mean of 1 / (1 + number), for a Poisson number with the given rates."""
    rate = np.maximum(rate, 1e-9)
    return -np.expm1(-rate) / rate


def _loss(parameters: np.ndarray, alone: np.ndarray, place: np.ndarray, weight: np.ndarray) -> float:
    """Return the negative logarithm of the posterior probability of a slope and an offset."""
    slope, offset = parameters
    p, rate = _rates(np.exp(slope), offset, alone, place)
    labelled = p[np.arange(len(p)), place]
    # That a document is labelled: it's relevant, and is the one that is chosen of all that are.
    likelihood = np.log(labelled + 1e-300) + np.log(_share(rate))
    # Queries without a relevant document aren't seen.
    seen = np.log(-np.expm1(np.log1p(-np.minimum(p, 1 - 1e-7)).sum(axis=1)) + 1e-300)
    prior = sum(
        ((value - mean) / deviation) ** 2 / 2
        for value, (mean, deviation) in ((slope, SLOPE_PRIOR), (offset, OFFSET_PRIOR))
    )
    return float(prior - weight @ (likelihood - seen))


def _offset(log_odds: np.ndarray, total: float) -> float:
    """Return what to add to log-odds so that the probabilities sum up to a total."""
    low, high = -FARTHEST - log_odds.max(), FARTHEST - log_odds.min()
    total = min(max(total, float(expit(log_odds + low).sum())), float(expit(log_odds + high).sum()))
    return float(brentq(lambda offset: expit(log_odds + offset).sum() - total, low, high, xtol=1e-6))
