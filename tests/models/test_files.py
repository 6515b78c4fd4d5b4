"""Files and folders that are written whole or not at all."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest

import forked
from rrra_hf.models import exchange_rrra
from rrra_hf.models.files_rrra import leftovers, read_json, read_meta, write_aside, write_json


def write_folder(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def contents(folder: Path) -> dict[str, str]:
    """Return all files at and below a folder, hidden ones too, by their names in it."""
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


def test_a_file_replaces_a_file(tmp_path: Path) -> None:
    path = tmp_path / "new" / "note.txt"
    for text in ("one", "two"):
        with write_aside(path) as temporary:
            temporary.write_text(text)
            assert not path.exists() or path.read_text() == "one"
    assert contents(tmp_path) == {"new/note.txt": "two"}


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_a_failure_leaves_what_was_there_and_nothing_else(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "target"
    write_folder(tmp_path, {"target": "old"} if kind == "file" else {"target/a": "old"})
    before = contents(tmp_path)
    with pytest.raises(KeyboardInterrupt), write_aside(path, owned=["a"]) as temporary:
        if kind == "file":
            temporary.write_text("half")
        else:
            write_folder(temporary, {"a": "half"})
        raise KeyboardInterrupt
    assert contents(tmp_path) == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_replaces_a_folder_of_its_own_files(tmp_path: Path) -> None:
    path = tmp_path / "target"
    for files in ({"a": "1", "b.json": "1"}, {"a": "2"}, {"b.json": "3", "c/d": "3"}, {"a": "4"}):
        with write_aside(path, owned=["a", "*.json", "c/d"]) as temporary:
            write_folder(temporary, files)
        assert contents(tmp_path) == {f"target/{name}": text for name, text in files.items()}


def test_a_folder_does_not_replace_the_files_of_others(tmp_path: Path) -> None:
    path = tmp_path / "target"
    write_folder(path, {"a": "1", "thesis.txt": "years"})
    began = False
    refusal = pytest.raises(ValueError, match=r"target holds other files \(thesis.txt\)")
    with refusal, write_aside(path, owned=["a"]) as temporary:
        began = True
        write_folder(temporary, {"a": "2"})
    assert not began
    # Also where the other file came while the block ran.
    (path / "thesis.txt").rename(tmp_path / "thesis.txt")
    with pytest.raises(ValueError, match=r"thesis.txt"), write_aside(path, owned=["a"]) as temporary:
        write_folder(temporary, {"a": "2"})
        (tmp_path / "thesis.txt").rename(path / "thesis.txt")
    assert contents(tmp_path) == {"target/a": "1", "target/thesis.txt": "years"}


def test_a_folder_is_moved_into_one_that_holds_other_files(tmp_path: Path) -> None:
    path = tmp_path / "target"
    write_folder(
        path,
        {
            "config.json": "1",
            "model-1.safetensors": "1",
            "part/config.json": "1",
            "part/notes.txt": "theirs",
            "index/old/vectors": "1",
            "index/current.json": "1",
            "README.md": "theirs",
        },
    )
    owned = ["model*.safetensors", "index/old/vectors", "index/current.json", "part", "../*"]
    with write_aside(path, owned=owned, keep_others=True) as temporary:
        write_folder(temporary, {"config.json": "2", "model.safetensors": "2", "part/config.json": "2"})
    assert contents(tmp_path) == {
        "target/config.json": "2",
        "target/model.safetensors": "2",
        "target/part/config.json": "2",
        "target/part/notes.txt": "theirs",
        "target/README.md": "theirs",
    }
    assert not (path / "index").exists()


@pytest.mark.parametrize("keep_others", [False, True])
def test_what_somebody_put_into_an_owned_folder_is_not_deleted(tmp_path: Path, keep_others: bool) -> None:
    path = tmp_path / "target"
    write_folder(path, {"part/config.json": "1", "part/cat.jpg": "theirs", "a.npy/cat.jpg": "theirs"})
    (path / "empty").mkdir()
    writing = write_aside(path, owned=["part", "part/config.json", "*.npy", "empty"], keep_others=keep_others)
    if not keep_others:
        with (
            pytest.raises(ValueError, match=r"holds other files \(a\.npy/cat\.jpg, part/cat\.jpg\)"),
            writing,
        ):
            pass
    else:
        with writing as temporary:
            write_folder(temporary, {"b": "2"})
    kept = {"target/part/cat.jpg": "theirs", "target/a.npy/cat.jpg": "theirs"}
    assert contents(tmp_path).items() >= kept.items()
    assert (path / "empty").exists() is not keep_others


OLD = {"config.json": "1", "model-1": "1", "part/config.json": "1"}
NEW = {"config.json": "2", "model": "2", "part/config.json": "2", "index/ids": "2"}
THEIRS = {"README.md": "theirs", "part/notes/of/theirs.txt": "theirs"}


def replace(path: Path, kill_at: int = 0, at_once: bool = True) -> None:
    """Replace OLD by NEW in a process that may kill itself before one of the changes on the disk."""
    calls = 0

    def count(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal calls
        if event in ("os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.link", "ctypes.call_function"):
            calls += 1
            if calls == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)

    if not at_once:
        exchange_rrra._exchanged_at_once = lambda new, path: False
    with write_aside(path, owned=["model*", "index/*"], keep_others=True) as temporary:
        write_folder(temporary, NEW)
        if kill_at:
            sys.addaudithook(count)


@pytest.mark.skipif(
    sys.platform != "linux", reason="elsewhere, two folders may not change places in one step"
)
@pytest.mark.parametrize("earlier", [{}, OLD])
def test_a_replaced_folder_is_the_old_one_or_the_new_one_wherever_the_process_is_killed(
    tmp_path: Path, earlier: dict[str, str]
) -> None:
    seen = []
    for kill_at in range(1, 100):
        path = tmp_path / str(kill_at) / "target"
        write_folder(path, {**earlier, **THEIRS})
        done = forked.run(replace, path, kill_at)
        found = contents(path)
        assert {name: found.pop(name) for name in THEIRS} == THEIRS
        assert found in (earlier, NEW)
        seen.append(found)
        if done.statuses == [0]:
            break
        assert done.statuses == [-signal.SIGKILL], done.err
        # The next one ends as if nothing had happened.
        replace(path)
        assert contents(path) == {f"{name}": text for name, text in {**NEW, **THEIRS}.items()}
    assert done.statuses == [0] and earlier in seen and NEW in seen[:-1]


def test_where_folders_cannot_change_places_the_old_one_keeps_another_name(tmp_path: Path) -> None:
    path = tmp_path / "target"
    write_folder(path, {**OLD, **THEIRS})
    states = []
    for kill_at in range(1, 100):
        done = forked.run(replace, path, kill_at, False)
        states.append(path.exists())
        if not path.exists():
            (old,) = [entry for entry in leftovers(path) if entry.name.endswith(".old.tmp")]
            assert contents(old) == {**OLD, **THEIRS}
            old.rename(path)
        if contents(path) == {**NEW, **THEIRS}:
            break
        assert contents(path) == {**OLD, **THEIRS} and done.statuses == [-signal.SIGKILL]
    assert False in states and contents(path) == {**NEW, **THEIRS}


def test_names_of_temporary_paths_are_told_from_all_others(tmp_path: Path) -> None:
    ours = {".a.json.0123abcd.tmp", ".a.json.0123abcd.old.tmp", "..a.json.0123abcd.tmp.4567abcd.tmp"}
    theirs = {
        ".a.json",
        ".a.json.tmp",
        "a.json.0123abcd.tmp",
        ".a.json.0123abcd.tmp~",
        ".a.json.0123ABCD.tmp",
    }
    for name in ours | theirs | {".b.0123abcd.tmp"}:
        (tmp_path / name).touch()
    assert {path.name for path in leftovers(tmp_path / "a.json")} == ours
    assert {path.name for path in leftovers(tmp_path / "*")} == ours | {".b.0123abcd.tmp"}


def test_a_file_of_others_is_not_replaced_by_a_folder(tmp_path: Path) -> None:
    path = tmp_path / "target"
    write_folder(path, {"part": "theirs"})
    with pytest.raises(NotADirectoryError, match="target/part is in the way"):
        replace(path)
    assert contents(tmp_path) == {"target/part": "theirs"}


def test_files_are_on_the_disk_before_they_are_renamed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[str] = []
    original = os.fsync
    monkeypatch.setattr(os, "fsync", lambda descriptor: (events.append("fsync"), original(descriptor)))
    monkeypatch.setattr(Path, "replace", lambda source, target: events.append("replace"))
    with write_aside(tmp_path / "target") as temporary:
        write_folder(temporary, {"a": "1", "b/c": "1"})
    # Two files, their two folders; then the folder in which the name has changed.
    assert events == ["fsync"] * 4 + ["replace", "fsync"]


def test_a_file_and_a_folder_do_not_replace_each_other(tmp_path: Path) -> None:
    write_folder(tmp_path, {"file": "1", "folder/a": "1"})
    with pytest.raises(NotADirectoryError), write_aside(tmp_path / "file") as temporary:
        write_folder(temporary, {"a": "2"})
    with pytest.raises(IsADirectoryError), write_aside(tmp_path / "folder") as temporary:
        temporary.write_text("2")
    assert contents(tmp_path) == {"file": "1", "folder/a": "1"}


def test_the_temporary_path_may_lie_elsewhere(tmp_path: Path) -> None:
    with write_aside(tmp_path / "target", scratch=tmp_path / "scratch") as temporary:
        assert temporary.parent == tmp_path / "scratch"
        write_folder(temporary, {"a": "1"})
    assert contents(tmp_path) == {"target/a": "1"}


def test_json(tmp_path: Path) -> None:
    path = tmp_path / "meta.json"
    write_json(path, {"format_version": 1, "é": [1, None]})
    assert read_json(path) == {"format_version": 1, "é": [1, None]}
    assert read_meta(path, {1, 2}, ("é",)) == {"é": [1, None]}
    with pytest.raises(ValueError, match=r"meta.json .* format version 1, this package reads 2 or 3"):
        read_meta(path, {2, 3}, ())
    with pytest.raises(ValueError, match=r"meta.json is missing or damaged: 'name'"):
        read_meta(path, {1}, ("name",))
    with pytest.raises(FileNotFoundError):
        read_json(tmp_path / "none.json")
    path.write_text("{")
    with pytest.raises(ValueError, match=r"meta.json is damaged"):
        read_json(path)
