"""The number of relevant documents beside the labelled one is told by where labelled documents stand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import expit

from rrra_hf.candidates.level import MAX_LABELS, NEARNESS_LIMIT, Level, level_of, nearness, sampled

CANDIDATES = 60


def labelled_at_random(
    slope: float, offset: float, queries: int = 800, of_query: np.ndarray | float = 0.0
) -> tuple[np.ndarray, float]:
    """Return log-odds with the one of a label first, and the mean number of other relevant documents."""
    rng = np.random.default_rng(0)
    log_odds = rng.normal(-3, 2, (queries, CANDIDATES))
    relevant = rng.random(log_odds.shape) < expit(slope * log_odds + offset + of_query)
    log_odds, relevant = log_odds[relevant.any(axis=1)], relevant[relevant.any(axis=1)]
    label = np.array([rng.choice(np.flatnonzero(row)) for row in relevant])
    lines = np.arange(len(label))
    first = log_odds[lines, label]
    log_odds[lines, label] = -np.inf
    return np.column_stack([first, log_odds]), float((relevant.sum(axis=1) - 1).mean())


def level(alone: np.ndarray) -> Level:
    """Return the level of queries with one label each, which log-odds that know it don't differ by."""
    return level_of(alone, np.arange(len(alone)), alone[:, 1:], np.zeros(len(alone)))


def probability(found: Level, log_odds: np.ndarray) -> np.ndarray:
    """Return probabilities of queries that are all as near as each other."""
    return found.probability(log_odds, np.zeros(len(log_odds)))


@pytest.mark.parametrize(("slope", "offset"), [(1.0, 0.0), (0.7, 1.0), (1.2, 2.0), (1.0, -1.0)])
def test_the_number_of_others_is_found_within_a_factor_of_two(slope: float, offset: float) -> None:
    log_odds, others = labelled_at_random(slope, offset)
    found = probability(level(log_odds), log_odds[:, 1:])
    # By themselves, the log-odds are off by up to a factor of 4.
    assert abs(np.log2(found.sum() / len(found) / others)) < 1


def test_labels_that_are_always_first_leave_nothing_to_find() -> None:
    log_odds, _ = labelled_at_random(1.0, 2.0)
    first = np.column_stack([np.full(len(log_odds), 9.0), log_odds[:, 1:]])
    assert probability(level(first), log_odds[:, 1:]).sum() < 0.1 * len(log_odds)


def test_certain_log_odds_of_single_precision_are_no_division_by_zero() -> None:
    log_odds = np.full((50, 10), -60.0, dtype=np.float32)
    log_odds[:, 1] = 60.0
    with np.errstate(all="raise", under="ignore"):
        level(log_odds)


@pytest.mark.parametrize("extreme", [1e9, -1e9])
def test_extreme_log_odds_are_legal(extreme: float) -> None:
    log_odds = np.full((50, 10), extreme, dtype=np.float32)
    found = probability(level(log_odds), log_odds)
    assert found.dtype == np.float32
    assert ((found >= 0) & (found <= 1)).all()


def test_few_labels_change_nothing() -> None:
    log_odds, _ = labelled_at_random(1.0, 0.0, queries=19)
    assert level(log_odds) == Level(1.0, 0.0)
    far = np.column_stack([np.full(100, -50.0), np.random.default_rng(0).normal(size=(100, 30))])
    assert level(far) == Level(1.0, 0.0)


def test_the_order_stays() -> None:
    log_odds, _ = labelled_at_random(0.7, 1.0)
    found = level(log_odds)
    assert found.slope > 0
    assert probability(found, np.array([[-np.inf]])).item() == 0


def test_many_labels_are_sampled() -> None:
    assert sampled(3).tolist() == [0, 1, 2]
    assert len(sampled(10 * MAX_LABELS)) == MAX_LABELS


def test_each_query_counts_once() -> None:
    """A query with the same label twice counts as one with it once."""
    log_odds, others = labelled_at_random(1.0, 1.0, queries=400)
    query = np.r_[np.arange(len(log_odds)), np.arange(len(log_odds))]
    near = np.zeros(len(log_odds))
    twice = level_of(np.r_[log_odds, log_odds], query, log_odds[:, 1:], near)
    assert twice == pytest.approx(level(log_odds), rel=1e-3)
    assert abs(np.log2(probability(twice, log_odds[:, 1:]).sum() / len(log_odds) / others)) < 1


def test_queries_are_counted_not_labels() -> None:
    log_odds, _ = labelled_at_random(1.0, 0.0, queries=19)
    query = np.repeat(np.arange(len(log_odds)), 2)
    near = np.zeros(len(log_odds))
    assert level_of(np.repeat(log_odds, 2, axis=0), query, log_odds[:, 1:], near) == Level(1.0, 0.0)


def test_labels_tell_whether_queries_with_near_documents_have_more_relevant_ones() -> None:
    """With one offset for all queries, labels told nothing of how queries differ."""
    near = np.tile(np.linspace(-1.7, 1.7, 800), 5)

    def found(truth: float) -> float:
        alone, _ = labelled_at_random(1.0, 3.0, len(near), truth * near[:, None])
        assert len(alone) == len(near)
        return level_of(alone, np.arange(len(alone)), alone[:, 1:], near).of_nearness

    more, same, fewer = map(found, (1.0, 0.0, -1.0))
    assert more > 0.3
    assert abs(same) < 0.1
    assert fewer < -0.1


@given(st.floats(0.01, 100), st.floats(-10, 10), st.integers(0, 2**32 - 1))
def test_nearness_has_no_unit(scale: float, shift: float, seed: int) -> None:
    cosines = np.random.default_rng(seed).random((30, 20)).astype(np.float32)
    cosines[:, 5:] = np.where(cosines[:, 5:] < 0.3, -np.inf, cosines[:, 5:])
    every = np.arange(len(cosines))
    near = nearness(cosines, every)
    scaled = nearness(scale * cosines.astype(float) + shift, every)
    np.testing.assert_allclose(scaled, near, atol=1e-4)
    assert np.abs(near).max() <= NEARNESS_LIMIT


@pytest.mark.parametrize("cosines", [np.full((3, 4), 0.5), np.full((2, 3), -np.inf), np.ones((1, 2))])
def test_queries_that_do_not_differ_are_equally_near(cosines: np.ndarray) -> None:
    assert nearness(cosines, np.arange(len(cosines))).tolist() == [0.0] * len(cosines)
