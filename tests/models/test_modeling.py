"""The model's folder: three loaders, strictness, sentence-transformers both ways."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer
from torch import Tensor
from transformers import AutoModel, AutoTokenizer, PreTrainedModel

from rrra_hf import RetrieverAdapter, RRRAConfig, RRRAModel
from rrra_hf.models.modeling_rrra import pool
from tiny import ENCODERS, add_side_files, make_tokenizer, save_encoder

TEXTS = ["how do i list files in the folder", "sort text", "the old line of text is new"]
PROMPTS = {"query": "query ", "document": "passage "}


def make(folder: Path, **kwargs: object) -> RRRAModel:
    """Make a model whose LoRA, maps and adapter are all away from their starting points."""
    model = RRRAModel.from_encoder(folder, **kwargs)
    torch.manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name or name.startswith("adapter."):
                parameter.normal_(0, 0.3)
    return model


@torch.no_grad()
def embed(
    model: PreTrainedModel, task: str | None = None, prompt: str = "", padding_side: str = "right"
) -> Tensor:
    tokenizer = make_tokenizer(padding_side)
    batch = tokenizer([prompt + text for text in TEXTS], padding=True, return_tensors="pt")
    return model.eval()(**batch, task=task).pooler_output


def encode(model: SentenceTransformer, task: str) -> Tensor:
    encoder = model.encode_query if task == "query" else model.encode_document
    return encoder(TEXTS, convert_to_tensor=True)


def edit_weights(folder: Path, keep: Callable[[str], bool]) -> None:
    weights = {k: v for k, v in load_file(folder / "model.safetensors").items() if keep(k)}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


@pytest.fixture
def saved(tiny_bert: Path, tmp_path: Path) -> Path:
    make(tiny_bert, lora=True, adapter={"query_map": True}).save_pretrained(tmp_path / "saved")
    return tmp_path / "saved"


# -------------------------------------------------------------------- three loaders


@pytest.mark.parametrize("lora", [False, True])
@pytest.mark.parametrize("model_type", ENCODERS)
def test_three_loaders_make_equal_embeddings(
    model_type: str, lora: bool, encoder_folder: Callable[[str], Path], tmp_path: Path
) -> None:
    pooling = {"qwen3": "lasttoken", "modernbert": "cls"}.get(model_type, "mean")
    side = "left" if model_type == "qwen3" else "right"
    model = make(
        encoder_folder(model_type),
        lora=lora,
        pooling=pooling,
        adapter={"query_map": True, "document_map": lora},
        query_prompt=PROMPTS["query"],
        document_prompt=PROMPTS["document"],
    )
    model.save_pretrained(tmp_path)
    loaded = [AutoModel.from_pretrained(tmp_path), RRRAModel.from_pretrained(tmp_path)]
    transformer = SentenceTransformer(str(tmp_path), device="cpu")
    for task, prompt in PROMPTS.items():
        expected = embed(model, task, prompt, side)
        for other in loaded:
            assert isinstance(other, RRRAModel)
            assert torch.equal(embed(other, task, prompt, side), expected)
        assert (encode(transformer, task) - expected).abs().max() <= 1e-6
    # The adapter's own maps say the same of unmapped embeddings.
    mapped = model.adapter.map_queries
    model.adapter.query_map, kept = None, model.adapter.query_map
    plain = embed(model, "query", PROMPTS["query"], side)
    model.adapter.query_map = kept
    if not lora:
        assert torch.allclose(mapped(plain), embed(model, "query", PROMPTS["query"], side), atol=1e-6)


@pytest.mark.parametrize("model_type", ENCODERS)
def test_lora_starts_without_effect_and_spares_the_pooler(
    model_type: str, encoder_folder: Callable[[str], Path]
) -> None:
    folder = encoder_folder(model_type)
    model = RRRAModel.from_encoder(folder, lora=True)
    names = [name for name, _ in model.named_parameters() if "lora_" in name]
    assert names
    assert not any("pooler" in name for name in names)
    assert torch.equal(embed(model), embed(RRRAModel.from_encoder(folder)))


@pytest.mark.parametrize("normalize", [False, True])
def test_embeddings_are_those_of_the_encoder_itself(normalize: bool, tmp_path: Path) -> None:
    folder = add_side_files(save_encoder(tmp_path / "e", "bert"), {"pooling_mode_cls_token": True}, normalize)
    expected = SentenceTransformer(str(folder), device="cpu").encode(TEXTS, convert_to_tensor=True)
    model = RRRAModel.from_encoder(folder)
    assert torch.equal(embed(model), expected)
    model.save_pretrained(tmp_path / "saved")
    again = SentenceTransformer(str(tmp_path / "saved"), device="cpu")
    assert torch.equal(again.encode(TEXTS, convert_to_tensor=True), expected)


def test_untrained_model_has_an_adapter_that_changes_nothing(tiny_bert: Path, tmp_path: Path) -> None:
    RRRAModel.from_encoder(tiny_bert).save_pretrained(tmp_path)
    for model in (
        RRRAModel.from_pretrained(tmp_path),
        RRRAModel(RRRAConfig.from_pretrained(tmp_path)),
        AutoModel.from_config(RRRAConfig.from_pretrained(tmp_path)),
    ):
        q, c = torch.nn.functional.normalize(torch.randn(2, 5, 32), dim=-1)
        assert torch.equal(model.adapter(q, c).adapted, torch.nn.functional.normalize(c, dim=-1))
        # The first layer is not at transformers' scale of 0.02 but at torch's of 1 / sqrt(dim).
        assert model.adapter.query_layer.weight.abs().max() > 0.15


def test_whole_folder_serves_as_an_adapter(saved: Path) -> None:
    adapter = RetrieverAdapter.from_pretrained(saved)
    expected = RRRAModel.from_pretrained(saved).adapter.state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in adapter.state_dict().items())


def test_task_without_maps_makes_no_difference_and_none_is_document(tiny_bert: Path) -> None:
    model = make(tiny_bert)
    assert torch.equal(embed(model, "query"), embed(model, "document"))
    model = make(tiny_bert, adapter={"query_map": True, "document_map": True})
    assert torch.equal(embed(model), embed(model, "document"))
    assert not torch.allclose(embed(model, "query"), embed(model, "document"))
    with pytest.raises(ValueError, match=r"task must be 'query', 'document' or None, got 'passage'"):
        embed(model, "passage")


# -------------------------------------------------------------------- pooling


@pytest.mark.parametrize(
    ("mode", "expected"), [("mean", [3.0, 5.0]), ("cls", [2.0, 5.0]), ("lasttoken", [4.0, 5.0])]
)
@pytest.mark.parametrize("side", ["left", "right"])
def test_pooling_ignores_padding_on_either_side(mode: str, expected: list[float], side: str) -> None:
    tokens = {"left": [[9.0, 2.0, 4.0], [9.0, 9.0, 5.0]], "right": [[2.0, 4.0, 9.0], [5.0, 9.0, 9.0]]}
    mask = {"left": [[0, 1, 1], [0, 0, 1]], "right": [[1, 1, 0], [1, 0, 0]]}
    pooled = pool(torch.tensor(tokens[side])[..., None], torch.tensor(mask[side]), mode)
    assert pooled.squeeze(-1).tolist() == expected


@pytest.mark.parametrize("pooling", ["mean", "cls", "lasttoken"])
def test_padding_side_changes_no_embedding(pooling: str, encoder_folder: Callable[[str], Path]) -> None:
    # Rotary positions are relative, so only pooling could tell the sides apart.
    model = RRRAModel.from_encoder(encoder_folder("qwen3"), pooling=pooling)
    assert torch.allclose(embed(model, padding_side="left"), embed(model, padding_side="right"), atol=1e-5)


def test_attention_mask_may_be_left_out(tiny_bert: Path) -> None:
    model = RRRAModel.from_encoder(tiny_bert)
    ids = torch.tensor([[2, 5, 6, 3]])
    with torch.no_grad():
        assert torch.equal(model(ids).pooler_output, model(ids, torch.ones_like(ids)).pooler_output)


def test_segment_ids_reach_only_encoders_that_know_them(encoder_folder: Callable[[str], Path]) -> None:
    ids = torch.tensor([[2, 5, 6, 3]])
    with torch.no_grad():
        for model_type, changes in (("bert", True), ("modernbert", False), ("qwen3", False)):
            model = RRRAModel.from_encoder(encoder_folder(model_type))
            plain = model(ids).pooler_output
            assert (
                torch.equal(model(ids, token_type_ids=torch.ones_like(ids)).pooler_output, plain) != changes
            )


# -------------------------------------------------------------------- from an encoder


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


def test_default_prompt_stands_in_for_missing_ones(tmp_path: Path) -> None:
    folder = save_encoder(tmp_path / "e", "bert")
    add_side_files(folder, {}, prompts={"x": "find "}, default_prompt_name="x")
    config = RRRAModel.from_encoder(folder).config
    assert (config.query_prompt, config.document_prompt) == ("find ", "find ")


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
    assert torch.equal(embed(model), expected)
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


def test_modules_that_cannot_be_expressed_are_refused_by_name(tmp_path: Path) -> None:
    folder = add_side_files(save_encoder(tmp_path / "e", "bert"), {})
    modules = json.loads((folder / "modules.json").read_text())
    modules.append({"idx": 3, "name": "3", "path": "3_Dense", "type": "sentence_transformers.models.Dense"})
    (folder / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(
        ValueError, match=r"has the modules Transformer, Pooling, Normalize, Dense; legal are"
    ):
        RRRAModel.from_encoder(folder)


@pytest.mark.parametrize(
    ("pooling", "match"),
    [
        ({"pooling_mode_max_tokens": True}, r"pools with 'pooling_mode_max_tokens'.*mean, cls, lasttoken"),
        ({"pooling_mode": ["cls", "mean"]}, r"pools with \['cls', 'mean'\]"),
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
        ({"pooling": "max"}, r"pooling must be one of mean, cls, lasttoken, got 'max'"),
        ({"max_seq_length": 0}, r"max_seq_length must be at least 1 or None, got 0"),
        ({"lora": True}, r"lora must be a dictionary of peft\.LoraConfig's arguments or None, got True"),
        ({"text_config": "bert"}, r"text_config must be a dictionary or a PreTrainedConfig, got 'bert'"),
        ({"adapter": {"depth": 2}}, r"Unknown adapter settings \['depth'\]; legal are"),
        ({"adapter": {"embedding_dim": 3}}, r"embedding_dim must be the encoder's hidden size 768, got 3"),
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


# -------------------------------------------------------------------- strict loading


@pytest.mark.parametrize("missing", ["adapter.readout.weight", "lora_B", "layer.0.attention.self.key"])
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
    weights["adapter.readout.weight"] = torch.zeros(4, 3)
    save_file(weights, saved / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(
        ValueError, match=r"unexpected \(adapter\.extra\).*of another shape \(adapter\.readout\.weight\)"
    ):
        RRRAModel.from_pretrained(saved)


def test_missing_unused_pooler_is_no_error(saved: Path) -> None:
    expected = embed(RRRAModel.from_pretrained(saved))
    edit_weights(saved, lambda name: "pooler" not in name)
    assert torch.equal(embed(RRRAModel.from_pretrained(saved)), expected)


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
    assert torch.equal(embed(RRRAModel.from_pretrained(saved, device_map="cpu")), expected)
    eager = RRRAModel.from_pretrained(saved, attn_implementation="eager")
    assert eager.encoder.config._attn_implementation == "eager"
    assert torch.allclose(embed(eager), expected, atol=1e-6)


def test_half_precision_is_for_the_encoder_alone(saved: Path, tmp_path: Path) -> None:
    model = RRRAModel.from_pretrained(saved, dtype=torch.bfloat16)
    assert {p.dtype for p in model.encoder.parameters()} == {torch.bfloat16}
    assert {p.dtype for p in model.adapter.parameters()} == {torch.float32}
    model.save_pretrained(tmp_path / "half")
    assert torch.equal(embed(RRRAModel.from_pretrained(tmp_path / "half")), embed(model))
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
    assert torch.equal(embed(RRRAModel.from_pretrained(tmp_path / "saved")), embed(model))


def test_shards_and_whole_files_replace_each_other(saved: Path) -> None:
    model = RRRAModel.from_pretrained(saved)
    expected = embed(model)
    model.save_pretrained(saved, max_shard_size="50KB")
    assert not (saved / "model.safetensors").exists()
    assert len(list(saved.glob("model-*.safetensors"))) > 1
    assert torch.equal(embed(AutoModel.from_pretrained(saved)), expected)
    RetrieverAdapter.from_pretrained(saved)
    model.save_pretrained(saved)
    assert [path.name for path in saved.glob("model*.safetensors*")] == ["model.safetensors"]
    assert torch.equal(embed(RRRAModel.from_pretrained(saved)), expected)


def test_merged_model_embeds_alike_without_peft(saved: Path, tmp_path: Path) -> None:
    model = RRRAModel.from_pretrained(saved)
    expected = embed(model)
    model.merge_lora().save_pretrained(tmp_path / "merged")
    assert torch.allclose(embed(model), expected, atol=1e-5)
    assert all(p.requires_grad for p in model.parameters())
    assert "lora" not in "".join(load_file(tmp_path / "merged/model.safetensors"))
    assert RRRAConfig.from_pretrained(tmp_path / "merged").lora is None
    assert torch.equal(embed(RRRAModel.from_pretrained(tmp_path / "merged")), embed(model))


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
    with pytest.raises(ValueError, match=r"adapter must be of dimension 32 as the encoder is, got 24"):
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


def test_changed_prompts_replace_those_saved_before(tiny_bert: Path, tmp_path: Path) -> None:
    model = RRRAModel.from_encoder(tiny_bert, query_prompt="query ")
    model.save_pretrained(tmp_path)
    model.config.query_prompt = "find "
    model.save_pretrained(tmp_path)
    assert SentenceTransformer(str(tmp_path), device="cpu").prompts["query"] == "find "


# -------------------------------------------------------------------- sentence-transformers


@pytest.mark.parametrize("maps", [False, True])
def test_sentence_transformer_shares_the_model(maps: bool, tiny_bert: Path, tmp_path: Path) -> None:
    model = make(tiny_bert, lora=True, adapter={"query_map": maps}, query_prompt="query ")
    transformer = model.to_sentence_transformer()
    assert RRRAModel.from_sentence_transformer(transformer) is model
    for task in ("query", "document"):
        assert torch.equal(encode(transformer, task), embed(model, task, "query " if task == "query" else ""))
    parameters = {id(p) for p in model.parameters()}
    assert all(id(p) in parameters for p in transformer.parameters())
    assert sum(p.requires_grad for p in transformer.parameters()) == sum(
        p.requires_grad for p in model.parameters()
    )

    features = transformer.tokenize(TEXTS)
    transformer.train()
    transformer(features, task="query")["sentence_embedding"].sum().backward()
    for name, parameter in model.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, name
        if parameter.requires_grad:
            with torch.no_grad():
                parameter -= 0.1 * parameter.grad

    transformer.save_pretrained(str(tmp_path / "st"))
    for task in ("query", "document"):
        expected = embed(model, task, "query " if task == "query" else "")
        assert torch.equal(encode(SentenceTransformer(str(tmp_path / "st"), device="cpu"), task), expected)
        for load in (AutoModel.from_pretrained, RRRAModel.from_pretrained):
            assert torch.equal(
                embed(load(tmp_path / "st"), task, "query " if task == "query" else ""), expected
            )


def test_changes_made_in_sentence_transformers_survive(saved: Path, tmp_path: Path) -> None:
    transformer = SentenceTransformer(str(saved), device="cpu")
    transformer.prompts = {"query": "find ", "document": "old "}
    transformer.max_seq_length = 7
    transformer.save_pretrained(str(tmp_path / "again"))
    model = RRRAModel.from_pretrained(tmp_path / "again")
    assert (model.config.query_prompt, model.config.document_prompt) == ("find ", "old ")
    assert (model.config.max_seq_length, model.tokenizer.model_max_length) == (7, 7)
    again = SentenceTransformer(str(tmp_path / "again"), device="cpu")
    assert (again.prompts["query"], again.max_seq_length) == ("find ", 7)
    assert torch.equal(encode(again, "query"), encode(transformer, "query"))
    # and once more, by the package
    model.save_pretrained(tmp_path / "third")
    assert torch.equal(
        encode(SentenceTransformer(str(tmp_path / "third"), device="cpu"), "query"), encode(again, "query")
    )


def test_map_trained_elsewhere_is_refused_and_the_advice_works(saved: Path, tmp_path: Path) -> None:
    transformer = SentenceTransformer(str(saved), device="cpu")
    with torch.no_grad():
        transformer[-1].sub_modules["query"][0].linear.weight.mul_(-1)
    expected = encode(transformer, "query")
    folder = tmp_path / "again"
    transformer.save_pretrained(str(folder))
    with pytest.raises(ValueError, match=r"again: modules\.json and the model disagree about query_map"):
        RRRAModel.from_pretrained(folder)
    dense = load_file(folder / "3_Router/query_0_Dense/model.safetensors")["linear.weight"]
    (folder / "modules.json").unlink()
    model = RRRAModel.from_pretrained(folder)
    with torch.no_grad():
        model.adapter.query_map.weight.copy_(dense)
    model.save_pretrained(folder)
    assert torch.equal(encode(SentenceTransformer(str(folder), device="cpu"), "query"), expected)


def test_pooling_changed_elsewhere_is_refused(saved: Path) -> None:
    (saved / "1_Pooling/config.json").write_text(
        json.dumps({"embedding_dimension": 32, "pooling_mode": "cls"})
    )
    with pytest.raises(ValueError, match="disagree about pooling"):
        RRRAModel.from_pretrained(saved)


def test_sentence_transformer_of_another_class_is_refused(tiny_bert: Path) -> None:
    with pytest.raises(ValueError, match=r"must hold an RRRAModel, got BertModel; make one with"):
        RRRAModel.from_sentence_transformer(SentenceTransformer(str(tiny_bert), device="cpu"))


def test_sentence_transformer_needs_a_tokenizer() -> None:
    model = RRRAModel(
        RRRAConfig(text_config={"model_type": "bert", "num_hidden_layers": 1, "hidden_size": 24})
    )
    with pytest.raises(ValueError, match=r"needs a tokenizer"):
        model.to_sentence_transformer()


# -------------------------------------------------------------------- training


def test_adapter_is_tied_to_forward_while_training_only(tiny_bert: Path) -> None:
    model = RRRAModel.from_encoder(tiny_bert, lora=True)
    batch = model.tokenizer(TEXTS, padding=True, return_tensors="pt")
    model.train()
    model(**batch).last_hidden_state.sum().backward()
    assert all(p.grad is not None and not p.grad.any() for p in model.adapter.parameters())
    model.zero_grad()
    model.eval()
    model(**batch).last_hidden_state.sum().backward()
    assert all(p.grad is None for p in model.adapter.parameters())


@pytest.mark.parametrize("model_type", ["bert", "modernbert", "qwen3"])
def test_gradient_checkpointing_gives_equal_gradients(
    model_type: str, encoder_folder: Callable[[str], Path]
) -> None:
    model = make(encoder_folder(model_type), lora=True)
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    batch = model.tokenizer(TEXTS, padding=True, return_tensors="pt")
    model.train()
    gradients = []
    for checkpointing in (False, True):
        if checkpointing:
            model.gradient_checkpointing_enable()
            assert model.is_gradient_checkpointing
        model.zero_grad()
        model(**batch).pooler_output[:, 0].sum().backward()
        gradients.append({n: p.grad for n, p in model.named_parameters() if "lora_" in n})
    for name, gradient in gradients[0].items():
        assert torch.allclose(gradients[1][name], gradient, atol=1e-6), name


def test_token_embeddings_are_the_encoders(tiny_bert: Path) -> None:
    model = RRRAModel.from_encoder(tiny_bert)
    assert model.get_input_embeddings() is model.encoder.embeddings.word_embeddings
    new = torch.nn.Embedding(5, 32)
    model.set_input_embeddings(new)
    assert model.encoder.embeddings.word_embeddings is new


# -------------------------------------------------------------------- code in the folder


def run(code: str) -> str:
    process = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, stdin=subprocess.DEVNULL
    )
    assert process.returncode == 0, process.stderr
    return process.stdout


def test_folder_holds_its_code_and_needs_no_flag_here(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = json.loads((saved / "config.json").read_text())
    assert config["auto_map"] == {
        "AutoConfig": "configuration_rrra.RRRAConfig",
        "AutoModel": "modeling_rrra.RRRAModel",
    }
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("asked on stdin"))
    assert type(AutoModel.from_pretrained(saved)) is RRRAModel
    assert type(AutoModel.from_pretrained(saved, trust_remote_code=True)) is RRRAModel
    AutoTokenizer.from_pretrained(saved)
    SentenceTransformer(str(saved), device="cpu")


@pytest.mark.slow
def test_folder_opens_where_the_package_is_not_installed(saved: Path, tmp_path: Path) -> None:
    code = f"""
