"""Features of documents are looked up by row, and damaged ones are named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from safetensors.numpy import load_file, save_file

from feature_task import DIM, VOCABULARY, directions, make_adapter, make_old_adapter, text_of, words_of
from pieces import pieces_of, weigh
from retriever_models import make_adapter as make_residual_adapter
from rrra_hf import RetrieverAdapter
from rrra_hf.candidates import DocumentFeatures
from rrra_hf.candidates.words import shared_words
from rrra_hf.models.features_rrra import RANKING
from rrra_hf.models.reader_v2_rrra import NAMES

BAGS = [[i, i, i + 1] for i in range(8)] + [[3]]


def test_features_of_documents_are_looked_up_by_row(tmp_path: Path) -> None:
    reader, documents = make_adapter().reader, directions(9, DIM, seed=6)
    words = words_of(BAGS)
    made = DocumentFeatures.of(reader, [documents[:4], documents[4:]], words)
    rows, queries = np.array([[8, 0], [3, -1]]), words.count([text_of([1, 8]), text_of([50])])
    q = torch.from_numpy(directions(2, DIM, seed=7))
    known = made.of_candidates(reader, q, queries, rows)
    assert_array_equal(known.present, rows >= 0)
    hubness = reader.document_statics(torch.from_numpy(documents))
    torch.testing.assert_close(known.statics, hubness[rows])
    scores, coverage = shared_words(words, queries, rows)
    assert_array_equal(known.words, scores)
    assert_array_equal(known.coverage, coverage)
    assert known.query_words.tolist() == [2.0, 0.0]
    # All documents have three words except the last, which has one.
    lengths = np.log(np.array([4.0] * 8 + [2.0]))
    assert_allclose(known.length, (lengths - lengths.mean())[rows], rtol=1e-5)
    for found, expected in zip(known.recalled, reader.memory.recall(q), strict=True):
        torch.testing.assert_close(found, expected)

    made.save(tmp_path / "features.safetensors")
    loaded = DocumentFeatures.load(tmp_path / "features.safetensors")
    assert_array_equal(loaded.statics, made.statics)
    assert loaded.words is None and loaded.pieces is None
    assert [path.name for path in tmp_path.iterdir()] == ["features.safetensors"]


def test_without_words_or_texts_no_words_are_known() -> None:
    reader, documents = make_adapter().reader, directions(3, DIM)
    rows, q = np.array([[0, 2]]), torch.ones(1, DIM)
    words = words_of([[0], [1], [2]])
    made = DocumentFeatures.of(reader, [documents], words)
    without = made.of_candidates(reader, q, None, rows)
    assert (without.words, without.coverage, without.length, without.query_words) == (None,) * 4
    nothing = DocumentFeatures.of(reader, [documents]).of_candidates(
        reader, q, words.count([text_of([0])]), rows
    )
    assert (nothing.words, nothing.coverage, nothing.length, nothing.query_words) == (None,) * 4


def test_readers_without_memory_have_features_without_columns() -> None:
    documents, words = directions(5, DIM), words_of([[0]] * 5)
    trained = DocumentFeatures.of(RetrieverAdapter.pretrained().reader, [documents], words)
    assert trained.statics.shape == (5, 0) and trained.words is words
    reader = RetrieverAdapter.pretrained().reader
    known = trained.of_candidates(
        reader, torch.ones(2, DIM), words.count([text_of([0])] * 2), np.array([[1], [2]])
    )
    assert known.recalled is None and known.statics is not None and known.statics.shape == (2, 1, 0)
    residual = DocumentFeatures.of(make_residual_adapter(dim=DIM).reader, [documents], words)
    assert residual.statics.shape == (5, 0) and residual.words is None


# -------------------------------------------------------------------- adapters of format version 2


def test_word_pieces_are_looked_up_by_row_and_saved(tmp_path: Path) -> None:
    reader, documents = make_old_adapter(NAMES).reader, directions(9, DIM, seed=6)
    words = pieces_of(BAGS)
    reader.memory.idf.copy_(torch.rand(VOCABULARY))
    made = DocumentFeatures.of(reader, [documents[:4], documents[4:]], words)
    assert made.words is None
    rows, queries = np.array([[8, 0], [3, 3]]), pieces_of([[1, 8], [50]]).counts
    q = torch.from_numpy(directions(2, DIM, seed=7))
    known = made.of_candidates(reader, q, queries, rows)
    torch.testing.assert_close(known.statics, reader.document_statics(torch.from_numpy(documents))[rows])
    idf = reader.memory.idf.numpy()
    weights = weigh(words.counts, idf, 1.0).toarray()
    wanted = queries.toarray() > 0
    expected = np.einsum("nkv,nv->nk", weights[rows], wanted) / (wanted @ idf)[:, None]
    assert_allclose(known.words, expected, rtol=1e-5)

    made.save(tmp_path / "features.safetensors")
    loaded = DocumentFeatures.load(tmp_path / "features.safetensors")
    again = loaded.of_candidates(reader, q, queries, rows)
    for name in ("statics", "words", "expansion", "present"):
        assert_array_equal(getattr(again, name), getattr(known, name))
    with pytest.raises(ValueError, match="reads word pieces: give the queries' texts, not embeddings alone"):
        loaded.of_candidates(reader, q, None, rows)


@pytest.mark.parametrize(
    ("words", "got"),
    [(None, "NoneType"), (pieces_of([[0], [1]], 5), "5"), (words_of([[0], [1]]), "WordIndex")],
)
def test_words_of_another_kind_or_vocabulary_are_refused(words: Any, got: str) -> None:
    reader = make_old_adapter(["words"]).reader
    with pytest.raises(ValueError, match=f"word pieces of a vocabulary of {VOCABULARY}; got {got}"):
        DocumentFeatures.of(reader, [directions(2, DIM)], words)


def test_old_adapters_without_words_read_none() -> None:
    reader = make_old_adapter(["mapped", "memory"]).reader
    made = DocumentFeatures.of(reader, [directions(2, DIM)], words_of([[0], [1]]))
    assert made.words is None and made.pieces is None


def test_damaged_features_are_named(tmp_path: Path) -> None:
    path = tmp_path / "features.safetensors"
    with pytest.raises(ValueError, match=r"features\.safetensors is missing or damaged"):
        DocumentFeatures.load(path)
    reader = make_old_adapter(NAMES).reader
    DocumentFeatures.of(reader, [directions(3, DIM)], pieces_of([[0], [1], [2]])).save(path)
    whole = path.read_bytes()
    tensors = load_file(path)
    for size in (0, 7, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(ValueError, match=r"features\.safetensors is missing or damaged"):
            DocumentFeatures.load(path)
    broken: list[dict[str, Any]] = [
        {"statics": None},
        {"words.ends": None},
        {"words.ends": tensors["words.ends"][:-1]},
        {"words.indices": tensors["words.indices"] + VOCABULARY},
    ]
    for change in broken:
        kept = {name: value for name, value in {**tensors, **change}.items() if value is not None}
        save_file(kept, path)
        with pytest.raises(ValueError, match=r"features\.safetensors is missing or damaged"):
            DocumentFeatures.load(path)


def test_features_that_need_no_memory_are_read_of_any_document() -> None:
    reader = make_adapter(list(RANKING)).reader
    assert reader.document_statics(torch.from_numpy(directions(3, DIM))).shape == (3, 1)
