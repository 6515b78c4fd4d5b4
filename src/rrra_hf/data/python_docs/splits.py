"""Splits of the documents with their queries, and the documents of the same name."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

from ..collection import Qrels
from .documents import Document, text_digest

SPLIT_SHARES = (("train", 0.7), ("dev", 0.1), ("test", 0.2))


def query_id(query: str) -> str:
    """Return the id of a query, which depends on its text only."""
    return f"q-{text_digest(query)[:12]}"


def split_documents(documents: Sequence[Document]) -> dict[str, Qrels]:
    """Split the documents and their queries.

    Documents that share a query, directly or through others, are in the same split. So no query and no
    relevant document is in two splits. The hash of the first name in a group determines the split.
    """
    groups = _groups(documents)
    qrels_by_split: dict[str, Qrels] = {split: {} for split, _ in SPLIT_SHARES}
    for document in documents:
        qrels = qrels_by_split[_split_of(groups[document.name])]
        for query in document.queries:
            qrels.setdefault(query_id(query), {})[document.name] = 1
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
    position = int(text_digest(f"split {name}")[:8], 16) / 16**8
    bounds = accumulate(share for _, share in SPLIT_SHARES)
    return next(split for (split, _), bound in zip(SPLIT_SHARES, bounds, strict=True) if position < bound)


def siblings_of(documents: Sequence[Document]) -> dict[str, list[str]]:
    """Return, for each document that has any, the documents with the same last name in other packages."""
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