import os, sys
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_MODULES_CACHE"] = {str(tmp_path / "modules")!r}
sys.modules["rrra_hf"] = None
import torch
from sentence_transformers import SentenceTransformer
from transformers import AutoModel
folder, texts = {str(saved)!r}, {TEXTS!r}
try:
    AutoModel.from_pretrained(folder, trust_remote_code=False)
except ValueError as error:
    assert "trust_remote_code=True" in str(error), error
else:
    raise SystemExit("loaded without trust")
transformer = SentenceTransformer(folder, device="cpu", trust_remote_code=True)
model = AutoModel.from_pretrained(folder, trust_remote_code=True)
assert type(model).__module__.startswith("transformers_modules."), type(model)
batch = model.tokenizer(texts, padding=True, return_tensors="pt")
with torch.no_grad():
    ours = model.eval()(**batch, task="query").pooler_output
assert torch.equal(transformer.encode_query(texts, convert_to_tensor=True), ours)
model.save_pretrained({str(tmp_path / "remote")!r})
print(ours.tolist())
"""
    expected = embed(RRRAModel.from_pretrained(saved), "query")
    assert torch.equal(torch.tensor(json.loads(run(code))), expected)
    assert torch.equal(embed(RRRAModel.from_pretrained(tmp_path / "remote"), "query"), expected)


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
