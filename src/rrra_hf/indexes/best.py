"""Sort keys: a cosine and a row in one integer, so that sorting breaks ties by row."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from .checks import normalized

# The lower half of a key holds the row: from -1, which stands for no document, to 4 billion.
ROW_BITS = np.int64(2**32 - 1)


def sort_keys(cosines: np.ndarray, rows: np.ndarray | int) -> np.ndarray:
    """Return integers that are greater for higher cosines and, among equal cosines, for smaller rows.

    Args:
        cosines: float32 of any shape.
        rows: Row numbers of the same shape, -1 for no document.

    Example:
        >>> keys = sort_keys(np.array([0.5, -1.0, 0.5], dtype=np.float32), np.array([7, 8, 9]))
        >>> keys.argsort().tolist()
        [1, 2, 0]
    """
    # Adding 0 turns -0 into 0. Negative floats order the other way round than their bits.
    bits = (cosines + np.float32(0)).view(np.int32)
    ordered = bits ^ ((bits >> 31) & np.int32(2**31 - 1))
    return (ordered.astype(np.int64) << 32) | (ROW_BITS - 1 - rows)


def cosines_in(keys: np.ndarray) -> np.ndarray:
    """Return the cosines that keys were made from, float32."""
    ordered = (keys >> 32).astype(np.int32)
    return (ordered ^ ((ordered >> 31) & np.int32(2**31 - 1))).view(np.float32)


def rows_in(keys: np.ndarray) -> np.ndarray:
    """Return the rows that keys were made from, int64."""
    return ROW_BITS - 1 - (keys & ROW_BITS)


def largest(keys: np.ndarray, k: int) -> np.ndarray:
    """Return the `k` largest keys per line. The smallest of them is first, the others are in any order."""
    return np.partition(keys, keys.shape[1] - k, axis=1)[:, keys.shape[1] - k :]


def unpacked(keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the cosines per line, descending, and their rows. Ties are sorted by row."""
    descending = np.sort(keys, axis=1)[:, ::-1]
    return cosines_in(descending), rows_in(descending)


def best(cosines: np.ndarray, rows: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the `k` highest cosines per line, descending, and their rows. Ties are sorted by row.

    Args:
        cosines: `(n, m)` float32.
        rows: `(n, m)`.
        k: At most `m`.

    Example:
        >>> best(np.array([[0.5, 0.7, 0.5]], dtype=np.float32), np.array([[4, 9, 3]]), k=2)[1].tolist()
        [[9, 3]]
    """
    return unpacked(largest(sort_keys(cosines, rows), k))


def search_blocks(
    queries: np.ndarray, k: int, size: int, search: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
) -> tuple[np.ndarray, np.ndarray]:
    """Search for some queries at a time.

    Args:
        queries: Embeddings of any length, `(n, dim)`.
        k: Number of documents per query.
        size: Number of queries to search for at a time.
        search: Returns the cosines and the rows, `(m, k)`, that it finds for normalised queries, `(m, dim)`.

    Returns:
        Cosines `(n, k)` float32 and rows `(n, k)` int64.
    """
    cosines = np.empty((len(queries), k), dtype=np.float32)
    rows = np.empty((len(queries), k), dtype=np.int64)
    for start in range(0, len(queries), size):
        block = slice(start, start + size)
        cosines[block], rows[block] = search(normalized(queries[block]))
    return cosines, rows


def rescored(
    queries: np.ndarray, rows: np.ndarray, take: Callable[[np.ndarray], np.ndarray], k: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the `k` candidates per query with the highest cosines, and their rows. Ties are sorted by row.

    Args:
        queries: Normalised embeddings, `(n, dim)`.
        rows: Rows of the candidates, `(n, m)`. FAISS pads them with -1, which ranks last.
        take: Returns the normalised embeddings of documents, rows `(n, m)` to `(n, m, dim)`.
        k: At most `m`.
    """
    cosines = np.matmul(take(np.maximum(rows, 0)), queries[:, :, None])[:, :, 0]
    cosines[rows < 0] = -np.inf
    return best(cosines, rows, k)
