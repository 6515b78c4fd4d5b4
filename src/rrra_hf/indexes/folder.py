"""Folders of several files that are replaced as a whole."""

from __future__ import annotations

import json
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..embeddings.storage import atomic_path, read_meta

CURRENT_NAME = "current.json"
META_NAME = "meta.json"
FORMAT_VERSION = 1


@contextmanager
def replaced_folder(path: str | os.PathLike[str], meta: dict[str, Any]) -> Iterator[Path]:
    """Yield a new folder under `path`, which becomes the current one if the block succeeds.

    A file that names the current folder is replaced in one step, so a process that is killed leaves the
    folder before it in force. Older folders are deleted afterwards.

    Args:
        path: The folder; made if it is not there.
        meta: What describes the files, written beside them.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "index"
        >>> with replaced_folder(path, {"documents": 2}) as folder:
        ...     _ = (folder / "ids.txt").write_text("a b")
        >>> folder, meta = current_folder(path, ("documents",))
        >>> (folder / "ids.txt").read_text(), meta
        ('a b', {'documents': 2})
    """
    path = Path(path)
    folder = path / uuid.uuid4().hex
    folder.mkdir(parents=True)
    try:
        yield folder
        _write_json(folder / META_NAME, {"format_version": FORMAT_VERSION, **meta})
        _write_json(path / CURRENT_NAME, {"format_version": FORMAT_VERSION, "folder": folder.name})
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    for other in path.iterdir():
        if other.is_dir() and other != folder:
            shutil.rmtree(other, ignore_errors=True)


def current_folder(path: str | os.PathLike[str], names: tuple[str, ...]) -> tuple[Path, dict[str, Any]]:
    """Return the folder that `replaced_folder` made last, and the entries of its description.

    Args:
        path: What `replaced_folder` was given.
        names: The entries to return.

    Raises:
        FileNotFoundError: If there is no such folder.
        ValueError: If it is damaged, or its description lacks an entry.
    """
    path = Path(path)
    if not path.is_dir():
        raise FileNotFoundError(f"No index at {path}.")
    current = read_meta(path / CURRENT_NAME, FORMAT_VERSION, ("folder",))
    folder = path / current["folder"]
    return folder, read_meta(folder / META_NAME, FORMAT_VERSION, names)


def _write_json(path: Path, content: dict[str, Any]) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
