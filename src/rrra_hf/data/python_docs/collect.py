"""Build a collection from the documentation of installed Python packages."""

from __future__ import annotations

import gc
import hashlib
import importlib.metadata
import importlib.util
import json
import logging
import os
import platform
import re
import sysconfig
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import NamedTuple

from ..beir import read_beir
from ..builder import CollectionBuilder
from ..collection import Collection, Qrels
from ..readers import Location, Problems
from .docstrings import Definition, public_definitions, read_package, split_docstring

logger = logging.getLogger(__name__)

NAME = "python-docs"
STDLIB = "stdlib"
DEFAULT_LIMIT = 4500
STDLIB_SHARE = 0.4
MAX_TEXT = 1500
MIN_WORDS = 8
MIN_QUERY_WORDS, MAX_QUERY_WORDS = 4, 40
MIN_LETTERS = 0.85
MAX_POSITIVES = 5
SPLIT_SHARES = (("train", 0.7), ("dev", 0.1), ("test", 0.2))
FORMAT_VERSION = 1

_NO_QUERY = frozenset({"alias", "deprecated", "helper", "internal", "note", "see", "test", "todo", "warning"})


class Package(NamedTuple):
    """A package to read.

    Args:
        name: Import name.
        distribution: Name of the distribution, if it differs.
        excluded: Submodules to leave out, relative to the package, separated by spaces.
        weight: Relative share of the documents, among packages other than the standard library.
    """

    name: str
    distribution: str = ""
    excluded: str = ""
    weight: int = 1


_STDLIB_EXCLUDED = (
    "antigravity distutils encodings ensurepip idlelib lib2to3 msilib ntpath nturl2path pydoc_data "
    "sre_compile sre_constants sre_parse this tkinter turtledemo venv"
)
_TORCH_EXCLUDED = (
    "_decomp _dynamo _export _functorch _higher_order_ops _inductor _numpy _prims _refs _subclasses ao bin "
    "contrib distributed export fx jit mtia onnx package utils.benchmark utils.hipify xpu"
)
_TRANSFORMERS_EXCLUDED = "cli distributed exporters integrations kernels models quantizers"

PACKAGES = (
    Package(STDLIB, excluded=_STDLIB_EXCLUDED),
    Package("accelerate"),
    Package("click"),
    Package("datasets", weight=2),
    Package("dateutil", "python-dateutil"),
    Package("httpx"),
    Package("huggingface_hub", weight=2),
    Package("jinja2"),
    Package("joblib"),
    Package("matplotlib", weight=5),
    Package("networkx", weight=2),
    Package("numpy", excluded="distutils f2py", weight=5),
    Package("pandas", weight=5),
    Package("peft"),
    Package("psutil"),
    Package("pydantic"),
    Package("regex"),
    Package("requests", weight=2),
    Package("rich"),
    Package("scipy", excluded="_lib", weight=5),
    Package("sentence_transformers", weight=2),
    Package("sklearn", "scikit-learn", weight=5),
    Package("torch", excluded=_TORCH_EXCLUDED, weight=5),
    Package("tqdm"),
    Package("transformers", excluded=_TRANSFORMERS_EXCLUDED, weight=2),
    Package("typer"),
    Package("yaml", "PyYAML"),
)
"""The packages that `python_docs` reads if they are installed."""

_WEIGHTS = {package.name: package.weight for package in PACKAGES}


@dataclass
class Document:
    """A document being built, with its queries.

    Args:
        name: Qualified public name, used as id and title.
        package: Name of the package. The standard library counts as one package.
        text: Signature and docstring without the summary.
        queries: Summary lines, including those of merged documents.
        body: Normalised docstring without the summary, equal for near-duplicates.
        has_example: Whether the docstring has an example.
    """

    name: str
    package: str
    text: str
    queries: list[str]
    body: str
    has_example: bool


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
    chosen = _find_packages(packages)
    folder = _cache_folder(cache_dir) / f"{NAME}-{_fingerprint(chosen, limit)}"
    if not folder.exists():
        with _garbage_collection_paused():
            documents = [document for package in chosen for document in _read_documents(package)]
        _save(_build(_select(_merge(documents), limit)), folder)
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


# -------------------------------------------------------------------- where packages are


def _find_packages(names: Iterable[str] | None) -> list[Package]:
    if names is None:
        return [package for package in PACKAGES if _location(package) is not None]
    known = {package.name: package for package in PACKAGES}
    packages = [known.get(name, Package(name)) for name in sorted(set(names))]
    missing = [package.name for package in packages if _location(package) is None]
    if missing:
        raise ValueError(f"packages must be installed as Python source, {missing} are not.")
    return packages


