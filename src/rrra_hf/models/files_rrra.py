"""Files and folders that are written whole or not at all."""

from __future__ import annotations

import json
import os
import re
import shutil
import uuid
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import Any

from .exchange_rrra import exchange

# Levels of lists and dictionaries in a JSON file. Ours have less than ten.
MAX_DEPTH = 100
TOO_DEEP = f"it is nested more than {MAX_DEPTH} levels deep."
SCALARS = (str, int, float, type(None))


@contextmanager
def write_aside(
    path: str | PathLike[str],
    *,
    owned: Iterable[str] = (),
    keep_others: bool = False,
    scratch: Path | None = None,
) -> Iterator[Path]:
    """Yield a temporary path, and rename what the block writes there to `path` if the block succeeds.

    The block makes a file or a folder. A file replaces a file. A folder replaces an empty folder, or one that
    holds nothing but `owned` entries. If the block fails, `path` is as it was and nothing else is left.
    Whenever the process is killed, or the machine stops, `path` is what it was or what it becomes.

    With `keep_others`, the other files of an existing folder are kept: all but those with the name of a new
    file, and those that match `owned`.

    Args:
        path: The file or folder to write. Folders on the way to it are made.
        owned: Glob patterns, relative to `path`, of the files that an earlier version of the folder may hold.
        keep_others: Keep all other files of the folder, instead of refusing a folder that has some.
        scratch: Folder for the temporary path, on the same disk; the folder of `path` by default.

    Raises:
        ValueError: If a folder is to replace one that holds other files; the message names them, and nothing
            is deleted.
        NotADirectoryError: If a folder is to replace a file.
        IsADirectoryError: If a file is to replace a folder.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "note.txt"
        >>> with write_aside(path) as temporary:
        ...     _ = temporary.write_text("whole")
        >>> path.read_text()
        'whole'
    """
    path, owned = Path(path), tuple(owned)
    if path.is_dir():
        path = path.resolve()
        if owned and not keep_others:
            check_replaceable(path, owned)
    aside = path.parent if scratch is None else scratch
    aside.mkdir(parents=True, exist_ok=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    new = aside / f".{path.name}.{uuid.uuid4().hex[:8]}.tmp"
    try:
        yield new
        _flush(new)
        if not (new.is_dir() and path.is_dir()):
            new.replace(path)
        else:
            _replace_folder(path, new, owned, keep_others)
        _flush_entry(path.parent)
    finally:
        remove(new)


def check_replaceable(folder: Path, owned: Iterable[str]) -> None:
    """Refuse a folder that holds anything but `owned` entries.

    Args:
        folder: The folder.
        owned: Glob patterns of files, relative to the folder.

    Raises:
        ValueError: If it holds anything else; the message names up to three entries.
    """
    others = set(_ends(folder)) - _owned(folder, owned) - {folder}
    if others:
        names = ", ".join(sorted(entry.relative_to(folder).as_posix() for entry in others)[:3])
        raise ValueError(f"{folder} holds other files ({names}); choose another folder.")


def leftovers(path: Path) -> list[Path]:
    """Return the temporary paths that a killed process left beside a file or folder that it was writing.

    Args:
        path: The file or folder. With the name `*`, any in its folder.
    """
    name = ".+" if path.name == "*" else re.escape(path.name)
    # Several times where what was being written there was written aside, too.
    temporary = re.compile(rf"\.+{name}(\.[0-9a-f]{{8}}(\.old)?\.tmp)+")
    return [entry for entry in path.parent.iterdir() if temporary.fullmatch(entry.name)]


def remove(path: Path) -> None:
    """Delete a file, or a folder with all it holds, as far as the system lets it."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _owned(folder: Path, patterns: Iterable[str]) -> set[Path]:
    """Return the files, links and empty folders that match. What else is in a folder isn't owned with it."""
    # A pattern may come from a file that somebody else wrote.
    inside = [pattern for pattern in patterns if ".." not in Path(pattern).parts]
    matches = {match for pattern in inside for match in folder.glob(pattern)}
    return {match for match in matches if _ends(match) == [match]}


def _replace_folder(path: Path, new: Path, owned: Iterable[str], keep_others: bool) -> None:
    """Let a new folder take the place of another one, which is at `new` then."""
    shutil.copymode(path, new)
    if keep_others:
        for entry in _others(path, new, owned):
            _keep(path / entry, new / entry)
    else:
        check_replaceable(path, owned)
    exchange(new, path)
    if keep_others:
        # They came in the meantime.
        for entry in _others(new, path, owned):
            _keep(new / entry, path / entry)


def _others(folder: Path, new: Path, owned: Iterable[str]) -> list[Path]:
    """Return what `new` lacks of the files, links and empty folders of a folder, except what is owned."""
    mine = _owned(folder, owned) | {folder}
    others = [entry.relative_to(folder) for entry in _ends(folder) if entry not in mine]
    for entry in others:
        if (new / entry).is_dir() and not (folder / entry).is_dir():
            raise NotADirectoryError(f"{folder / entry} is in the way of a folder; choose another folder.")
    return [entry for entry in others if not os.path.lexists(new / entry)]


def _keep(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir() and not source.is_symlink():
        target.mkdir(exist_ok=True)
    else:
        try:
            os.link(source, target, follow_symlinks=False)
        except (OSError, NotImplementedError):  # Not every file system has links.
            shutil.copy2(source, target, follow_symlinks=False)


def _ends(path: Path) -> list[Path]:
    """Return the files, links and empty folders at and below a path, sorted."""
    entries = sorted(path.iterdir()) if path.is_dir() and not path.is_symlink() else []
    return [end for entry in entries for end in _ends(entry)] or [path]


def _flush(path: Path) -> None:
    """Wait until a file, or a folder with all it holds, is on the disk."""
    if path.is_symlink():
        return
    for entry in path.iterdir() if path.is_dir() else ():
        _flush(entry)
    _flush_entry(path)


def _flush_entry(path: Path) -> None:
    # Windows can't open folders.
    if os.name == "nt" and path.is_dir():
        return
    descriptor = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_json(path: str | PathLike[str], content: Any) -> None:
    """Write a JSON file, complete or not at all."""
    with write_aside(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def read_json(path: str | PathLike[str], kind: type = object) -> Any:
    """Read a JSON file.

    Args:
        path: The file.
        kind: Type that the contents must have, such as `dict`.

    Raises:
        FileNotFoundError: If the file doesn't exist.
        ValueError: If it is damaged, nested too deeply, or has contents of another type; the message names
            it.
    """
    try:
        content = _parse(path)
    except ValueError as error:
        raise ValueError(f"{path} is damaged: {error}") from error
    if not isinstance(content, kind):
        raise ValueError(f"{path} must hold a JSON {kind.__name__}, got {type(content).__name__}.")
    return content


def _parse(path: str | PathLike[str]) -> Any:
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except RecursionError:
        raise ValueError(TOO_DEEP) from None
    if _is_too_deep(content):
        raise ValueError(TOO_DEEP)
    return content


def _is_too_deep(content: Any) -> bool:
    """Whether a parsed file is nested so deeply that functions which follow the nesting would fail."""
    level = [content]
    for _ in range(MAX_DEPTH):
        below = [value.values() if isinstance(value, dict) else value for value in level]
        level = [value for values in below if not isinstance(values, SCALARS) for value in values]
    return bool(level)


def read_meta(path: str | PathLike[str], versions: Collection[int], names: Sequence[str]) -> dict[str, Any]:
    """Read the JSON file that describes a folder of several files.

    Args:
        path: The file.
        versions: The values of `format_version` that the caller can read.
        names: The entries to return.

    Raises:
        ValueError: If it is missing, damaged, of another version, or lacks an entry; the message names it.
    """
    try:
        meta = _parse(path)
        if meta["format_version"] not in versions:
            known = " or ".join(map(str, sorted(versions)))
            raise ValueError(f"format version {meta['format_version']!r}, this package reads {known}")
        return {name: meta[name] for name in names}
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is missing or damaged: {error}") from error
