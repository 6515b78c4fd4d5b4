"""Word pieces, which adapters of format version 2 read: BM25 in closed form, and what is counted."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import BoW

from pieces import counts_of, weigh
from rrra_hf.candidates import WordPieces, count_pieces
from rrra_hf.candidates import word_pieces as pieces_module
from rrra_hf.candidates.word_pieces import SharedWordPieces, answer_pieces
from rrra_hf.models.reader_v2_rrra import WordPieceMemory
from tiny import SPECIAL, WORDS


def test_weights_are_those_of_bm25() -> None:
    counts, idf = counts_of([[0, 0, 1], [2], []], 4), np.array([1.0, 2.0, 3.0, 4.0], dtype=np.float32)
    weights = weigh(counts, idf, 1.5).toarray()
    assert weights[0, 0] == pytest.approx(1.0 * 2 * 2.2 / (2 + 1.2 * (0.25 + 0.75 * 3 / 1.5)))
    assert weights[0, 1] == pytest.approx(2.0 * 2.2 / (1 + 1.2 * (0.25 + 0.75 * 3 / 1.5)))
    assert weights[1, 2] == pytest.approx(3.0 * 2.2 / (1 + 1.2 * (0.25 + 0.75 / 1.5)))
    assert np.count_nonzero(weights) == 3


def test_candidates_share_pieces_with_queries_and_with_what_is_remembered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rng = np.random.default_rng(0)
    documents, answers = (counts_of(rng.integers(0, 9, size=(6, 4)).tolist(), 10) for _ in range(2))
    idf = rng.random(10).astype(np.float32)
    weights = weigh(documents, idf, 4.0)
    queries = counts_of(rng.integers(0, 9, size=(5, 3)).tolist(), 10)
    recalled, rows = rng.random((5, 2)).astype(np.float32), rng.integers(0, 6, size=(5, 3))
    remembered = np.stack([rng.permutation(6)[:2] for _ in range(5)])
    shared = SharedWordPieces(weights, idf, answers)
    wanted = queries.toarray() > 0
    expected = np.einsum("nkv,nv->nk", weights.toarray()[rows], wanted) / (wanted @ idf)[:, None]
    expansion = np.einsum("nr,nrv->nv", recalled, answers.toarray()[remembered])
    scaled = weights.toarray() / np.linalg.norm(weights.toarray(), axis=1, keepdims=True)
    for size in (1, 3, 100):
        monkeypatch.setattr(pieces_module, "QUERIES", size)
        direct, expanded = shared.with_candidates(queries, recalled, remembered, rows)
        assert_allclose(direct, expected, rtol=1e-4)
        assert_allclose(expanded, np.einsum("nkv,nv->nk", scaled[rows], expansion), rtol=1e-4)


def test_answers_are_the_mean_of_the_normalised_weights_of_labelled_documents() -> None:
    memory = WordPieceMemory(4, queries=2, documents=3, pairs=3, vocabulary=6, entries=5)
    counts = counts_of([[1, 2], [2, 3, 3], [4]], 6)
    memory.words.copy_(torch.from_numpy(counts.indices))
    memory.counts.copy_(torch.from_numpy(counts.data))
    memory.ends.copy_(torch.from_numpy(counts.indptr))
    memory.idf.copy_(torch.arange(6) + 1)
    memory.pairs.copy_(torch.tensor([[0, 0], [0, 1], [1, 2]]))
    weights = weigh(counts, memory.idf.numpy(), 1.0).toarray()
    weights /= np.linalg.norm(weights, axis=1, keepdims=True)
    assert_allclose(answer_pieces(memory).toarray(), [weights[:2].mean(axis=0), weights[2]], rtol=1e-5)


# -------------------------------------------------------------------- counts


def test_word_pieces_are_counted_without_special_tokens(encoder: SentenceTransformer) -> None:
    texts = ["find the FIND herring", "", "list"]
    counts = count_pieces(encoder, texts)
    assert counts.shape == (3, len(encoder.tokenizer))
    assert counts.dtype == np.float32
    place = {word: len(SPECIAL) + row for row, word in enumerate(WORDS)}
    unknown = SPECIAL.index("[UNK]")
    found = [set(row.nonzero()[0].tolist()) for row in counts.toarray()]
    assert found == [{unknown, place["the"], place["find"]}, set(), {place["list"]}]
    assert counts.toarray()[0, [place["find"], place["the"], unknown]].tolist() == [2.0, 1.0, 1.0]
    assert count_pieces(encoder, []).shape == counts[:0].shape
    pieces = WordPieces(encoder, texts)
    assert_array_equal(pieces.counts.toarray(), counts.toarray())
    assert_array_equal(pieces.count(texts[:1]).toarray(), counts.toarray()[:1])


def test_texts_with_lone_surrogates_are_named(encoder: SentenceTransformer) -> None:
    with pytest.raises(ValueError, match="text 1 must be valid Unicode, got a lone surrogate at character 5"):
        count_pieces(encoder, ["find", "list\ud800"])


def test_words_that_the_encoder_cuts_off_are_not_counted(
    encoder: SentenceTransformer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encoder, "max_seq_length", 6)
    cut = count_pieces(encoder, ["find " * 4 + "sort", "sort"])
    # [CLS] and [SEP] take two of the six places.
    assert cut.sum(axis=1).tolist() == [4.0, 1.0]
    assert cut[[0]].nnz == 1


def test_texts_are_counted_in_blocks(encoder: SentenceTransformer, monkeypatch: pytest.MonkeyPatch) -> None:
    many = [" ".join(WORDS[i : i + 3]) for i in range(5)]
    whole = count_pieces(encoder, many)
    monkeypatch.setattr(pieces_module, "BLOCK", 2)
    assert (count_pieces(encoder, many) != whole).nnz == 0


def test_an_encoder_without_tokenizer_of_transformers_is_refused() -> None:
    with pytest.raises(ValueError, match="the encoder has no tokenizer of transformers"):
        count_pieces(SentenceTransformer(modules=[BoW(vocab=["copy", "file"])]), ["copy"])
