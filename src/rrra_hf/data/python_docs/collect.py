"""Build a collection from the documentation of installed Python packages."""

from __future__ import annotations

import gc
import json
import os
import platform
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from ..beir import read_beir
from ..blocks import Block
from ..builder import CollectionBuilder
from ..collection import Collection
from ..problems import Location, Problems
from .documents import Document, merge_documents, read_documents, text_digest
from .packages import Package, find_packages, version_of
from .selection import select_documents
from .splits import query_id, siblings_of, split_documents

NAME = "python-docs"
DEFAULT_LIMIT = 4500
FORMAT_VERSION = 1


def python_docs(
    packages: Iterable[str] | None = None,
    limit: int | None = DEFAULT_LIMIT,
    cache_dir: str | os.PathLike[str] | None = None,
) -> Collection:
    """Build a collection from the docstrings of installed Python packages.

    Queries are the first sentences of docstrings, for example "Read a comma-separated values (csv) file into
    DataFrame". The document of a query has the qualified name as its title. Its text is the signature and the
    docstring without that sentence. Source files are parsed, not imported. Documents with the same body are
    merged and keep all their queries. Documents are split into train, dev and test, and documents that share
    a query are in the same split. `siblings` has the documents with the same last name in other packages, for
    example `torch.where` for `numpy.where`.

    The collection depends on the versions of Python and of the packages only.

    Args:
        packages: Import names, or `"stdlib"`. By default, all installed packages of `PACKAGES`.
        limit: Maximum number of documents, None for all. A fixed rule balances the packages.
        cache_dir: Cache folder. By default, the user's cache folder: `$XDG_CACHE_HOME/rrra_hf` or
            `~/.cache/rrra_hf`.

    Raises:
        ValueError: If a package isn't installed, or `limit` is less than 1.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     collection = python_docs(["tqdm"], cache_dir=folder)
        >>> "tqdm.tqdm.update" in collection.document_ids
        True
    """
    if limit is not None and limit < 1:
        raise ValueError(f"limit must be at least 1, got {limit}.")
    chosen = find_packages(packages)
    folder = _cache_folder(cache_dir) / f"{NAME}-{_fingerprint(chosen, limit)}"
    if not folder.exists():
        with _garbage_collection_paused():
            documents = [document for package in chosen for document in read_documents(package)]
        _save(_build(select_documents(merge_documents(documents), limit)), folder)
    return read_beir(folder, name=NAME)


@contextmanager
def _garbage_collection_paused() -> Iterator[None]:
    """Disable garbage collection while millions of syntax tree nodes are created.

    Parsing 4,000 files took 39 s on one core with garbage collection and PyTorch's objects in memory, and 15
    s without.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _cache_folder(cache_dir: str | os.PathLike[str] | None) -> Path:
    if cache_dir is not None:
        return Path(cache_dir)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "rrra_hf"


def _fingerprint(packages: Sequence[Package], limit: int | None) -> str:
    versions = [(package, version_of(package)) for package in packages]
    return text_digest(json.dumps([FORMAT_VERSION, platform.python_version(), versions, limit]))[:16]


def _build(documents: Sequence[Document]) -> Collection:
    """Build the collection of the chosen documents."""
    builder = CollectionBuilder(NAME, Problems())
    records = (
        (Location(document.name, 0), {"id": document.name, "title": document.name, "text": document.text})
        for document in documents
    )
    builder.add_documents([Block(records)])
    queries = sorted({query for document in documents for query in document.queries})
    builder.queries = {query_id(query): query for query in queries}
    builder.qrels_by_split = split_documents(documents)
    builder.siblings = siblings_of(documents)
    return builder.build()


def _save(collection: Collection, folder: Path) -> None:
    try:
        collection.save(folder)
    except (OSError, ValueError):
        # Another process may have written the same collection in the meantime.
        if not folder.exists():
            raise
