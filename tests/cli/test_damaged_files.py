"""Damaged files, foreign files and full disks, end to end."""

from __future__ import annotations

import errno
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer

from bad_input import fail, snapshot, succeed, truncate
from rrra_hf import AdapterConfig, CandidatePool, Retriever, RetrieverAdapter, RRRAModel

pytestmark = pytest.mark.usefixtures("here")


# -------------------------------------------------------------------- embeddings and dimensions


def test_model_that_gives_nan_is_refused(world: Path) -> None:
    path = world / "encoder/model.safetensors"
    weights = load_file(path)
    weights["embeddings.LayerNorm.bias"][0] = torch.nan
    save_file(weights, path, metadata={"format": "pt"})
    before = snapshot(world)
    for command in ("index encoder beir --out out", "mine beir --model encoder --out out"):
        assert "The model gave NaN or infinite values for 20 of 20 texts" in fail(*command.split())
    assert snapshot(world) == before
    fail("mine", "beir", "--model", "encoder", "--out", "out", "--cache-dir", "cache")
    # The lock file stays until the cache is complete.
    assert {path.suffix for path in (world / "cache").rglob("*") if path.is_file()} <= {".lock"}


def test_adapter_of_another_dimension_is_refused(world: Path) -> None:
    encoder = SentenceTransformer("encoder", device="cpu")
    adapter = RetrieverAdapter(AdapterConfig(embedding_dim=32))
    Retriever(encoder, adapter).index({"a": "sort"}).save_pretrained("mixed")
    RetrieverAdapter(AdapterConfig(embedding_dim=16)).save_pretrained("mixed/adapter")
    assert "adapter must be of dimension 32, got 16" in fail("search", "mixed", "sort")


def test_index_of_another_model_is_refused(world: Path) -> None:
    model = RRRAModel.from_pretrained("model")
    with torch.no_grad():
        model.get_input_embeddings().weight.mul_(1.1)
    model.save_pretrained("other")
    succeed("index", "other", "beir", "--out", "others")
    shutil.rmtree("retriever/index")
    shutil.copytree("others/index", "retriever/index")
    message = fail("search", "retriever", "sort")
    assert "retriever/index was made by another model" in message
    assert "index the corpus again" in message


# -------------------------------------------------------------------- damaged files


DAMAGE: dict[str, Callable[[Path], None]] = {
    "truncated": truncate,
    "empty": lambda path: truncate(path, 0),
    "a list": lambda path: path.write_text("[1]") and None,
}


USES = {
    "encoder": "index encoder beir --out out",
    "model": "index model beir --out out",
    "retriever": "search retriever sort",
}


@pytest.mark.parametrize("kept", [0, 0.01, 0.5, 0.99])
@pytest.mark.parametrize("folder", USES)
def test_truncated_weights_are_named(world: Path, folder: str, kept: float) -> None:
    truncate(world / folder / "model.safetensors", kept)
    before = snapshot(world)
    assert f"{folder}/model.safetensors is damaged" in fail(*USES[folder].split())
    assert snapshot(world) == before


@pytest.mark.parametrize(
    ("folder", "file", "damage"),
    [
        (folder, file, damage)
        for folder in USES
        for file in ("config.json", "modules.json", "tokenizer.json")
        for damage in DAMAGE
        # Only sentence-transformers reads the list of modules of a retriever.
        if (folder, file, damage) != ("retriever", "modules.json", "a list")
    ],
)
def test_damaged_json_is_an_error_that_names_the_model(
    world: Path, folder: str, file: str, damage: str
) -> None:
    DAMAGE[damage](world / folder / file)
    before = snapshot(world)
    assert folder in fail(*USES[folder].split())
    assert snapshot(world) == before


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("file", ["config.json", "model.safetensors"])
def test_damaged_adapter_is_an_error_that_names_the_file(here: Path, file: str, damage: str) -> None:
    RetrieverAdapter(AdapterConfig(embedding_dim=8)).save_pretrained("adapter")
    DAMAGE[damage](here / "adapter" / file)
    with pytest.raises(ValueError, match=rf"adapter/{file}"):
        RetrieverAdapter.from_pretrained("adapter")


def test_adapter_weights_that_do_not_fit_their_config_are_refused(here: Path) -> None:
    RetrieverAdapter(AdapterConfig(embedding_dim=8, reader={"kind": "residual"})).save_pretrained("adapter")
    config = here / "adapter/config.json"
    config.write_text(config.read_text().replace('"embedding_dim": 8', '"embedding_dim": 9'))
    with pytest.raises(ValueError, match=r"(?s)weights of adapter don't fit its config: .*size mismatch"):
        RetrieverAdapter.from_pretrained("adapter")
    config.write_text('{"model_type": "rrra_adapter", "embedding_dim": 0}')
    with pytest.raises(ValueError, match=r"config\.json of adapter can't be used: .*embedding_dim"):
        RetrieverAdapter.from_pretrained("adapter")


