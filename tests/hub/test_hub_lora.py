"""LoRA weights are shared alone, beside the base model or merged."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from alike import assert_alike
from command_line import rrra
from hub_server import HubServer
from retriever_models import make_adapter
from rrra_hf import RRRAModel
from sharing import BASE, LORA, MODEL, embed, embed_with_all_loaders, put, spoil


def test_lora_weights_alone_are_loaded_with_the_base_model(
    hub: HubServer, lora_model: RRRAModel, tiny_bert: Path, tmp_path: Path
) -> None:
    lora_model.push_to_hub(MODEL, form="lora")
    assert lora_model.config.base_weights is None
    files = hub.files(MODEL)
    (tmp_path / "model.safetensors").write_bytes(files["model.safetensors"])
    names = set(load_file(tmp_path / "model.safetensors"))
    assert names == {
        name for name in lora_model.state_dict() if "lora_" in name or name.startswith("adapter.")
    }
    config = json.loads(files["config.json"])
    assert config["base_model_name"] == BASE
    assert config["base_model_revision"] == hub.repositories[BASE].at("main").sha
    # The base model goes on; the commit it was at is what counts.
    shutil.copytree(tiny_bert, tmp_path / "newer")
    spoil(tmp_path / "newer")
    put(hub, BASE, tmp_path / "newer")
    for embeddings in embed_with_all_loaders(MODEL):
        assert_alike(embeddings, embed(lora_model))


def test_a_model_loaded_from_lora_weights_is_whole(
    hub: HubServer, lora_model: RRRAModel, tmp_path: Path
) -> None:
    lora_model.save_pretrained(tmp_path / "lora", form="lora")
    loaded, info = RRRAModel.from_pretrained(tmp_path / "lora", output_loading_info=True)
    assert not info["missing_keys"]
    trained = {name for name, parameter in loaded.named_parameters() if parameter.requires_grad}
    assert trained and all("lora_" in name or name.startswith("adapter.") for name in trained)
    loaded.save_pretrained(tmp_path / "full")
    hub.repositories.clear()
    assert_alike(embed(RRRAModel.from_pretrained(tmp_path / "full")), embed(lora_model))


def test_another_base_model_is_refused_and_the_right_one_may_be_elsewhere(
    hub: HubServer, lora_model: RRRAModel, tiny_bert: Path, tmp_path: Path
) -> None:
    lora_model.push_to_hub(MODEL, form="lora")
    loaded = RRRAModel.from_pretrained(MODEL, base_model_name=str(tiny_bert))
    assert_alike(embed(loaded), embed(lora_model))
    shutil.copytree(tiny_bert, tmp_path / "other")
    spoil(tmp_path / "other")
    with pytest.raises(ValueError, match=rf"other .* is not the base model of {MODEL}: its weights have"):
        RRRAModel.from_pretrained(MODEL, base_model_name=str(tmp_path / "other"))
    del hub.repositories[BASE]
    shutil.rmtree(tmp_path / "cache")
    with pytest.raises(
        OSError, match=rf"LoRA weights alone, and its base model {BASE} \(revision \w+\) can't be"
    ):
        RRRAModel.from_pretrained(MODEL)


def test_lora_weights_alone_need_lora_and_the_base_they_were_trained_on(
    hub: HubServer, lora_model: RRRAModel, plain_model: RRRAModel, tiny_bert: Path, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="form='lora' needs a model with LoRA"):
        plain_model.push_to_hub(MODEL, form="lora")
    with pytest.raises(ValueError, match="form must be one of full, lora, merged, plain, got 'half'"):
        plain_model.push_to_hub(MODEL, form="half")
    from_folder = RRRAModel.from_encoder(tiny_bert, lora=LORA)
    with pytest.raises(OSError, match=r"form='lora' needs the base model; set config\.base_model_name"):
        from_folder.push_to_hub(MODEL, form="lora")
    with torch.no_grad():
        lora_model.encoder.embeddings.word_embeddings.weight[0, 0] += 1
    with pytest.raises(ValueError, match=rf"under the LoRA are not those of {BASE}: 1 differ"):
        lora_model.push_to_hub(MODEL, form="lora")
    assert MODEL not in hub.repositories


def test_the_base_of_a_saved_model_can_be_named_at_upload(
    hub: HubServer, lora_model: RRRAModel, tmp_path: Path
) -> None:
    lora_model.config.base_model_name = "a-folder"
    lora_model.save_pretrained(tmp_path / "model")
    outcome = rrra("push", tmp_path / "model", MODEL, "--form", "lora", "--base-model", BASE)
    assert outcome.status == 0, outcome.err
    assert json.loads(hub.files(MODEL)["config.json"])["base_model_name"] == BASE
    bad = rrra("push", tmp_path / "model", MODEL, "--base-model", BASE)
    assert bad.status == 2 and "--base-model belongs to --form lora, got --form full" in bad.message


def test_merged_weights_know_nothing_of_lora(hub: HubServer, lora_model: RRRAModel) -> None:
    lora_model.push_to_hub(MODEL, form="merged")
    assert json.loads(hub.files(MODEL)["config.json"])["lora"] is None
    assert lora_model.config.lora is not None
    for embeddings in embed_with_all_loaders(MODEL):
        torch.testing.assert_close(embeddings, embed(lora_model), atol=1e-6, rtol=0)


def test_forms_are_of_a_model_with_lora(hub: HubServer, plain_model: RRRAModel, tmp_path: Path) -> None:
    plain_model.save_pretrained(tmp_path / "model")
    for form in ("lora", "merged"):
        failed = rrra("push", tmp_path / "model", MODEL, "--form", form)
        assert failed.status == 1 and f"form='{form}' needs a model with LoRA" in failed.message
    make_adapter().save_pretrained(tmp_path / "adapter")
    failed = rrra("push", tmp_path / "adapter", MODEL, "--form", "merged")
    assert failed.status == 1 and "Can't load a model" in failed.message
    assert MODEL not in hub.repositories
