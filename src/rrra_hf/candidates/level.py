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
TOP = 5
# What other collections say of log-odds that come trained: mean and deviation of the logarithm of the slope,
# of the offset, and of the factor of nearness.
PRIOR = np.array([(np.log(0.85), 0.25), (0.3, 1.7), (0.0, 0.3)])
# A slope for log-odds that read a labelled document too, relative to that of those that don't.
GIVEN_ONE = 0.75
# Candidates that tell how near a query's documents are.
NEAREST = 10
# Standard deviations from the mean that nearness is cut to.
NEARNESS_LIMIT = 3.0
# Log-odds of nothing, and of certainty.
FARTHEST = 30.0


class Level(NamedTuple):
    """What log-odds are multiplied with, and what is added to them.

    Args:
        slope: Factor of the log-odds.
        offset: What is added to the product.
        of_nearness: Factor of what is added for the nearness of a query's documents.
    """

    slope: float = 1.0
    offset: float = 0.0
    of_nearness: float = 0.0

    def probability(self, log_odds: np.ndarray, near: np.ndarray) -> np.ndarray:
        """Return probabilities, of the same shape and type as the log-odds.

        Args:
            log_odds: Log-odds of the candidates of each query, `(n, k)`.
            near: How near the documents of the queries are, from `nearness`, `(n,)`.
        """
        return expit(self.on(log_odds, near) + self.offset).astype(log_odds.dtype)

    def on(self, log_odds: np.ndarray, near: np.ndarray) -> np.ndarray:
        """Return the log-odds without the offset, `(n, k)`."""
        return self.slope * log_odds + self.of_nearness * near[:, None]


