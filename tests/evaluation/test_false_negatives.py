import time

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score

from rrra_hf.comparison import (
    hide_positives,
    inject_positives,
    margin_to_positive,
    near_duplicate_embeddings,
    near_duplicate_texts,
    perc_pos_margin,
    similarity_to_positive,
)
from rrra_hf.evaluation import average_precision_resamples, calibration_quality, detection_quality, membership
from rrra_hf.labels import best_positive_scores

POSITIVES = st.lists(st.lists(st.integers(0, 40), max_size=6).map(np.array), min_size=1, max_size=10)


def flags(rows):
    return np.array(rows, dtype=bool)


def random_pairs(seed=0, n=30, k=20, rate=0.1):
    rng = np.random.default_rng(seed)
    hidden = rng.random((n, k)) < rate
    return rng.normal(size=(n, k)) + hidden, hidden


class TestHidingPositives:
    @given(POSITIVES.filter(lambda lists: any(len(np.unique(rows)) > 1 for rows in lists)), st.integers(0, 9))
    def test_one_positive_is_kept_and_the_others_are_hidden(self, positives, seed):
        kept, hidden = hide_positives(positives, np.random.default_rng(seed))
        for rows, one, others in zip(positives, kept, hidden, strict=True):
            assert sorted([*one, *others]) == sorted(set(rows.tolist()))
            assert len(one) == min(1, len(rows))

    def test_every_positive_is_kept_equally_often(self):
        rng = np.random.default_rng(0)
        kept = np.concatenate([hide_positives([np.array([3, 5, 8])], rng).kept[0] for _ in range(3000)])
        assert np.unique(kept, return_counts=True)[1] / 3000 == pytest.approx(1 / 3, abs=0.04)

    def test_the_same_seed_hides_the_same(self):
        positives = [np.arange(10)] * 5
        first, second = (hide_positives(positives, np.random.default_rng(3)) for _ in range(2))
        assert [rows.tolist() for rows in first.hidden] == [rows.tolist() for rows in second.hidden]

    def test_nothing_to_hide_is_an_error(self):
        with pytest.raises(ValueError, match="positives must have a query with at least 2, none of the 2"):
            hide_positives([np.array([1, 1]), np.array([2])], np.random.default_rng(0))


