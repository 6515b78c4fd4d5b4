"""Folders that were saved in format version 1 open, and are saved again in the format of today."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from safetensors.torch import load_file
from sentence_transformers import SentenceTransformer
from transformers import AutoModel

from alike import assert_alike
from rrra_hf import Retriever, RetrieverAdapter, RRRAModel
from rrra_hf.embeddings import encode
from rrra_hf.hub import model_card

FOLDERS = Path(__file__).parents[1] / "data" / "saved_by_version_1"
KINDS = ("features", "residual")


def expected(kind: str) -> dict[str, Any]:
    """Return texts, and what the release that saved the folder made of them."""
    return json.loads((FOLDERS / kind / "expected.json").read_text())


def first_documents(kind: str) -> list[str]:
    return list(expected(kind)["documents"].values())[:3]


def check_hits(retriever: Retriever, kind: str) -> None:
    found = retriever.search(expected(kind)["queries"], top_k=5, probabilities=True)
    for hits, before in zip(found, expected(kind)["hits"], strict=True):
        assert [hit["corpus_id"] for hit in hits] == [hit["corpus_id"] for hit in before]
        for name in ("score", "probability"):
            assert_allclose([hit[name] for hit in hits], [hit[name] for hit in before], atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_every_loader_opens_a_folder_of_version_1(kind: str) -> None:
    encoders = [
        SentenceTransformer(str(FOLDERS / kind), device="cpu"),
        RRRAModel.from_pretrained(FOLDERS / kind).to_sentence_transformer(),
        AutoModel.from_pretrained(FOLDERS / kind).to_sentence_transformer(),
    ]
    for encoder in encoders:
        embeddings = encoder.encode_document(first_documents(kind))
        assert_allclose(embeddings, np.array(expected(kind)["embeddings"]), atol=1e-6)
    whole = RRRAModel.from_pretrained(FOLDERS / kind).adapter.state_dict()
    alone = RetrieverAdapter.from_pretrained(FOLDERS / kind).state_dict()
    assert whole.keys() == alone.keys()
    for name, weight in alone.items():
        assert_array_equal(weight.numpy(), whole[name].numpy())


@pytest.mark.parametrize("kind", KINDS)
def test_a_retriever_of_version_1_finds_the_same(kind: str) -> None:
    retriever = Retriever.from_pretrained(FOLDERS / kind, device="cpu")
    if kind == "residual":
        retriever.index(expected(kind)["documents"])
    check_hits(retriever, kind)


def test_an_index_of_version_1_has_no_words_and_opens_without_its_adapter(tmp_path: Path) -> None:
    retriever = Retriever.from_pretrained(FOLDERS / "features", device="cpu")
    assert retriever.adapter.config.reader["kind"] == "features_v2"
    assert retriever.corpus_index.words is None and not retriever.is_hybrid()
    with pytest.raises(ValueError, match="mode must be 'dense' or None, got 'hybrid'"):
        retriever.search("find files", mode="hybrid")
    assert retriever.adapter.reader.reads_word_pieces
    embeddings = encode(retriever.encoder, ["find files"], task="query")
    with pytest.raises(ValueError, match="reads word pieces: give the queries' texts"):
        retriever.search_embeddings(embeddings)
    # Indexed again, the hits are the same.
    check_hits(retriever.index(expected("features")["documents"]), "features")
    assert retriever.corpus_index.words is None
    plain = Retriever.from_pretrained(FOLDERS / "features", adapter=None, device="cpu")
    queries = expected("features")["queries"]
    assert plain.adapter is None
    assert_alike(plain.search(queries), retriever.search(queries, rerank=False))
    plain.save_pretrained(tmp_path)
    assert Retriever.from_pretrained(tmp_path, device="cpu").adapter is None


@pytest.mark.parametrize("kind", KINDS)
def test_a_folder_of_version_1_is_saved_again_with_the_names_of_today(kind: str, tmp_path: Path) -> None:
    retriever = Retriever.from_pretrained(FOLDERS / kind, device="cpu")
    if kind == "residual":
        retriever.index(expected(kind)["documents"])
    retriever.save_pretrained(tmp_path)
    names = [name for name in load_file(tmp_path / "model.safetensors") if name.startswith("adapter.")]
    assert all(
        name.startswith(("adapter.reader.", "adapter.query_map.", "adapter.document_map.")) for name in names
    )
    assert not list(tmp_path.rglob("*evidence*"))
    assert (tmp_path / "index/features.safetensors").exists() == (kind == "features")
    check_hits(Retriever.from_pretrained(tmp_path, device="cpu"), kind)


def test_a_card_says_what_version_1_recorded() -> None:
    features, residual = (model_card(FOLDERS / kind).text for kind in KINDS)
    assert "reads features (mapped, base, " in features and "* `stage1`: " in features
    assert "* `hidden_size`" not in features
    assert "residual network over both embeddings, 8 hidden units" in residual
    assert "* `hidden_size`: 8" in residual
    assert "The weights hold embeddings of training queries" in features
