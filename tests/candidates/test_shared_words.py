"""Words that queries share with documents, against a naive count; candidates by words and vectors."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from feature_task import Task, directions, text_of, words_of
from rrra_hf.candidates import RetrievedCandidates, add_words
from rrra_hf.candidates import hybrid as hybrid_module
from rrra_hf.candidates import words as words_module
from rrra_hf.candidates.hybrid import cosines_of, merge_ranks
from rrra_hf.candidates.words import shared_words


def naive(query: list[int], document: list[int], corpus: list[list[int]]) -> tuple[float, float]:
    """BM25 as the textbook has it, and what the shared words weigh, over all that the query's words weigh."""
    length = max(1.0, sum(map(len, corpus)) / len(corpus))
    counts, score, covered, total = Counter(document), 0.0, 0.0, 0.0
    for word in set(query):
        frequency = sum(word in other for other in corpus)
        if not frequency:
            continue  # the corpus knows nothing of it
        idf = np.log(1 + (len(corpus) - frequency + 0.5) / (frequency + 0.5))
        tf = counts[word]
        score += idf * tf * 2.2 / (tf + 1.2 * (0.25 + 0.75 * len(document) / length))
        covered += idf * (tf > 0)
        total += idf
    return (score / total, covered / total) if total else (0.0, 0.0)


texts = st.lists(st.integers(0, 9), max_size=8)


@settings(max_examples=60)
@given(corpus=st.lists(texts, min_size=1, max_size=6), queries=st.lists(texts, min_size=1, max_size=20))
def test_overlap_is_bm25_and_coverage_as_shares_of_the_querys_weight(
    corpus: list[list[int]], queries: list[list[int]]
) -> None:
    words = words_of(corpus)
    rows = np.tile(np.arange(len(corpus)), (len(queries), 1))
    found = shared_words(words, words.count([text_of(query) for query in queries]), rows)
    expected = np.array([[naive(query, document, corpus) for document in corpus] for query in queries])
    for place, values in enumerate(found):
        assert values.dtype == np.float32
        assert_allclose(values, expected[..., place], rtol=1e-4, atol=1e-6)


def test_candidates_are_read_in_the_order_of_their_rows_in_blocks_of_any_size(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    task = Task()
    queries = task.queries(20).words
    everything = shared_words(task.words, queries, np.tile(np.arange(120), (20, 1)))
    rows = np.random.default_rng(0).integers(0, 120, size=(20, 7))
    for size in (1, 7, 100):
        monkeypatch.setattr(words_module, "QUERIES", size)
        for found, expected in zip(shared_words(task.words, queries, rows), everything, strict=True):
            assert_array_equal(found, np.take_along_axis(expected, rows, axis=1))


@pytest.mark.parametrize("shape", [(0, 3), (2, 0)])
def test_no_query_and_no_candidate_are_no_error(shape: tuple[int, int]) -> None:
    words = words_of([[0, 1], [1, 2]])
    queries = words.count([text_of([1])] * shape[0])
    assert all(values.shape == shape for values in shared_words(words, queries, np.zeros(shape, dtype=int)))


# -------------------------------------------------------------------- two rankings


def naive_merge(first: list[int], second: list[int]) -> list[int]:
    merged = []
    for place in range(max(len(first), len(second))):
        merged += [ranking[place] for ranking in (first, second) if place < len(ranking)]
    return [row for row in dict.fromkeys(merged) if row >= 0]


rankings = st.lists(st.integers(0, 9), unique=True, max_size=7)


@given(st.lists(st.tuples(rankings, rankings), min_size=1, max_size=4), st.integers(1, 20))
def test_rankings_are_merged_in_turn_without_repeats(
    pairs: list[tuple[list[int], list[int]]], depth: int
) -> None:
    widths = [max(len(pair[side]) for pair in pairs) for side in (0, 1)]
    first, second = (
        np.array([[*pair[side], *[-1] * (widths[side] - len(pair[side]))] for pair in pairs], dtype=int)
        for side in (0, 1)
    )
    merged = merge_ranks(first, second, depth)
    assert merged.shape == (len(pairs), min(depth, sum(widths)))
    for found, (one, other) in zip(
        merged.tolist(), zip(first.tolist(), second.tolist(), strict=True), strict=True
    ):
        expected = naive_merge(one, other)[:depth]
        assert found == expected + [-1] * (len(found) - len(expected))


def test_words_add_what_the_dense_search_missed() -> None:
    words = words_of([[0], [1], [2], [3], [0, 4]])
    dense = np.array([[1, 2, 3], [2, 1, 0]])
    queries = words.count([text_of([0]), text_of([9])])
    # The shorter of the documents with the word comes first; the other query shares no word.
    assert add_words(dense, words, queries, depth=3).tolist() == [[1, 0, 2], [2, 1, 0]]
    deeper = add_words(dense, words, queries, depth=7).tolist()
    assert deeper == [[1, 0, 2, 4, 3, -1, -1], [2, 1, 0, -1, -1, -1, -1]]


@pytest.mark.parametrize("pairs", [1, 10, 10**6])
def test_cosines_of_candidates_and_of_none(pairs: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hybrid_module, "PAIRS", pairs)
    queries, documents = directions(5, 8), directions(9, 8, seed=1)
    rows = np.array([[0, 3, -1], [8, -1, -1], [1, 2, 3], [4, 5, 6], [-1, -1, -1]])
    found = cosines_of(queries, rows, documents.__getitem__)
    expected = np.where(rows < 0, -np.inf, np.take_along_axis(queries @ documents.T, rows, axis=1))
    assert found.dtype == np.float32
    assert_allclose(found, expected, atol=1e-6)


def test_what_is_retrieved_by_words_too_has_its_cosines_and_labels() -> None:
    task = Task()
    test = task.queries(30)
    dense = RetrievedCandidates.retrieve(test, task.documents, 10)
    both = RetrievedCandidates.retrieve(test, task.documents, 10, task.words)
    assert both.rows.shape == (30, 10)
    assert both.relevant.sum() > dense.relevant.sum()
    assert_allclose(
        both.cosines, np.take_along_axis(test.embeddings @ task.documents.T, both.rows, axis=1), atol=1e-5
    )
    labels = np.array([row[0] for row in test.positives])
    assert_array_equal(both.relevant, both.rows == labels[:, None])
    assert_array_equal(both.num_relevant, 1)
    without = RetrievedCandidates.retrieve(test._replace(words=None), task.documents, 10, task.words)
    assert_array_equal(without.rows, dense.rows)


def test_places_without_a_document_are_never_relevant() -> None:
    small = Task(documents=4)
    test = small.queries(6)
    found = RetrievedCandidates.retrieve(test, small.documents, 30, small.words)
    absent = found.rows < 0
    assert absent[:, 4:].all() and not absent[:, :4].any()
    assert not found.relevant[absent].any() and np.isneginf(found.cosines[absent]).all()
    assert found.relevant.sum() == 6


def test_what_is_retrieved_has_cosines_of_embeddings_of_any_length() -> None:
    task = Task()
    test = task.queries(30)
    expected = RetrievedCandidates.retrieve(test, task.documents, 10, task.words)
    longer = np.arange(1, len(task.documents) + 1, dtype=np.float32)[:, None] * task.documents
    found = RetrievedCandidates.retrieve(
        test._replace(embeddings=7 * test.embeddings), longer, 10, task.words
    )
    assert found.rows.tolist() == expected.rows.tolist()
    assert_allclose(found.cosines, expected.cosines, atol=1e-5)
