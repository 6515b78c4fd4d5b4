"""Sparse vectors of documents and queries have BM25 as their product, and statistics follow the documents."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from rrra_hf.indexes import WordIndex
from rrra_hf.indexes.word_counts import count_words
from rrra_hf.indexes.word_statistics import NO_WORD, WordStatistics, dimensions_of
from rrra_hf.indexes.word_vectors import QueryWords, document_vectors

WORDS = ["herring", "cod", "whale", "sea", "net", "the", "boat"]
TEXTS = st.lists(st.lists(st.sampled_from(WORDS), max_size=6).map(" ".join), min_size=1, max_size=8)


def statistics_of(texts: list[str]) -> WordStatistics:
    return WordStatistics.of(*count_words(texts, "english", False), "english")


def same(first: WordStatistics, second: WordStatistics) -> None:
    assert_array_equal(first.dimensions, second.dimensions)
    assert_array_equal(first.frequencies, second.frequencies)
    assert (first.documents, first.words) == (second.documents, second.words)
    assert_allclose(first.logarithms, second.logarithms, atol=1e-9)


@settings(max_examples=50, deadline=None)
@given(documents=TEXTS, queries=TEXTS)
def test_products_are_bm25(documents: list[str], queries: list[str]) -> None:
    words = WordIndex.of(documents, "english")
    counts, vocabulary = count_words(documents, "english", False)
    statistics = WordStatistics.of(counts, vocabulary, "english")
    vectors = list(document_vectors(counts, vocabulary, statistics.stored_length))
    asked = QueryWords.of(queries, statistics)
    products = [
        [sum(weight * document.get(word, 0.0) for word, weight in query.items()) for document in vectors]
        for query in asked.vectors()
    ]
    expected, rows = words.search(words.count(queries), len(documents))
    scores = np.full((len(queries), len(documents)), 0.0)
    np.put_along_axis(scores, np.where(rows >= 0, rows, 0), np.where(rows >= 0, expected, 0), axis=1)
    found = np.array(products)
    for query, (places, values) in enumerate(zip(rows, expected, strict=True)):
        assert_allclose(found[query, places[places >= 0]], values[places >= 0], rtol=1e-5)
        assert np.count_nonzero(found[query]) == (places >= 0).sum()


@settings(max_examples=50, deadline=None)
@given(documents=TEXTS, queries=TEXTS, data=st.data())
def test_an_index_of_some_documents_scores_them_as_that_of_all(
    documents: list[str], queries: list[str], data: st.DataObject
) -> None:
    words = WordIndex.of(documents, "english")
    counts, vocabulary = count_words(documents, "english", False)
    statistics = WordStatistics.of(counts, vocabulary, "english")
    vectors = list(document_vectors(counts, vocabulary, statistics.stored_length))
    some = sorted(data.draw(st.sets(st.integers(0, len(documents) - 1), min_size=1)))
    part = QueryWords.of(queries, statistics).word_index([vectors[row] for row in some], words.lengths[some])
    scores, rows = words.search(words.count(queries), len(documents), np.array(some))
    found, places = part.search(part.count(queries), len(documents))
    assert_array_equal(np.where(places >= 0, np.array(some)[places], -1), rows)
    assert_allclose(found, scores, rtol=1e-6)
    assert_allclose(part.relative_lengths, words.relative_lengths[some], atol=1e-6)


@settings(max_examples=50, deadline=None)
@given(first=TEXTS, second=TEXTS)
def test_statistics_follow_the_documents(first: list[str], second: list[str]) -> None:
    both = statistics_of(first).plus(statistics_of(second))
    same(both, statistics_of(first + second))
    same(both.minus(statistics_of(second)), statistics_of(first))
    assert both.stored_length == statistics_of(first).stored_length


@settings(max_examples=50, deadline=None)
@given(texts=TEXTS)
def test_vectors_tell_the_statistics(texts: list[str]) -> None:
    counts, vocabulary = count_words(texts, "english", False)
    vectors = document_vectors(counts, vocabulary, 3.0)
    stored = [
        {"words": words, "length": int(length)}
        for words, length in zip(vectors, counts.sum(axis=1), strict=True)
    ]
    same(WordStatistics.of_vectors(stored, "english"), statistics_of(texts))


def test_a_document_without_words_has_a_vector_that_no_query_finds() -> None:
    counts, vocabulary = count_words(["the", "cod"], "english", False)
    empty, cod = document_vectors(counts, vocabulary, 1.0)
    assert empty == {NO_WORD: 1.0}
    assert list(cod) == dimensions_of(vocabulary).tolist()
    assert dimensions_of(np.array([NO_WORD, NO_WORD - 1, -1], dtype=np.int64)).tolist() == [0, NO_WORD - 1, 3]


def test_words_of_no_document_are_not_asked_for() -> None:
    asked = QueryWords.of(["cod and whale", "the"], statistics_of(["cod", "sea"]))
    assert [len(query) for query in asked.vectors()] == [1, 0]
    assert QueryWords.of(["cod"], WordStatistics.of_vectors([], "none")).vectors() == [{}]


def test_statistics_are_saved_and_checked(tmp_path: Path) -> None:
    statistics = statistics_of(["cod in the sea", "a cod"])
    statistics.save(tmp_path / "words")
    again = WordStatistics.load(tmp_path / "words")
    same(again, statistics)
    assert (again.language, again.stored_length) == ("english", 1.5)
    statistics.plus(statistics_of(["whale"])).save(tmp_path / "words")
    assert WordStatistics.load(tmp_path / "words").documents == 3
    np.save(tmp_path / "words" / "frequencies.npy", np.array([9, 9, 9]))
    with pytest.raises(ValueError, match=r"frequencies.npy is damaged"):
        WordStatistics.load(tmp_path / "words")
