"""Whatever decides an embedding decides the fingerprint, and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from peft import LoraConfig
from sentence_transformers import SentenceTransformer

from rrra_hf import RRRAModel
from rrra_hf.embeddings import encoder_fingerprint, texts_fingerprint


def test_the_fingerprint_survives_use_and_saving_and_loading(
    model: SentenceTransformer, tmp_path: Path
) -> None:
    model.prompts["query"] = "query "
    first = encoder_fingerprint(model)
    assert len(first) == 16 and int(first, 16) >= 0
    model.encode(["copy files", "sort"])
    assert encoder_fingerprint(model) == first
    model.save_pretrained(str(tmp_path / "elsewhere"))
    assert encoder_fingerprint(SentenceTransformer(str(tmp_path / "elsewhere"), device="cpu")) == first


def change_weight(model: SentenceTransformer) -> None:
    with torch.no_grad():
        model[0].model.embeddings.LayerNorm.bias[3] += 1e-6


def change_precision(model: SentenceTransformer) -> None:
    model.to(torch.bfloat16)


def change_prompt(model: SentenceTransformer) -> None:
    model.prompts["query"] = "query "


def change_default_prompt(model: SentenceTransformer) -> None:
    model.default_prompt_name = "query"


def change_length(model: SentenceTransformer) -> None:
    model.max_seq_length = 16


def change_pooling(model: SentenceTransformer) -> None:
    model[1].pooling_mode = "cls"


def change_module(model: SentenceTransformer) -> None:
    del model[2]


def change_dimension(model: SentenceTransformer) -> None:
    model.truncate_dim = 8


def change_heads(model: SentenceTransformer) -> None:
    model[0].model.config.num_attention_heads = 4


def change_tokenizer(model: SentenceTransformer) -> None:
    model.tokenizer.add_tokens(["herring"])


def change_truncation_side(model: SentenceTransformer) -> None:
    model.tokenizer.truncation_side = "left"


@pytest.mark.parametrize(
    "change",
    [
        change_weight,
        change_precision,
        change_prompt,
        change_default_prompt,
        change_length,
        change_pooling,
        change_module,
        change_dimension,
        change_heads,
        change_tokenizer,
        change_truncation_side,
    ],
)
def test_what_decides_an_embedding_changes_the_fingerprint(
    model: SentenceTransformer, change: Callable[[SentenceTransformer], None]
) -> None:
    before = encoder_fingerprint(model)
    change(model)
    assert encoder_fingerprint(model) != before


def test_the_strength_of_lora_changes_the_fingerprint(tiny_bert: Path) -> None:
    prints = set()
    for alpha in (8, 16):
        torch.manual_seed(0)
        model = SentenceTransformer(str(tiny_bert), device="cpu")
        model.add_adapter(LoraConfig(r=2, lora_alpha=alpha, target_modules=["query"]))
        prints.add(encoder_fingerprint(model))
    assert len(prints) == 2


def test_a_model_with_an_adapter_is_fingerprinted_by_its_encoder_and_maps(
    tiny_bert: Path, tmp_path: Path
) -> None:
    bundle = RRRAModel.from_encoder(tiny_bert, lora=True, adapter={"query_map": True})
    model = bundle.to_sentence_transformer()
    before = encoder_fingerprint(model)
    bundle.save_pretrained(tmp_path)
    assert encoder_fingerprint(SentenceTransformer(str(tmp_path), device="cpu")) == before
    assert encoder_fingerprint(RRRAModel.from_pretrained(tmp_path).to_sentence_transformer()) == before
    with torch.no_grad():
        bundle.adapter.reader.ranking_head.linear.bias += 1
    bundle.config.adapter["lambda_"] = 0.5
    assert encoder_fingerprint(model) == before
    with torch.no_grad():
        bundle.adapter.query_map.weight += 1
    assert encoder_fingerprint(model) != before


def test_another_backend_is_refused(model: SentenceTransformer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model, "get_backend", lambda: "onnx")
    with pytest.raises(ValueError, match=r"torch backend .* got 'onnx'"):
        encoder_fingerprint(model)


TEXT_LISTS = st.lists(st.text(max_size=4), max_size=4)


@given(TEXT_LISTS, TEXT_LISTS)
def test_texts_have_equal_fingerprints_if_and_only_if_equal(first: list[str], second: list[str]) -> None:
    assert (texts_fingerprint(first) == texts_fingerprint(second)) == (first == second)


@given(TEXT_LISTS.map("".join), st.integers(0, 16), st.integers(0, 16))
def test_moving_a_boundary_between_texts_changes_the_fingerprint(text: str, a: int, b: int) -> None:
    first, second = [text[:a], text[a:]], [text[:b], text[b:]]
    assert (texts_fingerprint(first) == texts_fingerprint(second)) == (first == second)
