"""Every strategy's weights follow its formula, and all keep the same contract."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.testing import assert_allclose, assert_array_equal

from rrra_hf.comparison.negatives import (
    margin_pos_weights,
    oracle_weights,
    passage_sieve_weights,
    rank_window_weights,
    rocketqa_denoise_weights,
    simans_weights,
    top_k_perc_pos_weights,
    top_k_weights,
    trisampler_weights,
)
from rrra_hf.labels import draw, rrra_weights

NAN, INF = float("nan"), float("inf")


@dataclass
class Inputs:
    """What any strategy may need, of `n` queries and `k` candidates."""

    scores: np.ndarray
    positive: np.ndarray
    between: np.ndarray
    probability: np.ndarray

    def take(self, rows: np.ndarray) -> Inputs:
        return Inputs(self.scores[rows], self.positive[rows], self.between[rows], self.probability[rows])

    def reorder(self, columns: np.ndarray) -> Inputs:
        candidates = (values[:, columns] for values in (self.scores, self.between, self.probability))
        scores, between, probability = candidates
        return Inputs(scores, self.positive, between, probability)

    def pad(self) -> Inputs:
        widened = (
            np.pad(values, ((0, 0), (0, 1)), constant_values=fill)
            for values, fill in ((self.scores, -INF), (self.between, NAN), (self.probability, NAN))
        )
        scores, between, probability = widened
        return Inputs(scores, self.positive, between, probability)


STRATEGIES: dict[str, Callable[[Inputs], np.ndarray]] = {
    "rank_window": lambda x: rank_window_weights(x.scores, start=1, end=3),
    "top_k": lambda x: top_k_weights(x.scores, top_k=2),
    "top_k_perc_pos": lambda x: top_k_perc_pos_weights(x.scores, x.positive),
    "margin_pos": lambda x: margin_pos_weights(x.scores, x.positive),
    "simans": lambda x: simans_weights(x.scores, x.positive, b=0.5),
    "trisampler": lambda x: trisampler_weights(x.scores, x.positive, x.between),
    "passage_sieve": lambda x: passage_sieve_weights(x.scores, x.positive, num_negatives=4),
    "rocketqa_denoise": lambda x: rocketqa_denoise_weights(x.scores, x.probability, threshold=0.5, top_k=3),
    "oracle": lambda x: oracle_weights(x.scores, x.probability > 0.5),
    "rrra": lambda x: rrra_weights(x.probability, gamma=2.0),
}
BY_RANK = {"rank_window", "top_k", "passage_sieve", "rocketqa_denoise"}
every_strategy = pytest.mark.parametrize("name", STRATEGIES)
briefly = settings(max_examples=20, deadline=None)  # for each strategy

# Multiples of 1/32 make ties likely and sums exact, so that nothing hangs on the order of a sum.
grid_cosines = st.integers(-32, 32).map(lambda step: step / 32)


@st.composite
def inputs(draw: st.DrawFn, unique: bool = False) -> Inputs:
    n, k = draw(st.integers(0, 4)), draw(st.integers(0, 6))
    if unique:
        rows = [draw(st.lists(grid_cosines, min_size=k, max_size=k, unique=True)) for _ in range(n)]
        scores = np.array(rows, dtype=np.float64).reshape(n, k)
    else:
        scores = draw(hnp.arrays(np.float64, (n, k), elements=grid_cosines))
    scores = -np.sort(-scores, axis=1)
    lengths = draw(hnp.arrays(np.int64, n, elements=st.integers(0, k)))
    absent = np.arange(k) >= lengths[:, None]
    between = draw(hnp.arrays(np.float64, (n, k), elements=grid_cosines))
    probability = draw(hnp.arrays(np.float64, (n, k), elements=st.floats(0, 1)))
    return Inputs(
        scores=np.where(absent, -INF, scores),
        positive=draw(hnp.arrays(np.float64, n, elements=grid_cosines)),
        between=np.where(absent, NAN, between),
        probability=np.where(absent, NAN, probability),
    )


@every_strategy
@briefly
@given(x=inputs())
def test_weights_are_finite_not_negative_and_zero_where_there_is_no_candidate(name: str, x: Inputs) -> None:
    weights = STRATEGIES[name](x)
    assert weights.shape == x.scores.shape
    assert np.isfinite(weights).all()
    assert (weights >= 0).all()
    assert (weights[~np.isfinite(x.scores)] == 0).all()


@every_strategy
@briefly
@given(x=inputs(), seed=st.integers(0, 99))
def test_each_query_is_weighed_on_its_own(name: str, x: Inputs, seed: int) -> None:
    rows = np.random.default_rng(seed).permutation(len(x.scores))
    whole = STRATEGIES[name](x)
    assert_array_equal(STRATEGIES[name](x.take(rows)), whole[rows])
    assert_array_equal(STRATEGIES[name](x.take(rows[:1])), whole[rows[:1]])


@every_strategy
@briefly
@given(x=inputs(unique=True), seed=st.integers(0, 99))
def test_the_order_of_candidates_does_not_matter(name: str, x: Inputs, seed: int) -> None:
    columns = np.random.default_rng(seed).permutation(x.scores.shape[1])
    assert_array_equal(STRATEGIES[name](x.reorder(columns)), STRATEGIES[name](x)[:, columns])


@every_strategy
@briefly
@given(x=inputs())
def test_padding_changes_nothing(name: str, x: Inputs) -> None:
    padded = STRATEGIES[name](x.pad())
    assert_array_equal(padded[:, :-1], STRATEGIES[name](x))
    assert (padded[:, -1] == 0).all()


@pytest.mark.parametrize("name", sorted(set(STRATEGIES) - BY_RANK))
@briefly
@given(x=inputs())
def test_equal_candidates_weigh_equally(name: str, x: Inputs) -> None:
    twice = x.reorder(np.repeat(np.arange(x.scores.shape[1]), 2))
    weights = STRATEGIES[name](twice)
    assert_array_equal(weights[:, ::2], weights[:, 1::2])


@pytest.mark.parametrize("name", ["rank_window", "top_k", "margin_pos", "simans", "passage_sieve"])
@briefly
@given(x=inputs())
def test_weights_depend_on_differences_of_scores_alone(name: str, x: Inputs) -> None:
    lower = Inputs(x.scores - 4, x.positive - 4, x.between, x.probability)
    assert_allclose(STRATEGIES[name](lower), STRATEGIES[name](x), rtol=1e-9)


@every_strategy
@briefly
@given(x=inputs(), seed=st.integers(0, 99))
def test_draws_take_only_what_weighs_something(name: str, x: Inputs, seed: int) -> None:
    weights = STRATEGIES[name](x)
    drawable = np.flatnonzero((weights > 0).any(axis=1))
    places = draw(weights, 3, rng=np.random.default_rng(seed), query_rows=drawable)
    assert places.shape == (len(drawable), 3)
    assert (np.take_along_axis(weights[drawable], places, axis=1) > 0).all()


@every_strategy
def test_scores_of_another_shape_are_refused(name: str) -> None:
    # RRRA's weights are shaped by the probabilities, which come first.
    message = "probability must be" if name == "rrra" else r"scores must have shape \(n, k\)"
    flat = Inputs(np.zeros(2), np.zeros(2), np.zeros(2), np.zeros(2))
    with pytest.raises(ValueError, match=message):
        STRATEGIES[name](flat)


@pytest.mark.parametrize("illegal", [NAN, INF])
@pytest.mark.parametrize("name", sorted(set(STRATEGIES) - {"rrra"}))  # its weights need no scores
def test_scores_that_are_no_numbers_are_refused(name: str, illegal: float) -> None:
    x = Inputs(np.array([[illegal, 0.1]]), np.zeros(1), np.zeros((1, 2)), np.zeros((1, 2)))
    with pytest.raises(ValueError, match="scores must be finite"):
        STRATEGIES[name](x)


@pytest.mark.parametrize("name", ["top_k_perc_pos", "margin_pos", "simans", "trisampler", "passage_sieve"])
def test_positive_scores_must_be_one_number_a_query(name: str) -> None:
    table = np.zeros((2, 3))
    with pytest.raises(ValueError, match=r"positive_scores must have shape \(2,\).* got \(3,\)"):
        STRATEGIES[name](Inputs(table, np.zeros(3), table, table))
    with pytest.raises(ValueError, match="positive_scores must be finite; 1 are not, the first is 1"):
        STRATEGIES[name](Inputs(table, np.array([0.5, -INF]), table, table))


@pytest.mark.parametrize(
    ("name", "argument"),
    [
        ("trisampler", "positive_candidate_scores"),
        ("rocketqa_denoise", "relevance_probability"),
        ("oracle", "false_negative"),
    ],
)
def test_other_arrays_must_have_an_entry_a_candidate(name: str, argument: str) -> None:
    other = np.zeros((2, 4))
    with pytest.raises(ValueError, match=rf"{argument} .*\(2, [34]\).* got .*\(2, [34]\)"):
        STRATEGIES[name](Inputs(np.zeros((2, 3)), np.zeros(2), other, other))


def test_rank_window_by_hand() -> None:
    scores = np.array([[0.9, 0.8, 0.7, 0.6], [0.9, -INF, -INF, -INF]])
    assert_array_equal(rank_window_weights(scores, start=1, end=3), [[0, 1, 1, 0], [0, 0, 0, 0]])
    # Equal scores rank in the order given.
    assert_array_equal(rank_window_weights(np.zeros((1, 4)), start=1, end=3), [[0, 1, 1, 0]])


def test_rank_window_keeps_ranks_10_to_209_by_default() -> None:
    weights = rank_window_weights(-np.arange(250.0)[None])
    assert_array_equal(np.flatnonzero(weights), np.arange(10, 210))


def test_top_k_by_hand() -> None:
    scores = np.array([[0.9, 0.8, -INF], [-0.1, -0.2, -0.3]])
    assert_array_equal(top_k_weights(scores, top_k=2), [[1, 1, 0], [1, 1, 0]])
    assert top_k_weights(np.zeros((1, 60))).sum() == 50


def test_a_strategy_after_a_filter_ranks_what_was_kept() -> None:
    scores = np.array([[0.9, 0.8, 0.7, 0.6]])
    kept = top_k_perc_pos_weights(scores, np.array([0.8])) > 0
    assert_array_equal(top_k_weights(np.where(kept, scores, -INF), top_k=1), [[0, 0, 1, 0]])


def test_top_k_perc_pos_by_hand() -> None:
    # Limits: .8 - .04 = .76, -.8 - .04 = -.84, and 0.
    scores = np.array([[0.90, 0.77, 0.75], [-0.70, -0.83, -0.85], [0.10, 0.00, -0.01]])
    expected = [[0, 0, 1], [0, 0, 1], [0, 0, 1]]
    assert_array_equal(top_k_perc_pos_weights(scores, np.array([0.8, -0.8, 0.0])), expected)


def test_margin_pos_by_hand() -> None:
    scores = np.array([[0.90, 0.76, 0.74], [-0.70, -0.84, -0.86]])
    assert_array_equal(margin_pos_weights(scores, np.array([0.8, -0.8])), [[0, 0, 1], [0, 0, 1]])
    assert_array_equal(margin_pos_weights(scores[:1], np.array([0.8]), margin=0.0), [[0, 1, 1]])


@given(x=inputs(), margin=st.floats(0, 2))
def test_filters_by_the_positive_never_keep_what_scores_above_it(x: Inputs, margin: float) -> None:
    for weights in (
        top_k_perc_pos_weights(x.scores, x.positive, margin=margin),
        margin_pos_weights(x.scores, x.positive, margin=margin),
    ):
        kept = weights > 0
        assert (x.scores < x.positive[:, None])[kept].all()


def test_simans_by_hand() -> None:
    # Dot products: exp(-.5 d^2) of d = 1, 0, -2; the greatest is 1 as it stands.
    scores, positive = np.array([[11.0, 10.0, 8.0]]), np.array([10.0])
    expected = np.exp([[-0.5, 0.0, -2.0]])
    assert_allclose(simans_weights(scores, positive, tau=1.0), expected)
    assert_allclose(simans_weights(scores, positive, a=2.0, tau=1.0), expected**4)
    # One candidate, or all far from the peak: the proportions count, and the greatest is 1.
    assert_array_equal(simans_weights(scores[:, 2:], positive - 500, tau=1.0), [[1.0]])


def test_simans_peak_lies_on_the_side_of_its_sign() -> None:
    scores, positive = np.array([[11.0, 10.0, 9.0]]), np.array([10.0])
    paper = simans_weights(scores, positive, b=1.0, tau=1.0)
    assert_allclose(paper, np.exp([[0.0, -0.5, -2.0]]))
    released_code = simans_weights(scores, positive, b=-1.0, tau=1.0)
    assert_allclose(released_code, np.exp([[-2.0, -0.5, 0.0]]))


@given(x=inputs(), tau=st.floats(0.01, 1), b=st.floats(-2, 2))
def test_simans_weighs_cosines_as_the_dot_products_they_stand_for(x: Inputs, tau: float, b: float) -> None:
    cosines = simans_weights(x.scores, x.positive, b=b, tau=tau)
    dot_products = simans_weights(x.scores / tau, x.positive / tau, b=b, tau=1.0)
    assert_allclose(cosines, dot_products, rtol=1e-6, atol=1e-12)


def test_simans_tells_cosines_apart_by_default() -> None:
    weights = simans_weights(np.array([[0.6, 0.55, 0.4]]), np.array([0.6]))
    assert_allclose(weights, np.exp([[0.0, -0.5, -8.0]]))


def test_trisampler_by_hand() -> None:
    # Angles to the query: positive 60 degrees; candidates about 53, 143 (outside) and 90.
    scores, positive = np.array([[0.6, -0.8, 0.0]]), np.array([0.5])
    between = np.array([[0.9, 0.9, -0.1]])
    expected = [[np.exp(-(0.1**2) / 4) * 0.3, 0.0, 0.0]]
    assert_allclose(trisampler_weights(scores, positive, between), expected)
    everywhere = trisampler_weights(scores, positive, between, max_angle=180)
    assert_allclose(everywhere, [[np.exp(-(0.1**2) / 4) * 0.3, np.exp(-(1.3**2) / 4) * 1.7, 0.0]])


def test_trisampler_bears_cosines_a_little_above_one() -> None:
    weights = trisampler_weights(np.array([[1.0001]]), np.array([1.0001]), np.array([[1.0002]]))
    assert_allclose(weights, [[1e-4]])


def test_passage_sieve_by_hand() -> None:
    # Means with the positive: (.9 + .7 + .5 + .1) / 4 = .55, and (-.1 - .2 - .9) / 3 = -.4.
    scores = np.array([[0.7, 0.5, 0.1], [-0.2, -0.9, -INF]])
    assert_array_equal(passage_sieve_weights(scores, np.array([0.9, -0.1])), [[0, 1, 1], [0, 1, 0]])
    # Only the two best are the query's negatives: the mean is 2 / 3.
    assert_array_equal(passage_sieve_weights(scores[:1], np.array([0.8]), num_negatives=2), [[0, 1, 0]])


def test_passage_sieve_keeps_the_lowest_where_none_is_below_the_mean() -> None:
    scores = np.array([[0.7, 0.7, -INF], [0.1, 0.1, 0.1], [0.3, -INF, -INF], [-INF, -INF, -INF]])
    weights = passage_sieve_weights(scores, np.array([0.2, 0.1, 0.1, 0.5]))
    assert_array_equal(weights, [[0, 1, 0], [0, 0, 1], [1, 0, 0], [0, 0, 0]])
    # The lowest of the negatives, not of all candidates.
    assert_array_equal(passage_sieve_weights(scores[1:2], np.array([0.1]), num_negatives=2), [[0, 1, 0]])


@given(x=inputs())
def test_passage_sieve_leaves_every_query_with_a_candidate_one(x: Inputs) -> None:
    weights = passage_sieve_weights(x.scores, x.positive)
    assert_array_equal((weights > 0).any(axis=1), np.isfinite(x.scores).any(axis=1))


def test_rocketqa_denoise_by_hand() -> None:
    scores = np.array([[0.9, 0.8, 0.7, -INF]])
    probability = np.array([[0.09, 0.10, 0.01, NAN]])
    assert_array_equal(rocketqa_denoise_weights(scores, probability), [[1, 0, 1, 0]])
    assert_array_equal(rocketqa_denoise_weights(scores, probability, top_k=2), [[1, 0, 0, 0]])
    assert rocketqa_denoise_weights(np.zeros((1, 60)), np.zeros((1, 60))).sum() == 50


def test_oracle_by_hand() -> None:
    scores = np.array([[0.9, 0.8, -INF], [0.5, 0.4, 0.3]])
    false_negative = np.array([[True, False, True], [True, True, True]])
    assert_array_equal(oracle_weights(scores, false_negative), [[0, 1, 0], [0, 0, 0]])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda s, p: rank_window_weights(s, start=5, end=5), "0 <= start < end, got 5 and 5"),
        (lambda s, p: rank_window_weights(s, start=-1), "0 <= start < end, got -1 and 210"),
        (lambda s, p: top_k_weights(s, top_k=0), "top_k must be at least 1, got 0"),
        (lambda s, p: top_k_perc_pos_weights(s, p, margin=-0.1), "margin must be .* at least 0, got -0.1"),
        (lambda s, p: margin_pos_weights(s, p, margin=NAN), "margin must be .* at least 0, got nan"),
        (lambda s, p: simans_weights(s, p, a=0.0), "a must be positive, got 0.0"),
        (lambda s, p: simans_weights(s, p, tau=-1.0), "tau must be positive, got -1.0"),
        (lambda s, p: simans_weights(s, p, b=INF), "b must be finite, got inf"),
        (lambda s, p: trisampler_weights(s, p, s, max_angle=200), "in degrees, in .0, 180., got 200"),
        (lambda s, p: trisampler_weights(s * 9, p, s), "^scores must be in .* 1 of 2 .* is 4.5"),
        (lambda s, p: trisampler_weights(s, p * 9, s), "positive_scores must be in"),
        (lambda s, p: trisampler_weights(s, p, s * NAN), "positive_candidate_scores must be in"),
        (lambda s, p: passage_sieve_weights(s, p, num_negatives=0), "num_negatives must be at least 1"),
        (
            lambda s, p: rocketqa_denoise_weights(s, s - 1),
            r"relevance_probability must be in \[0, 1\]; 2 of 2",
        ),
        (lambda s, p: rocketqa_denoise_weights(s, s * NAN), "relevance_probability must be in"),
        (lambda s, p: rocketqa_denoise_weights(s, s, threshold=0), "threshold must be positive, got 0"),
        (lambda s, p: rocketqa_denoise_weights(s, s, top_k=0), "top_k must be at least 1, got 0"),
        (lambda s, p: oracle_weights(s, s), "false_negative must be boolean, got float64"),
    ],
)
def test_illegal_arguments_are_refused(call: Callable, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call(np.array([[0.5, 0.1]]), np.array([0.6]))


def test_draws_are_in_proportion_to_weights_of_any_scale() -> None:
    weights = np.array([[300.0, 100.0, 0.0]])
    places = draw(weights, 1, rng=np.random.default_rng(0), query_rows=np.zeros(30_000, dtype=int))
    assert_allclose(np.bincount(places[:, 0], minlength=3) / 30_000, [0.75, 0.25, 0.0], atol=0.01)


def test_draws_are_distinct_where_there_are_enough() -> None:
    weights = np.array([[1.0, 0.0, 1e-6, 1.0], [0.0, 2.0, 0.0, 0.0]])
    places = draw(weights, 3, rng=np.random.default_rng(0))
    assert sorted(places[0]) == [0, 2, 3]
    assert places[1].tolist() == [1, 1, 1]


@pytest.mark.parametrize(
    ("weights", "arguments", "message"),
    [
        ([1.0], {}, r"weights must be \(n, k\).* got shape \(1,\)"),
        ([[-1.0]], {}, "finite and at least 0"),
        ([[NAN]], {}, "finite and at least 0"),
        ([[1.0]], {"num_negatives": 0}, "num_negatives must be at least 1, got 0"),
        ([[1.0]], {"query_rows": np.array([0, 1])}, r"query_rows must be in \[0, 1\), got 0 to 1"),
        ([[1.0], [0.0]], {}, "1 of 2 have none, the first is row 1"),
        ([[1.0], [0.0]], {"query_rows": np.array([1]), "query_ids": ["a", "b"]}, "1 of 1 .* first is 'b'"),
    ],
)
def test_illegal_draws_are_refused(weights: list, arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        draw(np.array(weights), **{"num_negatives": 1, "rng": np.random.default_rng(0)} | arguments)