@pytest.mark.parametrize("file", ["pool.json", "documents.parquet", "queries.parquet"])
def test_truncated_pool_is_named(world: Path, file: str) -> None:
    truncate(world / "pool" / file)
    before = snapshot(world)
    message = fail(*["fit", "beir", "--model", "encoder", "--pool", "pool", "--out", "out"])
    assert f"pool/{file} is" in message and "damaged" in message
    assert snapshot(world) == before


@pytest.mark.parametrize("file", ["vectors.faiss", "documents.parquet", "meta.json"])
def test_truncated_index_is_named(world: Path, file: str) -> None:
    truncate(world / "retriever/index" / file)
    message = fail("search", "retriever", "sort")
    assert f"retriever/index/{file} is" in message and "damaged" in message


def test_damaged_cache_is_noticed_and_made_again(world: Path) -> None:
    command = ["mine", "beir", "--model", "encoder", "--cache-dir", "cache", "--depth", "5", "--out"]
    succeed(*command, "first")
    whole = snapshot(world / "cache")
    files = [path for path in (world / "cache").rglob("*") if path.is_file()]
    # Embeddings, and the words of the corpus.
    assert {path.name for path in files} >= {"embeddings.arrow", "meta.json", "words.json"}
    for path in files:
        truncate(path)
    succeed(*command, "second")
    assert snapshot(world / "cache") == whole
    assert snapshot(world / "first") == snapshot(world / "second")


# -------------------------------------------------------------------- a disk that is full


def full_disk(owner: object, name: str, monkeypatch: pytest.MonkeyPatch, path_at: int | None) -> None:
    """Make a writer fail after the beginning of its file."""

    def write(*arguments: Any, **_: Any) -> None:
        if path_at is not None:
            Path(str(arguments[path_at])).write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(owner, name, write)


@pytest.mark.parametrize("out", ["new", "earlier"])
@pytest.mark.parametrize(
    ("command", "writer", "path_at"),
    [
        ("mine beir --model encoder", "rrra_hf.candidates.pool_files:pq.write_table", 1),
        (
            "fit beir --model encoder --preset residual --max-steps 2",
            "transformers.modeling_utils:safe_save_file",
            1,
        ),
        (
            "fit beir --model encoder --preset residual --max-steps 2",
            "rrra_hf.models.modeling_rrra:write_side_files",
            None,
        ),
        ("index model beir", "rrra_hf.indexes.flat:faiss.write_index", 1),
        ("index model beir", "rrra_hf.retrieval.corpus_index:pq.write_table", 1),
        ("index model beir", "transformers.modeling_utils:safe_save_file", 1),
    ],
)
def test_full_disk_leaves_what_was_there_before_and_nothing_else(
    world: Path,
    command: str,
    writer: str,
    path_at: int | None,
    out: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if out == "earlier":
        earlier = {"mine": "pool", "fit": "model", "index": "retriever"}[command.split()[0]]
        shutil.copytree(earlier, out)
    before = snapshot(world)
    module, names = writer.split(":")
    owner: Any = sys.modules[module]
    *path, name = names.split(".")
    for part in path:
        owner = getattr(owner, part)
    full_disk(owner, name, monkeypatch, path_at)
    assert "the disk is full; make room, and run the command again" in fail(*command.split(), "--out", out)
    assert snapshot(world) == before


@pytest.mark.parametrize("earlier", [False, True])
def test_adapter_survives_a_full_disk(here: Path, earlier: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if earlier:
        RetrieverAdapter(AdapterConfig(embedding_dim=8)).save_pretrained("adapter")
    before = snapshot(here)
    full_disk(sys.modules["rrra_hf.models.adapter_rrra"], "save_file", monkeypatch, 1)
    with pytest.raises(OSError, match="No space left"):
        RetrieverAdapter(AdapterConfig(embedding_dim=4)).save_pretrained("adapter")
    assert snapshot(here) == before


def test_full_disk_leaves_no_half_cache_and_the_next_run_ends_well(
    world: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ["mine", "beir", "--model", "encoder", "--depth", "5", "--cache-dir", "cache", "--out"]
    with monkeypatch.context() as patch:
        full_disk(sys.modules["pyarrow"].RecordBatchFileWriter, "write_batch", patch, None)
        assert "the disk is full; make room, and run the command again" in fail(*command, "out")
    assert not (world / "out").exists()
    # The lock file stays until the cache is complete.
    assert {path.suffix for path in (world / "cache").rglob("*") if path.is_file()} <= {".lock"}
    succeed(*command, "out")
    assert CandidatePool.load("out").candidate_ids == CandidatePool.load("pool").candidate_ids
