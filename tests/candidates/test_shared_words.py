"""Words that queries share with documents: BM25 in closed form, and what is counted."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import BoW

from feature_task import counts_of, overlap
from rrra_hf.candidates import count_words, weigh_words
from rrra_hf.candidates import words as words_module
from rrra_hf.candidates.words import word_statistics
from tiny import SPECIAL, WORDS


def naive_bm25(query: list[int], document: list[int], corpus: list[list[int]]) -> float:
    """BM25 as the textbook has it, over the most that the query's words can weigh."""
    length = sum(map(len, corpus)) / len(corpus)
    counts, score, total = Counter(document), 0.0, 0.0
    for word in set(query):
        frequency = sum(word in other for other in corpus)
        idf = np.log(1 + (len(corpus) - frequency + 0.5) / (frequency + 0.5))
        tf = counts[word]
        score += idf * tf * 2.2 / (tf + 1.2 * (0.25 + 0.75 * len(document) / length))
        total += idf
    return score / total if total else 0.0


texts = st.lists(st.integers(0, 9), max_size=8)


@settings(max_examples=100, deadline=None)
@given(corpus=st.lists(texts, min_size=1, max_size=6).filter(any), queries=st.lists(texts, min_size=1))
def test_overlap_is_bm25_as_a_share_of_the_querys_weight(
    corpus: list[list[int]], queries: list[list[int]]
) -> None:
    counts = counts_of(corpus, 10)
    idf, length = word_statistics(counts)
    rows = np.tile(np.arange(len(corpus)), (len(queries), 1))
    found = overlap(counts_of(queries, 10), weigh_words(counts, idf, length), idf, rows)
    mean = sum(map(len, corpus)) / len(corpus)
    if mean < 1:  # a corpus of little but empty texts
        return
    expected = [[naive_bm25(query, document, corpus) for document in corpus] for query in queries]
    assert found.dtype == np.float32
    assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


def test_statistics_of_words_count_documents_and_not_repetitions() -> None:
    idf, length = word_statistics(counts_of([[0, 0, 0], [0, 1], []], 3))
    assert_allclose(idf, np.log([1 + 1.5 / 2.5, 1 + 2.5 / 1.5, 1 + 3.5 / 0.5]), rtol=1e-6)
    assert idf.dtype == np.float32
    assert length == pytest.approx(5 / 3)
    assert word_statistics(counts_of([[], []], 3))[1] == 1.0


def test_candidates_are_read_in_the_order_of_their_rows() -> None:
    documents, queries = counts_of([[0, 1], [1, 2], [3]], 5), counts_of([[1], [3, 3, 0]], 5)
    idf, length = word_statistics(documents)
    weights = weigh_words(documents, idf, length)
    everything = overlap(queries, weights, idf, np.array([[0, 1, 2], [0, 1, 2]]))
    chosen = overlap(queries, weights, idf, np.array([[2, 0], [1, 1]]))
    assert_array_equal(chosen, [everything[0, [2, 0]], everything[1, [1, 1]]])


def test_word_pieces_are_counted_without_special_tokens(tiny_bert: Path) -> None:
    encoder = SentenceTransformer(str(tiny_bert), device="cpu")
    counts = count_words(encoder, ["find the FIND herring", "", "list"])
    assert counts.shape == (3, len(encoder.tokenizer))
    assert counts.dtype == np.float32
    place = {word: len(SPECIAL) + row for row, word in enumerate(WORDS)}
    unknown = SPECIAL.index("[UNK]")
    found = [set(row.nonzero()[0].tolist()) for row in counts.toarray()]
    assert found == [{unknown, place["the"], place["find"]}, set(), {place["list"]}]
    assert counts.toarray()[0, [place["find"], place["the"], unknown]].tolist() == [2.0, 1.0, 1.0]
    assert count_words(encoder, []).shape == counts[:0].shape


def test_words_that_the_encoder_cuts_off_are_not_counted(tiny_bert: Path) -> None:
    encoder = SentenceTransformer(str(tiny_bert), device="cpu")
    encoder.max_seq_length = 6
    cut = count_words(encoder, ["find " * 4 + "sort", "sort"])
    # [CLS] and [SEP] take two of the six places.
    assert cut.sum(axis=1).tolist() == [4.0, 1.0]
    assert cut[[0]].nnz == 1


def test_texts_are_counted_in_blocks(tiny_bert: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = SentenceTransformer(str(tiny_bert), device="cpu")
    many = [" ".join(WORDS[i : i + 3]) for i in range(5)]
    whole = count_words(encoder, many)
    monkeypatch.setattr(words_module, "BLOCK", 2)
    assert (count_words(encoder, many) != whole).nnz == 0


def test_an_encoder_without_tokenizer_of_transformers_has_no_words() -> None:
    assert count_words(SentenceTransformer(modules=[BoW(vocab=["copy", "file"])]), ["copy"]) is None
