"""Saved retrievers of strangers: what a search reads was checked when the folder was opened."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import load_file, save_file

from forgery import forge
from retriever_models import CORPUS
from rrra_hf import RetrieverAdapter
from rrra_hf.candidates import DocumentFeatures
from rrra_hf.embeddings import texts_fingerprint
from rrra_hf.retrieval import Retriever, opening
from rrra_hf.retrieval.documents import SCHEMA, document_table, document_texts
from rrra_hf.retrieval.indexing import check_document_features


@pytest.fixture
def saved(tiny_bert: Path, tmp_path: Path) -> Path:
    Retriever.from_pretrained(tiny_bert, device="cpu").index(CORPUS).save_pretrained(tmp_path / "saved")
    return tmp_path / "saved"


def test_any_changed_byte_of_the_index_is_noticed(saved: Path) -> None:
    before = Retriever.from_pretrained(saved, device="cpu").search("copy files")
    for path in (saved / "index").rglob("*"):
        if not path.is_file() or path.suffix == ".json":
            continue
        whole = path.read_bytes()
        for place in (0, len(whole) // 2, len(whole) - 1):
            path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
            with pytest.raises(
                ValueError, match=rf"{path.name} is damaged: it isn't the file that was saved"
            ):
                opening.CorpusIndex.load(saved / "index")
        path.write_bytes(whole)
    assert Retriever.from_pretrained(saved, device="cpu").search("copy files") == before


@pytest.mark.parametrize(
    ("entry", "value"),
    [
        *((entry, value) for entry in ("documents", "dim") for value in (10**9, 10**30, "6", None, 6.0, [])),
        *((entry, value) for entry in ("encoder", "corpus", "memory") for value in (7, None, ["a"])),
        *((entry, value) for entry in ("adapter", "words", "features") for value in (1, None, "yes", [])),
    ],
)
def test_metadata_are_compared_with_the_files(saved: Path, entry: str, value: object) -> None:
    forge(saved / "index/meta.json", **{entry: value})
    with pytest.raises(ValueError, match=r"meta\.json is damaged|vectors\.faiss holds 6 embeddings"):
        Retriever.from_pretrained(saved, device="cpu")


DOCUMENTS: dict[str, Callable[[dict[str, list[str | None]]], None]] = {
    "no id": lambda columns: columns["id"].__setitem__(0, None),
    "an id twice": lambda columns: columns["id"].__setitem__(0, columns["id"][1]),
    "no title": lambda columns: columns["title"].__setitem__(0, None),
    "no text": lambda columns: columns["text"].__setitem__(0, None),
}


@pytest.mark.parametrize("change", DOCUMENTS)
def test_documents_that_no_corpus_has_are_refused(saved: Path, change: str) -> None:
    path = saved / "index/documents.parquet"
    columns = document_table(CORPUS).to_pydict()
    DOCUMENTS[change](columns)
    table = pa.table(columns, schema=SCHEMA)
    pq.write_table(table, path)
    forge(saved / "index/meta.json", corpus=texts_fingerprint(document_texts(table)))
    with pytest.raises(ValueError, match=r"documents\.parquet is damaged: texts are missing, or ids repeat"):
        Retriever.from_pretrained(saved, device="cpu")


def test_texts_that_are_larger_than_their_file_are_not_read(saved: Path) -> None:
    path = saved / "index/documents.parquet"
    text = pa.DictionaryArray.from_arrays(pa.array(np.zeros(2000), pa.int32()), pa.array(["a" * 10**6]))
    ids = pa.array([str(row) for row in range(2000)])
    pq.write_table(pa.table({"id": ids, "title": text, "text": text}), path, compression="zstd")
    assert path.stat().st_size < 100_000
    forge(saved / "index/meta.json")
    with pytest.raises(ValueError, match=r"documents\.parquet is not meant to be read"):
        Retriever.from_pretrained(saved, device="cpu")


STATICS = {
    "NaN": np.full((6, 1), np.nan, dtype=np.float32),
    "one dimension": np.zeros(6, dtype=np.float32),
    "integers": np.zeros((6, 1), dtype=np.int64),
}


@pytest.mark.parametrize("kind", STATICS)
def test_features_that_are_no_numbers_are_refused(tmp_path: Path, kind: str) -> None:
    save_file({"statics": STATICS[kind]}, tmp_path / "features.safetensors")
    with pytest.raises(ValueError, match=r"features\.safetensors is missing or damaged: statics must be"):
        DocumentFeatures.load(tmp_path / "features.safetensors")


@pytest.mark.parametrize(
    ("name", "value"), [("indices", 99), ("indices", -1), ("ends", 99), ("vocabulary", -1)]
)
def test_word_pieces_that_are_none_are_refused(tmp_path: Path, name: str, value: int) -> None:
    path = tmp_path / "features.safetensors"
    tensors = {
        "statics": np.zeros((2, 2), dtype=np.float32),
        "words.vocabulary": np.array([3]),
        "words.weights": np.ones(2, dtype=np.float32),
        "words.indices": np.array([0, 2], dtype=np.int32),
        "words.ends": np.array([0, 1, 2], dtype=np.int32),
    }
    save_file(tensors, path)
    assert DocumentFeatures.load(path).pieces is not None
    tensors = load_file(path)
    tensors[f"words.{name}"][0] = value
    save_file(tensors, path)
    with pytest.raises(ValueError, match=r"features\.safetensors is missing or damaged"):
        DocumentFeatures.load(path)


def test_features_of_another_adapter_are_refused(tmp_path: Path) -> None:
    adapter = RetrieverAdapter.pretrained(4)
    check_document_features(DocumentFeatures(np.empty((6, 0), dtype=np.float32)), adapter, 4, tmp_path)
    with pytest.raises(
        ValueError, match=r"it has 2 features and None word pieces, the adapter reads 0 and None"
    ):
        check_document_features(DocumentFeatures(np.zeros((6, 2), dtype=np.float32)), adapter, 4, tmp_path)
