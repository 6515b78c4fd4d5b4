"""Documents and queries from the docstrings of a package."""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass

from .docstrings import split_docstring
from .packages import STDLIB, Package, location_of
from .public_names import public_definitions
from .source import Definition, read_package

logger = logging.getLogger(__name__)

MAX_TEXT = 1500
MIN_WORDS = 8
MIN_QUERY_WORDS, MAX_QUERY_WORDS = 4, 40
MIN_LETTERS = 0.85

_NO_QUERY = frozenset({"alias", "deprecated", "helper", "internal", "note", "see", "test", "todo", "warning"})


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


def read_documents(package: Package) -> list[Document]:
    """Return a document per public definition with a suitable docstring."""
    location = location_of(package)
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


def merge_documents(documents: Sequence[Document]) -> list[Document]:
    """Merge documents with the same body into the one with the first name."""
    kept: dict[str, Document] = {}
    for document in sorted(documents, key=lambda document: (document.name.count("."), document.name)):
        first = kept.setdefault(document.body, document)
        for query in document.queries:
            if query not in first.queries:
                first.queries.append(query)
                first.text = _without(first.text, query)
    return list(kept.values())


def text_digest(text: str) -> str:
    """Return a text's SHA-256 in hexadecimal digits: the same order and the same split on every machine."""
    return hashlib.sha256(text.encode()).hexdigest()
