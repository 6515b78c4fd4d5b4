"""Files that several processes make together, each made once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout


@contextmanager
def claimed(path: Path, wait: bool = False) -> Iterator[bool]:
    """Keep other processes and threads from making a file while the block runs.

    The claim is a lock of the operating system on a file beside it: it ends with the process, however that
    ends. Processes on several machines heed it if their file system shares locks.

    Args:
        path: The file to be made. Its folder is made if it isn't there.
        wait: Wait for whoever has claimed it, in place of yielding False.

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
        # Whoever finishes the work removes the folder, perhaps while this process waits.
        with suppress(FileNotFoundError):
            lock.acquire(timeout=-1 if wait else 0)
            return


def keep_only(folder: Path, *names: str) -> None:
    """Remove all files of a folder but some: merged shards, claims, what a kill left half-written."""
    for path in folder.iterdir():
        if path.name not in names:
            # On Windows, a claim that is held can't be removed.
            with suppress(PermissionError):
                path.unlink(missing_ok=True)
