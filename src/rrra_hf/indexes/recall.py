"""Measure recall and latency of an index."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np

from .approximate import ApproximateIndex
from .checks import check_search
from .flat_search import search_flat


class Searchable(Protocol):
    """Any index, with documents by row or id."""

    def __len__(self) -> int: ...

    def search(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, Any]:
        """Return cosines and documents, one row per query."""


@dataclass(frozen=True)
class RecallReport:
    """Recall and latency of an index.

    Args:
        documents: Number of documents in the index.
        queries: Number of queries.
        k: Number of documents per query.
        recall: Mean share of the exact `k` nearest documents that the index found.
        worst_recall: Lowest share among the queries.
        p50_ms: Median time of a search with one query, in milliseconds.
        p95_ms: 95th percentile of that time.
        p99_ms: 99th percentile of that time.
    """

    documents: int
    queries: int
    k: int
    recall: float
    worst_recall: float
    p50_ms: float
    p95_ms: float
    p99_ms: float

    def to_dict(self) -> dict[str, int | float]:
        """Return the fields as a dictionary."""
        return asdict(self)


def recall_report(
    index: Searchable, queries: np.ndarray, k: int = 100, exact: Searchable | np.ndarray | None = None
) -> RecallReport:
    """Compare an index with exact search over the same documents, and measure its latency per query.

    Documents with equal cosines can count as misses, because either search may choose others.

    Args:
        index: The index.
        queries: Sample of query embeddings, `(n, dim)`.
        k: Number of documents per query.
        exact: Exact index of the same documents, with the same rows or ids, or their embeddings in the order
            of the rows. An `ApproximateIndex` needs neither.

    Raises:
        ValueError: If `exact` is missing or has another number of documents, or a search raises one.

    Example:
        >>> from rrra_hf.indexes import ApproximateIndex
        >>> documents = np.random.default_rng(0).standard_normal((300, 8))
        >>> index = ApproximateIndex(8, "hnsw", count=300)
        >>> index.add(documents)
        >>> recall_report(index, documents[:20], k=10).recall
        1.0
    """
    if exact is not None and len(index) != len(exact):
        raise ValueError(
            f"index and exact must have the same documents, got {len(index)} and {len(exact)} documents."
        )
    expected = _exact_neighbours(index, queries, k, exact)
    recalls, milliseconds = [], []
    for position in range(len(queries)):
        start = time.perf_counter()
        _, found = index.search(queries[position : position + 1], k)
        milliseconds.append(1000 * (time.perf_counter() - start))
        recalls.append(_share_found(expected[position], found[0]))
    p50, p95, p99 = np.percentile(milliseconds, [50, 95, 99]).tolist()
    return RecallReport(len(index), len(queries), k, float(np.mean(recalls)), min(recalls), p50, p95, p99)


def _exact_neighbours(
    index: Searchable, queries: np.ndarray, k: int, exact: Searchable | np.ndarray | None
) -> Any:
    if isinstance(exact, np.ndarray):
        queries = check_search(queries, k, exact.shape[1], len(exact))
        return search_flat(queries, exact, min(k, len(exact)))[1]
    if exact is not None:
        return exact.search(queries, k)[1]
    if isinstance(index, ApproximateIndex):
        return index.search_exactly(queries, k)[1]
    raise ValueError(f"exact must be given to compare an index of type {type(index).__name__} with.")


def _share_found(expected: Iterable[Any], found: Iterable[Any]) -> float:
    wanted = set(expected)
    return len(wanted & set(found)) / len(wanted)
