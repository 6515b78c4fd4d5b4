"""What an encoder came with is kept and effective: prompts, pooling, modules after it, truncation."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import (
    Dense,
    Dropout,
    LayerNorm,
    Normalize,
    Pooling,
    Transformer,
)
from torch import Tensor, nn

from alike import assert_alike
from model_folders import TEXTS, embed
from rrra_hf import RRRAConfig, RRRAModel
from rrra_hf.embeddings import encode
from rrra_hf.models.pooling_rrra import pool_tokens
from rrra_hf.retrieval import Retriever
from tiny import add_side_files, save_encoder

TASKS = ("query", "document")
METHODS = ("encode_query", "encode_document", "encode")


def encode_by(model: SentenceTransformer, method: str) -> Tensor:
    return getattr(model, method)(TEXTS, convert_to_tensor=True)


def assert_same(folder: Path, place: Path, **settings: Any) -> RRRAModel:
    """Compare an encoder with the model made from it, in memory and saved."""
    original = SentenceTransformer(str(folder), device="cpu")
    model = RRRAModel.from_encoder(folder, **settings)
    plain = place.with_name(f"{place.name}-plain")
    model.save_pretrained(place)
    model.save_pretrained(plain, form="plain")
    opened = RRRAModel.from_pretrained(place)
    for other in (
        opened.to_sentence_transformer(),
        RRRAModel.from_pretrained(plain).to_sentence_transformer(),
        SentenceTransformer(str(place), device="cpu"),
        SentenceTransformer(str(plain), device="cpu"),
    ):
        for method in METHODS:
            assert_alike(encode_by(other, method), encode_by(original, method))
        assert other.default_prompt_name == original.default_prompt_name
        assert other.similarity_fn_name == original.similarity_fn_name
        assert other.truncate_dim == original.truncate_dim
        assert other.prompts == original.prompts
        for task in TASKS:
            ours = encode(other, TEXTS, task=task)
            assert_alike(torch.tensor(ours), torch.tensor(encode(original, TEXTS, task=task)))
    assert torch.equal(embed(opened), embed(model))
    return opened


# -------------------------------------------------------------------- prompts


@pytest.mark.parametrize(
    "settings",
    [
        {"prompts": {"query": "find "}},
        {"prompts": {"document": "line "}},
        {"prompts": {"x": "find "}, "default_prompt_name": "x"},
        {"prompts": {"query": "find ", "x": "old "}, "default_prompt_name": "query"},
        {"prompts": {"query": "", "document": "", "x": "old "}},
        {"prompts": {"document": "", "passage": "old "}},
    ],
)
def test_prompts_are_those_of_the_encoder(settings: dict[str, Any], tmp_path: Path) -> None:
    folder = add_side_files(save_encoder(tmp_path / "e", "bert"), {}, **settings)
    assert_same(folder, tmp_path / "saved")


@pytest.mark.parametrize("name", ["passage", "corpus"])
def test_prompts_of_passages_are_for_documents(name: str, tmp_path: Path) -> None:
    """So does the docstring of `encode_document` say, which finds an empty prompt for documents first."""
    folder = add_side_files(save_encoder(tmp_path / "e", "bert"), {}, prompts={name: "old "})
    model = RRRAModel.from_encoder(folder)
    assert (model.config.document_prompt, model.config.prompts) == ("old ", {name: "old "})


def test_prompts_set_in_sentence_transformers_are_saved(tiny_bert: Path, tmp_path: Path) -> None:
    transformer = RRRAModel.from_encoder(tiny_bert).to_sentence_transformer()
    transformer.prompts |= {"query": "find ", "x": "old "}
    transformer.default_prompt_name = "x"
    transformer.truncate_dim = 8
    transformer.save_pretrained(str(tmp_path))
    again = RRRAModel.from_pretrained(tmp_path).to_sentence_transformer()
    for method in METHODS:
        assert_alike(encode_by(again, method), encode_by(transformer, method))


@pytest.mark.parametrize(
    ("values", "match"),
    [
        ({"prompts": {"x": 7}}, "prompts must be texts by name or None, got"),
        ({"prompts": ["x"]}, "prompts must be texts by name or None, got"),
        ({"default_prompt_name": "x"}, "default_prompt_name must be one of query, document, got 'x'"),
        ({"truncate_dim": 0}, "truncate_dim must be at least 1 or None, got 0"),
        ({"similarity_fn_name": "euclidean"}, "similarity_fn_name must be one of cosine, dot, got 'euclid"),
        ({"similarity_fn_name": "dot", "normalize": False}, "similarity_fn_name must be 'cosine' where"),
        ({"similarity_fn_name": "dot", "truncate_dim": 3}, "similarity_fn_name must be 'cosine' where"),
        ({"truncate_dim": 3, "adapter": {"query_map": True}}, "truncate_dim must be None with linear maps"),
    ],
)
def test_settings_that_have_no_effect_are_refused(values: dict[str, Any], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        RRRAConfig(**values)


# -------------------------------------------------------------------- similarity and truncation


def test_truncated_embeddings_are_kept(tmp_path: Path) -> None:
    folder = add_side_files(save_encoder(tmp_path / "e", "bert"), {}, truncate_dim=8)
    model = assert_same(folder, tmp_path / "saved")
    assert embed(model).shape == (len(TEXTS), 8)
    assert model.adapter.config.embedding_dim == 8
    retriever = Retriever(model)
    retriever.index(TEXTS)
    assert retriever.search(["sort text"], top_k=1)[0][0]["corpus_id"] == "1"


def test_dot_product_of_normalised_embeddings_is_kept(tmp_path: Path) -> None:
    folder = add_side_files(save_encoder(tmp_path / "e", "bert"), {}, similarity_fn_name="dot")
    assert_same(folder, tmp_path / "saved")


def test_other_similarities_are_refused(tmp_path: Path) -> None:
    folder = save_encoder(tmp_path / "e", "bert")
    add_side_files(folder, {}, normalize=False, similarity_fn_name="dot")
    with pytest.raises(ValueError, match=r"similarity_fn_name must be 'cosine' where.*give normalize=True"):
        RRRAModel.from_encoder(folder)
    model = RRRAModel.from_encoder(folder, normalize=True)
    assert torch.allclose(embed(model).norm(dim=1), torch.ones(len(TEXTS)))
    transformer = RRRAModel.from_encoder(folder, normalize=True).to_sentence_transformer()
    transformer.similarity_fn_name = "manhattan"
    with pytest.raises(ValueError, match="similarity_fn_name must be one of cosine, dot, got 'manhattan'"):
        transformer.save_pretrained(str(tmp_path / "saved"))


# -------------------------------------------------------------------- pooling


MODES = ("mean", "cls", "lasttoken", "max", "mean_sqrt_len_tokens", "weightedmean")


@pytest.mark.parametrize(
    ("model_type", "pooling"),
    [
        ("qwen3", "weightedmean"),
        *(("bert", mode) for mode in [*MODES, ["cls", "mean"], ["mean", "cls", "max"]]),
    ],
)
def test_every_pooling_is_kept(
    model_type: str, pooling: Any, encoder_folder: Callable[[str], Path], tmp_path: Path
) -> None:
    modules = [Transformer(str(encoder_folder(model_type))), Pooling(32, pooling)]
    SentenceTransformer(modules=modules, device="cpu").save_pretrained(str(tmp_path / "e"))
    model = assert_same(tmp_path / "e", tmp_path / "saved")
    assert model.config.embedding_dim == 32 * (len(pooling) if isinstance(pooling, list) else 1)


def test_poolings_of_early_releases_are_in_their_order(tmp_path: Path) -> None:
    pooling = {"pooling_mode_mean_tokens": True, "pooling_mode_max_tokens": True}
    folder = add_side_files(save_encoder(tmp_path / "e", "bert"), pooling)
    assert assert_same(folder, tmp_path / "saved").config.pooling == ["max", "mean"]


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize(
    ("mode", "expected"), [("max", 4.0), ("mean_sqrt_len_tokens", 6 / 2**0.5), ("weightedmean", 10 / 3)]
)
def test_pooling_is_what_one_computes_by_hand(mode: str, expected: float, side: str) -> None:
    tokens, mask = ([9.0, 2.0, 4.0], [0, 1, 1]) if side == "left" else ([2.0, 4.0, 9.0], [1, 1, 0])
    pooled = pool_tokens(torch.tensor([tokens])[..., None], torch.tensor([mask]), mode)
    assert pooled.item() == pytest.approx(expected)


def test_a_missing_pooling_folder_is_named(tmp_path: Path) -> None:
    folder = add_side_files(save_encoder(tmp_path / "e", "bert"), {})
    (folder / "1_Pooling/config.json").unlink()
    with pytest.raises(ValueError, match=r"has no 1_Pooling/config\.json, though modules\.json names it"):
        RRRAModel.from_encoder(folder)


# -------------------------------------------------------------------- modules after pooling


def add_modules(folder: Path, place: Path, modules: list[nn.Module]) -> Path:
    torch.manual_seed(3)
    for parameter in nn.ModuleList(modules).parameters():
        nn.init.normal_(parameter, std=0.3)
    chain = [Transformer(str(folder)), Pooling(32, "mean"), *modules]
    SentenceTransformer(modules=chain, device="cpu").save_pretrained(str(place))
    return place


CHAINS: dict[str, Callable[[], list[nn.Module]]] = {
    "dense": lambda: [Dense(32, 8)],
    "dense, normalised": lambda: [Dense(32, 48, bias=False, activation_function=nn.Identity()), Normalize()],
    "normalised before": lambda: [Normalize(), Dense(32, 8, activation_function=nn.GELU())],
    "layer norm": lambda: [LayerNorm(32), Dense(32, 8), Dense(8, 6), Normalize()],
}


@pytest.mark.parametrize("lora", [False, True])
@pytest.mark.parametrize("chain", CHAINS)
def test_modules_after_pooling_are_kept(chain: str, lora: bool, tiny_bert: Path, tmp_path: Path) -> None:
    folder = add_modules(tiny_bert, tmp_path / "e", CHAINS[chain]())
    model = assert_same(folder, tmp_path / "saved", lora=lora)
    assert {p.requires_grad for p in model.after_pooling.parameters()} == {not lora}
    # Saved again from sentence-transformers, and again over the model with other modules.
    SentenceTransformer(str(tmp_path / "saved"), device="cpu").save_pretrained(str(tmp_path / "again"))
    assert torch.equal(embed(RRRAModel.from_pretrained(tmp_path / "again")), embed(model))
    RRRAModel.from_encoder(tiny_bert).save_pretrained(tmp_path / "saved")
    assert [path.name for path in (tmp_path / "saved").iterdir() if path.is_dir()] == ["1_Pooling"]


def test_modules_after_pooling_are_shared_and_trained(tiny_bert: Path, tmp_path: Path) -> None:
    folder = add_modules(tiny_bert, tmp_path / "e", CHAINS["dense, normalised"]())
    model = RRRAModel.from_encoder(folder, dtype=torch.bfloat16)
    assert {p.dtype for p in model.after_pooling.parameters()} == {torch.bfloat16}
    model = RRRAModel.from_encoder(folder, adapter={"query_map": True})
    transformer = model.to_sentence_transformer().train()
    transformer(transformer.tokenize(TEXTS), task="query")["sentence_embedding"].sum().backward()
    weight = model.after_pooling[0].linear.weight
    assert weight.grad is not None
    with torch.no_grad():
        weight.add_(1.0)
    transformer.save_pretrained(str(tmp_path / "saved"))
    opened = RRRAModel.from_pretrained(tmp_path / "saved")
    assert torch.equal(embed(opened, "query"), embed(model, "query"))


def test_a_copy_that_was_trained_is_not_dropped(tiny_bert: Path, tmp_path: Path) -> None:
    folder = add_modules(tiny_bert, tmp_path / "e", CHAINS["dense"]())
    RRRAModel.from_encoder(folder).save_pretrained(tmp_path / "saved")
    transformer = SentenceTransformer(str(tmp_path / "saved"), device="cpu")
    nn.init.zeros_(transformer[2].linear.weight)
    transformer.save_pretrained(str(tmp_path / "again"))
    with pytest.raises(ValueError, match=r"disagree about the weights of after_pooling.*copy"):
        RRRAModel.from_pretrained(tmp_path / "again")


def test_modules_around_the_model_are_not_dropped(tiny_bert: Path) -> None:
    model = RRRAModel.from_encoder(tiny_bert)
    transformer = model.to_sentence_transformer()
    transformer.append(Dense(32, 8))
    with pytest.raises(ValueError, match=r"modules Transformer, Pooling, Normalize, Dense.*RRRAModel.*has"):
        RRRAModel.from_sentence_transformer(transformer)


@pytest.mark.parametrize("modules", [lambda: [Dense(32, 8)], lambda: [LayerNorm(32), Normalize()]])
def test_appended_modules_are_kept(
    modules: Callable[[], list[nn.Module]], tiny_bert: Path, tmp_path: Path
) -> None:
    transformer = RRRAModel.from_encoder(tiny_bert, lora=True).to_sentence_transformer()
    transformer.extend(modules())
    transformer.save_pretrained(str(tmp_path / "saved"))
    assert_alike(
        encode_by(SentenceTransformer(str(tmp_path / "saved"), device="cpu"), "encode"),
        encode_by(transformer, "encode"),
    )
    model = RRRAModel.from_pretrained(tmp_path / "saved")
    assert_alike(embed(model), encode_by(transformer, "encode"))
    model.save_pretrained(tmp_path / "again")
    assert torch.equal(embed(RRRAModel.from_pretrained(tmp_path / "again")), embed(model))


def test_an_adapter_of_another_dimension_is_not_dropped(tiny_bert: Path, tmp_path: Path) -> None:
    model = RRRAModel.from_encoder(tiny_bert, adapter={"reader": {"kind": "residual", "hidden_size": 4}})
    transformer = model.to_sentence_transformer()
    transformer.append(Dense(32, 8))
    transformer.save_pretrained(str(tmp_path / "saved"))
    with pytest.raises(ValueError, match=r"fitted to embeddings of dimension 32, and can't read .* 8"):
        RRRAModel.from_pretrained(tmp_path / "saved")


@pytest.mark.parametrize(
    ("module", "match"),
    [
        (lambda: Dropout(0.1), r"has the modules Transformer, Pooling, Dropout; legal are Transformer, Pool"),
        (lambda: Dense(32, 32, use_residual=True), r"2_Dense .*without a residual"),
        (
            lambda: Dense(32, 8, module_output_name="other"),
            r"2_Dense .*must map sentence_embedding to itself",
        ),
        (lambda: Dense(32, 8, activation_function=nn.PReLU()), r"activation .*PReLU; legal are ELU"),
        (lambda: Dense(32, 8, activation_function=TEXTS.copy), r"2_Dense .*activation"),
    ],
)
def test_other_modules_are_refused_by_name(module: Any, match: str, tiny_bert: Path, tmp_path: Path) -> None:
    made = module()
    if made.__class__ is Dense and not isinstance(made.activation_function, nn.Module):
        made.activation_function = nn.Identity()
        folder = add_modules(tiny_bert, tmp_path / "e", [made])
        config = json.loads((folder / "2_Dense/config.json").read_text())
        (folder / "2_Dense/config.json").write_text(
            json.dumps({**config, "activation_function": "os.system"})
        )
    else:
        folder = add_modules(tiny_bert, tmp_path / "e", [made])
    with pytest.raises(ValueError, match=match):
        RRRAModel.from_encoder(folder)


def test_weights_of_modules_are_checked(tiny_bert: Path, tmp_path: Path) -> None:
    folder = add_modules(tiny_bert, tmp_path / "e", CHAINS["dense"]())
    config = json.loads((folder / "2_Dense/config.json").read_text())
    for changes, match in (
        ({"out_features": 10**8}, r"2_Dense/model\.safetensors .* must have the weights"),
        ({"in_features": 10**8}, r"after_pooling\[0\] must take embeddings of dimension 32, got Dense"),
        ({"out_features": "8"}, r"after_pooling\[0\]: out_features must be at least 1, got '8'"),
        ({"bias": 1}, r"after_pooling\[0\]: bias must be true or false"),
    ):
        (folder / "2_Dense/config.json").write_text(json.dumps({**config, **changes}))
        with pytest.raises(ValueError, match=match):
            RRRAModel.from_encoder(folder)
    (folder / "2_Dense/config.json").write_text(json.dumps(config))
    (folder / "2_Dense/model.safetensors").rename(folder / "2_Dense/pytorch_model.bin")
    with pytest.raises(ValueError, match=r"no 2_Dense/model\.safetensors.*that writes safetensors"):
        RRRAModel.from_encoder(folder)


# -------------------------------------------------------------------- the table


def test_the_tests_that_the_table_names_exist() -> None:
    here = Path(__file__).parent
    rows = (here.parents[1] / "docs/how-to/encoders.md").read_text().splitlines()
    cells = [row.split("|")[-2] for row in rows if row.startswith("| ") and "test_" in row]
    assert len(cells) > 10
    for cell in cells:
        file = ""
        for name in re.findall(r"`([^`]+)`", cell):
            file, _, test = name.partition("::") if not name.startswith("::") else (file, "", name[2:])
            assert not test or f"def {test}(" in (here / file).read_text(), name
