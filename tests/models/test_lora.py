"""LoRA of every kind that is accepted is kept; folders of peft open; a trained LoRA isn't replaced."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from sentence_transformers import SentenceTransformer
from transformers import AutoModel, AutoModelForMaskedLM

from alike import assert_alike
from model_folders import TEXTS, embed, make
from rrra_hf import RRRAModel
from tiny import save_encoder

QUERY = {"r": 2, "target_modules": ["query"]}

# -------------------------------------------------------------------- settings


@pytest.mark.parametrize(
    "settings",
    [
        {"use_dora": True},
        {"use_rslora": True, "lora_alpha": 3},
        {"lora_bias": True},
        {"bias": "all"},
        {"bias": "lora_only"},
        {"rank_pattern": {"layer.1.attention.self.query": 3}, "alpha_pattern": {"query": 5}},
        {"layers_to_transform": [1]},
        {"target_modules": ["word_embeddings", "query"]},
        {"init_lora_weights": "gaussian"},
    ],
)
def test_settings_are_kept_in_every_form(settings: dict[str, Any], tiny_bert: Path, tmp_path: Path) -> None:
    model = make(tiny_bert, lora={**QUERY, **settings})
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    for form in ("full", "lora", "merged", "plain"):
        model.config.base_model_name = str(tiny_bert)
        model.save_pretrained(tmp_path / form, form=form)
        opened = RRRAModel.from_pretrained(tmp_path / form)
        assert torch.allclose(embed(opened), embed(model), atol=1e-5)
        if form in ("full", "lora"):
            assert {name for name, p in opened.named_parameters() if p.requires_grad} == trained


@pytest.mark.parametrize(("bias", "count"), [("none", 0), ("all", 18), ("lora_only", 2)])
def test_biases_are_trained_as_lora_says(bias: str, count: int, tiny_bert: Path) -> None:
    model = RRRAModel.from_encoder(tiny_bert, lora={**QUERY, "bias": bias})
    trained = [
        name for name, p in model.encoder.named_parameters() if p.requires_grad and "lora_" not in name
    ]
    assert len(trained) == count
    assert all(name.endswith("bias") for name in trained)


@pytest.mark.parametrize(
    "settings",
    [
        {"modules_to_save": ["pooler"]},
        {"trainable_token_indices": [1, 2]},
        {"layer_replication": [(0, 2), (1, 2)]},
        {"target_parameters": ["query.weight"]},
        {"init_lora_weights": "pissa"},
    ],
)
def test_settings_that_would_not_be_kept_are_refused(settings: dict[str, Any], tiny_bert: Path) -> None:
    with pytest.raises(ValueError, match=rf"lora can't have {next(iter(settings))}.*legal are r, lora_alpha"):
        RRRAModel.from_encoder(tiny_bert, lora={**QUERY, **settings})


# -------------------------------------------------------------------- a second LoRA


def test_a_trained_lora_is_not_replaced(tiny_bert: Path) -> None:
    model = make(tiny_bert, lora=QUERY)
    expected = embed(model)
    config = LoraConfig(r=2, target_modules=["query"])
    with pytest.raises(ValueError, match=r"give lora=\.\.\. to RRRAModel\.from_encoder"):
        model.add_adapter(config)
    with pytest.raises(ValueError, match=r"give lora=\.\.\. to RRRAModel\.from_encoder"):
        model.to_sentence_transformer().add_adapter(config, "other")
    with (
        pytest.raises(ValueError, match="has LoRA already, and a second one would take its place"),
        pytest.warns(UserWarning, match="second time"),
    ):
        get_peft_model(model, config)
    assert torch.equal(embed(model), expected)


def test_lora_that_the_configuration_lacks_is_not_saved(tiny_bert: Path, tmp_path: Path) -> None:
    model = RRRAModel.from_encoder(tiny_bert)
    get_peft_model(model.encoder, LoraConfig(r=2, target_modules=["query"]))
    with pytest.raises(ValueError, match="has LoRA that its configuration doesn't know"):
        model.save_pretrained(tmp_path)


# -------------------------------------------------------------------- folders of peft


def trained(model: PeftModel) -> PeftModel:
    torch.manual_seed(1)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    return model


@pytest.mark.parametrize(
    "settings", [{}, {"use_dora": True}, {"target_modules": ["word_embeddings", "query"]}]
)
def test_a_folder_of_peft_is_taken_with_its_base(settings: dict[str, Any], tmp_path: Path) -> None:
    base = save_encoder(tmp_path / "base", "bert")
    config = LoraConfig(**{**QUERY, "bias": "none", **settings})
    trained(get_peft_model(AutoModel.from_pretrained(base), config)).save_pretrained(tmp_path / "peft")
    reference = PeftModel.from_pretrained(AutoModel.from_pretrained(base), tmp_path / "peft").eval()
    model = RRRAModel.from_encoder(tmp_path / "peft")
    assert (model.config.base_model_name, model.config.lora["r"]) == (str(base), 2)
    inputs = model.tokenizer(TEXTS, padding=True, return_tensors="pt")
    with torch.no_grad():
        hidden = reference(**inputs).last_hidden_state
        assert_alike(model(**inputs).last_hidden_state, hidden)
    model.save_pretrained(tmp_path / "saved")
    assert torch.equal(embed(RRRAModel.from_pretrained(tmp_path / "saved")), embed(model))
    model.save_pretrained(tmp_path / "lora", form="lora")
    assert torch.equal(embed(RRRAModel.from_pretrained(tmp_path / "lora")), embed(model))


def test_settings_beside_peft_come_before_those_of_the_base(tiny_bert: Path, tmp_path: Path) -> None:
    transformer = SentenceTransformer(str(tiny_bert), device="cpu")
    transformer.add_adapter(LoraConfig(r=2, target_modules=["query"]))
    trained(transformer[0].model)
    transformer[1].pooling_mode = "cls"
    transformer.prompts["query"] = "find "
    transformer.save_pretrained(str(tmp_path))
    model = RRRAModel.from_encoder(tmp_path)
    assert (model.config.pooling, model.config.query_prompt) == ("cls", "find ")
    for method in ("encode_query", "encode_document"):
        ours = getattr(model.to_sentence_transformer(), method)(TEXTS, convert_to_tensor=True)
        assert_alike(ours, getattr(transformer, method)(TEXTS, convert_to_tensor=True))


def test_a_lora_of_another_head_fits_the_encoder(tmp_path: Path) -> None:
    base = save_encoder(tmp_path / "base", "bert")
    masked = get_peft_model(AutoModelForMaskedLM.from_pretrained(base), LoraConfig(**QUERY))
    trained(masked).save_pretrained(tmp_path / "peft")
    ours = RRRAModel.from_encoder(tmp_path / "peft").encoder.state_dict()
    theirs = masked.base_model.model.bert.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours if "lora_" in name)


def test_folders_of_peft_are_checked(tmp_path: Path) -> None:
    base = save_encoder(tmp_path / "base", "bert")
    peft = get_peft_model(AutoModel.from_pretrained(base), LoraConfig(r=2, target_modules=["query"]))
    peft.save_pretrained(tmp_path / "peft")
    path = tmp_path / "peft/adapter_config.json"
    config = json.loads(path.read_text())
    for changes, match in (
        ({"peft_type": "IA3"}, r"peft_type .*must be LORA, got 'IA3'"),
        ({"modules_to_save": ["pooler"]}, r"can't have modules_to_save"),
        ({"base_model_name_or_path": None}, r"must name its base model"),
        ({"target_modules": ["query", "value"]}, r"doesn't fit its adapter_config\.json: .*missing"),
        ({"r": 3}, r"doesn't fit its adapter_config\.json: .*of another shape"),
        ({"unknown": 7}, r"can't have unknown"),
    ):
        path.write_text(json.dumps({**config, **changes}))
        with pytest.raises(ValueError, match=match):
            RRRAModel.from_encoder(tmp_path / "peft")
    path.write_text(json.dumps(config))
    with pytest.raises(ValueError, match=r"lora must be None for a folder that has LoRA"):
        RRRAModel.from_encoder(tmp_path / "peft", lora=True)
    (tmp_path / "peft/adapter_model.safetensors").write_bytes(b"no")
    with pytest.raises(ValueError, match=r"adapter_model\.safetensors is damaged"):
        RRRAModel.from_encoder(tmp_path / "peft")
    (tmp_path / "peft/adapter_model.safetensors").unlink()
    with pytest.raises(ValueError, match=r"has no adapter_model\.safetensors"):
        RRRAModel.from_encoder(tmp_path / "peft")