def _location(package: Package) -> Path | None:
    if package.name == STDLIB:
        return Path(sysconfig.get_path("stdlib"))
    spec = importlib.util.find_spec(package.name)
    if spec is None or not (spec.origin or "").endswith(".py"):
        return None
    origin = Path(str(spec.origin))
    return origin.parent if origin.name == "__init__.py" else origin


def _version(package: Package) -> str:
    if package.name == STDLIB:
        return platform.python_version()
    try:
        return importlib.metadata.version(package.distribution or package.name)
    except importlib.metadata.PackageNotFoundError:
        location = _location(package) or Path()
        paths = [location] if location.is_file() else location.rglob("*.py")
        return str(max(path.stat().st_mtime_ns for path in paths))


def _cache_folder(cache_dir: str | os.PathLike[str] | None) -> Path:
    if cache_dir is not None:
        return Path(cache_dir)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "rrra_hf"


def _fingerprint(packages: Sequence[Package], limit: int | None) -> str:
    versions = [(package, _version(package)) for package in packages]
    return _hash(json.dumps([FORMAT_VERSION, platform.python_version(), versions, limit]))[:16]


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


# -------------------------------------------------------------------- from definitions to documents


def _read_documents(package: Package) -> list[Document]:
    """Return a document per public definition with a suitable docstring."""
    location = _location(package)
    assert location is not None, package.name
    name = "" if package.name == STDLIB else package.name
    modules = read_package(location, name, frozenset(package.excluded.split()))
    documents = []
    for qualified, definition in sorted(public_definitions(modules).items()):
        document = _document(qualified.replace("posixpath.", "os.path."), package.name, definition)
        if document is not None:
            documents.append(document)
    logger.debug("%s: %d documents from %d modules.", package.name, len(documents), len(modules))
    return documents


def _document(name: str, package: str, definition: Definition) -> Document | None:
    signature, summary, rest = split_docstring(definition.docstring)
    signature = definition.signature or signature
    if not _is_query(summary):
        return None
    signature, rest = _without(signature, summary), _without(rest, summary)
    text = f"{signature} {rest}".strip()
    if len(_words(text)) < MIN_WORDS:
        return None
    has_example = "Example" in definition.docstring or ">>>" in definition.docstring
    return Document(name, package, _shorten(text), [summary], _body(name, signature, rest), has_example)


def _is_query(summary: str) -> bool:
    """Return whether a summary is prose that a user might search for."""
    words = summary.split()
    if not MIN_QUERY_WORDS <= len(words) <= MAX_QUERY_WORDS or not summary[0].isalpha():
        return False
    if "=" in summary or words[0].lower().strip(":") in _NO_QUERY:
        return False
    letters = sum(character.isalpha() or character.isspace() for character in summary)
    return letters >= MIN_LETTERS * len(summary)


def _words(text: str) -> list[str]:
    return re.findall(r"[^\W_]+", text.lower())


def _without(text: str, summary: str) -> str:
    """Remove all occurrences of a sentence, ignoring case, spacing and punctuation."""
    words = _words(summary)
    # This check is 100 times faster than compiling the regular expression.
    if " ".join(words) not in " ".join(_words(text)):
        return text
    pattern = r"[\W_]+".join(words)
    return " ".join(re.sub(rf"\b{pattern}\b[.:]?", " ", text, flags=re.IGNORECASE).split())


def _shorten(text: str) -> str:
    return text if len(text) <= MAX_TEXT else text[:MAX_TEXT].rpartition(" ")[0]


def _body(name: str, signature: str, rest: str) -> str:
    """Return the words of the body without those of the name, equal for near-duplicates."""
    words = _words(rest)
    if len(words) < MIN_WORDS:
        return f"{name.rpartition('.')[2]} {signature} {rest}"
    own = set(name.lower().split("."))
    return " ".join(word for word in words if word not in own)


def _merge(documents: Sequence[Document]) -> list[Document]:
    """Merge documents with the same body into the one with the first name."""
    kept: dict[str, Document] = {}
    for document in sorted(documents, key=lambda document: (document.name.count("."), document.name)):
        first = kept.setdefault(document.body, document)
        for query in document.queries:
            if query not in first.queries:
                first.queries.append(query)
                first.text = _without(first.text, query)
    return list(kept.values())


# -------------------------------------------------------------------- choosing


