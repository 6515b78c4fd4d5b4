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

CURRENT_NAME = "current.json"
META_NAME = "meta.json"
SCRATCH_NAME = ".unfinished"
FORMAT_VERSION = 1


@contextmanager
def new_current_folder(path: str | os.PathLike[str], meta: dict[str, Any]) -> Iterator[Path]:
    """Yield a new subfolder of `path`, which becomes the current one if the block succeeds.

    The file that names the current subfolder is replaced in one step, so an interrupted save leaves the index
    as it was. The subfolder that the file named before is deleted. Nothing else in `path` is.

    Args:
        path: The folder. It is created if needed.
        meta: Metadata, saved with the files.

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
    folder = path / uuid.uuid4().hex
    # Left by a process that was killed.
    shutil.rmtree(path / SCRATCH_NAME, ignore_errors=True)
    try:
        with write_aside(folder, scratch=path / SCRATCH_NAME) as new:
            new.mkdir()
            yield new
            write_json(new / META_NAME, {"format_version": FORMAT_VERSION, **meta})
    finally:
        shutil.rmtree(path / SCRATCH_NAME, ignore_errors=True)
    before = _current_name(path)
    write_json(path / CURRENT_NAME, {"format_version": FORMAT_VERSION, "folder": folder.name})
    if before is not None:
        shutil.rmtree(path / before, ignore_errors=True)


def _current_name(path: Path) -> str | None:
    """Return the name of the current subfolder, or None."""
    try:
        name = read_meta(path / CURRENT_NAME, {FORMAT_VERSION}, ("folder",))["folder"]
    except ValueError:
        return None
    return name if re.fullmatch("[0-9a-f]{32}", str(name)) else None


def current_folder(path: str | os.PathLike[str], names: tuple[str, ...]) -> tuple[Path, dict[str, Any]]:
    """Return the current subfolder and its metadata.

    Args:
        path: The folder.
        names: Names of the metadata entries to return.

    Raises:
        FileNotFoundError: If the folder doesn't exist.
        ValueError: If it is damaged, or a metadata entry is missing.
    """
    path = Path(path)
    if not path.is_dir():
        raise FileNotFoundError(f"No index at {path}.")
    folder = path / read_meta(path / CURRENT_NAME, {FORMAT_VERSION}, ("folder",))["folder"]
    return folder, read_meta(folder / META_NAME, {FORMAT_VERSION}, names)
