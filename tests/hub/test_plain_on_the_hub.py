"""The plain form on the Hub: an ordinary encoder for everybody, and here the same model."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from huggingface_hub import ModelCard
from sentence_transformers import SentenceTransformer
from transformers import AutoModel, BertModel

from alike import assert_alike
from cards import run_snippets
from command_line import rrra
from hub_server import HubServer
from retriever_models import CORPUS, QUERY, make_retriever
from rrra_hf import Retriever, RetrieverAdapter, RRRAModel
from sharing import BASE, CODE, MODEL, TEXTS, cached, embed, other_bytes


def test_it_opens_with_every_loader(hub: HubServer, lora_model: RRRAModel, plain_model: RRRAModel) -> None:
    commit = lora_model.push_to_hub(MODEL, form="plain")
    files = hub.files(MODEL)
    expected = {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "modules.json"}
    expected |= {"sentence_bert_config.json", "config_sentence_transformers.json", "1_Pooling/config.json"}
    assert set(files) == expected | {"adapter/config.json", "adapter/model.safetensors", "README.md"}
    assert ModelCard(files["README.md"].decode()).data.base_model == BASE
    plain_model.push_to_hub(MODEL, form="plain")
    options = {"revision": commit.oid}
    assert type(AutoModel.from_pretrained(MODEL, **options)) is BertModel
    model = RRRAModel.from_pretrained(MODEL, **options)
    retriever = Retriever.from_pretrained(MODEL, device="cpu", **options)
    assert_alike(embed(model), embed(lora_model))
    for encoder in (SentenceTransformer(MODEL, device="cpu", **options), retriever.encoder):
        assert_alike(encoder.encode(TEXTS, convert_to_tensor=True), embed(lora_model))
    for adapter in (model.adapter, retriever.adapter, RetrieverAdapter.from_pretrained(MODEL, **options)):
        assert adapter.state_dict().keys() == lora_model.adapter.state_dict().keys()
        assert_alike(dict(adapter.state_dict()), dict(lora_model.adapter.state_dict()))
    assert model.config.base_model_name == BASE


def test_one_form_replaces_the_other_in_one_commit(hub: HubServer, plain_model: RRRAModel) -> None:
    plain_model.push_to_hub(MODEL)
    assert set(hub.files(MODEL)) > CODE
    plain_model.push_to_hub(MODEL, form="plain")
    assert not CODE & set(hub.files(MODEL))
    assert "adapter/config.json" in hub.files(MODEL)
    plain_model.push_to_hub(MODEL)
    assert set(hub.files(MODEL)) > CODE
    assert not [name for name in hub.files(MODEL) if name.startswith("adapter/")]
    assert len(hub.commits(MODEL)) == 3


def test_the_command_writes_a_card_of_the_plain_form(
    hub: HubServer, tiny_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    retriever = make_retriever(tiny_bert).index(CORPUS)
    retriever.save_pretrained(tmp_path / "mine")
    (tmp_path / "mine/README.md").write_text("needs trust_remote_code=True")
    (tmp_path / "mine/LICENSE").write_text("license")
    outcome = rrra("push", tmp_path / "mine", MODEL, "--form", "plain", "--with-index")
    assert outcome.status == 0, outcome.err
    files = hub.files(MODEL)
    assert not CODE & set(files)
    assert files["LICENSE"] == b"license"
    card = files["README.md"].decode()
    assert "trust_remote_code" not in card
    assert len(run_snippets(card, tmp_path, monkeypatch)) == 2
    opened = Retriever.from_pretrained(MODEL, device="cpu")
    assert_alike(opened.search(QUERY, probabilities=True), retriever.search(QUERY, probabilities=True))


def test_a_card_of_an_ordinary_encoder_is_kept(hub: HubServer, tiny_bert: Path, tmp_path: Path) -> None:
    Retriever(SentenceTransformer(str(tiny_bert), device="cpu")).save_pretrained(tmp_path / "mine")
    (tmp_path / "mine/README.md").write_text("my own words")
    assert rrra("push", tmp_path / "mine", MODEL, "--form", "plain").status == 0
    assert hub.files(MODEL)["README.md"] == b"my own words"


@pytest.mark.parametrize("file", ["model.safetensors", "adapter/model.safetensors"])
def test_an_altered_download_is_refused_and_removed(
    hub: HubServer, plain_model: RRRAModel, tmp_path: Path, file: str
) -> None:
    plain_model.push_to_hub(MODEL, form="plain")
    hub.tamper(MODEL, file, other_bytes(hub.files(MODEL)[file]))
    with pytest.raises(ValueError, match=rf"{file} is damaged: its content is not the one"):
        RRRAModel.from_pretrained(MODEL)
    assert not cached(tmp_path, f"snapshots/*/{file}")


def test_without_a_connection_it_opens_from_the_cache(
    hub: HubServer, plain_model: RRRAModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain_model.push_to_hub(MODEL, form="plain")
    RRRAModel.from_pretrained(MODEL)
    before = len(hub.requests)
    model = RRRAModel.from_pretrained(MODEL, local_files_only=True)
    assert torch.equal(embed(model), embed(RRRAModel.from_pretrained(MODEL, local_files_only=True)))
    assert len(hub.requests) == before
