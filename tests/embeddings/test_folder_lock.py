"""A folder that one process at a time writes."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

import forked
from rrra_hf.embeddings.folder_lock import only_writer


def hold(folder: Path, ending: str = "") -> None:
    """Hold the lock until the process is killed, or kill it."""
    with only_writer(folder):
        (folder.parent / "held").touch()
        if ending == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(forked.WAIT)


def test_a_second_process_is_refused_until_the_first_one_dies(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    first = forked.Process(hold, folder)
    while not (tmp_path / "held").exists():
        assert first.process.is_alive(), first.err
        time.sleep(0.01)
    with (
        pytest.raises(BlockingIOError, match=r"folder is being written by another process"),
        only_writer(folder),
    ):
        pytest.fail("two writers")
    with only_writer(tmp_path / "other"):
        pass
    first.kill()
    with only_writer(folder):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["held"]


def test_a_folder_has_one_writer_under_all_its_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (tmp_path / "link").symlink_to(folder)
    monkeypatch.chdir(folder)
    with only_writer(folder):
        for name in (tmp_path / "link", Path(), tmp_path / "folder/../folder"):
            with pytest.raises(BlockingIOError), only_writer(name):
                pytest.fail("two writers")


@pytest.mark.parametrize("fails", [False, True])
def test_nothing_is_left_behind(tmp_path: Path, fails: bool) -> None:
    class Failed(Exception):
        pass

    try:
        with only_writer(tmp_path / "a/b/c"):
            assert (tmp_path / "a/b").is_dir()
            if fails:
                raise Failed
    except Failed:
        pass
    assert not list(tmp_path.iterdir())


def test_what_a_killed_process_left_is_removed_or_restored(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    theirs = ["notes.tmp", ".folder.tmp", ".other.0123abcd.tmp"]
    for name in [*theirs, ".folder.0123abcd.tmp", ".folder.4567abcd.old.tmp"]:
        (tmp_path / name).mkdir()
    (tmp_path / ".folder.4567abcd.old.tmp/.meta.json.0123abcd.tmp").touch()
    (tmp_path / ".folder.4567abcd.old.tmp/meta.json").touch()
    assert forked.run(hold, folder, "killed").statuses == [-signal.SIGKILL]
    with only_writer(folder):
        pass
    assert {path.name for path in tmp_path.iterdir()} == {*theirs, "folder", "held"}
    assert [path.name for path in folder.iterdir()] == ["meta.json"]
