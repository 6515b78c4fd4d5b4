"""A folder that one process at a time writes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from ..models.files_rrra import leftovers, remove

# Seconds to wait for a process that is about to end.
PATIENCE = 0.5


@contextmanager
def only_writer(folder: Path) -> Iterator[None]:
    """Be the only process that writes a folder while the block runs.

    The lock is one of the operating system on a hidden file beside the folder, with the suffix `.lock`. It
    ends with the process, even if that is killed. What a killed process had not finished is removed first.

    Args:
        folder: The folder; it need not exist.

    Raises:
        BlockingIOError: If another process writes the folder.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp()) / "run"
        >>> with only_writer(folder):
        ...     [path.name for path in folder.parent.iterdir()]
        ['.run.lock']
    """
    folder = folder.resolve()
    path = folder.with_name(f".{folder.name}.lock")
    made = [parent for parent in folder.parents if not parent.exists()]
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path)
    try:
        lock.acquire(timeout=PATIENCE)
    except Timeout:
        raise BlockingIOError(
            f"{folder} is being written by another process; wait until it ends, or choose another folder."
        ) from None
    try:
        _clear(folder)
        yield
    finally:
        # Before the lock is released: a process that waits for it makes a new file then.
        with suppress(PermissionError):  # on Windows, while it is open
            path.unlink(missing_ok=True)
        lock.release()
        for parent in made:
            with suppress(OSError):  # it isn't empty
                parent.rmdir()


def _clear(folder: Path) -> None:
    """Restore or remove what a killed process left."""
    for leftover in leftovers(folder):
        if leftover.name.endswith(".old.tmp") and not folder.exists():
            leftover.rename(folder)
        else:
            remove(leftover)
    if folder.is_dir():
        for leftover in leftovers(folder / "*"):
            remove(leftover)
