"""Probabilities that follow what was decided."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit, log_expit, logit

from ...candidates import CandidatePool
from ...evaluation.checks import check_between
from .decisions import ADAPTER, PERSON, Decision

# How far slope and intercept are from 1 and 0 before anything is decided: standard deviations of a normal
# distribution. On 10 collections with one label kept per query, with 2 encoders, after 20 and 50 decisions,
# the expected number is wrong by a factor of 1.38 and 1.22; with an intercept of 0.7, by 1.41 and 1.24; with
# 2.0, by 1.51 and 1.37. With twice the spread of the slope, calibration errors are up to a third greater.
SLOPE_SPREAD = 0.25
INTERCEPT_SPREAD = 1.0
# Share of a judge's answers that are wrong.
JUDGE_ERROR = 0.05
# Greater probabilities are single floats that were rounded up, not certain.
MAX_PROBABILITY = 1 - 2**-23


class Recalibration(NamedTuple):
    """A line from the adapter's log-odds to those that fit the decisions.

    Args:
        slope: Slope of the line.
        intercept: Its value where the adapter's probability is .5.
        decisions: Number of decisions that it fits.
    """

    slope: float = 1.0
    intercept: float = 0.0
    decisions: int = 0

    @classmethod
    def fit(
        cls, probability: np.ndarray, relevant: np.ndarray, errors: np.ndarray | float = 0.0
    ) -> Recalibration:
        """Fit the line to decided pairs.

        It is the most probable line, with normal priors around slope 1 and intercept 0. Few decisions
        therefore change little, and many decide alone.

        The pairs need not be a random sample. A choice by probability, or by anything else that the adapter
        knew, leaves the share of relevant pairs at each probability as it is, and this share is all that is
        fitted. It only matters that the share is the same for pairs that weren't chosen.

        Args:
            probability: The adapter's probabilities of the pairs, `(n,)`. Pairs with 0 are left out: they
                were judged before.
            relevant: What was decided, 0 or 1, `(n,)`.
            errors: Share of decisions that are wrong, one number or one for each pair, `(n,)`. Of few
                relevant documents, a judge who errs finds more than there are.

        Raises:
            ValueError: If a probability is not in [0, 1].

        Source:
            Platt 1999, "Probabilistic Outputs for Support Vector Machines", with priors, and with wrong
            labels as in Copas 1988, "Binary Regression Models for Contaminated Data".

        Example:
            >>> Recalibration.fit(np.empty(0), np.empty(0))
            Recalibration(slope=1.0, intercept=0.0, decisions=0)
            >>> doubted = Recalibration.fit(np.full(50, 0.5), np.zeros(50))
            >>> bool(doubted(np.array([0.5]))[0] < 0.1)
            True
        """
        x = log_odds(probability)
        kept = np.isfinite(x)
        if not kept.any():
            return cls()
        y, wrong = (
            np.broadcast_to(np.asarray(values, dtype=np.float64), x.shape)[kept]
            for values in (relevant, errors)
        )
        slope, intercept = _most_probable(x[kept], y, wrong)
        return cls(slope, intercept, int(kept.sum()))

    def __call__(self, probability: np.ndarray) -> np.ndarray:
        """Return probabilities as the decisions would have them.

        Args:
            probability: The adapter's probabilities, of any shape. 0 and NaN stay what they are.
        """
        return self.of_log_odds(log_odds(probability))

    def of_log_odds(self, x: np.ndarray) -> np.ndarray:
        """Return probabilities as the decisions would have them, from the adapter's log-odds.

        Args:
            x: What `log_odds` returned, which takes longer than what follows.
        """
        return np.where(np.isneginf(x), x.dtype.type(0), expit(self.slope * x + self.intercept))


def recalibrate(
    pool: CandidatePool, decisions: Iterable[Decision], judge_error: float = JUDGE_ERROR
) -> tuple[CandidatePool, Recalibration]:
    """Return a pool whose probabilities follow the decisions of persons and judges.

    Decided pairs get 1 or 0, the others what `Recalibration.fit` says. Decisions of the adapter tell nothing
    new, and are left out.

    Args:
        pool: Candidates with the adapter's probabilities.
        decisions: The decisions. Those about other pairs are left out.
        judge_error: Share of a judge's answers that are wrong.

    Returns:
        The pool, and how its probabilities were changed.

    Raises:
        ValueError: If the pool has no probabilities.

    Example:
        >>> pool = CandidatePool(
        ...     query_ids=["q"], document_ids=["a", "b"], positives=[np.array([], int)],
        ...     candidates=np.array([[0, 1]]), scores=np.array([[0.5, 0.25]]),
        ...     probability=np.array([[0.5, 0.5]]),
        ... )
        >>> changed, line = recalibrate(pool, [Decision("q", "a", True, "person", 0.5)])
        >>> (100 * changed.probability).round().tolist(), line.decisions
        ([[100.0, 60.0]], 1)
    """
    probability = pool.required_probability
    labels, errors = decided(pool, decisions, judge_error)
    known = ~np.isnan(labels)
    line = Recalibration.fit(probability[known], labels[known], errors[known])
    return replace(pool, probability=np.where(known, labels, line(probability))), line


def decided(
    pool: CandidatePool, decisions: Iterable[Decision], judge_error: float = JUDGE_ERROR
) -> tuple[np.ndarray, np.ndarray]:
    """Return what persons and judges decided about the candidates of a pool.

    Args:
        pool: The candidates, `n` queries.
        decisions: The decisions. Those of the adapter, and those about other pairs, are left out.
        judge_error: Share of a judge's answers that are wrong.

    Returns:
        1 or 0, NaN where nothing was decided, and the share of errors of who decided, `(n, depth)` float32.
    """
    labels = np.full(pool.candidates.shape, np.nan, dtype=np.float32)
    errors = np.zeros_like(labels)
    for row, place, decision in located(pool, decisions):
        if decision.by != ADAPTER:
            labels[row, place] = decision.relevant
            errors[row, place] = 0.0 if decision.by == PERSON else judge_error
    return labels, errors


def located(pool: CandidatePool, decisions: Iterable[Decision]) -> Iterator[tuple[int, int, Decision]]:
    """Yield decisions with the row of the query and the place of the candidate.

    Args:
        pool: The candidates.
        decisions: The decisions. Those about other pairs are left out.
    """
    row_of = {query_id: row for row, query_id in enumerate(pool.query_ids)}
    places: dict[int, dict[str, int]] = {}
    for decision in decisions:
        row = row_of.get(decision.query_id)
        if row is None:
            continue
        if row not in places:
            candidates = pool.candidates[row][pool.candidates[row] >= 0]
            places[row] = {pool.document_ids[document]: place for place, document in enumerate(candidates)}
        place = places[row].get(decision.document_id)
        if place is not None:
            yield row, place, decision


def log_odds(probability: np.ndarray) -> np.ndarray:
    """Return log-odds: -inf for 0, a finite number for 1, NaN for NaN.

    Args:
        probability: Probabilities, of any shape.

    Raises:
        ValueError: If one is not in [0, 1].
    """
    probability = np.asarray(probability)
    check_between("probability", probability[~np.isnan(probability)], 0, 1)
    return logit(np.minimum(probability, MAX_PROBABILITY))


def _most_probable(x: np.ndarray, y: np.ndarray, errors: np.ndarray) -> tuple[float, float]:
    """Return slope and intercept of the most probable line."""
    inputs, prior = np.column_stack([x, np.ones_like(x)]), np.array([1.0, 0.0])
    precision = 1 / np.array([SLOPE_SPREAD, INTERCEPT_SPREAD]) ** 2
    right = np.log1p(-errors)
    with np.errstate(divide="ignore"):
        wrong = np.log(errors)

    def answers(z: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the log-chances of yes and no, and how fast the log-odds of a yes rise with z."""
        relevant, not_relevant = log_expit(z), log_expit(-z)
        yes = np.logaddexp(right + relevant, wrong + not_relevant)
        no = np.logaddexp(right + not_relevant, wrong + relevant)
        return yes, no, (1 - 2 * errors) * np.exp(relevant + not_relevant - yes - no)

    def loss(line: np.ndarray) -> tuple[float, np.ndarray]:
        off = line - prior
        yes, no, rise = answers(inputs @ line)
        likelihood = y @ yes + (1 - y) @ no
        return precision @ off**2 / 2 - likelihood, inputs.T @ (rise * (np.exp(yes) - y)) + precision * off

    def curvature(line: np.ndarray) -> np.ndarray:
        yes, no, rise = answers(inputs @ line)
        return (inputs.T * (rise**2 * np.exp(yes + no))) @ inputs + np.diag(precision)

    found = minimize(loss, prior, jac=True, hess=curvature, method="trust-exact", options={"gtol": 1e-8})
    slope, intercept = map(float, found.x)
    return slope, intercept
