"""Every kind of encoder is taken as sentence-transformers takes it, or refused by name."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import (
    BoW,
    Normalize,
    Pooling,
    Router,
    StaticEmbedding,
    Transformer,
    WordEmbeddings,
)
from sentence_transformers.sentence_transformer.modules.tokenizer import WhitespaceTokenizer
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, PreTrainedModel

from alike import assert_alike
from model_folders import TEXTS, embed, make
from rrra_hf import RRRAModel
from rrra_hf.retrieval import Retriever
from tiny import SIZE, add_side_files, make_tokenizer, save_encoder, save_own_code

T5 = {"d_model": 32, "d_kv": 16, "d_ff": 64, "num_layers": 2, "num_heads": 2, "decoder_start_token_id": 0}


def save_model(folder: Path, model: PreTrainedModel) -> Path:
    model.save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    return folder


def save_encoder_decoder(folder: Path, model_type: str, **settings: Any) -> Path:
    torch.manual_seed(0)
    config = AutoConfig.for_model(model_type, vocab_size=SIZE["vocab_size"], pad_token_id=0, **settings)
    return save_model(folder, AutoModel.from_config(config))


@pytest.mark.parametrize("model_type", ["t5", "mt5", "umt5"])
def test_of_an_encoder_decoder_the_encoder_is_taken(model_type: str, tmp_path: Path) -> None:
    folder = save_encoder_decoder(tmp_path / "e", model_type, **T5)
    expected = SentenceTransformer(str(folder), device="cpu").encode(TEXTS, convert_to_tensor=True)
    model = RRRAModel.from_encoder(folder, normalize=False)
    assert torch.allclose(embed(model), expected, atol=1e-6)
    assert not any("decoder" in name for name, _ in model.named_parameters())
    for lora in (False, True):
        model = make(folder, lora=lora)
        model.save_pretrained(tmp_path / "saved")
        assert_alike(embed(RRRAModel.from_pretrained(tmp_path / "saved")), embed(model))
        opened = SentenceTransformer(str(tmp_path / "saved"), device="cpu")
        assert_alike(opened.encode(TEXTS, convert_to_tensor=True), embed(model))


def test_other_encoder_decoders_are_refused_by_name(tmp_path: Path) -> None:
    sizes = {"d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 8}
    heads = {"encoder_attention_heads": 2, "decoder_attention_heads": 2, "decoder_ffn_dim": 8}
    folder = save_encoder_decoder(tmp_path / "e", "bart", **sizes, **heads)
    with pytest.raises(ValueError, match=r"of type bart is an encoder-decoder; legal are .*t5"):
        RRRAModel.from_encoder(folder)


def test_guessed_pooling_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    torch.manual_seed(0)
    sizes = {"num_key_value_heads": 1, "head_dim": 16}
    config = AutoConfig.for_model("qwen3", **SIZE, **sizes)
    causal = save_model(tmp_path / "causal", AutoModelForCausalLM.from_config(config))
    for folder, expected in ((causal, "lasttoken"), (save_encoder(tmp_path / "e", "bert"), "mean")):
        with caplog.at_level(logging.WARNING):
            model = RRRAModel.from_encoder(folder, normalize=False)
        assert f"{folder} has no modules.json, so its pooling is guessed: '{expected}'" in caplog.text
        original = SentenceTransformer(str(folder), device="cpu").encode(TEXTS, convert_to_tensor=True)
        assert torch.allclose(embed(model), original, atol=1e-6)
        caplog.clear()
        RRRAModel.from_encoder(folder, pooling="mean")
        RRRAModel.from_encoder(add_side_files(folder, {"pooling_mode_mean_tokens": True}))
        assert "its pooling is" not in caplog.text


# -------------------------------------------------------------------- first modules


def router(folder: Path) -> list[Any]:
    routes = {task: [Transformer(str(folder))] for task in ("query", "document")}
    return [Router(routes, default_route="document"), Pooling(32, "mean")]


FIRST: dict[str, Callable[[Path], list[Any]]] = {
    "BoW": lambda _: [BoW(vocab=["sort", "text", "line"])],
    "StaticEmbedding": lambda folder: [StaticEmbedding(make_tokenizer().backend_tokenizer, embedding_dim=8)],
    "WordEmbeddings": lambda folder: [
        WordEmbeddings(WhitespaceTokenizer(["sort", "text"]), torch.eye(2).numpy()),
        Pooling(2, "mean"),
    ],
    "Router": router,
}


@pytest.mark.parametrize("kind", FIRST)
def test_other_first_modules_are_refused_by_name_and_searched_with(
    kind: str, tiny_bert: Path, tmp_path: Path
) -> None:
    chain = [*FIRST[kind](tiny_bert), Normalize()]
    SentenceTransformer(modules=chain, device="cpu").save_pretrained(str(tmp_path / "e"))
    with pytest.raises(
        ValueError, match=rf"has the modules {kind}.*; legal are Transformer.*Retriever takes"
    ):
        RRRAModel.from_encoder(tmp_path / "e")
    retriever = Retriever(SentenceTransformer(str(tmp_path / "e"), device="cpu"))
    assert retriever.index(TEXTS).search(["sort text"], top_k=1)[0][0]["corpus_id"] == "1"


@pytest.mark.parametrize(
    "settings",
    [
        {"query_length": 8},
        {"query_expansion": {"strategy": "fixed", "length": 8}},
        {"processing_kwargs": {"text": {"max_length": 3}}},
        {"tokenizer_args": {"padding_side": "left"}},
        {"module_output_name": "sentence_embedding"},
        {"transformer_task": "fill-mask"},
        {"modality_config": {"text": {"method": "forward", "method_output_name": "pooler_output"}}},
        {"modality_config": 7},
    ],
)
def test_settings_of_the_first_module_are_refused_by_name(settings: dict[str, Any], tmp_path: Path) -> None:
    folder = add_side_files(save_encoder(tmp_path / "e", "bert"), {})
    (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 9, **settings}))
    with pytest.raises(ValueError, match=rf"has settings that are not supported, .*{next(iter(settings))}"):
        RRRAModel.from_encoder(folder)


def test_settings_are_found_under_the_names_of_early_releases(tmp_path: Path) -> None:
    folder = add_side_files(save_encoder(tmp_path / "e", "bert"), {})
    (folder / "sentence_bert_config.json").unlink()
    (folder / "sentence_roberta_config.json").write_text(json.dumps({"max_seq_length": 9}))
    assert RRRAModel.from_encoder(folder).config.max_seq_length == 9


# -------------------------------------------------------------------- code of its own


@pytest.fixture
def own_code(tmp_path: Path) -> Path:
    return save_own_code(tmp_path / "own", "Own")


def test_code_of_an_encoder_runs_where_it_is_trusted(own_code: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="trust_remote_code"):
        RRRAModel.from_encoder(own_code)
    model = RRRAModel.from_encoder(own_code, trust_remote_code=True)
    assert type(model.encoder).__name__ == "OwnModel"
    assert_alike(embed(model), embed(RRRAModel.from_encoder(save_encoder(tmp_path / "same", "bert"))))
    with pytest.raises(ValueError, match=r"encoder's class OwnModel is code of its own.*form='plain'"):
        model.save_pretrained(tmp_path / "saved")
    model.save_pretrained(tmp_path / "plain", form="plain")
    opened = RRRAModel.from_pretrained(tmp_path / "plain", trust_remote_code=True)
    assert_alike(embed(opened), embed(model))
