import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import permutation_test

from rrra_hf.evaluation import compare_paired, holm, randomisation_test

QUALITIES = st.lists(st.tuples(st.integers(0, 10), st.integers(0, 10)), min_size=2, max_size=30)


@pytest.mark.parametrize(
    ("differences", "expected"),
    [
        ([1.0, 2.0, 3.0], 2 / 8),  # only all up and all down are as far from 0
        ([-1.0, 2.0, 3.0], 4 / 8),  # |sum| 6, 4, 4, 2 and their mirrors; seen: 4
        ([1.0, 2.0, -3.0], 8 / 8),  # the sum seen is 0
        ([1.0, -2.0, 3.0], 6 / 8),  # seen: 2; 0 is not as far
        ([0.1, 0.2, -0.3], 8 / 8),  # 0 in exact arithmetic, 6e-17 in floating point
        ([5.0], 1.0),
        ([0.0, 0.0, 5.0, 5.0], 2 / 4),
    ],
)
def test_few_queries_are_tested_exactly(differences, expected):
    assert randomisation_test(np.array(differences)) == expected


@pytest.mark.parametrize("scale", [0.1, 0.3, 0.7, 1 / 3])
def test_sums_equal_on_paper_count_as_equal(scale):
    # 2 + 3 - 1 = 4 = 1 + 2 + 4 - 3 at any scale, but the scaled sums differ by rounding.
    for differences in ([-1.0, 2.0, 3.0], [1.0, 2.0, -3.0, 4.0], [-7.0, 3.0, 6.0, 2.0, 5.0]):
        expected = randomisation_test(np.array(differences))
        assert randomisation_test(scale * np.array(differences)) == expected


def test_exact_p_value_agrees_with_scipy():
    differences = np.random.default_rng(0).normal(0.3, 1, 11)
    theirs = permutation_test((differences,), np.mean, permutation_type="samples", n_resamples=10_000)
    assert randomisation_test(differences) == pytest.approx(theirs.pvalue)


def test_sampled_p_value_is_near_the_exact_one_and_depends_on_the_seed_alone():
    differences = np.random.default_rng(1).normal(0.3, 1, 16)
    exact = randomisation_test(differences, resamples=2**16)
    sampled = randomisation_test(differences, resamples=20_000, seed=5)
    assert sampled == pytest.approx(exact, abs=4 * np.sqrt(exact / 20_000))
    assert sampled == randomisation_test(differences, resamples=20_000, seed=5)
    assert sampled != randomisation_test(differences, resamples=20_000, seed=6)


def test_sampled_p_value_is_never_zero():
    assert randomisation_test(np.ones(500), resamples=99) == 1 / 100


def test_p_values_of_equal_systems_are_uniform():
    rng = np.random.default_rng(0)
    p_values = [randomisation_test(rng.standard_t(3, 40), resamples=400, seed=i) for i in range(400)]
    for level in (0.05, 0.2, 0.5):
        assert np.mean(np.array(p_values) <= level) == pytest.approx(level, abs=0.06)


def test_identical_systems_do_not_differ():
    qualities = np.random.default_rng(0).random(50)
    assert compare_paired(qualities, qualities) == (0.0, (0.0, 0.0), 1.0, 50)


def test_seeds_are_averaged_per_query():
    rng = np.random.default_rng(0)
    system, baseline = rng.random((3, 40)), rng.random((2, 40))
    assert compare_paired(system, baseline) == compare_paired(system.mean(0), baseline.mean(0))


def test_the_same_runs_in_another_order_of_seeds_do_not_differ():
    runs = np.random.default_rng(0).random((3, 40))
    assert compare_paired(runs, runs[[2, 0, 1]]).p_value == 1.0


def test_a_constant_gain_has_a_point_as_interval():
    result = compare_paired(np.full(20, 0.75), np.full(20, 0.5))
    assert result.difference == 0.25
    assert result.interval == (0.25, 0.25)
    assert result.p_value == pytest.approx(1 / 10_001, abs=1e-3)


def test_the_interval_covers_the_true_mean_as_often_as_it_says():
    # Skewed and mostly zero, as differences of nDCG are: mean .3 * .5 = .15.
    rng = np.random.default_rng(0)
    covered = 0
    for i in range(300):
        differences = rng.exponential(0.5, 100) * (rng.random(100) < 0.3)
        low, high = compare_paired(differences, np.zeros(100), resamples=500, confidence=0.9, seed=i).interval
        covered += low <= 0.15 <= high
    assert covered / 300 == pytest.approx(0.9, abs=0.05)