def nearness(cosines: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return how near each query's best candidates are, compared with those of other queries, `(n,)`.

    That is the mean cosine of the ten best, in standard deviations from the mean of these queries, three at
    most. In some collections, queries whose candidates are nearer have more relevant documents than others,
    in some fewer.

    Args:
        cosines: Cosines of the candidates, `(n, k)`, -inf where there is none.
        others: Rows of the queries to compare with.

    Example:
        >>> nearness(np.array([[0.9, 0.7], [0.5, 0.3], [0.4, -np.inf]]), np.arange(3)).round(2).tolist()
        [1.41, -0.71, -0.71]
    """
    best = -np.sort(-cosines, axis=1)[:, :NEAREST].astype(np.float64)
    there = np.isfinite(best)
    means = np.where(there, best, 0.0).sum(axis=1) / np.maximum(there.sum(axis=1), 1)
    deviation = means[others].std()
    if not deviation > 0:
        return np.zeros(len(means))
    return ((means - means[others].mean()) / deviation).clip(-NEARNESS_LIMIT, NEARNESS_LIMIT)


def sampled(count: int) -> np.ndarray:
    """Return which of the labels to learn the level from, evenly spaced."""
    return np.unique(np.linspace(0, count - 1, min(count, MAX_LABELS)).astype(np.int64))


def level_of(alone: np.ndarray, query: np.ndarray, given_one: np.ndarray, near: np.ndarray) -> Level:
    """Return the level of log-odds of relevance, from where labelled documents stand.

    Suppose that a query's labelled document is one of its relevant documents, any of them with the same
    chance. Then labelled documents stand as high among the candidates as relevant documents do. If they are
    nearly always the first, there is hardly another. If one in ten is the first, there are about ten. Of
    several labelled documents of a query, each is compared with the candidates without a label alone. Each
    query counts once, however many labels it has.

    The slope and offset of the log-odds, and the factor of the nearness of a query's documents, are those
    with the greatest posterior probability, given where the labelled documents stand. The offset for log-odds
    that know a labelled document then makes the sum of probabilities equal to the number of relevant
    documents that is expected without a label.

    Args:
        alone: Log-odds for each of `l` labels that don't know of it, `(l, 1 + k)`, -inf where there is no
            candidate. The first belongs to the labelled document, the others to unlabelled candidates.
        query: Row of the query of each label, `(l,)`.
        given_one: Log-odds of the unlabelled candidates of `n` queries that know one labelled document,
            `(n, k)`.
        near: How near the documents of the queries are, from `nearness`, `(n,)`.

    Returns:
        The level for log-odds that know one labelled document. Slope 1 and offset 0 if fewer than 20 queries
        have a labelled document among the more probable fifth of the candidates.

    Source:
        Labels are "selected completely at random" among relevant documents: Elkan & Noto 2008, "Learning
        classifiers from only positive and unlabeled data", here within each query.

    Example:
        >>> def level(places):
        ...     others = np.linspace(2, -5, 29)
        ...     rows = np.array([np.r_[others[place], others] for place in places])
        ...     near = np.zeros(len(rows))
        ...     found = level_of(rows, np.arange(len(rows)), rows[:, 1:], near)
        ...     return found.probability(rows[:, 1:], near).sum(axis=1).mean().round(1)
        >>> float(level([0] * 100)), float(level([0, 2, 4, 6, 8] * 20))
        (0.7, 13.1)
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
    near = near[queries]
    best, of_label = np.take_along_axis(alone, top, axis=1), near[query]
    fitted = minimize(_loss, np.zeros(len(PRIOR)), (best, of_label, place, weight), method="L-BFGS-B").x
    level = _level(fitted)
    p, rate = _rates(level, best, of_label, place)
    below = level.probability(alone, of_label).sum(axis=1) - p.sum(axis=1)
    beside = float(weight @ (1 / _share(rate) - 1 + below))
    logger.info("%.2f more documents are relevant per query with a label", beside / len(queries))
    level = level._replace(slope=level.slope * GIVEN_ONE)
    return level._replace(offset=_offset(level.on(given_one, near), beside))


def _level(parameters: np.ndarray) -> Level:
    """Return the level of the logarithm of a slope, an offset, and a factor of nearness."""
    slope, offset, of_nearness = map(float, parameters)
    return Level(float(np.exp(slope)), offset, of_nearness)


def _rates(
    level: Level, alone: np.ndarray, near: np.ndarray, place: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the probability of each candidate, and the sum of those beside the labelled one."""
    p = level.probability(alone, near)
    return p, p.sum(axis=1) - p[np.arange(len(p)), place]


def _share(rate: np.ndarray) -> np.ndarray:
    """Return the mean of 1 / (1 + number), for a Poisson number with the given rates."""
    rate = np.maximum(rate, 1e-9)
    return -np.expm1(-rate) / rate


def _loss(
    parameters: np.ndarray, alone: np.ndarray, near: np.ndarray, place: np.ndarray, weight: np.ndarray
) -> float:
    """Return the negative logarithm of the posterior probability of the parameters of a level."""
    p, rate = _rates(_level(parameters), alone, near, place)
    labelled = p[np.arange(len(p)), place]
    # That a document is labelled: it's relevant, and is the one that is chosen of all that are.
    likelihood = np.log(labelled + 1e-300) + np.log(_share(rate))
    # Queries without a relevant document aren't seen.
    seen = np.log(-np.expm1(np.log1p(-np.minimum(p, 1 - 1e-7)).sum(axis=1)) + 1e-300)
    mean, deviation = PRIOR.T
    prior = (((parameters - mean) / deviation) ** 2).sum() / 2
    return float(prior - weight @ (likelihood - seen))


def _offset(log_odds: np.ndarray, total: float) -> float:
    """Return what to add to log-odds so that the probabilities sum up to a total."""
    low, high = -FARTHEST - log_odds.max(), FARTHEST - log_odds.min()
    total = min(max(total, float(expit(log_odds + low).sum())), float(expit(log_odds + high).sum()))
    return float(brentq(lambda offset: expit(log_odds + offset).sum() - total, low, high, xtol=1e-6))
