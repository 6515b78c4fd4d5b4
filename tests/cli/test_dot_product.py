"""Commands refuse an encoder that compares by dot product, and keep one that the cosine is right for."""

from __future__ import annotations

from pathlib import Path

import pytest

from bad_input import fail, succeed, write_beir
from rrra_hf.models.files_rrra import read_json
from tiny import add_side_files, save_encoder


def save(folder: Path, *, normalize: bool) -> Path:
    """Save an encoder that compares by dot product."""
    save_encoder(folder, "bert")
    return add_side_files(folder, {"pooling_mode_mean_tokens": True}, normalize, similarity_fn_name="dot")


@pytest.fixture
def beir(tmp_path: Path) -> Path:
    documents = {name: f"{name} files" for name in ("copy", "sort", "list", "find")}
    return write_beir(tmp_path / "beir", documents, documents, {name: name for name in documents})


@pytest.mark.parametrize("command", ["mine", "fit", "train", "index", "rerank", "evaluate"])
def test_every_command_refuses_it(beir: Path, tmp_path: Path, command: str) -> None:
    dot = save(tmp_path / "dot", normalize=False)
    out = ["--out", tmp_path / "out"]
    others = {"index": [dot, beir, *out], "rerank": [dot, "copy", "-"], "evaluate": [dot, beir]}
    arguments = others.get(command, [beir, "--model", dot, *out])
    message = fail(command, *arguments, stdin=b"copy files")
    assert "'dot'" in message
    assert "compare cosines" in message


def test_embeddings_of_length_1_keep_the_setting(beir: Path, tmp_path: Path) -> None:
    """The setting was overwritten by the cosine."""
    succeed("index", save(tmp_path / "unit", normalize=True), beir, "--out", tmp_path / "out")
    settings = read_json(tmp_path / "out" / "config_sentence_transformers.json", dict)
    assert settings["similarity_fn_name"] == "dot"