class TestInjection:
    @given(POSITIVES.filter(lambda lists: any(map(len, lists))), st.floats(0.5, 1), st.integers(0, 9))
    def test_a_known_share_of_labelled_documents_gets_a_duplicate(self, positives, rate, seed):
        positives = [rows.astype(np.int32) for rows in positives]
        labelled = np.unique(np.concatenate(positives))
        assume(round(rate * len(labelled)) > 0)
        sources, hidden = inject_positives(positives, 41, rate, np.random.default_rng(seed))
        assert len(set(sources.tolist())) == len(sources) == round(rate * len(labelled))
        for rows, duplicates in zip(positives, hidden, strict=True):
            assert sorted(sources[duplicates - 41].tolist()) == sorted(
                set(rows.tolist()) & set(sources.tolist())
            )

    @settings(deadline=None)
    @given(st.floats(0, 1), st.integers(2, 50), st.integers(0, 9))
    def test_duplicates_lie_at_the_cosine_asked_for(self, cosine, dim, seed):
        rng = np.random.default_rng(seed)
        embeddings = rng.normal(size=(7, dim))
        duplicates = near_duplicate_embeddings(embeddings, cosine, rng)
        lengths = np.linalg.norm(embeddings, axis=1)
        np.testing.assert_allclose(np.linalg.norm(duplicates, axis=1), lengths)
        np.testing.assert_allclose((embeddings * duplicates).sum(1) / lengths**2, cosine, atol=1e-9)

    def test_duplicates_keep_the_type_of_the_embeddings(self):
        embeddings = np.eye(4, dtype=np.float32)
        assert near_duplicate_embeddings(embeddings, 0.9, np.random.default_rng(0)).dtype == np.float32

    @given(
        st.lists(st.sampled_from("abcdefghij"), min_size=2, max_size=30),
        st.floats(0.01, 0.99),
        st.integers(0, 9),
    )
    def test_changed_texts_hold_some_of_the_words(self, words, share, seed):
        (text,) = near_duplicate_texts([" ".join(words)], np.random.default_rng(seed), share=share)
        left = text.split()
        assert len(left) == len(words) - min(max(1, round(share * len(words))), len(words) - 1)
        assert all(left.count(word) <= words.count(word) for word in left)

    def test_texts_too_short_to_change_stay(self):
        assert near_duplicate_texts(["word", ""], np.random.default_rng(0)) == ["word", ""]

    @pytest.mark.parametrize("rate", [0.0, -0.5, 1.5, np.nan, 0.1])
    def test_a_rate_that_chooses_nothing_is_refused(self, rate):
        with pytest.raises(
            ValueError, match=rf"rate must be in \(0, 1\] .* the 2 labelled documents, got {rate}"
        ):
            inject_positives([np.array([0, 1])], 2, rate, np.random.default_rng(0))

    def test_rows_outside_the_corpus_are_refused(self):
        with pytest.raises(ValueError, match="rows of the 2 documents, got 0 to 2"):
            inject_positives([np.array([0, 2])], 2, 1.0, np.random.default_rng(0))

    @pytest.mark.parametrize(
        ("embeddings", "cosine", "message"),
        [
            (np.eye(2), 1.1, r"cosine must be in \[0, 1\].*1.1"),
            (np.eye(2), np.nan, "cosine must be in"),
            (np.ones(3), 0.9, r"embeddings must have shape \(j, dim\), dim at least 2, got \(3,\)"),
            (np.ones((3, 1)), 0.9, r"got \(3, 1\)"),
            (np.array([[0.0, 0.0], [1.0, 0.0]]), 0.9, "finite and not 0, 1 of 2"),
            (np.array([[np.nan, 0.0]]), 0.9, "finite and not 0, 1 of 1"),
        ],
    )
    def test_illegal_embeddings_are_refused(self, embeddings, cosine, message):
        with pytest.raises(ValueError, match=message):
            near_duplicate_embeddings(embeddings, cosine, np.random.default_rng(0))

    def test_an_illegal_share_is_refused(self):
        with pytest.raises(ValueError, match=r"share must be in \(0, 1\), got 1"):
            near_duplicate_texts(["a b"], np.random.default_rng(0), share=1)


class TestMembership:
    def test_empty_places_are_never_members(self):
        candidates = np.array([[1, 2, -1], [1, 2, 3]])
        documents = [np.array([2, -1]), np.array([], dtype=np.int32)]
        assert membership(candidates, documents).tolist() == [[False, True, False], [False] * 3]

    def test_shapes_must_match(self):
        with pytest.raises(ValueError, match=r"candidates must have shape \(1, k\), .*got \(2, 2\)"):
            membership(np.zeros((2, 2), dtype=int), [np.array([1])])


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
        # The best 5 of 100: 2 that stand out, 1 of them hidden, and 3 of the 8 equals, 2 of them hidden.
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
    def test_resamples_agree_with_scikit_learn_weighted_by_query(self):
        scores, hidden = random_pairs(n=8)
        scores = scores.round(1)
        ours = average_precision_resamples(scores, hidden, resamples=20, seed=4)
        rng = np.random.default_rng(4)
        for value in ours:
            times = np.bincount(rng.integers(0, 8, 8), minlength=8).repeat(20)
            theirs = average_precision_score(hidden.ravel(), scores.ravel(), sample_weight=times)
            assert value == pytest.approx(theirs)

    def test_the_interval_is_the_middle_95_percent_of_the_resamples(self):
        scores, hidden = random_pairs()
        quality = detection_quality(scores, hidden, resamples=200, seed=1)
        spread = average_precision_resamples(scores, hidden, resamples=200, seed=1)
        assert quality.average_precision_interval == pytest.approx(np.quantile(spread, [0.025, 0.975]))
        assert spread.std() > 0
        low, high = quality.average_precision_interval
        assert low < quality.average_precision < high

    def test_two_scores_of_the_same_order_see_the_same_resamples(self):
        scores, hidden = random_pairs()
        first, second = (average_precision_resamples(s, hidden, resamples=30) for s in (scores, 3 * scores))
        np.testing.assert_array_equal(first, second)

    def test_resamples_without_a_hidden_positive_do_not_spoil_the_interval(self):
        hidden = np.zeros((3, 5), dtype=bool)
        hidden[0, 0] = True
        scores = np.tile(np.arange(5.0, 0, -1), (3, 1))
        spread = average_precision_resamples(scores, hidden, resamples=300)
        assert np.isnan(spread).mean() == pytest.approx((2 / 3) ** 3, abs=0.1)
        assert np.isfinite(detection_quality(scores, hidden).average_precision_interval).all()

    def test_a_thousand_queries_take_a_few_seconds(self):
        scores, hidden = random_pairs(n=1000, k=100, rate=0.02)
        start = time.process_time()
        detection_quality(scores, hidden)
        assert time.process_time() - start < 6


