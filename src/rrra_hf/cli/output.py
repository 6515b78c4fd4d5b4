"""The folder that a command writes: checked before the work starts, locked, named if the machine fails."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import ParamSpec

P = ParamSpec("P")

# What is wrong, and what would help.
FAULTS = {
    errno.ENOSPC: "the disk is full; make room",
    errno.EDQUOT: "the disk quota is used up; make room",
    errno.EFBIG: "a file would be larger than is allowed here; raise the limit (ulimit -f)",
    errno.EACCES: "there is no permission; get it, or choose another folder",
    errno.EPERM: "there is no permission; get it, or choose another folder",
    errno.EROFS: "the disk is read-only; choose another folder",
    errno.EMFILE: "too many files are open; raise the limit (ulimit -n)",
    errno.ENFILE: "too many files are open on this machine; close some",
    errno.EIO: "the disk can't be read or written; check it",
}
# Libraries that raise another error, or an OSError without a number, write the number into the message, or
# say only that less was written.
NUMBER = re.compile(r"os error (\d+)|errno (\d+)", re.IGNORECASE)
INCOMPLETE = re.compile(r"\d+ requested and \d+ written|file write failed|unexpected pos \d+ vs \d+")
TEMPORARY = re.compile(r"\..+\.([0-9a-f]{8}(\.old)?\.tmp|lock)")
AGAIN = "run the command again"
ENCODED = "texts that --cache-dir holds are not encoded again"


def writes(
    folder: str = "out", *, marker: str | None = None, what: str = "", resumes: str = ""
) -> Callable[[Callable[P, None]], Callable[P, None]]:
    """Return a decorator for a command that writes a folder.

    Args:
        folder: Name of the parameter with the folder.
        marker: File that shows that the folder may be overwritten; None to let the command check that.
        what: Such a folder, for the error message.
        resumes: What the command does if it is run again after a fault of the machine.
    """

    def decorate(command: Callable[P, None]) -> Callable[P, None]:
        @wraps(command)
        def run(*args: P.args, **options: P.kwargs) -> None:
            from ..embeddings.folder_lock import only_writer

            path = Path(str(options[folder]))
            if marker is not None:
                check_out(path, marker, what)
            with faults_named(path, resumes), only_writer(path):
                command(*args, **options)

        return run

    return decorate


def check_out(out: Path, marker: str, what: str) -> None:
    """Raise if the output folder has other content. Call it before the work starts.

    Args:
        out: The output folder.
        marker: File that shows that the folder may be overwritten.
        what: Such a folder, for the error message.
    """
    if out.exists() and not out.is_dir():
        raise NotADirectoryError(f"--out must be a folder, {out} is a file.")
    if out.exists() and any(out.iterdir()) and not (out / marker).exists():
        raise ValueError(
            f"--out must be a new folder, an empty folder or {what}; {out} holds other files but no {marker}."
        )


class MachineFaultError(OSError):
    """A disk, a permission or a limit of the system stopped the work."""


@contextmanager
def faults_named(folder: Path | None = None, resumes: str = "") -> Iterator[None]:
    """Turn errors of the machine into one line: the place, what is needed, and what comes then.

    Args:
        folder: The folder that the block writes, for errors that name no path.
        resumes: What the command does if it is run again.

    Raises:
        MachineFaultError: If the block raises another error that tells of one in `FAULTS`.
    """
    try:
        yield
    except MachineFaultError:
        raise
    except Exception as error:
        code = _code(error)
        if code not in FAULTS:
            raise
        place = _place(error, folder)
        then = f"{AGAIN}: {resumes}" if resumes else AGAIN
        raise MachineFaultError(
            f"{'' if place is None else f'{place}: '}{FAULTS[code]}, and {then}."
        ) from error


def _code(error: BaseException | None) -> int | None:
    """Return the system's number of the fault that an error, or one that it follows from, tells of."""
    if error is None:
        return None
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno
    found = NUMBER.search(str(error))
    if found:
        return int(found[1] or found[2])
    if INCOMPLETE.search(str(error)):
        return errno.ENOSPC
    by_text = [code for code in FAULTS if os.strerror(code) in str(error)]
    return by_text[0] if by_text else _code(error.__cause__ or error.__context__)


def _place(error: Exception, folder: Path | None) -> Path | None:
    """Return the path that an error names, without temporary names, or the folder."""
    # The second one is where a file was to be copied or renamed to.
    named = getattr(error, "filename2", None) or getattr(error, "filename", None)
    if not isinstance(named, (str, os.PathLike)):
        return folder
    path = Path(named)
    for parent in [*reversed(path.parents), path]:
        if TEMPORARY.fullmatch(parent.name):
            return parent.parent
    return path
