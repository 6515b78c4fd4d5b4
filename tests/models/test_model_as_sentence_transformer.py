"""A model and the SentenceTransformer that shares it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from sentence_transformers import SentenceTransformer
from transformers import AutoModel

from model_folders import TEXTS, embed, encode, make
from rrra_hf import RRRAConfig, RRRAModel


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
