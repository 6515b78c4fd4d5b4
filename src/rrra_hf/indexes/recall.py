"""How much an approximate index misses, and how long it takes."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np

from .approximate import ApproximateIndex
from .checks import check_search, normalized
from .exact import exact_search
from .vectors import BLOCK_SIZE


class Searchable(Protocol):
    """Anything that finds documents, by row or by id."""

    def __len__(self) -> int: ...

    def search(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, Any]:
        """Return cosines and documents, a line a query."""


@dataclass(frozen=True)
class RecallReport:
    """What `recall_report` measured.

    Args:
        documents: Documents in the index.
        queries: Queries searched.
        k: Documents a query.
        recall: Mean share of the exact `k` nearest documents that were found.
        worst_recall: The same of the query with the least.
        p50_ms: Median time of a search with one query, in milliseconds.
        p95_ms: Its 95th percentile.
        p99_ms: Its 99th percentile.
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
    """Compare an index with exact search over the same documents, and time it, one query at a time.

    Of documents with equal cosines either search may take others, which counts as a miss.

    Args:
        index: The index.
        queries: A sample of queries, `(n, dim)`.
        k: Documents a query.
        exact: An exact index of the same documents, row for row or with the same ids, or their embeddings
            in the order of their rows, memory-mapped or not. An `ApproximateIndex` needs none.

    Raises:
        ValueError: If there is nothing exact to compare with, if it has another number of documents, or if
            a search is refused.

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
            f"index and exact must hold the same documents, got {len(index)} and {len(exact)} of them."
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
        starts = range(0, len(exact), BLOCK_SIZE)
        blocks = (normalized(exact[start : start + BLOCK_SIZE]) for start in starts)
        return exact_search(normalized(queries), blocks, k)[1]
    if exact is not None:
        return exact.search(queries, k)[1]
    if isinstance(index, ApproximateIndex):
        return index.search_exactly(queries, k)[1]
    raise ValueError(f"exact must be given to compare an index of type {type(index).__name__} with.")


def _share_found(expected: Iterable[Any], found: Iterable[Any]) -> float:
    wanted = set(expected)
    return len(wanted & set(found)) / len(wanted)
