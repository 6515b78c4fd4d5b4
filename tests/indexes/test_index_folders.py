"""Saving an index deletes the index that was there before, and nothing else."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from rrra_hf.indexes import FaissDocumentIndex
from rrra_hf.indexes.folder import current_folder, new_current_folder
from rrra_hf.models.files_rrra import write_json


def write(path: Path, text: str) -> None:
    with new_current_folder(path, {"documents": len(text)}) as folder:
        (folder / "text").write_text(text)


def read(path: Path) -> str:
    folder, meta = current_folder(path, ("documents",))
    text = (folder / "text").read_text()
    assert meta == {"documents": len(text)}
    return text


def test_a_folder_is_replaced_and_those_of_others_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "index"
    (path / "photos").mkdir(parents=True)
    (path / "photos" / "cat.jpg").write_text("cat")
    (path / ("0" * 32)).mkdir()
    for text in ("one", "three", "five"):
        write(path, text)
        assert read(path) == text
    assert (path / "photos" / "cat.jpg").read_text() == "cat"
    names = {entry.name for entry in path.iterdir()}
    assert names == {"current.json", "photos", "0" * 32, current_folder(path, ())[0].name}


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
    (path / ".unfinished" / "half").mkdir(parents=True)
    write(path, "two")
    assert not (path / ".unfinished").exists()


@pytest.mark.parametrize("name", ["../photos", "photos", "/", 7, None])
def test_a_folder_that_was_not_made_for_an_index_is_not_deleted(tmp_path: Path, name: object) -> None:
    path = tmp_path / "index"
    for folder in (path, tmp_path):
        (folder / "photos").mkdir(parents=True)
    write_json(path / "current.json", {"format_version": 1, "folder": name})
    write(path, "one")
    assert read(path) == "one"
    assert (path / "photos").is_dir() and (tmp_path / "photos").is_dir()


def test_an_index_is_saved_where_other_files_are(tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    index = FaissDocumentIndex(2, count=1)
    index.upsert(["a"], np.eye(1, 2))
    for _ in range(2):
        index.save(tmp_path)
    assert (tmp_path / "thesis").is_dir()
    assert "a" in FaissDocumentIndex.load(tmp_path)
    assert json.loads((tmp_path / "current.json").read_text())["format_version"] == 1