def _select(documents: Sequence[Document], limit: int | None) -> list[Document]:
    """Choose at most `limit` documents, and drop queries that too many documents share."""
    counts = Counter(query for document in documents for query in document.queries)
    by_package: dict[str, list[Document]] = {}
    for document in documents:
        document.queries = [query for query in document.queries if counts[query] <= MAX_POSITIVES]
        if document.queries:
            by_package.setdefault(document.package, []).append(document)
    quotas = _quotas({package: len(found) for package, found in by_package.items()}, limit)
    chosen = (sorted(found, key=_priority)[: quotas[package]] for package, found in by_package.items())
    return sorted((document for found in chosen for document in found), key=lambda document: document.name)


def _quotas(sizes: dict[str, int], limit: int | None) -> dict[str, int]:
    """Distribute `limit` to the standard library first, then to the other packages by weight."""
    if limit is None or limit >= sum(sizes.values()):
        return sizes
    quotas = {STDLIB: min(sizes.get(STDLIB, 0), int(limit * STDLIB_SHARE))}
    weights = {package: _WEIGHTS.get(package, 1) for package in sizes if package != STDLIB}
    for package in sorted(weights, key=lambda package: (sizes[package] / weights[package], package)):
        share = (limit - sum(quotas.values())) * weights.pop(package)
        quotas[package] = min(sizes[package], share // (_WEIGHTS.get(package, 1) + sum(weights.values())))
    quotas[STDLIB] += min(sizes.get(STDLIB, 0) - quotas[STDLIB], limit - sum(quotas.values()))
    return quotas


def _priority(document: Document) -> tuple[bool, int, str]:
    """Return a sort key: errors last, then by depth of the name. An example counts as one level less."""
    is_error = document.name.endswith(("Error", "Warning", "Exception"))
    return is_error, document.name.count(".") - document.has_example, _hash(document.name)


# -------------------------------------------------------------------- splits and siblings


def _build(documents: Sequence[Document]) -> Collection:
    """Build the collection of the chosen documents."""
    builder = CollectionBuilder(NAME, Problems())
    builder.add_documents(
        (Location(document.name, 0), {"id": document.name, "title": document.name, "text": document.text})
        for document in documents
    )
    queries = sorted({query for document in documents for query in document.queries})
    builder.queries = {_query_id(query): query for query in queries}
    builder.qrels_by_split = _split(documents)
    builder.siblings = _siblings(documents)
    return builder.build()


def _query_id(query: str) -> str:
    return f"q-{_hash(query)[:12]}"


def _split(documents: Sequence[Document]) -> dict[str, Qrels]:
    """Split the documents and their queries.

    Documents that share a query, directly or through others, are in the same split. So no query and no
    relevant document is in two splits. The hash of the first name in a group determines the split.
    """
    groups = _groups(documents)
    qrels_by_split: dict[str, Qrels] = {split: {} for split, _ in SPLIT_SHARES}
    for document in documents:
        qrels = qrels_by_split[_split_of(groups[document.name])]
        for query in document.queries:
            qrels.setdefault(_query_id(query), {})[document.name] = 1
    return {split: qrels for split, qrels in qrels_by_split.items() if qrels}


def _groups(documents: Sequence[Document]) -> dict[str, str]:
    """Return the first name in the group (connected component) of each document, by union-find."""
    parent = {document.name: document.name for document in documents}

    def root(name: str) -> str:
        while parent[name] != name:
            parent[name] = parent[parent[name]]
            name = parent[name]
        return name

    owner: dict[str, str] = {}
    for document in documents:
        for query in document.queries:
            first, second = sorted((root(document.name), root(owner.setdefault(query, document.name))))
            parent[second] = first
    return {name: root(name) for name in parent}


def _split_of(name: str) -> str:
    # Salted, because the plain hash was used to choose documents.
    position = int(_hash(f"split {name}")[:8], 16) / 16**8
    bounds = accumulate(share for _, share in SPLIT_SHARES)
    return next(split for (split, _), bound in zip(SPLIT_SHARES, bounds, strict=True) if position < bound)


def _siblings(documents: Sequence[Document]) -> dict[str, list[str]]:
    by_last_name: dict[str, list[Document]] = {}
    for document in documents:
        by_last_name.setdefault(document.name.rpartition(".")[2], []).append(document)
    siblings = {}
    for document in documents:
        namesakes = by_last_name[document.name.rpartition(".")[2]]
        found = [other.name for other in namesakes if other.package != document.package]
        if found:
            siblings[document.name] = found
    return siblings


def _save(collection: Collection, folder: Path) -> None:
    try:
        collection.save(folder)
    except OSError:
        # Another process may have written the same collection in the meantime.
        if not folder.exists():
            raise
