"""Locks for files that several processes write together, each file once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from ..models.files_rrra import remove


@contextmanager
def claimed(path: Path, wait: bool = False) -> Iterator[bool]:
    """Claim a file, so that no other process or thread writes it while the block runs.

    The claim is an operating system lock on a file with the suffix `.lock`. It is released when the process
    ends, even if it crashes. It works across machines if their file system shares locks.

    Args:
        path: The file to write. Its folder is created if needed.
        wait: Wait for an existing claim. By default, yield False at once.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "shard.arrow"
        >>> with claimed(path) as first, claimed(path) as second:
        ...     first, second
        (True, False)
    """
    lock = FileLock(path.with_suffix(".lock"))
    try:
        _acquire(lock, path.parent, wait)
    except Timeout:
        yield False
        return
    try:
        yield True
    finally:
        lock.release()


def _acquire(lock: FileLock, folder: Path, wait: bool) -> None:
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        # The process that finishes the work removes the folder, perhaps while this process waits.
        with suppress(FileNotFoundError):
            lock.acquire(timeout=-1 if wait else 0)
            return


def remove_leftovers(path: Path, *others: str) -> None:
    """Remove what a process left beside a finished file or folder that was killed after it had written it.

    Nothing is written if nothing was left, and nothing is removed that another process works on.

    Args:
        path: The file or folder.
        others: Names of what else belongs to its folder.
    """
    if len(list(path.parent.iterdir())) > 1 + len(others):
        with claimed(path) as ours:
            if ours:
                keep_only(path.parent, path.name, *others)


def keep_only(folder: Path, *names: str) -> None:
    """Remove all else from a folder: merged shards, claims, and what killed processes had not finished."""
    for path in folder.iterdir():
        if path.name not in names:
            # On Windows, a locked file can't be removed.
            with suppress(PermissionError):
                remove(path)