def test_the_interval_of_a_normal_mean_is_the_textbook_one():
    differences = np.random.default_rng(0).normal(0.1, 0.2, 1000)
    low, high = compare_paired(differences, np.zeros(1000)).interval
    half = 1.96 * differences.std() / np.sqrt(1000)
    assert low == pytest.approx(differences.mean() - half, abs=0.1 * half)
    assert high == pytest.approx(differences.mean() + half, abs=0.1 * half)


@settings(max_examples=40, deadline=None)
@given(QUALITIES, st.integers(0, 2**32 - 1))
def test_a_comparison_is_symmetric_and_knows_no_order_of_queries(pairs, seed):
    system, baseline = np.array(pairs, dtype=float).T / 10
    result = compare_paired(system, baseline, resamples=200)
    mirrored = compare_paired(baseline, system, resamples=200)
    order = np.random.default_rng(seed).permutation(len(system))
    assert compare_paired(system[order], baseline[order], resamples=200) == result
    assert mirrored.difference == pytest.approx(-result.difference, abs=1e-12)
    assert mirrored.p_value == result.p_value
    assert 0 < result.p_value <= 1
    assert np.isfinite(result.interval).all()
    assert result.interval[0] <= result.interval[1]


def test_two_thousand_queries_take_little_more_time_than_drawing_their_resamples():
    rng = np.random.default_rng(0)
    differences = rng.normal(0.01, 0.2, 2000)
    start = time.process_time()
    for _ in range(100):
        rng.integers(0, 2000, size=(100, 2000))
    draws = time.process_time() - start
    start = time.process_time()
    compare_paired(differences, np.zeros(2000))
    assert time.process_time() - start < 20 * draws


def test_holm_of_known_p_values():
    np.testing.assert_allclose(holm([0.01, 0.04, 0.03, 0.005]), [0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.9]).tolist() == [1.0, 1.0]
    assert holm([0.2]).tolist() == [0.2]
    assert holm([]).tolist() == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_holm_lies_between_the_raw_p_values_and_bonferroni(p_values):
    raw, adjusted = np.array(p_values), holm(p_values)
    assert (adjusted >= raw).all()
    assert (adjusted <= np.minimum(raw * len(raw), 1)).all()
    assert (np.diff(adjusted[np.argsort(raw, kind="stable")]) >= 0).all()


@pytest.mark.parametrize(
    ("system", "baseline", "options", "message"),
    [
        (np.ones(3), np.ones(4), {}, "same queries, at least 2, got 3 and 4"),
        (np.ones(1), np.ones(1), {}, "at least 2, got 1 and 1"),
        (np.ones((2, 2, 2)), np.ones(2), {}, r"system must have shape .*got \(2, 2, 2\)"),
        (np.ones(2), np.ones((0, 2)), {}, r"baseline must have shape .*got \(0, 2\)"),
        (np.ones(2), np.array([1, np.nan]), {}, "baseline must be finite, 1 of 2"),
        (np.ones(2), np.ones(2), {"confidence": 95}, r"confidence must be in \(0, 1\), got 95"),
        (np.ones(2), np.ones(2), {"resamples": 0}, "resamples must be at least 1, got 0"),
    ],
)
def test_comparisons_that_make_no_sense_are_refused(system, baseline, options, message):
    with pytest.raises(ValueError, match=message):
        compare_paired(system, baseline, **options)


def test_illegal_differences_and_p_values_are_refused():
    with pytest.raises(ValueError, match=r"differences must be finite, .*1 not finite"):
        randomisation_test(np.array([0.1, np.inf]))
    with pytest.raises(ValueError, match=r"differences .*got \(1, 2\)"):
        randomisation_test(np.zeros((1, 2)))
    with pytest.raises(ValueError, match="resamples must be at least 1"):
        randomisation_test(np.zeros(3), resamples=0)
    with pytest.raises(ValueError, match=r"p_values must be in \[0, 1\]; 1 of 2"):
        holm([0.5, 1.5])
    with pytest.raises(ValueError, match="p_values must be in"):
        holm([np.nan])
    with pytest.raises(ValueError, match=r"p_values must have shape \(n,\)"):
        holm(np.zeros((2, 2)))
