"""A model and the SentenceTransformer that shares it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from sentence_transformers import SentenceTransformer
from transformers import AutoModel

from alike import assert_alike
from model_folders import TEXTS, embed, encode, make
from rrra_hf import RRRAConfig, RRRAModel
from rrra_hf.embeddings import encoder_fingerprint


@pytest.mark.parametrize("maps", [False, True])
def test_sentence_transformer_shares_the_model(maps: bool, tiny_bert: Path, tmp_path: Path) -> None:
    model = make(tiny_bert, lora=True, adapter={"query_map": maps}, query_prompt="query ")
    transformer = model.to_sentence_transformer()
    assert RRRAModel.from_sentence_transformer(transformer) is model
    for task in ("query", "document"):
        assert_alike(encode(transformer, task), embed(model, task, "query " if task == "query" else ""))
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
        assert_alike(encode(SentenceTransformer(str(tmp_path / "st"), device="cpu"), task), expected)
        for load in (AutoModel.from_pretrained, RRRAModel.from_pretrained):
            assert_alike(embed(load(tmp_path / "st"), task, "query " if task == "query" else ""), expected)


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("maps", [(), ("query_map",), ("query_map", "document_map")])
@pytest.mark.parametrize("model_type", ["bert", "qwen3"])
def test_sentence_transformer_is_the_one_that_the_folder_gives(
    model_type: str,
    maps: tuple[str, ...],
    normalize: bool,
    encoder_folder: Callable[[str], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    adapter = dict.fromkeys(maps, True)
    make(
        encoder_folder(model_type), adapter=adapter, normalize=normalize, query_prompt="query "
    ).save_pretrained(tmp_path / "model")
    loaded = SentenceTransformer(str(tmp_path / "model"), device="cpu")
    model = RRRAModel.from_pretrained(tmp_path / "model")
    with monkeypatch.context() as patch:
        patch.setattr(RRRAModel, "save_pretrained", lambda *_, **__: pytest.fail("saved"))
        made = model.to_sentence_transformer()
    # A release of sentence-transformers that gives its module another attribute fails here.
    ours, theirs = vars(made[0]), vars(loaded[0])
    assert ours.keys() == theirs.keys()
    objects = {"_modules", "processor", "input_formatter", "training"}
    assert {k: ours[k] for k in ours.keys() - objects} == {k: theirs[k] for k in ours.keys() - objects}
    assert vars(made[0].input_formatter).keys() == vars(loaded[0].input_formatter).keys()
    assert made.similarity_fn_name == loaded.similarity_fn_name
    assert encoder_fingerprint(made) == encoder_fingerprint(loaded)
    for transformer, name in ((made, "made"), (loaded, "loaded")):
        transformer.save_pretrained(str(tmp_path / name))
    folders = [
        {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        for folder in (tmp_path / "made", tmp_path / "loaded")
    ]
    for files in folders:
        del files[Path("README.md")]
        # sentence-transformers turns the cache of a model that it loads off.
        config = files.pop(Path("config.json")).replace(b'"use_cache": true', b'"use_cache": false')
        files[Path("config.json")] = config
    assert folders[0] == folders[1]


@pytest.mark.parametrize("maps", [("query_map",), ("query_map", "document_map")])
def test_maps_of_a_half_precision_encoder_keep_their_precision(
    maps: tuple[str, ...], tiny_bert: Path
) -> None:
    model = make(tiny_bert, adapter=dict.fromkeys(maps, True), dtype=torch.bfloat16)
    transformer = model.to_sentence_transformer()
    assert model.adapter.query_map.weight.dtype == torch.float32
    for task in ("query", "document"):
        assert torch.allclose(encode(transformer, task).float(), embed(model, task).float(), atol=1e-6)


def test_a_length_set_in_sentence_transformers_is_saved(tiny_bert: Path, tmp_path: Path) -> None:
    model = make(tiny_bert)
    transformer = model.to_sentence_transformer()
    transformer.max_seq_length = 7
    transformer.save_pretrained(str(tmp_path))
    assert SentenceTransformer(str(tmp_path), device="cpu").max_seq_length == 7
    assert RRRAModel.from_pretrained(tmp_path).config.max_seq_length == 7


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
    assert_alike(encode(again, "query"), encode(transformer, "query"))
    # and once more, by the package
    model.save_pretrained(tmp_path / "third")
    assert_alike(
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
    assert_alike(encode(SentenceTransformer(str(folder), device="cpu"), "query"), expected)


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
