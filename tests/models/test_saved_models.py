"""Weights are read whole or refused; saving replaces what was there, or leaves it."""

from __future__ import annotations

import json
import sys
import threading
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer
from transformers import AutoModel

from alike import assert_alike
from model_folders import edit_weights, embed, encode, make
from rrra_hf import RetrieverAdapter, RRRAConfig, RRRAModel
from tiny import save_encoder

# -------------------------------------------------------------------- strict loading


@pytest.mark.parametrize("missing", ["adapter.reader.readout.weight", "lora_B", "layer.0.attention.self.key"])
def test_missing_weights_are_refused_by_name(missing: str, saved: Path) -> None:
    edit_weights(saved, lambda name: missing not in name)
    for load in (RRRAModel.from_pretrained, AutoModel.from_pretrained):
        with pytest.raises(ValueError, match=missing.replace(".", r"\.")):
            load(saved)


def test_config_with_lora_refuses_a_checkpoint_without(tiny_bert: Path, tmp_path: Path) -> None:
    RRRAModel.from_encoder(tiny_bert).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["lora"] = {"r": 4, "target_modules": ["query"]}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=r"The config says LoRA, but the checkpoint lacks LoRA weights"):
        RRRAModel.from_pretrained(tmp_path)


def test_unexpected_and_misshapen_weights_are_refused(saved: Path) -> None:
    weights = load_file(saved / "model.safetensors")
    weights["adapter.extra"] = torch.zeros(1)
    weights["adapter.reader.readout.weight"] = torch.zeros(4, 3)
    save_file(weights, saved / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(
        ValueError,
        match=r"unexpected \(adapter\.extra\).*of another shape \(adapter\.reader\.readout\.weight\)",
    ):
        RRRAModel.from_pretrained(saved)


def test_missing_unused_pooler_is_no_error(saved: Path) -> None:
    expected = embed(RRRAModel.from_pretrained(saved))
    edit_weights(saved, lambda name: "pooler" not in name)
    assert_alike(embed(RRRAModel.from_pretrained(saved)), expected)


@pytest.mark.parametrize("size", [0, 5, 1000, -1])
def test_damaged_weights_are_refused_by_file(size: int, saved: Path) -> None:
    path = saved / "model.safetensors"
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(ValueError, match=r"saved/model\.safetensors is damaged"):
        RRRAModel.from_pretrained(saved)


def test_loading_freezes_the_encoder_under_lora(saved: Path, tiny_bert: Path, tmp_path: Path) -> None:
    model = RRRAModel.from_pretrained(saved)
    trainable = {name for name, p in model.named_parameters() if p.requires_grad}
    assert trainable == {
        name for name, _ in model.named_parameters() if "lora_" in name or name.startswith("adapter.")
    }
    RRRAModel.from_encoder(tiny_bert).save_pretrained(tmp_path / "full")
    assert all(p.requires_grad for p in RRRAModel.from_pretrained(tmp_path / "full").parameters())


def test_loading_info_is_returned_on_request(saved: Path) -> None:
    model, info = RRRAModel.from_pretrained(saved, output_loading_info=True)
    assert isinstance(model, RRRAModel)
    assert not info["missing_keys"]


def test_options_of_transformers_work(saved: Path) -> None:
    expected = embed(RRRAModel.from_pretrained(saved))
    assert_alike(embed(RRRAModel.from_pretrained(saved, device_map="cpu")), expected)
    eager = RRRAModel.from_pretrained(saved, attn_implementation="eager")
    assert eager.encoder.config._attn_implementation == "eager"
    assert torch.allclose(embed(eager), expected, atol=1e-6)


def test_half_precision_is_for_the_encoder_alone(saved: Path, tmp_path: Path) -> None:
    model = RRRAModel.from_pretrained(saved, dtype=torch.bfloat16)
    assert {p.dtype for p in model.encoder.parameters()} == {torch.bfloat16}
    assert {p.dtype for p in model.adapter.parameters()} == {torch.float32}
    model.save_pretrained(tmp_path / "half")
    assert_alike(embed(RRRAModel.from_pretrained(tmp_path / "half")), embed(model))
    expected = embed(RRRAModel.from_pretrained(saved))
    for task in ("query", "document"):
        half = embed(model, task).float()
        full = embed(RRRAModel.from_pretrained(saved), task)
        assert torch.cosine_similarity(half, full).min() > 0.99
        transformer = SentenceTransformer(str(tmp_path / "half"), device="cpu")
        assert torch.allclose(encode(transformer, task).float(), half, atol=0.02)
    assert expected.dtype == torch.float32


def test_half_precision_encoder_with_lora_survives_saving(tmp_path: Path) -> None:
    folder = save_encoder(tmp_path / "e", "qwen3")
    model = make(folder, lora=True, pooling="lasttoken", dtype=torch.bfloat16)
    model.save_pretrained(tmp_path / "saved")
    assert_alike(embed(RRRAModel.from_pretrained(tmp_path / "saved")), embed(model))


def test_shards_and_whole_files_replace_each_other(saved: Path) -> None:
    model = RRRAModel.from_pretrained(saved)
    expected = embed(model)
    model.save_pretrained(saved, max_shard_size="50KB")
    assert not (saved / "model.safetensors").exists()
    assert len(list(saved.glob("model-*.safetensors"))) > 1
    assert_alike(embed(AutoModel.from_pretrained(saved)), expected)
    RetrieverAdapter.from_pretrained(saved)
    model.save_pretrained(saved)
    assert [path.name for path in saved.glob("model*.safetensors*")] == ["model.safetensors"]
    assert_alike(embed(RRRAModel.from_pretrained(saved)), expected)


def test_merged_model_embeds_alike_without_peft(saved: Path, tmp_path: Path) -> None:
    model = RRRAModel.from_pretrained(saved)
    expected = embed(model)
    model.merge_lora().save_pretrained(tmp_path / "merged")
    assert torch.allclose(embed(model), expected, atol=1e-5)
    assert all(p.requires_grad for p in model.parameters())
    assert "lora" not in "".join(load_file(tmp_path / "merged/model.safetensors"))
    assert RRRAConfig.from_pretrained(tmp_path / "merged").lora is None
    assert_alike(embed(RRRAModel.from_pretrained(tmp_path / "merged")), embed(model))


def test_only_lora_needs_peft(saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    RRRAModel.from_pretrained(saved).merge_lora().save_pretrained(tmp_path / "merged")
    monkeypatch.setitem(sys.modules, "peft", None)
    RRRAModel.from_pretrained(tmp_path / "merged")
    with pytest.raises(ImportError, match="holds LoRA weights: install peft"):
        RRRAModel.from_pretrained(saved)


# -------------------------------------------------------------------- saving


def test_failed_save_leaves_the_folder_as_it_was(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = {path: path.read_bytes() for path in saved.rglob("*") if path.is_file()}
    model = make(save_encoder(saved.parent / "e", "bert"))

    def fail(*args: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr("rrra_hf.models.modeling_rrra.write_side_files", fail)
    with pytest.raises(OSError, match="no space left"):
        model.save_pretrained(saved)
    assert {path: path.read_bytes() for path in saved.rglob("*") if path.is_file()} == before
    assert sorted(path.name for path in saved.parent.iterdir()) == ["e", "saved"]


def test_save_refuses_what_it_cannot_do(tiny_bert: Path, tmp_path: Path) -> None:
    model = RRRAModel.from_encoder(tiny_bert)
    (tmp_path / "file").write_text("")
    with pytest.raises(NotADirectoryError, match="must be a folder"):
        model.save_pretrained(tmp_path / "file")
    with pytest.raises(ValueError, match="call push_to_hub"):
        model.save_pretrained(tmp_path / "x", push_to_hub=True)
    model.adapter = RRRAModel(RRRAConfig(text_config={"model_type": "bert", "hidden_size": 24})).adapter
    with pytest.raises(ValueError, match=r"adapter embedding_dim must be the encoder's, 32, got 24"):
        model.save_pretrained(tmp_path / "x")
    assert not (tmp_path / "x").exists()


def test_saving_records_the_settings_of_a_new_adapter(tiny_bert: Path, tmp_path: Path) -> None:
    model = RRRAModel.from_encoder(tiny_bert)
    model.save_pretrained(tmp_path)
    model.adapter.config.lambda_ = 0.25
    model.adapter.config.temperature = 2.0
    model.save_pretrained(tmp_path)
    config = RRRAModel.from_pretrained(tmp_path).adapter.config
    assert (config.lambda_, config.temperature) == (0.25, 2.0)


def test_a_model_with_fewer_modules_leaves_none_of_those_before(tiny_bert: Path, tmp_path: Path) -> None:
    make(tiny_bert, adapter={"query_map": True, "document_map": True}).save_pretrained(tmp_path)
    (tmp_path / "notes.txt").write_text("mine")
    for normalize, adapter, router in ((True, {"query_map": True}, "3_Router"), (False, {}, None)):
        model = make(tiny_bert, normalize=normalize, adapter=adapter)
        model.save_pretrained(tmp_path)
        assert_alike(embed(RRRAModel.from_pretrained(tmp_path), "query"), embed(model, "query"))
        folders = {path.name for path in tmp_path.iterdir() if path.is_dir()}
        assert folders == {"1_Pooling", *([router] if router else [])}
        assert not (tmp_path / "3_Router/document_0_Dense").exists()
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_changed_prompts_replace_those_saved_before(tiny_bert: Path, tmp_path: Path) -> None:
    model = RRRAModel.from_encoder(tiny_bert, query_prompt="query ")
    model.save_pretrained(tmp_path)
    model.config.query_prompt = "find "
    model.save_pretrained(tmp_path)
    assert SentenceTransformer(str(tmp_path), device="cpu").prompts["query"] == "find "


# -------------------------------------------------------------------- several processes write one folder


def test_settings_that_another_process_is_writing_are_waited_for(tiny_bert: Path, tmp_path: Path) -> None:
    model = RRRAModel.from_encoder(tiny_bert)
    settings = tmp_path / "config_sentence_transformers.json"
    settings.write_text("")
    content = json.dumps({"prompts": {"query": "find: "}})
    writer = threading.Timer(0.2, settings.write_text, [content])
    writer.start()
    model.save_pretrained(tmp_path, safe_serialization=True)
    writer.join()
    assert model.config.query_prompt == "find: "


def test_a_process_that_does_not_save_reads_no_settings(tiny_bert: Path, tmp_path: Path) -> None:
    settings = tmp_path / "config_sentence_transformers.json"
    settings.write_text("")
    model = RRRAModel.from_encoder(tiny_bert)
    model.save_pretrained(tmp_path, is_main_process=False, safe_serialization=True)
    assert [path.name for path in tmp_path.iterdir()] == [settings.name]
    with pytest.raises(ValueError, match="damaged"):
        model.save_pretrained(tmp_path, safe_serialization=True)
