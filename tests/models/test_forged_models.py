"""Models of strangers: nothing leads out of their folder, and they take no more memory than their files."""

from __future__ import annotations

import json
import resource
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from retriever_models import make_adapter, make_reader_of_words
from rrra_hf import AdapterConfig, RetrieverAdapter, RRRAModel
from rrra_hf.retrieval import Retriever

HUGE = [10**8, 10**12, 10**30]
# What a test may add to the memory that the process had at most: loading takes a few MB.
MOST_KB = 300_000


@pytest.fixture(autouse=True)
def little_memory() -> Any:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < MOST_KB


@pytest.fixture(scope="module")
def saved(tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders `encoder`, `model` with a map, `lora` and `adapter`."""
    place = tmp_path_factory.mktemp("saved")
    shutil.copytree(tiny_bert, place / "encoder")
    RRRAModel.from_encoder(tiny_bert, adapter={"query_map": True}).save_pretrained(place / "model")
    lora = RRRAModel.from_encoder(tiny_bert, lora={"r": 2})
    lora.config.base_model_name = str(tiny_bert)
    lora.save_pretrained(place / "lora", form="lora")
    make_adapter().save_pretrained(place / "adapter")
    return place


@pytest.fixture
def world(saved: Path, tmp_path: Path) -> Path:
    shutil.copytree(saved, tmp_path / "world")
    return tmp_path / "world"


OPEN: dict[str, Callable[[Path], object]] = {
    "encoder": RRRAModel.from_encoder,
    "model": RRRAModel.from_pretrained,
    "lora": RRRAModel.from_pretrained,
    "adapter": RetrieverAdapter.from_pretrained,
}


def change(path: Path, place: str, value: object) -> None:
    """Set a value of a JSON file, at a place such as `text_config.hidden_size`."""
    content = json.loads(path.read_text())
    *outer, last = place.split(".")
    inner = content
    for name in outer:
        inner = inner[int(name) if isinstance(inner, list) else name]
    inner[last] = value
    path.write_text(json.dumps(content))


# -------------------------------------------------------------------- sizes

SIZES = {
    "encoder": [
        "hidden_size",
        "vocab_size",
        "intermediate_size",
        "num_hidden_layers",
        "max_position_embeddings",
    ],
    "model": ["vocab_size", "num_hidden_layers", "type_vocab_size"],
    "lora": ["vocab_size", "num_hidden_layers", "max_position_embeddings"],
}
SIZES_AND_LABELS = {name: [*settings, "num_labels"] for name, settings in SIZES.items()}


@pytest.mark.parametrize("value", HUGE)
@pytest.mark.parametrize(
    ("folder", "setting"), [(name, setting) for name, found in SIZES_AND_LABELS.items() for setting in found]
)
def test_sizes_are_compared_with_the_weights(world: Path, folder: str, setting: str, value: int) -> None:
    place = setting if folder == "encoder" else f"text_config.{setting}"
    change(world / folder / "config.json", place, value)
    for load in (OPEN[folder], lambda path: Retriever.from_pretrained(path, device="cpu")):
        with pytest.raises(ValueError, match=f"(?i){folder}"):
            load(world / folder)


@pytest.mark.parametrize("value", [*HUGE, -1, 2.5, "2", None])
@pytest.mark.parametrize("setting", ["r", "lora_alpha", "target_modules", "unknown"])
def test_settings_of_lora_are_compared_with_the_weights(world: Path, setting: str, value: object) -> None:
    change(world / "lora/config.json", f"lora.{setting}", value)
    if setting == "lora_alpha" and isinstance(value, int | float):
        return
    with pytest.raises(ValueError, match="lora"):
        RRRAModel.from_pretrained(world / "lora")


@pytest.mark.parametrize("value", [*HUGE, -1, 0, 2.5, "16", [16], {}])
@pytest.mark.parametrize("setting", ["embedding_dim", "reader.hidden_size"])
@pytest.mark.parametrize("folder", ["adapter", "model"])
def test_sizes_of_an_adapter_are_compared_with_the_weights(
    world: Path, folder: str, setting: str, value: object
) -> None:
    change(world / folder / "config.json", setting if folder == "adapter" else f"adapter.{setting}", value)
    for load in {OPEN[folder], RetrieverAdapter.from_pretrained}:
        with pytest.raises(ValueError, match=folder):
            load(world / folder)


@pytest.mark.parametrize("value", [*HUGE, -1, 2.5, "16", None])
@pytest.mark.parametrize("setting", ["queries", "documents", "pairs", "vocabulary", "entries"])
def test_sizes_of_a_memory_are_compared_with_the_weights(tmp_path: Path, setting: str, value: object) -> None:
    make_reader_of_words(4).save_pretrained(tmp_path / "words")
    change(tmp_path / "words/config.json", f"reader.{setting}", value)
    with pytest.raises(ValueError, match="words"):
        RetrieverAdapter.from_pretrained(tmp_path / "words")


@pytest.mark.parametrize("value", [*HUGE, 40_000, -1, 0, "32", None])
def test_sizes_of_a_dense_are_compared_with_the_weights(world: Path, value: object) -> None:
    (dense,) = (world / "model").glob("*_Router/query_0_Dense/config.json")
    change(dense, "in_features", value)
    with pytest.raises(ValueError, match="query_0_Dense"):
        Retriever.from_pretrained(world / "model", device="cpu")


# -------------------------------------------------------------------- paths

PATHS = ["..", ".", "../encoder", "/etc", "1_Pooling/../../encoder", ".git", 7, None, ["a"], {}]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("folder", ["encoder", "model"])
def test_a_module_outside_of_the_folder_is_refused(world: Path, folder: str, path: object) -> None:
    change(world / folder / "modules.json", "1.path", path)
    for load in (OPEN[folder], lambda place: Retriever.from_pretrained(place, device="cpu")):
        with pytest.raises(ValueError, match=r"modules\.json of .* must name files and folders inside"):
            load(world / folder)


@pytest.mark.parametrize("path", PATHS)
def test_a_route_outside_of_the_folder_is_refused(world: Path, path: object) -> None:
    (router,) = (world / "model").glob("*_Router/router_config.json")
    change(router, "structure", {"query": [path, "query_1_Normalize"]})
    for load in (OPEN["model"], lambda place: Retriever.from_pretrained(place, device="cpu")):
        with pytest.raises(ValueError, match=r"router_config\.json of .* must name files and folders inside"):
            load(world / "model")


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("folder", ["encoder", "model", "adapter"])
def test_a_shard_outside_of_the_folder_is_refused(world: Path, folder: str, path: object) -> None:
    file = world / folder / "model.safetensors"
    names = load_file(file)
    file.rename(world / "model.safetensors")
    index = {"metadata": {}, "weight_map": dict.fromkeys(names, path)}
    (world / folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ValueError, match=r"index\.json of .* must name files and folders inside"):
        OPEN[folder](world / folder)


# -------------------------------------------------------------------- values


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("folder", ["adapter", "model"])
def test_weights_of_an_adapter_that_are_no_numbers_are_refused(
    world: Path, folder: str, value: float
) -> None:
    path = world / folder / "model.safetensors"
    weights = load_file(path)
    name = next(name for name in weights if "reader." in name and weights[name].is_floating_point())
    weights[name].flatten()[0] = value
    save_file(weights, path, metadata={"format": "pt"})
    with pytest.raises(ValueError, match=rf"adapter weights of .*{folder}.* must be finite"):
        OPEN[folder](world / folder)


@pytest.mark.parametrize(
    ("name", "place", "value"),
    [
        ("pairs", (0, 0), 9),
        ("pairs", (0, 1), -1),
        ("words", 0, 99),
        ("words", 0, -1),
        ("ends", 0, 1),
        ("ends", 1, 9),
    ],
)
def test_a_memory_that_contradicts_itself_is_refused(
    tmp_path: Path, name: str, place: Any, value: int
) -> None:
    sizes = {"queries": 2, "documents": 2, "pairs": 2, "vocabulary": 4, "entries": 3}
    config = AdapterConfig(embedding_dim=4, reader={"kind": "features_v2", "names": ["words"], **sizes})
    adapter = RetrieverAdapter(config)
    adapter.reader.memory.ends[1:] = torch.tensor([1, 3])
    adapter.save_pretrained(tmp_path / "words")
    RetrieverAdapter.from_pretrained(tmp_path / "words")
    getattr(adapter.reader.memory, name)[place] = value
    adapter.save_pretrained(tmp_path / "words")
    with pytest.raises(ValueError, match=rf"words don't fit its config: memory\.{name} must"):
        RetrieverAdapter.from_pretrained(tmp_path / "words")


SETTINGS = [
    *(
        (name, value)
        for name in ("tau", "temperature", "lambda_")
        for value in ("1", None, [], -1, float("nan"))
    ),
    *((name, value) for name in ("query_map", "document_map") for value in ("yes", 1, None)),
    *(
        ("reader", value)
        for value in (7, None, [], {}, {"kind": 7}, {"kind": ["features"]}, {"kind": "none"})
    ),
    *(("fit", value) for value in (7, "a", [])),
    *(("format_version", value) for value in (99, "3", None, [])),
    ("unknown", 1),
]


@pytest.mark.parametrize(("setting", "value"), SETTINGS)
@pytest.mark.parametrize("folder", ["adapter", "model"])
def test_settings_of_an_adapter_are_checked(world: Path, folder: str, setting: str, value: object) -> None:
    change(world / folder / "config.json", setting if folder == "adapter" else f"adapter.{setting}", value)
    with pytest.raises(ValueError, match=r"."):
        OPEN[folder](world / folder)


MODEL_SETTINGS = [
    *(("pooling", value) for value in (7, None, [], ["mean", 7], "new")),
    *(("normalize", value) for value in ("yes", None, 7)),
    *(("text_config", value) for value in (7, "bert", [], {"model_type": "none"}, {"model_type": 7})),
    *(("lora", value) for value in (7, "all", [], {"r": "a"}, {"unknown": 1})),
    *(("adapter", value) for value in (7, "a", [1])),
    *((name, value) for name in ("query_prompt", "document_prompt") for value in (7, None, ["a"], {})),
    *((name, value) for name in ("max_seq_length", "truncate_dim") for value in (0, -1, "9", [], 2.5)),
    *(("prompts", value) for value in (7, ["a"], {"a": 7}, {"a": None})),
    *((name, value) for name in ("default_prompt_name", "similarity_fn_name") for value in (7, "x", ["a"])),
    *(
        ("after_pooling", value)
        for value in (7, {}, [7], [{}], [{"type": "Other"}], [{"type": ["Dense"]}], [{"type": "Dense"}])
    ),
    *(
        ("after_pooling", [{"type": "LayerNorm", "dimension": value}])
        for value in (0, -1, 31, 10**12, 2.5, "32", None, True)
    ),
]


@pytest.mark.parametrize(("setting", "value"), MODEL_SETTINGS)
def test_settings_of_a_model_are_checked(world: Path, setting: str, value: object) -> None:
    change(world / "model/config.json", setting, value)
    with pytest.raises((ValueError, ImportError)):
        RRRAModel.from_pretrained(world / "model")


DEEP = "[" * 100_000 + "]" * 100_000


@pytest.mark.parametrize("content", [DEEP, "", "[]", "7", "null", '{"a": ' + "9" * 5000 + "}"])
@pytest.mark.parametrize(
    ("folder", "name"),
    [
        *((folder, "config.json") for folder in ("encoder", "model", "adapter")),
        *((folder, "modules.json") for folder in ("encoder", "model")),
        *((folder, "tokenizer.json") for folder in ("encoder", "model")),
        *((folder, "tokenizer_config.json") for folder in ("encoder", "model")),
        ("encoder", "config_sentence_transformers.json"),
        ("encoder", "sentence_bert_config.json"),
        ("encoder", "1_Pooling/config.json"),
    ],
)
def test_json_of_any_kind_is_refused(world: Path, folder: str, name: str, content: str) -> None:
    (world / folder / name).write_text(content)
    if (name, content) == ("modules.json", "[]"):
        return
    with pytest.raises(ValueError, match=folder):
        OPEN[folder](world / folder)
