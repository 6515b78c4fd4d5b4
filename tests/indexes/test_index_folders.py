"""Saving an index deletes the index that was there before, and nothing else."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rrra_hf.indexes import ApproximateIndex, Index, load_index
from rrra_hf.indexes.folder import current_folder, new_current_folder
from rrra_hf.models.files_rrra import write_json
from small_indexes import clustered, make_approximate


def write(path: Path, text: str) -> None:
    with new_current_folder(path, {"documents": len(text)}) as folder:
        (folder / "text").write_text(text)


def read(path: Path) -> str:
    folder, meta = current_folder(path, ("documents",))
    text = (folder / "text").read_text()
    assert meta == {"documents": len(text)}
    return text


def test_a_folder_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "index"
    for text in ("one", "three", "five"):
        write(path, text)
        assert read(path) == text
    assert {entry.name for entry in path.iterdir()} == {"current.json", current_folder(path, ())[0].name}


FOREIGN = ["photos/cat.jpg", "notes.txt", ".git/config", "0" * 32 + "/cat.jpg", "0" * 31 + "/meta.json"]


@pytest.mark.parametrize("before", [False, True])
@pytest.mark.parametrize("name", FOREIGN)
def test_a_folder_that_holds_anything_else_is_refused(tmp_path: Path, name: str, before: bool) -> None:
    path = tmp_path / "index"
    if before:
        write(path, "one")
    (path / name).parent.mkdir(parents=True, exist_ok=True)
    (path / name).write_text("mine")
    contents = sorted(path.rglob("*"))
    with pytest.raises(ValueError, match=rf"holds other files \({name.partition('/')[0]}\)"):
        write(path, "two")
    assert sorted(path.rglob("*")) == contents
    if before:
        assert read(path) == "one"


def test_what_somebody_put_into_a_subfolder_is_not_deleted(tmp_path: Path) -> None:
    path = tmp_path / "index"
    write(path, "one")
    folder, _ = current_folder(path, ())
    (folder / "cat.jpg").write_text("cat")
    with pytest.raises(ValueError, match=rf"holds other files \({folder.name}\)"):
        write(path, "two")
    assert (folder / "cat.jpg").exists() and read(path) == "one"


def test_links_are_neither_followed_nor_deleted(tmp_path: Path) -> None:
    path = tmp_path / "index"
    write(tmp_path / "other", "two")
    write(path, "one")
    other, _ = current_folder(tmp_path / "other", ())
    (path / other.name).symlink_to(other)
    with pytest.raises(ValueError, match="holds other files"):
        write(path, "three")
    write_json(path / "current.json", {"format_version": 1, "folder": other.name})
    with pytest.raises(ValueError, match="must name a subfolder"):
        read(path)
    assert read(tmp_path / "other") == "two"


def test_a_failed_save_leaves_the_index_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "index"
    write(path, "one")
    before = sorted(path.rglob("*"))
    with pytest.raises(KeyboardInterrupt), new_current_folder(path, {}) as folder:
        (folder / "text").write_text("half")
        raise KeyboardInterrupt
    assert sorted(path.rglob("*")) == before
    assert read(path) == "one"


def test_what_a_killed_process_left_is_deleted(tmp_path: Path) -> None:
    path = tmp_path / "index"
    write(path, "one")
    orphan = path / ("0" * 32)
    shutil.copytree(current_folder(path, ())[0], orphan)
    (path / f".{orphan.name}.1234.tmp").mkdir()
    (path / f".{orphan.name}.1234.tmp" / "half").touch()
    (path / ".current.json.1234.tmp").touch()
    write(path, "two")
    assert {entry.name for entry in path.iterdir()} == {"current.json", current_folder(path, ())[0].name}


@pytest.mark.parametrize("name", ["../photos", "photos", "/", "", ".", "..", 7, None, ["0" * 32]])
def test_a_path_that_leaves_the_folder_is_refused(tmp_path: Path, name: object) -> None:
    path = tmp_path / "index"
    write(path, "one")
    write(tmp_path / "photos", "secret")
    write_json(path / "current.json", {"format_version": 1, "folder": name})
    with pytest.raises(ValueError, match=r"current\.json must name a subfolder of 32"):
        read(path)
    write(path, "two")
    assert read(path) == "two" and read(tmp_path / "photos") == "secret"


@pytest.mark.parametrize("kind", ["ivf-flat", "hnsw"])
def test_an_index_that_was_saved_before_files_were_named_is_replaced(tmp_path: Path, kind: str) -> None:
    index = ApproximateIndex(2, kind, count=1)
    index.add(np.eye(1, 2))
    index.save(tmp_path)
    folder, _ = current_folder(tmp_path, ())
    for path in tmp_path.rglob("meta.json"):
        meta = json.loads(path.read_text())
        del meta["files"]
        write_json(path, meta)
    index.save(tmp_path)
    assert not folder.exists() and len(load_index(tmp_path)) == 1


def patched() -> Index:
    return make_approximate("hnsw", clustered(20)).updated(np.arange(19), np.ones((1, 16)))


@pytest.mark.parametrize("make", [lambda: ApproximateIndex(2, "hnsw", 1), patched])
def test_no_index_is_saved_where_other_files_are(tmp_path: Path, make: Callable[[], Any]) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "one.tex").touch()
    with pytest.raises(ValueError, match=r"holds other files \(thesis\); choose another folder"):
        make().save(tmp_path)
    assert [path.name for path in tmp_path.rglob("*")] == ["thesis", "one.tex"]
