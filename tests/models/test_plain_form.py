"""The plain form: everybody sees an ordinary encoder, and this package the same model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer
from transformers import AutoConfig, AutoModel, AutoTokenizer, BertModel

from alike import assert_alike
from model_folders import PROMPTS, TEXTS, embed, encode, make
from retriever_models import RESIDUAL
from rrra_hf import RetrieverAdapter, RRRAModel
from tiny import ENCODERS, SIZE, add_side_files, save_encoder

MAPS = {"query_map": True, "document_map": True}


@pytest.fixture
def encoder(tmp_path: Path) -> Path:
    folder = save_encoder(tmp_path / "encoder", "bert")
    return add_side_files(folder, {"pooling_mode_cls_token": True}, prompts=PROMPTS)


@pytest.fixture
def model(encoder: Path) -> RRRAModel:
    model = make(encoder, lora=True, adapter={"reader": RESIDUAL, "lambda_": 0.5, **MAPS})
    model.config.base_model_name, model.config.base_model_revision = "me/encoder", "c0ffee"
    return model


@pytest.fixture
def plain(model: RRRAModel, tmp_path: Path) -> Path:
    model.save_pretrained(tmp_path / "plain", form="plain")
    return tmp_path / "plain"


def names(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("task", ["query", "document"])
def test_everything_makes_the_same_embeddings(model: RRRAModel, plain: Path, task: str) -> None:
    expected = encode(model.to_sentence_transformer(), task)
    opened = RRRAModel.from_pretrained(plain)
    assert_alike(encode(SentenceTransformer(str(plain), device="cpu"), task), expected)
    assert_alike(encode(opened.to_sentence_transformer(), task), expected)
    assert_alike(embed(opened, task, PROMPTS[task]), expected)


def test_the_encoder_is_one_of_transformers(model: RRRAModel, plain: Path) -> None:
    encoder = AutoModel.from_pretrained(plain, trust_remote_code=False).eval()
    assert type(encoder) is BertModel
    batch = model.tokenizer(TEXTS, padding=True, return_tensors="pt")
    with torch.no_grad():
        assert_alike(encoder(**batch).last_hidden_state, model(**batch).last_hidden_state)


def test_the_model_is_the_same(model: RRRAModel, plain: Path) -> None:
    opened = RRRAModel.from_pretrained(plain)
    ours, theirs = opened.adapter.state_dict(), model.adapter.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert opened.adapter.config == model.adapter.config
    left_out = ("lora", "text_config", "adapter")
    assert {k: v for k, v in opened.config.to_dict().items() if k not in left_out} == {
        k: v for k, v in model.config.to_dict().items() if k not in left_out
    }
    assert opened.config.adapter == model.adapter.config.to_dict()
    assert opened.config.lora is None
    assert not opened.training
    assert all(parameter.requires_grad for parameter in opened.parameters())
    model.merge_lora().save_pretrained(plain.with_name("merged"))
    opened.save_pretrained(plain.with_name("again"))
    written = [load_file(plain.with_name(name) / "model.safetensors") for name in ("merged", "again")]
    assert written[0].keys() == written[1].keys()
    assert all(torch.equal(written[0][name], written[1][name]) for name in written[0])


def test_saving_does_not_change_the_model(model: RRRAModel, tmp_path: Path) -> None:
    before, lora = embed(model, "query"), model.config.lora
    model.save_pretrained(tmp_path / "plain", form="plain")
    assert torch.equal(embed(model, "query"), before)
    assert model.config.lora == lora
    assert model.adapter.has_maps


@pytest.mark.parametrize("model_type", list(ENCODERS))
def test_every_kind_of_encoder(model_type: str, tmp_path: Path) -> None:
    folder = save_encoder(tmp_path / "encoder", model_type)
    model = make(folder, pooling="lasttoken" if model_type == "qwen3" else "mean", query_prompt="query ")
    model.save_pretrained(tmp_path / "plain", form="plain")
    assert AutoConfig.from_pretrained(tmp_path / "plain").model_type == model_type
    expected = encode(model.to_sentence_transformer(), "query")
    for opened in (
        SentenceTransformer(str(tmp_path / "plain"), device="cpu"),
        RRRAModel.from_pretrained(tmp_path / "plain").to_sentence_transformer(),
    ):
        assert_alike(encode(opened, "query"), expected)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_dtype_is_kept(encoder: Path, tmp_path: Path, dtype: torch.dtype) -> None:
    RRRAModel.from_encoder(encoder, dtype=dtype).save_pretrained(tmp_path / "plain", form="plain")
    assert json.loads((tmp_path / "plain/config.json").read_text())["dtype"] == str(dtype)[6:]
    opened = RRRAModel.from_pretrained(tmp_path / "plain")
    assert (opened.encoder.dtype, next(opened.adapter.parameters()).dtype) == (dtype, torch.float32)
    assert RRRAModel.from_pretrained(tmp_path / "plain", dtype=torch.float32).encoder.dtype == torch.float32


# -------------------------------------------------------------------- files


def test_the_files_are_those_of_sentence_transformers(encoder: Path, tmp_path: Path) -> None:
    """Other software, such as text-embeddings-inference, finds files, keys and weights by their names."""
    SentenceTransformer(str(encoder), device="cpu").save(str(tmp_path / "theirs"), create_model_card=False)
    RRRAModel.from_encoder(encoder).save_pretrained(tmp_path / "ours", form="plain")
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    beside = {"adapter/config.json", "adapter/model.safetensors"}
    assert names(ours) - beside == names(theirs) - {"2_Normalize/config.json"}
    weights = [load_file(folder / "model.safetensors") for folder in (ours, theirs)]
    assert weights[0].keys() == weights[1].keys()
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    configs = [json.loads((folder / "config.json").read_text()) for folder in (ours, theirs)]
    # A setting of decoders, which sentence-transformers switches off.
    assert configs[0].pop("use_cache") is not configs[1].pop("use_cache")
    assert configs[0] == {**configs[1], "base_model_name": "encoder"}
    assert (ours / "tokenizer.json").read_text() == (theirs / "tokenizer.json").read_text()
    # transformers 4 has no TokenizersBackend.
    tokenizer = json.loads((ours / "tokenizer_config.json").read_text())
    assert tokenizer["tokenizer_class"] == "PreTrainedTokenizerFast"
    assert type(AutoTokenizer.from_pretrained(ours)) is type(AutoTokenizer.from_pretrained(theirs))
    # The names that text-embeddings-inference reads, and those of any release of sentence-transformers.
    modules = json.loads((ours / "modules.json").read_text())
    assert [module["type"] for module in modules] == [
        f"sentence_transformers.models.{name}" for name in ("Transformer", "Pooling", "Normalize")
    ]
    pooling = json.loads((ours / "1_Pooling/config.json").read_text())
    assert (pooling["pooling_mode_cls_token"], pooling["pooling_mode_mean_tokens"]) == (True, False)
    assert pooling["word_embedding_dimension"] == SIZE["hidden_size"]


def test_one_form_replaces_the_other(model: RRRAModel, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    for form in ("full", "plain", "merged", "plain", "full"):
        model.save_pretrained(folder, form=form)
        (tmp_path / form).mkdir(exist_ok=True)
        model.save_pretrained(tmp_path / form, form=form)
        assert names(folder) == names(tmp_path / form)
    assert not (folder / "adapter").exists()
    (folder / "notes.txt").write_text("mine")
    model.save_pretrained(folder, form="plain")
    assert not any(name.endswith(".py") for name in names(folder))
    assert (folder / "notes.txt").read_text() == "mine"


# -------------------------------------------------------------------- opening


def test_an_encoder_of_anyone_opens_with_an_adapter_beside_it(encoder: Path) -> None:
    adapter = RetrieverAdapter.pretrained()
    adapter.config.lambda_ = 0.25
    adapter.save_pretrained(encoder / "adapter")
    model, info = RRRAModel.from_pretrained(encoder, output_loading_info=True)
    assert (model.adapter.config.lambda_, model.adapter.config.embedding_dim) == (0.25, 32)
    assert not any(info.values())
    assert_alike(encode(model.to_sentence_transformer(), "query"), encode(_plain(encoder), "query"))


def _plain(folder: Path) -> SentenceTransformer:
    return SentenceTransformer(str(folder), device="cpu")


def test_the_adapter_opens_alone_without_the_maps(model: RRRAModel, plain: Path) -> None:
    """It reads embeddings of the encoder beside it, which are mapped already."""
    adapter = RetrieverAdapter.from_pretrained(plain)
    assert (adapter.has_maps, adapter.config.lambda_) == (False, 0.5)
    theirs = model.adapter.reader.state_dict()
    assert all(torch.equal(value, theirs[name]) for name, value in adapter.reader.state_dict().items())


def test_from_encoder_keeps_the_maps(plain: Path) -> None:
    model = RRRAModel.from_encoder(plain)
    assert (model.adapter.config.query_map, model.adapter.config.document_map) == (True, True)
    for task in PROMPTS:
        assert_alike(encode(model.to_sentence_transformer(), task), encode(_plain(plain), task))


def test_an_encoder_without_an_adapter_is_refused(encoder: Path) -> None:
    with pytest.raises(ValueError, match=r"model of type 'bert', not an RRRAModel.*from_encoder"):
        RRRAModel.from_pretrained(encoder)


def test_an_adapter_of_another_dimension_is_refused(plain: Path) -> None:
    RetrieverAdapter.pretrained(16).save_pretrained(plain / "adapter")
    with pytest.raises(ValueError, match=r"must be of dimension 32 as the encoder is, got 16"):
        RRRAModel.from_pretrained(plain)


def test_maps_at_two_places_are_refused(model: RRRAModel, plain: Path) -> None:
    model.adapter.save_pretrained(plain / "adapter")
    with pytest.raises(ValueError, match=r"has linear maps twice: in its modules and in adapter/"):
        RRRAModel.from_pretrained(plain)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bias": True}, "is no linear map"),
        ({"activation_function": "torch.nn.modules.activation.Tanh"}, "is no linear map"),
        ({"out_features": 16}, "is no linear map"),
        ({"out_features": 16, "in_features": 16}, r"has a weight \(32, 32\)"),
    ],
)
def test_a_router_of_anything_else_is_refused(plain: Path, change: dict[str, object], message: str) -> None:
    path = plain / "3_Router/query_0_Dense/config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(ValueError, match=message):
        RRRAModel.from_pretrained(plain)


def test_a_route_of_other_modules_is_refused(plain: Path) -> None:
    path = plain / "3_Router/router_config.json"
    router = json.loads(path.read_text())
    router["structure"]["query"] = ["query_0_Dense", "query_0_Dense", "query_1_Normalize"]
    path.write_text(json.dumps(router))
    with pytest.raises(ValueError, match=r"has the route 'query' of Dense, Dense, Normalize; legal are"):
        RRRAModel.from_pretrained(plain)


def test_damaged_parts_are_refused_by_name(plain: Path) -> None:
    dense = plain / "3_Router/query_0_Dense/model.safetensors"
    content = dense.read_bytes()
    dense.write_bytes(content[:-4])
    with pytest.raises(ValueError, match=r"query_0_Dense/model\.safetensors is damaged"):
        RRRAModel.from_pretrained(plain)
    save_file({"linear.weight": torch.full((32, 32), torch.nan)}, dense)
    with pytest.raises(
        ValueError, match=r"query_0_Dense/model\.safetensors is damaged: linear\.weight must be finite"
    ):
        RRRAModel.from_pretrained(plain)
    dense.write_bytes(content)
    (plain / "adapter/model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"adapter has no model\.safetensors"):
        RRRAModel.from_pretrained(plain)


def test_other_processes_write_nothing(model: RRRAModel, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path / "plain", is_main_process=False, form="plain")
    assert not (tmp_path / "plain").exists()


def test_a_state_dict_is_refused(model: RRRAModel, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"state_dict can't go with form='plain'"):
        model.save_pretrained(tmp_path / "plain", form="plain", state_dict=model.state_dict())
