"""Two folders change places in one step."""

from __future__ import annotations

import ctypes
import errno
import os
import sys
from pathlib import Path

# Of linux/fs.h and fcntl.h.
AT_FDCWD = -100
RENAME_EXCHANGE = 2
# Of sys/stdio.h on macOS.
RENAME_SWAP = 2
UNSUPPORTED = (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP)


def exchange(new: Path, path: Path) -> None:
    """Let two folders on one disk change places.

    On Linux and macOS, the system does that in one step: whoever opens `path`, at any moment, finds one of
    the two folders whole. Where a file system can't, `path` is renamed to the name of `new` with the suffix
    `.old.tmp`, and doesn't exist until `new` is renamed, too.

    Args:
        new: A folder.
        path: Another folder.

    Raises:
        OSError: If the system refuses. The folders are where they were.

    Example:
        >>> import tempfile
        >>> a, b = Path(tempfile.mkdtemp()), Path(tempfile.mkdtemp())
        >>> _ = (a / "note.txt").write_text("whole")
        >>> exchange(a, b)
        >>> (b / "note.txt").read_text()
        'whole'
    """
    if _exchanged_at_once(new, path):
        return
    old = new.with_suffix(".old.tmp")
    path.rename(old)
    try:
        new.rename(path)
    except BaseException:
        old.rename(path)
        raise
    old.rename(new)


def _exchanged_at_once(new: Path, path: Path) -> bool:
    if os.name != "posix":
        return False
    names = os.fsencode(new), os.fsencode(path)
    library = ctypes.CDLL(None, use_errno=True)
    if sys.platform == "linux" and hasattr(library, "renameat2"):
        failed = library.renameat2(AT_FDCWD, names[0], AT_FDCWD, names[1], RENAME_EXCHANGE)
    elif sys.platform == "darwin" and hasattr(library, "renamex_np"):
        failed = library.renamex_np(*names, RENAME_SWAP)
    else:
        return False
    if failed and ctypes.get_errno() not in UNSUPPORTED:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), str(path))
    return not failed