class TestCalibration:
    def test_calibrated_probabilities(self):
        rng = np.random.default_rng(0)
        probabilities = rng.random((500, 100)) ** 3
        quality = calibration_quality(probabilities, rng.random((500, 100)) < probabilities)
        assert quality.expected_calibration_error < 0.01
        assert quality.brier_score == pytest.approx((probabilities * (1 - probabilities)).mean(), abs=0.005)
        np.testing.assert_allclose(quality.share, quality.mean_probability, atol=0.03)

    def test_the_error_is_the_mean_gap_of_the_reliability_plot(self):
        rng = np.random.default_rng(0)
        mask = rng.random((20, 30)) < 0.8
        probabilities = np.where(mask, rng.random((20, 30)), np.nan)
        quality = calibration_quality(probabilities, rng.random((20, 30)) < 0.2, mask, bins=7)
        gaps = np.abs(quality.mean_probability - quality.share)
        assert quality.expected_calibration_error == pytest.approx(
            np.average(gaps, weights=quality.num_pairs)
        )
        assert quality.num_pairs.sum() == mask.sum()
        assert (np.diff(quality.mean_probability) >= 0).all()
        assert len(quality.share) == 7

    def test_overconfidence_of_known_size(self):
        quality = calibration_quality(np.full((1, 10), 0.9), flags([[1, *[0] * 9]]), bins=1)
        assert quality.expected_calibration_error == pytest.approx(0.8)
        assert quality.brier_score == pytest.approx((0.1**2 + 9 * 0.9**2) / 10)

    def test_scores_that_are_no_probabilities_are_refused(self):
        with pytest.raises(ValueError, match=r"probabilities must be in \[0, 1\]; 1 of 2 .* 1.5"):
            calibration_quality(np.array([[0.5, 1.5]]), flags([[1, 0]]))
        with pytest.raises(ValueError, match="bins must be at least 1, got 0"):
            calibration_quality(np.array([[0.5, 0.5]]), flags([[1, 0]]), bins=0)


