"""An encoder is taken with its settings, or refused by name."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from sentence_transformers import SentenceTransformer
from transformers import AutoTokenizer

from alike import assert_alike
from model_folders import edit_weights, embed, make
from rrra_hf import RRRAConfig, RRRAModel
from tiny import add_side_files, save_encoder


@pytest.mark.parametrize(
    ("pooling", "expected"),
    [
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}, "cls"),
        ({"pooling_mode_lasttoken": True}, "lasttoken"),
        ({"pooling_mode": "cls", "include_prompt": True}, "cls"),
        ({}, "mean"),
    ],
)
def test_settings_are_read_from_side_files(pooling: dict[str, object], expected: str, tmp_path: Path) -> None:
    folder = save_encoder(tmp_path / "e", "bert")
    add_side_files(folder, pooling, normalize=False, prompts={"query": "query ", "passage": "passage "})
    config = RRRAModel.from_encoder(folder).config
    assert (config.pooling, config.normalize, config.max_seq_length) == (expected, False, 32)
    assert (config.query_prompt, config.document_prompt) == ("query ", "passage ")
    given = RRRAModel.from_encoder(
        folder, pooling="mean", normalize=True, query_prompt="", document_prompt="new ", max_seq_length=8
    ).config
    assert (given.pooling, given.normalize, given.max_seq_length) == ("mean", True, 8)
    assert (given.query_prompt, given.document_prompt) == ("", "new ")


def test_encoder_in_a_subfolder_is_found(tmp_path: Path) -> None:
    """The layout of sentence-transformers before 2.0: the encoder in 0_Transformer, not in the root."""
    folder = add_side_files(save_encoder(tmp_path / "e", "bert"), {})
    expected = embed(RRRAModel.from_encoder(folder))
    (folder / "0_Transformer").mkdir()
    moved = (
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
        "sentence_bert_config.json",
    )
    for name in moved:
        shutil.move(folder / name, folder / "0_Transformer" / name)
    modules = json.loads((folder / "modules.json").read_text())
    modules[0]["path"] = "0_Transformer"
    (folder / "modules.json").write_text(json.dumps(modules))
    model = RRRAModel.from_encoder(folder)
    assert_alike(embed(model), expected)
    assert model.tokenizer is not None
    assert model.config.max_seq_length == 32


def test_lower_casing_moves_into_the_tokenizer(tmp_path: Path) -> None:
    folder = add_side_files(save_encoder(tmp_path / "e", "bert"), {})
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    (folder / "tokenizer.json").write_text(json.dumps({**tokenizer, "normalizer": None}))
    (folder / "sentence_bert_config.json").write_text(json.dumps({"do_lower_case": True}))
    expected = SentenceTransformer(str(folder), device="cpu").encode(["SORT Text"])
    RRRAModel.from_encoder(folder).save_pretrained(tmp_path / "saved")
    assert (
        SentenceTransformer(str(tmp_path / "saved"), device="cpu").encode(["SORT Text"]) == expected
    ).all()
    assert AutoTokenizer.from_pretrained(tmp_path / "saved").tokenize("SORT") == ["sort"]


@pytest.mark.parametrize(
    ("model_type", "expected"),
    [("bert", 64), ("xlm-roberta", 63), ("mpnet", 62), ("modernbert", 64), ("qwen3", 64)],
)
def test_long_texts_are_cut_to_what_the_encoder_takes(
    model_type: str, expected: int, encoder_folder: Callable[[str], Path], tmp_path: Path
) -> None:
    """XLM-R counts positions from its padding index (here 0) on, MPNet from 1 whatever the config says."""
    model = RRRAModel.from_encoder(encoder_folder(model_type))
    assert model.config.max_seq_length == expected
    encoded = model.to_sentence_transformer().encode(["sort text " * 5000])
    assert torch.isfinite(torch.from_numpy(encoded)).all()
    with pytest.raises(ValueError, match=rf"max_seq_length must be at most {expected} .*got 5000"):
        RRRAModel.from_encoder(encoder_folder(model_type), max_seq_length=5000)
    with pytest.raises(ValueError, match="max_seq_length must be at least 1 or None, got 0"):
        RRRAModel.from_encoder(encoder_folder(model_type), max_seq_length=0)


@pytest.mark.parametrize(
    ("pooling", "match"),
    [
        ({"pooling_mode_new": True}, r"pools with \['pooling_mode_new'\].*mean, cls, lasttoken"),
        ({"pooling_mode": ["cls", "new"]}, r"pools with \['cls', 'new'\]"),
        ({"pooling_mode": "mean", "include_prompt": False}, r"include_prompt=False"),
    ],
)
def test_other_poolings_are_refused(pooling: dict[str, object], match: str, tmp_path: Path) -> None:
    folder = add_side_files(save_encoder(tmp_path / "e", "bert"), pooling)
    with pytest.raises(ValueError, match=match):
        RRRAModel.from_encoder(folder)


def test_unknown_encoder_is_one_clear_error(tmp_path: Path) -> None:
    for name in ("nobody/no-such-encoder", str(tmp_path / "no-such-folder")):
        with pytest.raises(OSError, match=f"Can't load an encoder named '{name}'"):
            RRRAModel.from_encoder(name)


def test_encoder_without_some_weights_is_refused(
    encoder_folder: Callable[[str], Path], tmp_path: Path
) -> None:
    shutil.copytree(encoder_folder("bert"), tmp_path / "e")
    edit_weights(tmp_path / "e", lambda name: "layer.1.output" not in name and "pooler" not in name)
    with pytest.raises(ValueError, match=r"lacks 4 weights of the encoder: encoder\.layer\.1\.output"):
        RRRAModel.from_encoder(tmp_path / "e")


def test_damaged_encoder_is_refused_by_file(encoder_folder: Callable[[str], Path], tmp_path: Path) -> None:
    shutil.copytree(encoder_folder("bert"), tmp_path / "e")
    path = tmp_path / "e/model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"e/model\.safetensors is damaged"):
        RRRAModel.from_encoder(tmp_path / "e")


def test_own_folder_is_no_encoder_and_an_encoder_no_model(saved: Path, tiny_bert: Path) -> None:
    with pytest.raises(ValueError, match=r"use RRRAModel\.from_pretrained"):
        RRRAModel.from_encoder(saved.parent / saved.name)
    with pytest.raises(ValueError, match=r"of type 'bert', not an RRRAModel; make one with"):
        RRRAModel.from_pretrained(tiny_bert)


def test_unknown_lora_setting_is_named(tiny_bert: Path) -> None:
    with pytest.raises(ValueError, match=r"lora has an unknown setting: .*rank"):
        RRRAModel.from_encoder(tiny_bert, lora={"rank": 4})


def test_lora_settings_are_kept(tiny_bert: Path, tmp_path: Path) -> None:
    model = make(tiny_bert, lora={"r": 2, "target_modules": ["query", "value"]})
    model.save_pretrained(tmp_path)
    assert RRRAModel.from_pretrained(tmp_path).config.lora == model.config.lora
    assert sum("lora_A" in name for name, _ in model.named_parameters()) == 4


@pytest.mark.parametrize(
    ("values", "match"),
    [
        ({"pooling": "new"}, r"pooling must be one of mean, cls, lasttoken, max, .*got 'new'"),
        ({"max_seq_length": 0}, r"max_seq_length must be at least 1 or None, got 0"),
        ({"lora": True}, r"lora must be a dictionary of peft\.LoraConfig's arguments or None, got True"),
        ({"text_config": "bert"}, r"text_config must be a dictionary or a PreTrainedConfig, got 'bert'"),
        ({"adapter": {"depth": 2}}, r"Unknown adapter settings \['depth'\]; legal are"),
        ({"adapter": {"embedding_dim": 3}}, r"embedding_dim must be the encoder's, 768, got 3"),
    ],
)
def test_illegal_config_values_are_named(values: dict[str, object], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        RRRAConfig(**values)


def test_config_survives_its_file(tmp_path: Path) -> None:
    config = RRRAConfig(
        text_config={"model_type": "qwen3", "hidden_size": 64},
        pooling="lasttoken",
        adapter={"tau": 0.02},
        lora={"r": 4},
    )
    config.save_pretrained(tmp_path)
    assert RRRAConfig.from_pretrained(tmp_path).to_dict() == config.to_dict()
    assert json.loads((tmp_path / "config.json").read_text())["adapter"]["embedding_dim"] == 64
