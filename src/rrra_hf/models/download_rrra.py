"""Weights that come from the Hub are what the Hub says they are."""

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
    """Check the weights files that come into a folder of the Hub's cache while the block runs.

    If the block fails, those that were there before are checked too.

    Args:
        folder: A snapshot in the cache; any other folder is not checked.
        name: Repository, for a message.

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
    """Say of a lost connection what was lost.

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
    """Return the lost connection behind an error, which may itself speak of something else, or None."""
    # What is an OSError too is an answer of the Hub's.
    while error is not None and (isinstance(error, OSError) or not isinstance(error, HTTPError)):
        error = error.__cause__ or error.__context__
    return error


def check_downloads(paths: Iterable[Path]) -> None:
    """Refuse files of the Hub's cache whose content isn't the one declared for them, and remove those.

    In the cache a file is a link to its content, which has the checksum that the Hub declared for a name:
    SHA-256 of a large file, git's SHA-1 of a small one. A file that is no such link is not checked.

    Args:
        paths: Files of a snapshot.

    Raises:
        ValueError: If a file was altered; loading it again downloads it afresh.
    """
    for path in paths:
        content = path.resolve()
        if content.parent.name == "blobs" and not _is_declared(content):
            path.unlink()
            content.unlink()
            raise ValueError(
                f"{path} is damaged: its content is not the one that the Hub declares. It was removed; "
                "load again to download it afresh."
            )


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
