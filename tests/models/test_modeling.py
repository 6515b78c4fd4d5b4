"""The model's folder: three loaders, strictness, sentence-transformers both ways."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from sentence_transformers import SentenceTransformer
from transformers import AutoModel

from alike import assert_alike
from model_folders import PROMPTS, TEXTS, embed, encode, make
from rrra_hf import RetrieverAdapter, RRRAConfig, RRRAModel
from rrra_hf.models.pooling_rrra import pool_tokens
from tiny import ENCODERS, add_side_files, save_encoder

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
            assert_alike(embed(other, task, prompt, side), expected)
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
    assert_alike(embed(model), embed(RRRAModel.from_encoder(folder)))


@pytest.mark.parametrize("normalize", [False, True])
def test_embeddings_are_those_of_the_encoder_itself(normalize: bool, tmp_path: Path) -> None:
    folder = add_side_files(save_encoder(tmp_path / "e", "bert"), {"pooling_mode_cls_token": True}, normalize)
    expected = SentenceTransformer(str(folder), device="cpu").encode(TEXTS, convert_to_tensor=True)
    model = RRRAModel.from_encoder(folder)
    assert_alike(embed(model), expected)
    model.save_pretrained(tmp_path / "saved")
    again = SentenceTransformer(str(tmp_path / "saved"), device="cpu")
    assert_alike(again.encode(TEXTS, convert_to_tensor=True), expected)


@pytest.mark.parametrize("kind", ["features", "residual"])
def test_untrained_model_has_an_adapter_that_changes_nothing(
    kind: str, tiny_bert: Path, tmp_path: Path
) -> None:
    RRRAModel.from_encoder(tiny_bert, adapter={"reader": {"kind": kind}}).save_pretrained(tmp_path)
    for model in (
        RRRAModel.from_pretrained(tmp_path),
        RRRAModel(RRRAConfig.from_pretrained(tmp_path)),
        AutoModel.from_config(RRRAConfig.from_pretrained(tmp_path)),
    ):
        q, c = torch.nn.functional.normalize(torch.randn(2, 5, 32), dim=-1)
        reader = model.adapter.reader
        if kind == "residual":
            assert torch.equal(reader.adapt(q, c).adapted, torch.nn.functional.normalize(c, dim=-1))
        else:
            assert not model.adapter.read(q, c.expand(5, 5, 32)).ranking.any()
        # The first layer is not at transformers' scale of 0.02 but at torch's of 1 / sqrt(inputs).
        first = reader.query_layer if kind == "residual" else reader.ranking_head.first
        assert first.weight.abs().max() > 0.15


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
    pooled = pool_tokens(torch.tensor(tokens[side])[..., None], torch.tensor(mask[side]), mode)
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
