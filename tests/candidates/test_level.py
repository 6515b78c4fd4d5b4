"""The number of relevant documents beside the labelled one is told by where labelled documents stand."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import expit

from rrra_hf.candidates.level import MAX_LABELS, Level, level_of, sampled

CANDIDATES = 60


def labelled_at_random(slope: float, offset: float, queries: int = 800) -> tuple[np.ndarray, float]:
    """Return log-odds with the one of a label first, and the mean number of other relevant documents."""
    rng = np.random.default_rng(0)
    log_odds = rng.normal(-3, 2, (queries, CANDIDATES))
    relevant = rng.random(log_odds.shape) < expit(slope * log_odds + offset)
    log_odds, relevant = log_odds[relevant.any(axis=1)], relevant[relevant.any(axis=1)]
    label = np.array([rng.choice(np.flatnonzero(row)) for row in relevant])
    lines = np.arange(len(label))
    first = log_odds[lines, label]
    log_odds[lines, label] = -np.inf
    return np.column_stack([first, log_odds]), float((relevant.sum(axis=1) - 1).mean())


def level(alone: np.ndarray) -> Level:
    """Return the level of queries with one label each, which log-odds that know it don't differ by."""
    return level_of(alone, np.arange(len(alone)), alone[:, 1:])


@pytest.mark.parametrize(("slope", "offset"), [(1.0, 0.0), (0.7, 1.0), (1.2, 2.0), (1.0, -1.0)])
def test_the_number_of_others_is_found_within_a_factor_of_two(slope: float, offset: float) -> None:
    log_odds, others = labelled_at_random(slope, offset)
    found = level(log_odds).probability(log_odds[:, 1:])
    # By themselves, the log-odds are off by up to a factor of 4.
    assert abs(np.log2(found.sum() / len(found) / others)) < 1


def test_labels_that_are_always_first_leave_nothing_to_find() -> None:
    log_odds, _ = labelled_at_random(1.0, 2.0)
    first = np.column_stack([np.full(len(log_odds), 9.0), log_odds[:, 1:]])
    assert level(first).probability(log_odds[:, 1:]).sum() < 0.1 * len(log_odds)


def test_certain_log_odds_of_single_precision_are_no_division_by_zero() -> None:
    log_odds = np.full((50, 10), -60.0, dtype=np.float32)
    log_odds[:, 1] = 60.0
    with np.errstate(all="raise", under="ignore"):
        level(log_odds)


@pytest.mark.parametrize("extreme", [1e9, -1e9])
def test_extreme_log_odds_are_legal(extreme: float) -> None:
    log_odds = np.full((50, 10), extreme, dtype=np.float32)
    probability = level(log_odds).probability(log_odds)
    assert probability.dtype == np.float32
    assert ((probability >= 0) & (probability <= 1)).all()


def test_few_labels_change_nothing() -> None:
    log_odds, _ = labelled_at_random(1.0, 0.0, queries=19)
    assert level(log_odds) == Level(1.0, 0.0)
    far = np.column_stack([np.full(100, -50.0), np.random.default_rng(0).normal(size=(100, 30))])
    assert level(far) == Level(1.0, 0.0)


def test_the_order_stays() -> None:
    log_odds, _ = labelled_at_random(0.7, 1.0)
    found = level(log_odds)
    assert found.slope > 0
    assert found.probability(np.array([-np.inf]))[0] == 0


def test_many_labels_are_sampled() -> None:
    assert sampled(3).tolist() == [0, 1, 2]
    assert len(sampled(10 * MAX_LABELS)) == MAX_LABELS


def test_each_query_counts_once() -> None:
    """A query with the same label twice counts as one with it once."""
    log_odds, others = labelled_at_random(1.0, 1.0, queries=400)
    query = np.r_[np.arange(len(log_odds)), np.arange(len(log_odds))]
    twice = level_of(np.r_[log_odds, log_odds], query, log_odds[:, 1:])
    assert twice == pytest.approx(level(log_odds), rel=1e-3)
    assert abs(np.log2(twice.probability(log_odds[:, 1:]).sum() / len(log_odds) / others)) < 1


def test_queries_are_counted_not_labels() -> None:
    log_odds, _ = labelled_at_random(1.0, 0.0, queries=19)
    query = np.repeat(np.arange(len(log_odds)), 2)
    assert level_of(np.repeat(log_odds, 2, axis=0), query, log_odds[:, 1:]) == Level(1.0, 0.0)
