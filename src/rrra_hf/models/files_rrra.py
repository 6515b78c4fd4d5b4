"""Files and folders that are written whole or not at all."""

from __future__ import annotations

import json
import shutil
import uuid
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import Any

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
    last: Sequence[str] = (),
    scratch: Path | None = None,
) -> Iterator[Path]:
    """Yield a temporary path, and rename what the block writes there to `path` if the block succeeds.

    The block makes a file or a folder. A file replaces a file. A folder replaces an empty folder, or one that
    holds nothing but `owned` entries. If the block fails, `path` is as it was and nothing else is left.

    With `keep_others`, the files of the new folder are moved one by one into the existing folder. Only files
    with the same name and files that match `owned` are deleted. The entries in `last` are deleted first and
    moved last, so an interrupted move leaves a folder that doesn't load.

    Args:
        path: The file or folder to write. Folders on the way to it are made.
        owned: Glob patterns, relative to `path`, of what an earlier version of the folder may hold.
        keep_others: Keep all other files of the folder, instead of refusing a folder that has some.
        last: Files and folders at the top of the new folder that are moved last, in this order.
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
        if not (new.is_dir() and path.is_dir()):
            new.replace(path)
        elif keep_others:
            _move_into(new, path, owned, last)
        else:
            check_replaceable(path, owned)
            _exchange(new, path)
    finally:
        _remove(new)


def check_replaceable(folder: Path, owned: Iterable[str]) -> None:
    """Refuse a folder that holds anything but `owned` entries.

    Args:
        folder: The folder.
        owned: Glob patterns, relative to the folder.

    Raises:
        ValueError: If it holds anything else; the message names up to three entries.
    """
    others = set(folder.iterdir()) - _matches(folder, owned)
    if others:
        names = ", ".join(sorted(entry.name for entry in others)[:3])
        raise ValueError(f"{folder} holds other files ({names}); choose another folder.")


def _matches(folder: Path, patterns: Iterable[str]) -> set[Path]:
    # A pattern may come from a file that somebody else wrote.
    inside = [pattern for pattern in patterns if ".." not in Path(pattern).parts]
    return {match for pattern in inside for match in folder.glob(pattern)}


def _exchange(new: Path, path: Path) -> None:
    old = new.with_suffix(".old.tmp")
    path.rename(old)
    try:
        new.rename(path)
    except BaseException:
        old.rename(path)
        raise
    _remove(old)


def _move_into(new: Path, path: Path, owned: Iterable[str], last: Sequence[str]) -> None:
    files = [file.relative_to(new) for file in _files(new)]
    moved_last = {file: last.index(file.parts[0]) for file in files if file.parts[0] in last}
    old = {file.relative_to(path) for match in _matches(path, owned) for file in _files(match)}
    for file in [*moved_last, *(old - set(files))]:
        (path / file).unlink(missing_ok=True)
    for file in sorted(files, key=lambda file: (moved_last.get(file, -1), file)):
        (path / file).parent.mkdir(parents=True, exist_ok=True)
        (new / file).replace(path / file)
    # Longest first: a folder may be empty once the folders in it are gone.
    for folder in sorted({folder for file in old for folder in file.parents if folder.parts}, reverse=True):
        if not any((path / folder).iterdir()):
            (path / folder).rmdir()


def _files(path: Path) -> list[Path]:
    """Return the files and links at and below a path, sorted."""
    if path.is_dir() and not path.is_symlink():
        return [file for entry in sorted(path.iterdir()) for file in _files(entry)]
    return [path]


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


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
