"""Features of documents are looked up by row, and damaged ones are named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from safetensors.numpy import load_file, save_file

from feature_task import DIM, VOCABULARY, counts_of, directions, make_adapter, overlap
from rrra_hf.candidates import DocumentFeatures, weigh_words
from rrra_hf.candidates.words import word_statistics
from rrra_hf.models.features_rrra import FEATURES


def test_features_of_documents_are_looked_up_by_row(tmp_path: Path) -> None:
    reader, documents = make_adapter(list(FEATURES)).reader, directions(9, DIM, seed=6)
    counts = counts_of([[i, i, i + 1] for i in range(9)])
    idf, length = word_statistics(counts)
    reader.memory.idf.copy_(torch.from_numpy(idf))
    reader.memory.mean_length.fill_(length)
    made = DocumentFeatures.of(reader, [documents[:4], documents[4:]], counts)
    rows, queries = np.array([[8, 0], [3, 3]]), counts_of([[1, 8], [50]])
    q = torch.from_numpy(directions(2, DIM, seed=7))
    known = made.of_candidates(reader, q, queries, rows)
    torch.testing.assert_close(known.statics, reader.document_statics(torch.from_numpy(documents))[rows])
    assert_allclose(known.words, overlap(queries, weigh_words(counts, idf, length), idf, rows), rtol=1e-5)

    made.save(tmp_path / "features.safetensors")
    loaded = DocumentFeatures.load(tmp_path / "features.safetensors")
    assert_array_equal(loaded.statics, made.statics)
    for found, expected in zip(loaded.of_candidates(reader, q, queries, rows), known, strict=True):
        assert_array_equal(found, expected)
    assert [path.name for path in tmp_path.iterdir()] == ["features.safetensors"]
    with pytest.raises(ValueError, match="reads words: give the queries' texts, not embeddings alone"):
        loaded.of_candidates(reader, q, None, rows)


def test_features_without_words_are_saved_without(tmp_path: Path) -> None:
    reader = make_adapter().reader
    made = DocumentFeatures.of(reader, [directions(3, DIM)], None)
    made.save(tmp_path / "e")
    loaded = DocumentFeatures.load(tmp_path / "e")
    assert loaded.words is None
    known = loaded.of_candidates(reader, torch.ones(1, DIM), None, np.array([[0, 2]]))
    assert (known.words, known.expansion) == (None, None)


@pytest.mark.parametrize("vocabulary", [None, 5])
def test_words_of_another_vocabulary_are_refused(vocabulary: int | None) -> None:
    words = None if vocabulary is None else counts_of([[0], [1]], vocabulary)
    with pytest.raises(ValueError, match=f"vocabulary of {VOCABULARY}; got {vocabulary}"):
        DocumentFeatures.of(make_adapter(["words"]).reader, [directions(2, DIM)], words)


def test_damaged_features_are_named(tmp_path: Path) -> None:
    path = tmp_path / "features.safetensors"
    with pytest.raises(ValueError, match=r"features\.safetensors is missing or damaged"):
        DocumentFeatures.load(path)
    reader = make_adapter(list(FEATURES)).reader
    DocumentFeatures.of(reader, [directions(3, DIM)], counts_of([[0], [1], [2]])).save(path)
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
