"""What an upload takes of a folder that somebody else may have written, or that holds more than a model."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

from command_line import rrra
from hub_server import Blob, HubServer
from retriever_models import make_adapter
from rrra_hf.hub import push_folder, repository_files
from sharing import MODEL

SECRETS = ["id_rsa", "token.txt", "credentials.json", ".git/config", "optimizer.pt", ".env", "secrets.yaml"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A saved adapter, with the folder of a module."""
    make_adapter().save_pretrained(tmp_path / "model")
    write(tmp_path / "model/1_Pooling/config.json")
    write(tmp_path / "model/1_Pooling/model.safetensors")
    name_modules(tmp_path / "model", "", "1_Pooling")
    return tmp_path / "model"


def write(path: Path, text: str = "{}") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def name_modules(folder: Path, *paths: object) -> None:
    write(folder / "modules.json", json.dumps([{"type": "x", "path": path} for path in paths]))


def names(folder: Path, with_index: bool = False) -> set[str]:
    return {file.name for file in repository_files(folder, with_index)}


MODEL_FILES = {"config.json", "model.safetensors", "modules.json"}
MODULE_FILES = {"1_Pooling/config.json", "1_Pooling/model.safetensors"}


@pytest.mark.parametrize("place", ["", "1_Pooling", "1_Pooling/deeper", "adapter", "index", ".eval_results"])
def test_secrets_are_left_out(folder: Path, place: str) -> None:
    write(folder / "index/meta.json")
    before = names(folder, with_index=True)
    for secret in SECRETS[: -1 if place == ".eval_results" else None]:
        write(folder / place / secret, "secret")
    assert names(folder, with_index=True) == before == MODEL_FILES | MODULE_FILES | {"index/meta.json"}


@pytest.mark.parametrize(
    "path",
    [
        *(".", "..", "../secret", "1_Pooling/../../secret", "/etc", "./1_Pooling", ".git", "1_Pooling/.git"),
        *("1_Pooling/", "..\\secret", "C:\\secret", "a\0b", 7, None, ["1_Pooling"], {}),
    ],
)
def test_a_path_of_a_module_never_leaves_the_folder(folder: Path, path: object) -> None:
    write(folder.parent / "secret/model.safetensors", "secret")
    write(folder / ".git/model.safetensors", "secret")
    name_modules(folder, "", path)
    with pytest.raises(ValueError, match=r"modules\.json must name folders inside of its own"):
        repository_files(folder)


@pytest.mark.parametrize("content", ["[1]", "{}", "7", '[{"path": ', "[" * 100_000, '["a"]', "[{}]"])
def test_a_damaged_list_of_modules_is_named(folder: Path, content: str) -> None:
    write(folder / "modules.json", content)
    with pytest.raises(ValueError, match=r"modules\.json (is damaged|must)"):
        repository_files(folder)


def test_links_are_never_followed(folder: Path) -> None:
    outside = folder.parent / "outside"
    write(outside / "model.safetensors", "secret")
    before = names(folder)
    for link, target in {
        "link.txt": "/etc/passwd",
        "1_Pooling/link": outside,
        "1_Pooling/notes.txt": outside / "model.safetensors",
        "adapter": outside,
        "2_Linked": outside,
    }.items():
        (folder / link).symlink_to(target)
    name_modules(folder, "", "1_Pooling", "2_Linked")
    assert names(folder) == before
    for place in ("README.md", "1_Pooling/a.safetensors"):
        (folder / place).symlink_to(outside / "model.safetensors")
        with pytest.raises(ValueError, match=rf"{place} is a link, which isn't followed"):
            repository_files(folder)
        (folder / place).unlink()


def test_what_was_left_out_is_not_deleted_in_the_repository(hub: HubServer, folder: Path) -> None:
    kept = ["2023_data/model.safetensors", "index/notes.csv", "models.safetensors", "model_old.safetensors"]
    gone = ["2_Dense/model.safetensors", "index/meta.json", "model-00001-of-00002.safetensors"]
    hub.create(MODEL).add("main", {name: Blob(b"{}", False) for name in kept + gone}, "before")
    push_folder(folder, MODEL)
    left = set(hub.files(MODEL))
    assert set(kept) <= left and not left & set(gone)


class Terminal(io.BytesIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("answer", "options", "status"),
    [(b"n\n", [], 1), (b"", [], 1), (b"y\n", [], 0), (b"", ["--yes"], 0), (b"n\n", ["--json"], 1)],
)
def test_a_terminal_is_asked_before_anything_is_sent(
    hub: HubServer, folder: Path, answer: bytes, options: list[str], status: int
) -> None:
    outcome = rrra("push", folder, MODEL, *options, stdin=Terminal(answer))
    assert outcome.status == status, outcome.message
    assert bool(hub.requests) == (status == 0)
    assert ("Upload 6 files to me/model?" in outcome.err) == ("--yes" not in options)
