"""`rrra push`."""

from __future__ import annotations

from pathlib import Path

from command_line import rrra
from hub_server import HubServer
from retriever_models import CORPUS, make_adapter, make_retriever
from rrra_hf import RRRAModel
from sharing import MODEL


def test_push_shows_files_and_sizes_before_it_uploads(
    hub: HubServer, lora_model: RRRAModel, tmp_path: Path
) -> None:
    lora_model.save_pretrained(tmp_path / "model")
    outcome = rrra(
        "push", tmp_path / "model", MODEL, "--form", "lora", "--private", "--commit-message", "hello"
    )
    assert outcome.status == 0, outcome.err
    size = len(hub.files(MODEL)["model.safetensors"])
    total = sum(map(len, hub.files(MODEL).values()))
    for text in (
        "model.safetensors",
        f"{size / 1000:.1f} kB",
        f"{total / 1000:.1f} kB",
        f"{len(hub.files(MODEL))} files",
    ):
        assert text in outcome.out
    assert f"commit: {hub.url}/{MODEL}/commit/" in outcome.out
    assert hub.repositories[MODEL].private and hub.commits(MODEL) == ["hello"]
    hub.fail("POST", "/commit/main", status=403)
    failed = rrra("push", tmp_path / "model", MODEL)
    assert failed.status == 1 and "model.safetensors" in failed.out and "No permission" in failed.message


def test_push_prints_json(hub: HubServer, tiny_bert: Path, tmp_path: Path) -> None:
    make_retriever(tiny_bert).index(CORPUS).save_pretrained(tmp_path / "retriever")
    hub.create(MODEL)
    outcome = rrra("push", tmp_path / "retriever", MODEL, "--with-index", "--create-pr", "--json")
    assert outcome.status == 0 and outcome.err == ""
    assert outcome.json["pull_request"] == f"{hub.url}/{MODEL}/discussions/1"
    assert outcome.json["commit"] == hub.repositories[MODEL].refs["refs/pr/1"]
    sizes = {name: len(content) for name, content in hub.files(MODEL, "refs/pr/1").items()}
    assert outcome.json["files"] == sizes and "index/vectors.faiss" in sizes


def test_push_tells_bad_arguments_from_failures(hub: HubServer, tmp_path: Path) -> None:
    make_adapter().save_pretrained(tmp_path / "adapter")
    bad = rrra("push", tmp_path / "adapter", MODEL, "--create-pr", "--revision", "next")
    assert bad.status == 2 and "--revision can't go with" in bad.message
    assert rrra("push", tmp_path / "adapter", MODEL, "--form", "half").status == 2
    failed = rrra("push", tmp_path / "nowhere", MODEL)
    assert failed.status == 1 and "folder must be a folder" in failed.message
    assert not hub.requests
