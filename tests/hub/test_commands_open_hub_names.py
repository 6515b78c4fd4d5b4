"""Every command opens a model or a retriever of the Hub, of the revision that is asked for."""

from __future__ import annotations

from pathlib import Path

import pytest
from sentence_transformers import SentenceTransformer

import rrra_hf.serving
from command_line import rrra
from hub_server import HubServer
from retriever_models import CORPUS, QUERY, make_adapter
from rrra_hf import Retriever
from sharing import put

NAME = "me/retriever"
LINES = b"copy files\nlist files in a folder\nsort text"


@pytest.fixture
def local(hub: HubServer, tiny_bert: Path, tmp_path: Path) -> Path:
    """A retriever, which is the repository's branch `old`; its main branch has no index."""
    folder = tmp_path / "local"
    encoder = SentenceTransformer(str(tiny_bert), device="cpu")
    adapter = make_adapter(lambda_=0.5, fit={"development": {"queries": 100}})
    Retriever(encoder, adapter).index(CORPUS).save_pretrained(folder)
    put(hub, NAME, folder)
    repository = hub.repositories[NAME]
    repository.refs["old"] = repository.refs["main"]
    put(hub, NAME, tiny_bert)
    return folder


def test_a_search_of_a_hub_name_is_that_of_the_folder(local: Path, tmp_path: Path) -> None:
    """Only folders were taken."""
    found = rrra("search", NAME, QUERY, "--revision", "old", "--json")
    assert found.status == 0, found.err
    assert found.json == rrra("search", local, QUERY, "--json").json
    kept = tmp_path / "kept"
    assert rrra("search", NAME, QUERY, "--revision", "old", "--cache-folder", kept).status == 0
    assert (kept / "models--me--retriever").is_dir()


def test_a_service_of_a_hub_name_starts(local: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rrra_hf.serving, "run", lambda *_: None)
    served = rrra("serve", NAME, "--revision", "old", "--port", 0, "--json")
    assert served.status == 0, served.err
    assert served.json["documents"] == len(CORPUS)


def test_a_model_without_an_index_is_refused(local: Path) -> None:
    for command in (["search", NAME, QUERY], ["serve", NAME], ["app", NAME]):
        failed = rrra(*command)
        assert (failed.status, failed.out) == (1, "")
        assert failed.err == f"error: {NAME} has no index; make one with `rrra index`.\n"


def test_rerank_takes_the_adapter_of_the_revision(local: Path) -> None:
    there = rrra("rerank", NAME, QUERY, "-", "--revision", "old", "--json", stdin=LINES).json
    assert there == rrra("rerank", local, QUERY, "-", "--json", stdin=LINES).json
    main = rrra("rerank", NAME, QUERY, "-", "--json", stdin=LINES)
    assert main.status == 0, main.err
    assert main.json != there