@pytest.mark.parametrize("measure", [detection_quality, average_precision_resamples, calibration_quality])
class TestIllegalInput:
    @pytest.mark.parametrize(
        ("scores", "hidden", "mask", "message"),
        [
            (np.zeros((2, 2)), np.zeros((2, 2), bool), None, "no hidden positive is among the candidates"),
            (
                np.zeros((1, 2)),
                flags([[1, 0]]),
                flags([[0, 1]]),
                "hidden must be True for some pair .*of the 1 ",
            ),
            (np.zeros((1, 2)), flags([[1, 0]]), flags([[0, 0]]), "none of the 0 is"),
            (np.zeros(2), flags([1, 0]), None, r"must have shape \(n, k\), one row a query, got \(2,\)"),
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


class TestHeuristics:
    def test_margins_order_as_differences_and_ratios(self):
        scores, positives = np.array([[0.8, 0.4], [0.3, 0.2]]), np.array([0.8, 0.4])
        np.testing.assert_allclose(margin_to_positive(scores, positives), [[0, -0.4], [-0.1, -0.2]])
        np.testing.assert_allclose(perc_pos_margin(scores, positives), scores / positives[:, None] - 1)

    def test_the_relative_margin_is_right_for_negative_scores(self):
        assert perc_pos_margin(np.array([[-0.25, -1.0]]), np.array([-0.5])).tolist() == [[0.5, -1.0]]

    def test_empty_places_stay_empty(self):
        scores = np.array([[0.5, -np.inf]])
        assert margin_to_positive(scores, np.array([0.5])).tolist() == [[0.0, -np.inf]]
        assert perc_pos_margin(scores, np.array([0.5])).tolist() == [[0.0, -np.inf]]

    def test_similarity_is_to_the_nearest_positive(self):
        rng = np.random.default_rng(0)
        documents = rng.normal(size=(9, 4)).astype(np.float32)
        candidates = np.array([[4, 5, 6], [7, 8, -1]])
        positives = [np.array([0]), np.array([1, 2, 3])]
        expected = np.array(
            [
                [documents[0] @ documents[c] for c in (4, 5, 6)],
                [max(documents[p] @ documents[c] for p in (1, 2, 3)) for c in (7, 8)] + [-np.inf],
            ]
        )
        np.testing.assert_allclose(
            similarity_to_positive(documents, candidates, positives), expected, rtol=1e-5
        )

    def test_the_best_positive_is_taken(self):
        queries, documents = np.array([[1.0, 2.0]]), np.array([[1.0, 0.0], [0.0, 1.0], [9.0, 9.0]])
        assert best_positive_scores(queries, documents, [np.array([0, 1])]).tolist() == [2.0]

    def test_what_makes_no_sense_is_refused(self):
        with pytest.raises(ValueError, match=r"positive_scores must not be 0; 1 are, the first is 1"):
            perc_pos_margin(np.ones((2, 1)), np.array([1.0, 0.0]))
        with pytest.raises(ValueError, match="scores must be finite"):
            margin_to_positive(np.array([[np.nan]]), np.array([1.0]))
        with pytest.raises(ValueError, match=r"positive_scores must have shape \(1,\)"):
            margin_to_positive(np.array([[1.0]]), np.array([1.0, 2.0]))
        with pytest.raises(ValueError, match=r"one entry a query \(1\), got 2"):
            similarity_to_positive(np.eye(2), np.array([[0]]), [np.array([1]), np.array([0])])
        with pytest.raises(
            ValueError, match="at least one document a query; 1 queries have none, the first is 1"
        ):
            best_positive_scores(np.eye(2), np.eye(2), [np.array([1]), np.array([], dtype=int)])


def test_hidden_positives_are_found_from_end_to_end():
    rng = np.random.default_rng(0)
    queries = rng.normal(size=(40, 16))
    positives = [np.arange(4 * i, 4 * i + 4) for i in range(40)]
    documents = queries.repeat(4, axis=0) + 0.8 * rng.normal(size=(160, 16))
    kept, hidden = hide_positives(positives, rng)
    sources, duplicates = inject_positives(kept, len(documents), 0.5, rng)
    documents = np.concatenate([documents, near_duplicate_embeddings(documents[sources], 0.95, rng)])
    candidates = np.argsort(-(queries @ documents.T), axis=1)[:, :30]
    truth = membership(candidates, hidden) | membership(candidates, duplicates)
    unlabelled = ~membership(candidates, kept)
    scores = similarity_to_positive(documents, candidates, kept)
    quality = detection_quality(scores, truth, unlabelled, resamples=50)
    assert quality.num_pairs == unlabelled.sum() < candidates.size
    assert quality.average_precision > 3 * quality.base_rate
