"""Exact search over embeddings that stay where they are, read block by block."""

from __future__ import annotations

from collections.abc import Iterable

import faiss
import numpy as np


def exact_search(queries: np.ndarray, blocks: Iterable[np.ndarray], k: int) -> tuple[np.ndarray, np.ndarray]:
    """Find the `k` nearest documents of each query, or all if there are fewer.

    Args:
        queries: `(n, dim)` float32, normalised.
        blocks: The documents in the order of their rows, each block `(m, dim)` float32, normalised.
        k: Documents a query.

    Returns:
        Cosines `(n, k)` float32, descending, and rows `(n, k)` int64; ties by row, ascending.

    Example:
        >>> documents = np.eye(3, dtype=np.float32)
        >>> exact_search(documents[1:2], [documents[:2], documents[2:]], k=2)[1].tolist()
        [[1, 0]]
    """
    cosines = np.empty((len(queries), 0), dtype=np.float32)
    rows = np.empty((len(queries), 0), dtype=np.int64)
    start = 0
    for block in blocks:
        found_cosines, found_rows = faiss.knn(
            queries, np.ascontiguousarray(block), min(k, len(block)), metric=faiss.METRIC_INNER_PRODUCT
        )
        cosines, rows = best(
            np.concatenate([cosines, found_cosines], axis=1),
            np.concatenate([rows, start + found_rows], axis=1),
            k,
        )
        start += len(block)
    return cosines, rows


def best(cosines: np.ndarray, rows: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the `k` greatest cosines of each line, descending, and their rows; ties by row, ascending."""
    order = np.lexsort((rows, -cosines), axis=1)[:, :k]
    return np.take_along_axis(cosines, order, axis=1), np.take_along_axis(rows, order, axis=1)
