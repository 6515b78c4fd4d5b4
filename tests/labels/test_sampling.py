"""Resampling weights follow their formula, and draws follow the weights."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from rrra_hf.candidates import CandidatePool
from rrra_hf.labels import draw, draw_negatives, drop_above_positive, rrra_strategy, rrra_weights

NAN = float("nan")


def make_pool(probabilities: list[list[float]], scores: list[list[float]] | None = None) -> CandidatePool:
    """A pool with candidates 0, 1, ... and, after them, one positive; NaN means no candidate."""
    p = np.array(probabilities)
    n, k = p.shape
    present = ~np.isnan(p)
    return CandidatePool(
        query_ids=[f"q{i}" for i in range(n)],
        document_ids=[f"d{i}" for i in range(k + 1)],
        positives=[np.array([k])] * n,
        candidates=np.where(present, np.arange(k), -1),
        scores=np.where(present, 0.5 if scores is None else np.array(scores), -np.inf),
        probability=p,
    )


def test_weights_by_hand() -> None:
    p = np.array([[0.0, 0.5, 1.0, NAN]])
    assert_array_equal(rrra_weights(p), [[1.0, 0.5, 0.0, 0.0]])
    assert_array_equal(rrra_weights(p, gamma=2.0), [[1.0, 0.25, 0.0, 0.0]])
    assert_array_equal(rrra_weights(p, gamma=0.0), [[1.0, 1.0, 1.0, 0.0]])


def test_rows_without_candidates_weigh_nothing() -> None:
    nothing = np.full((1, 2), NAN)
    assert_array_equal(rrra_weights(nothing), [[0.0, 0.0]])


@given(st.lists(st.floats(0, 1), min_size=2, max_size=8), st.floats(0, 20))
def test_weights_lie_in_the_unit_interval_and_fall_with_probability(p: list[float], gamma: float) -> None:
    weights = rrra_weights(np.sort(np.array([p])), gamma)
    assert ((weights >= 0) & (weights <= 1)).all()
    assert (np.diff(weights) <= 0).all()


@pytest.mark.parametrize("gamma", [-1.0, NAN, float("inf")])
def test_illegal_exponents_are_refused(gamma: float) -> None:
    with pytest.raises(ValueError, match=f"gamma must be a number of at least 0, got {gamma}"):
        rrra_weights(np.zeros((1, 2)), gamma)


def test_illegal_probabilities_are_refused() -> None:
    with pytest.raises(ValueError, match="1 values outside"):
        rrra_weights(np.array([[0.5, 1.5]]))
    with pytest.raises(ValueError, match=r"got shape \(2,\)"):
        rrra_weights(np.zeros(2))


@given(st.integers(1, 6), st.integers(1, 6), st.integers(0, 99))
def test_draws_are_distinct_candidates_where_there_are_enough(k: int, count: int, seed: int) -> None:
    pool = make_pool([[0.5] * k + [NAN], [0.1] * k + [0.3]])
    rows, weights = draw_negatives(pool, count, rng=np.random.default_rng(seed))
    assert rows.shape == weights.shape == (2, count)
    for drawn, candidates in zip(rows, pool.candidates, strict=True):
        present = candidates[candidates >= 0]
        assert set(drawn) <= set(present)
        if count <= len(present):
            assert len(set(drawn)) == count


def test_uniform_draws_bring_their_weights() -> None:
    pool = make_pool([[0.0, 0.25, 1.0]])
    rows, weights = draw_negatives(pool, 3, rng=np.random.default_rng(0), gamma=2.0)
    assert dict(zip(rows[0].tolist(), weights[0].tolist(), strict=True)) == {0: 1.0, 1: 0.5625, 2: 0.0}


def test_uniform_draws_are_uniform_whatever_the_weights() -> None:
    pool = make_pool([[0.0, 0.9, 1.0]])
    rows, _ = draw_negatives(pool, 1, rng=np.random.default_rng(0), query_rows=np.zeros(30_000, dtype=int))
    assert_allclose(np.bincount(rows[:, 0]) / 30_000, np.full(3, 1 / 3), atol=0.01)


def test_draws_are_in_proportion_to_the_weights() -> None:
    weights = np.array([[1.0, 0.5, 0.0]])
    places = draw(weights, 1, rng=np.random.default_rng(0), query_rows=np.zeros(30_000, dtype=int))
    assert_allclose(np.bincount(places[:, 0], minlength=3) / 30_000, [2 / 3, 1 / 3, 0], atol=0.01)


def test_what_weighs_nothing_is_never_drawn() -> None:
    assert draw(np.array([[0.8, 0.0, 0.0]]), 3, rng=np.random.default_rng(0)).tolist() == [[0, 0, 0]]


def test_too_few_candidates_are_drawn_in_proportion_with_replacement() -> None:
    places = draw(np.array([[0.75, 0.25, 0.0]]), 20_000, rng=np.random.default_rng(0))
    assert_allclose(np.bincount(places[0], minlength=2) / 20_000, [0.75, 0.25], atol=0.02)


def test_certain_false_negatives_are_drawn_uniformly_but_weigh_nothing() -> None:
    _, weights = draw_negatives(make_pool([[1.0, 1.0]]), 2, rng=np.random.default_rng(0))
    assert weights.tolist() == [[0.0, 0.0]]


def test_queries_may_be_chosen_and_repeat() -> None:
    pool = make_pool([[0.5, NAN], [NAN, NAN], [0.0, 0.0]])
    rows, weights = draw_negatives(pool, 1, rng=np.random.default_rng(0), query_rows=np.array([0, 0]))
    assert rows.tolist() == [[0], [0]]
    assert weights.tolist() == [[0.5], [0.5]]


def test_equal_seeds_draw_equally() -> None:
    pool = make_pool(np.random.default_rng(0).random((20, 30)).tolist())
    first, again, other = (draw_negatives(pool, 4, rng=np.random.default_rng(s))[0] for s in (1, 1, 2))
    assert_array_equal(first, again)
    assert (first != other).any()


def test_illegal_draws_are_refused() -> None:
    pool, rng = make_pool([[0.5], [NAN]]), np.random.default_rng(0)
    with pytest.raises(ValueError, match="1 of 2 have none, the first is 'q1'"):
        draw_negatives(pool, 1, rng=rng)
    with pytest.raises(ValueError, match="the first is 'q0'"):
        draw_negatives(make_pool([[NAN], [0.5]]), 1, rng=rng)
    with pytest.raises(ValueError, match="the first is row 0"):
        draw(np.zeros((1, 2)), 1, rng=rng)
    with pytest.raises(ValueError, match="num_negatives must be at least 1, got 0"):
        draw_negatives(pool, 0, rng=rng)
    with pytest.raises(ValueError, match="pool must have probabilities"):
        draw_negatives(replace(pool, probability=None), 1, rng=rng)


# ---------------------------------------------------------------- what outscores the positive


def scored_pool(probability: list[list[float]] | None) -> CandidatePool:
    return CandidatePool(
        query_ids=["q", "r"],
        document_ids=list("abcd"),
        positives=[np.array([0]), np.array([1])],
        candidates=np.array([[1, 2, 3], [0, -1, -1]]),
        scores=np.array([[0.75, 0.5, 0.25], [0.5, -np.inf, -np.inf]]),
        probability=None if probability is None else np.array(probability),
    )


def test_what_outscores_the_positive_weighs_nothing() -> None:
    pool = scored_pool([[0.5, 0.25, 0.0], [0.5, np.nan, np.nan]])
    changed = drop_above_positive(pool, np.array([0.5, 0.25]))
    # As high as the positive is not above it.
    assert_array_equal(changed.probability, [[1.0, 0.25, 0.0], [1.0, np.nan, np.nan]])
    assert_array_equal(pool.probability, [[0.5, 0.25, 0.0], [0.5, np.nan, np.nan]])
    chances, weights = rrra_strategy(changed)
    assert_array_equal(chances, [[1, 1, 1], [1, 0, 0]])
    assert_array_equal(weights, [[0.0, 0.75, 1.0], [0.0, 0.0, 0.0]])


@pytest.mark.parametrize(
    ("probability", "positive_scores", "message"),
    [
        (None, [0.5, 0.5], "pool must have probabilities"),
        ([[0.0] * 3] * 2, [0.5], r"positive_scores must have shape \(2,\)"),
        ([[0.0] * 3] * 2, [0.5, np.nan], "positive_scores must be finite"),
    ],
)
def test_pools_and_scores_that_cannot_be_compared_are_refused(
    probability: list[list[float]] | None, positive_scores: list[float], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        drop_above_positive(scored_pool(probability), np.array(positive_scores))
