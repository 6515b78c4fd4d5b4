"""The choice of documents, balanced between packages."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from .documents import Document, text_digest
from .packages import PACKAGES, STDLIB

STDLIB_SHARE = 0.4
MAX_POSITIVES = 5
WEIGHTS = {package.name: package.weight for package in PACKAGES}


def select_documents(documents: Sequence[Document], limit: int | None) -> list[Document]:
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
    weights = {package: WEIGHTS.get(package, 1) for package in sizes if package != STDLIB}
    for package in sorted(weights, key=lambda package: (sizes[package] / weights[package], package)):
        share = (limit - sum(quotas.values())) * weights.pop(package)
        quotas[package] = min(sizes[package], share // (WEIGHTS.get(package, 1) + sum(weights.values())))
    quotas[STDLIB] += min(sizes.get(STDLIB, 0) - quotas[STDLIB], limit - sum(quotas.values()))
    return quotas


def _priority(document: Document) -> tuple[bool, int, str]:
    """Return a sort key: errors last, then by depth of the name. An example counts as one level less."""
    is_error = document.name.endswith(("Error", "Warning", "Exception"))
    return is_error, document.name.count(".") - document.has_example, text_digest(document.name)
