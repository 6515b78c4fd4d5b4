"""Checks of downloads from the Hub: their contents are those that the Hub declares."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from huggingface_hub.errors import HfHubHTTPError

# What the client's HTTP library raises, also for a lost connection.
HTTPError: type[Exception] = HfHubHTTPError.__bases__[0]
BLOCK = 2**20


@contextmanager
def checked_downloads(folder: Path, name: str) -> Iterator[None]:
    """Check the weights files that are downloaded into a folder of the Hub's cache while the block runs.

    If the block fails, the files that were there before are checked too.

    Args:
        folder: A snapshot in the cache. Other folders are not checked.
        name: Name of the repository, for messages.

    Raises:
        ValueError: See `check_downloads`.
        ConnectionError: See `named_connection_errors`.
    """
    before = weights_of(folder)
    try:
        with named_connection_errors(name):
            yield
    except Exception:
        check_downloads(weights_of(folder))
        raise
    check_downloads(weights_of(folder) - before)


@contextmanager
def named_connection_errors(name: str) -> Iterator[None]:
    """Turn a lost connection into an error that names the repository.

    Raises:
        ConnectionError: If a download broke off.
    """
    try:
        yield
    except Exception as error:
        lost = _lost_connection(error)
        if lost is None:
            raise
        raise ConnectionError(
            f"The download of {name} broke off ({lost}). No half file was kept; load again."
        ) from error


def _lost_connection(error: BaseException | None) -> BaseException | None:
    """Return the lost connection that caused an error, None if there was none."""
    # An OSError is an answer of the Hub.
    while error is not None and (isinstance(error, OSError) or not isinstance(error, HTTPError)):
        error = error.__cause__ or error.__context__
    return error


def check_downloads(paths: Iterable[Path]) -> None:
    """Refuse files of the Hub's cache with other contents than the Hub declares, and remove them.

    In the cache, a file is a link to its content. The name of the content is the checksum that the Hub
    declares: SHA-256 for large files, git's SHA-1 for small ones. Other files are not checked.

    Args:
        paths: Files of a snapshot.

    Raises:
        ValueError: If a file was altered. It is downloaded again when you load it again.
    """
    for path in paths:
        content = path.resolve()
        if _is_cached(path, content) and not _is_declared(content):
            path.unlink()
            content.unlink()
            raise ValueError(
                f"{path} is damaged: its content is not the one that the Hub declares. It was removed; "
                "load again to download it again."
            )


def _is_cached(path: Path, content: Path) -> bool:
    """Whether a file is in the Hub's cache: below `snapshots`, a link to a content in `blobs` beside it."""
    snapshots = [folder for folder in path.absolute().parents if folder.name == "snapshots"]
    return any(content.parent == (folder.parent / "blobs").resolve() for folder in snapshots)


def weights_of(folder: Path) -> set[Path]:
    """Return the weights files at the top of a folder."""
    return set(folder.glob("*.safetensors"))


def _is_declared(content: Path) -> bool:
    if len(content.name) == 64:
        digest = hashlib.sha256()
    elif len(content.name) == 40:
        digest = hashlib.sha1(f"blob {content.stat().st_size}\0".encode(), usedforsecurity=False)
    else:
        return True
    with content.open("rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
    return digest.hexdigest() == content.name
