"""Heuristics of false negatives: margins and similarities to the positive."""

from __future__ import annotations

import numpy as np
import pytest

from rrra_hf.comparison import margin_to_positive, perc_pos_margin, similarity_to_positive
from rrra_hf.labels import best_positive_scores


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
        with pytest.raises(ValueError, match=r"one entry per query \(1\), got 2"):
            similarity_to_positive(np.eye(2), np.array([[0]]), [np.array([1]), np.array([0])])
        with pytest.raises(
            ValueError, match="at least one document per query; 1 queries have none, the first is 1"
        ):
            best_positive_scores(np.eye(2), np.eye(2), [np.array([1]), np.array([], dtype=int)])
