"""Detection and calibration of hidden positives, against definitions and scikit-learn."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score

from rrra_hf.evaluation import calibration_quality, detection_quality


def random_pairs(seed=0, n=30, k=20, rate=0.1):
    rng = np.random.default_rng(seed)
    hidden = rng.random((n, k)) < rate
    return rng.normal(size=(n, k)) + hidden, hidden


def flags(rows):
    return np.array(rows, dtype=bool)


class TestDetection:
    def test_measures_of_a_known_ranking(self):
        # Ranked: hidden, not, hidden, not: precision 1 and 2/3 at the hits; 3 of 4 pairs in order.
        quality = detection_quality(np.array([[4.0, 3.0], [2.0, 1.0]]), flags([[1, 0], [1, 0]]))
        assert quality.average_precision == pytest.approx((1 + 2 / 3) / 2)
        assert quality.auroc == 0.75
        assert quality.base_rate == 0.5
        assert (quality.num_pairs, quality.num_queries) == (4, 2)
        assert quality.precision_at_1_percent == quality.precision_at_5_percent == 1.0

    def test_measures_agree_with_scikit_learn(self):
        scores, hidden = random_pairs()
        scores = scores.round(1)
        quality = detection_quality(scores, hidden, resamples=10)
        assert quality.average_precision == average_precision_score(hidden.ravel(), scores.ravel())
        assert quality.auroc == roc_auc_score(hidden.ravel(), scores.ravel())

    def test_precision_at_the_top_counts_the_pairs(self):
        scores = -np.arange(200.0).reshape(2, 100)
        hidden = np.zeros((2, 100), dtype=bool)
        hidden[0, [0, 5, 6]] = True
        quality = detection_quality(scores, hidden)
        assert quality.precision_at_1_percent == 1 / 2
        assert quality.precision_at_5_percent == 3 / 10

    def test_precision_among_equals_is_the_expectation_over_their_orders(self):
        # The top 5 of 100 pairs: 2 distinct ones (1 hidden) and 3 of 8 with equal scores (2 hidden).
        scores = np.zeros((1, 100))
        scores[0, :10] = [3, 2, *[1] * 8]
        hidden = np.zeros((1, 100), dtype=bool)
        hidden[0, [0, 2, 3]] = True
        quality = detection_quality(scores, hidden)
        assert quality.precision_at_5_percent == pytest.approx((1 + 3 * 2 / 8) / 5)

    def test_a_score_that_tells_nothing_gets_the_base_rate(self):
        quality = detection_quality(np.zeros((4, 25)), np.arange(100).reshape(4, 25) % 10 == 0)
        assert quality.average_precision == quality.base_rate == pytest.approx(0.1)
        assert quality.auroc == 0.5
        assert quality.precision_at_1_percent == quality.precision_at_5_percent == pytest.approx(0.1)

    def test_pairs_outside_the_mask_do_not_count(self):
        scores, hidden = random_pairs()
        mask = np.random.default_rng(1).random(scores.shape) < 0.7
        mask[3] = False
        spoilt = np.where(mask, scores, np.nan)
        quality = detection_quality(spoilt, hidden, mask, resamples=10)
        assert quality.average_precision == average_precision_score(hidden[mask], scores[mask])
        assert quality.num_pairs == mask.sum()
        assert quality.num_queries == 29

    @given(st.integers(0, 1000))
    @settings(max_examples=20, deadline=None)
    def test_measures_depend_on_the_order_of_scores_alone(self, seed):
        scores, hidden = random_pairs(seed, n=5, k=10, rate=0.3)
        hidden[0, :2] = [True, False]
        order = np.random.default_rng(seed).permutation(5)
        quality = detection_quality(scores, hidden, resamples=5)
        assert detection_quality(np.exp(scores), hidden, resamples=5) == quality
        shuffled = detection_quality(scores[order], hidden[order], resamples=5)
        assert shuffled.average_precision == pytest.approx(quality.average_precision)
        assert shuffled.auroc == pytest.approx(quality.auroc)
        flipped = detection_quality(-scores, hidden, resamples=5)
        assert flipped.auroc == pytest.approx(1 - quality.auroc)


class TestAveragePrecisionInterval:
    def test_the_interval_is_the_middle_95_percent_of_resamples_as_scikit_learn_scores_them(self):
        scores, hidden = random_pairs(n=8)
        scores = scores.round(1)
        quality = detection_quality(scores, hidden, resamples=200, seed=4)
        rng = np.random.default_rng(4)
        resampled = []
        for _ in range(200):
            times = np.bincount(rng.integers(0, 8, 8), minlength=8).repeat(20)
            resampled.append(average_precision_score(hidden.ravel(), scores.ravel(), sample_weight=times))
        assert quality.average_precision_interval == pytest.approx(np.quantile(resampled, [0.025, 0.975]))
        low, high = quality.average_precision_interval
        assert low < quality.average_precision < high

    def test_resamples_without_a_hidden_positive_do_not_spoil_the_interval(self):
        # The only query with a hidden positive is missing from (2/3)^3 of the resamples.
        hidden = np.zeros((3, 5), dtype=bool)
        hidden[0, 0] = True
        scores = np.tile(np.arange(5.0, 0, -1), (3, 1))
        assert np.isfinite(detection_quality(scores, hidden).average_precision_interval).all()

    def test_resamples_of_a_thousand_queries_take_less_time_than_of_scikit_learn(self):
        scores, hidden = random_pairs(n=1000, k=100, rate=0.02)
        start = time.process_time()
        for _ in range(3):
            average_precision_score(hidden.ravel(), scores.ravel())
        one = (time.process_time() - start) / 3
        start = time.process_time()
        detection_quality(scores, hidden)
        assert time.process_time() - start < 500 * one  # for 1,000 resamples


class TestCalibration:
    def test_calibrated_probabilities(self):
        rng = np.random.default_rng(0)
        probabilities = rng.random((500, 100)) ** 3
        quality = calibration_quality(probabilities, rng.random((500, 100)) < probabilities)
        assert quality.expected_calibration_error < 0.01
        assert quality.brier_score == pytest.approx((probabilities * (1 - probabilities)).mean(), abs=0.005)
        np.testing.assert_allclose(quality.bins.share, quality.bins.mean_probability, atol=0.03)

    def test_the_error_is_the_mean_gap_of_the_reliability_plot(self):
        rng = np.random.default_rng(0)
        mask = rng.random((20, 30)) < 0.8
        probabilities = np.where(mask, rng.random((20, 30)), np.nan)
        quality = calibration_quality(probabilities, rng.random((20, 30)) < 0.2, mask, bins=7)
        gaps = np.abs(quality.bins.mean_probability - quality.bins.share)
        assert quality.expected_calibration_error == pytest.approx(
            np.average(gaps, weights=quality.bins.num_pairs)
        )
        assert quality.bins.num_pairs.sum() == mask.sum()
        assert (np.diff(quality.bins.mean_probability) >= 0).all()
        assert len(quality.bins.share) == 7

    def test_overconfidence_of_known_size(self):
        quality = calibration_quality(np.full((1, 10), 0.9), flags([[1, *[0] * 9]]), bins=1)
        assert quality.expected_calibration_error == pytest.approx(0.8)
        assert quality.brier_score == pytest.approx((0.1**2 + 9 * 0.9**2) / 10)

    def test_scores_that_are_no_probabilities_are_refused(self):
        with pytest.raises(ValueError, match=r"probabilities must be in \[0, 1\]; 1 of 2 .* 1.5"):
            calibration_quality(np.array([[0.5, 1.5]]), flags([[1, 0]]))
        with pytest.raises(ValueError, match="bins must be at least 1, got 0"):
            calibration_quality(np.array([[0.5, 0.5]]), flags([[1, 0]]), bins=0)


@pytest.mark.parametrize("measure", [detection_quality, calibration_quality])
class TestIllegalInput:
    @pytest.mark.parametrize(
        ("scores", "hidden", "mask", "message"),
        [
            (np.zeros((2, 2)), np.zeros((2, 2), bool), None, "4 pairs without a hidden positive"),
            (
                np.zeros((1, 2)),
                flags([[1, 0]]),
                flags([[0, 1]]),
                "hidden must be True for at least one pair .*got 1 pairs ",
            ),
            (np.zeros((1, 2)), flags([[1, 0]]), flags([[0, 0]]), "0 pairs without a hidden positive"),
            (np.zeros(2), flags([1, 0]), None, r"must have shape \(n, k\), one row per query, got \(2,\)"),
            (np.zeros((1, 2)), flags([[1]]), None, r"hidden must have shape \(1, 2\).*got \(1, 1\)"),
            (np.zeros((1, 2)), flags([[1, 0]]), flags([1, 1]), r"mask must have shape \(1, 2\).*got \(2,\)"),
            (np.zeros((1, 2)), np.array([[1, 0]]), None, "hidden must be boolean, got int64"),
            (np.zeros((1, 2)), flags([[1, 0]]), np.array([[1, 1]]), "mask must be boolean, got int64"),
            (np.array([[0.5, np.nan]]), flags([[1, 0]]), None, "must be finite where mask is True; 1 of 2"),
            (np.array([[0.5, -np.inf]]), flags([[1, 0]]), None, "must be finite where mask is True; 1 of 2"),
        ],
    )
    def test_is_refused(self, measure, scores, hidden, mask, message):
        with pytest.raises(ValueError, match=message):
            measure(scores, hidden, mask)


def test_detection_needs_a_pair_that_is_not_hidden():
    with pytest.raises(ValueError, match="hidden must be False for some pair, all 2 are True"):
        detection_quality(np.zeros((1, 2)), flags([[1, 1]]))
