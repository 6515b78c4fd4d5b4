"""Saved folders of indexes: each save writes a new subfolder, and a file names the current one."""

from __future__ import annotations

import os
import re
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..models.files_rrra import read_meta, write_aside, write_json
from .checksums import ENTRY, check_files, checksums

CURRENT_NAME = "current.json"
META_NAME = "meta.json"
FORMAT_VERSION = 1
SUBFOLDER = re.compile("[0-9a-f]{32}")
# What a process that was killed leaves of a subfolder or of the file that names it.
UNFINISHED = re.compile(r"\.([0-9a-f]{32}|current\.json)\..+\.tmp")
# Files of subfolders that were saved before their metadata named them.
OLD_FILES = re.compile(
    r"(vectors/[0-9a-f]{32}/)?(candidates\.faiss|embeddings\.arrow|ids\.parquet|meta\.json)"
    r"|vectors|vectors/current\.json"
)


@contextmanager
def new_current_folder(path: str | os.PathLike[str], meta: dict[str, Any]) -> Iterator[Path]:
    """Yield a new subfolder of `path`, which becomes the current one if the block succeeds.

    The file that names the current subfolder is replaced in one step, so an interrupted save leaves the index
    as it was. Then the subfolders that earlier saves left are deleted. The metadata of each names its files,
    and a subfolder with any other file is not deleted.

    Args:
        path: The folder. It is created if needed, and must hold nothing but an index.
        meta: Metadata, saved with the files.

    Raises:
        ValueError: If the folder holds anything else; the message names it. Nothing is changed then.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "index"
        >>> with new_current_folder(path, {"documents": 2}) as folder:
        ...     _ = (folder / "ids.txt").write_text("a b")
        >>> folder, meta = current_folder(path, ("documents",))
        >>> (folder / "ids.txt").read_text(), meta
        ('a b', {'documents': 2})
    """
    path = Path(path)
    before = _entries(path)
    folder = path / uuid.uuid4().hex
    with write_aside(folder) as new:
        new.mkdir()
        yield new
        write_json(new / META_NAME, {"format_version": FORMAT_VERSION, **meta, ENTRY: checksums(new)})
    write_json(path / CURRENT_NAME, {"format_version": FORMAT_VERSION, "folder": folder.name})
    for entry in before:
        if entry.is_dir():
            shutil.rmtree(entry, ignore_errors=True)
        else:
            entry.unlink(missing_ok=True)


def current_folder(path: str | os.PathLike[str], names: tuple[str, ...]) -> tuple[Path, dict[str, Any]]:
    """Return the current subfolder and its metadata.

    Args:
        path: The folder.
        names: Names of the metadata entries to return.

    Raises:
        FileNotFoundError: If the folder doesn't exist.
        ValueError: If a file in it is damaged, or a metadata entry is missing.
    """
    folder = current_subfolder(path)
    meta = read_meta(folder / META_NAME, {FORMAT_VERSION}, names)
    check_files(folder / META_NAME)
    return folder, meta


def current_subfolder(path: str | os.PathLike[str]) -> Path:
    """Return the current subfolder, whose files are not read.

    Args:
        path: The folder.

    Raises:
        FileNotFoundError: If the folder doesn't exist.
        ValueError: If the file that names the subfolder is damaged.
    """
    path = Path(path)
    if not path.is_dir():
        raise FileNotFoundError(f"No index at {path}.")
    name = read_meta(path / CURRENT_NAME, {FORMAT_VERSION}, ("folder",))["folder"]
    if not isinstance(name, str) or not SUBFOLDER.fullmatch(name) or (path / name).is_symlink():
        raise ValueError(
            f"{path / CURRENT_NAME} must name a subfolder of 32 hexadecimal digits, got {name!r:.80}."
        )
    return path / name


def _entries(path: Path) -> list[Path]:
    """Return what earlier saves left in a folder, except the file that names the current subfolder.

    Raises:
        ValueError: If the folder holds anything else.
    """
    found = [entry for entry in path.iterdir() if entry.name != CURRENT_NAME] if path.is_dir() else []
    others = sorted(entry.name for entry in found if not _is_own(entry))
    if others:
        raise ValueError(f"{path} holds other files ({', '.join(others[:3])}); choose another folder.")
    return found


def _is_own(entry: Path) -> bool:
    """Whether an entry is a subfolder with no other files than its metadata names, or was left unfinished."""
    if entry.is_symlink():
        return False
    if UNFINISHED.fullmatch(entry.name):
        return True
    if not SUBFOLDER.fullmatch(entry.name) or not entry.is_dir():
        return False
    try:
        named = read_meta(entry / META_NAME, {FORMAT_VERSION}, (ENTRY,))[ENTRY]
    except ValueError:
        return all(map(OLD_FILES.fullmatch, _files(entry)))
    return isinstance(named, dict) and _files(entry) <= {META_NAME, *named}


def _files(folder: Path) -> set[str]:
    """Return the names of the files and links in a folder and in the folders below."""
    below = folder.rglob("*")
    return {
        entry.relative_to(folder).as_posix() for entry in below if entry.is_symlink() or not entry.is_dir()
    }
