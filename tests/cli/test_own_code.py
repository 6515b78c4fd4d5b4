"""An encoder with code of its own is opened where that is trusted, and saved so that it opens again."""

from __future__ import annotations

from pathlib import Path

import pytest

from bad_input import fail, succeed, write_beir
from rrra_hf import Retriever
from tiny import save_own_code

TRUST = "--trust-remote-code"


@pytest.fixture
def own_code(tmp_path: Path) -> Path:
    return save_own_code(tmp_path / "own", "Command")


@pytest.fixture
def beir(tmp_path: Path) -> Path:
    documents = {name: f"{name} files" for name in ("copy", "sort", "list", "find")}
    return write_beir(tmp_path / "beir", documents, documents, {name: name for name in documents})


def test_an_index_of_it_is_searched_where_it_is_trusted(own_code: Path, beir: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert "trust_remote_code" in fail("index", own_code, beir, "--out", out)
    succeed("index", own_code, beir, "--out", out, TRUST)
    found = succeed("search", out, "sort files", TRUST, "--json").json[0]["hits"]
    assert found[0]["corpus_id"] == "sort"
    inside = Retriever.from_pretrained(out, trust_remote_code=True).encoder[0].model
    assert type(inside).__name__ == "CommandModel"
    assert "trust_remote_code" in fail("search", out, "sort files")


def test_a_fit_of_it_is_saved(own_code: Path, beir: Path, tmp_path: Path) -> None:
    fit = ["--preset", "residual", "--max-steps", 1]
    succeed("fit", beir, "--model", own_code, "--out", tmp_path / "model", TRUST, *fit)
    succeed("rerank", tmp_path / "model", "sort", "-", TRUST, stdin=b"sort files")


def test_training_refuses_it_before_it_begins(own_code: Path, beir: Path, tmp_path: Path) -> None:
    message = fail("train", beir, "--model", own_code, "--out", tmp_path / "run", TRUST)
    assert "CommandModel" in message
    assert "code of its own" in message
    assert not (tmp_path / "run" / "stage1").exists()
