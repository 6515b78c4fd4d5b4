"""Snippets of a card run as printed."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from sentence_transformers import SentenceTransformer

from cards import PRESETS, card_of, run_snippets
from retriever_models import CORPUS, make_adapter, make_retriever
from rrra_hf import Retriever, RRRAModel


@pytest.mark.parametrize("preset", PRESETS)
def test_snippets_of_a_model_run_and_agree(fitted, preset, monkeypatch):
    folder = fitted(preset)
    _, by_library, by_transformers = run_snippets(card_of(folder), folder.parent, monkeypatch)
    for side in ("queries", "documents"):
        np.testing.assert_allclose(by_library[side], by_transformers[side].numpy(), atol=1e-5)


def test_snippets_name_the_repository(fitted, tmp_path, monkeypatch):
    shutil.copytree(fitted("residual"), tmp_path / "me" / "words")
    found = run_snippets(card_of(tmp_path / "me/words", "me/words"), tmp_path, monkeypatch)
    assert len(found) == 3


def test_snippets_of_an_adapter_alone(tmp_path, monkeypatch, tiny_bert):
    make_adapter(query_map=True, document_map=True).save_pretrained(tmp_path / "adapter")
    [found] = run_snippets(card_of(tmp_path / "adapter"), tmp_path, monkeypatch)
    assert found["scores"].shape == found["probabilities"].shape == (2, 3)
    assert "map_queries" in card_of(tmp_path / "adapter")
    assert "model-index" not in card_of(tmp_path / "adapter")


def test_snippet_of_an_adapter_that_reads_words(fitted, tiny_bert, tmp_path, monkeypatch):
    RRRAModel.from_pretrained(fitted("features")).adapter.save_pretrained(tmp_path / "words")
    card = card_of(tmp_path / "words")
    [found] = run_snippets(card, tmp_path, monkeypatch, your_encoder=str(tiny_bert))
    assert found["hit"].keys() == {"corpus_id", "score", "probability"}
    assert "The weights hold embeddings of training queries" in card


def test_snippets_of_a_retriever_use_its_index(tiny_bert, tmp_path, monkeypatch, capsys):
    make_retriever(tiny_bert).index(CORPUS).save_pretrained(tmp_path / "commands")
    card = card_of(tmp_path / "commands")
    assert "**Index:** 6 documents" in card
    assert "retriever.index(" not in card
    assert len(run_snippets(card, tmp_path, monkeypatch)) == 3
    assert any(line.startswith("grep ") for line in capsys.readouterr().out.splitlines())
    shutil.rmtree(tmp_path / "commands/index")
    without = card_of(tmp_path / "commands")
    assert "**Index:**" not in without
    assert "retriever.index(" in without


def test_snippets_of_a_retriever_of_another_encoder(tiny_bert, tmp_path, monkeypatch):
    encoder = SentenceTransformer(str(tiny_bert), device="cpu")
    Retriever(encoder, make_adapter(lambda_=0.5)).save_pretrained(tmp_path / "other")
    card = card_of(tmp_path / "other")
    assert len(run_snippets(card, tmp_path, monkeypatch)) == 2
    assert "trust_remote_code" not in card
    Retriever(encoder).index(CORPUS).save_pretrained(tmp_path / "trained")
    assert len(run_snippets(card_of(tmp_path / "trained"), tmp_path, monkeypatch)) == 2
    Retriever(encoder, adapter=None).index(CORPUS).save_pretrained(tmp_path / "plain")
    card = card_of(tmp_path / "plain")
    assert len(run_snippets(card, tmp_path, monkeypatch)) == 2
    assert "adapter" not in card.partition("---\n\n# ")[2].partition("## Citation")[0]


def test_snippets_of_a_model_that_was_never_fitted_ask_for_no_probabilities(tiny_bert, tmp_path, monkeypatch):
    RRRAModel.from_encoder(tiny_bert, adapter={}).save_pretrained(tmp_path / "model")
    Retriever(SentenceTransformer(str(tiny_bert)), make_adapter()).save_pretrained(tmp_path / "retriever")
    for name, snippets in (("model", 3), ("retriever", 2)):
        card = card_of(tmp_path / name)
        assert "probabilities" not in card
        assert "rerank with the adapter" not in card
        assert len(run_snippets(card, tmp_path, monkeypatch)) == snippets


def test_a_card_says_who_applies_the_maps(tiny_bert, tmp_path):
    maps = {"query_map": True, "document_map": True}
    model = RRRAModel.from_encoder(tiny_bert, adapter={**maps, "lambda_": 0.5})
    model.save_pretrained(tmp_path / "full")
    model.save_pretrained(tmp_path / "plain", form="plain")
    Retriever(SentenceTransformer(str(tiny_bert)), model.adapter).save_pretrained(tmp_path / "beside")
    for name, says in (
        ("full", "`SentenceTransformer` and `AutoModel` make embeddings, linear maps included."),
        ("plain", "`SentenceTransformer` makes embeddings, linear maps included."),
        ("beside", "`SentenceTransformer` makes embeddings, without the linear maps."),
    ):
        card = card_of(tmp_path / name)
        assert "**Linear maps:** on both sides" in card
        assert says in card
