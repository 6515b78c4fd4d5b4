"""Positives that are hidden or put in are those that a search then finds unlabelled."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from rrra_hf.comparison import (
    hide_positives,
    inject_positives,
    near_duplicate_texts,
    similarity_to_positive,
)
from rrra_hf.evaluation import detection_quality, membership

POSITIVES = st.lists(st.lists(st.integers(0, 40), max_size=6).map(np.array), min_size=1, max_size=10)


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


def test_hidden_positives_are_found_from_end_to_end():
    rng = np.random.default_rng(0)
    queries = rng.normal(size=(40, 16))
    positives = [np.arange(4 * i, 4 * i + 4) for i in range(40)]
    documents = queries.repeat(4, axis=0) + 0.8 * rng.normal(size=(160, 16))
    kept, hidden = hide_positives(positives, rng)
    sources, duplicates = inject_positives(kept, len(documents), 0.5, rng)
    copies = documents[sources] + 0.3 * rng.normal(size=(len(sources), 16))
    documents = np.concatenate([documents, copies])
    candidates = np.argsort(-(queries @ documents.T), axis=1)[:, :30]
    truth = membership(candidates, hidden) | membership(candidates, duplicates)
    unlabelled = ~membership(candidates, kept)
    scores = similarity_to_positive(documents, candidates, kept)
    quality = detection_quality(scores, truth, unlabelled, resamples=50)
    assert quality.num_pairs == unlabelled.sum() < candidates.size
    assert quality.average_precision > 3 * quality.base_rate
