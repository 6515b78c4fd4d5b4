"""Exact search: every document is compared with every query, one tile of documents at a time."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise, product
from typing import Protocol

import numpy as np
import torch
from sentence_transformers.util import get_device_name
from torch import Tensor

from ..embeddings.threads import compute_threads
from .best import cosines_in, largest, sort_keys, unpacked

# Queries and documents that are compared at a time.
QUERIES = 1024
TILE = 4096
# Every document of the first tile is a candidate, so that tile is small.
FIRST_TILE = 128
# Minimum number of documents per core.
MIN_PART = 1024

EMPTY = sort_keys(np.array(-np.inf, dtype=np.float32), -1)


class Rows(Protocol):
    """Embeddings: an array, or anything else with a shape and slices."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Number of rows and dimension."""

    def __getitem__(self, rows: slice, /) -> np.ndarray: ...


def search_flat(
    queries: Rows,
    documents: Rows,
    k: int,
    *,
    excluded: Sequence[np.ndarray] | None = None,
    max_memory: int = 2**25,
    device: str | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Find the `k` nearest documents per query by exact search.

    Args:
        queries: `(n, dim)`, in memory or memory-mapped. They don't need to be normalised.
        documents: `(m, dim)`, likewise.
        k: Number of documents per query.
        excluded: Row numbers of documents to leave out per query.
        max_memory: Maximum bytes per core, in addition to the embeddings and the result.
        device: Device for the search. By default, a GPU if there is one.

    Returns:
        Cosines `(n, k)` float32, descending, and rows `(n, k)` int64. Ties are sorted by row. If a query has
        fewer than `k` documents, they end with -inf and -1.

    Example:
        >>> documents = np.array([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0]])
        >>> cosines, rows = search_flat(documents[:1], documents, k=2, excluded=[np.array([0])])
        >>> rows.tolist(), cosines.round(2).tolist()
        ([[1, 2]], [[0.800000011920929, 0.0]])
    """
    place = torch.device(device or get_device_name())
    n, m = queries.shape[0], documents.shape[0]
    cores = torch.get_num_threads() if place.type == "cpu" else 1
    parts = max(1, min(cores, m // MIN_PART))
    blocks = max(1, -(-n // QUERIES))
    tasks = list(product(_slices(n, blocks), _slices(m, parts)))

    def search(task: tuple[slice, slice]) -> np.ndarray:
        block, part = task
        pairs = _by_row(None if excluded is None else excluded[block])
        return _search_part(queries[block], documents, part, k, pairs, max_memory, place)

    if len(tasks) > 1 and cores > 1:
        with compute_threads() as threads:
            keys = list(threads.map(search, tasks))
    else:
        keys = list(map(search, tasks))
    by_block = [np.concatenate(keys[at : at + parts], axis=1) for at in range(0, len(keys), parts)]
    return unpacked(np.concatenate([largest(block, k) for block in by_block]))


def _search_part(
    queries: np.ndarray,
    documents: Rows,
    part: slice,
    k: int,
    excluded: tuple[np.ndarray, np.ndarray],
    max_memory: int,
    device: torch.device,
) -> np.ndarray:
    """Return the sort keys of the best documents per query in one part of the documents, `(n, k)`."""
    q = _normalized(queries, device)
    n, dim = q.shape
    # Per pair a float and a boolean, per document two copies of its embedding.
    most = max(1, min(TILE, max_memory // (5 * n + 8 * dim)))
    memory = torch.empty(n * min(most, part.stop - part.start), device=device)
    keys = np.full((n, k), EMPTY)
    start = part.start
    while start < part.stop:
        # With at most as many documents as before, about `k` of a tile are among the best so far.
        stop = min(part.stop, start + min(most, max(FIRST_TILE, start - part.start)))
        cosines = memory[: n * (stop - start)].view(n, stop - start)
        torch.mm(q, _normalized(documents[start:stop], device).T, out=cosines)
        of_query, row = _between(excluded, start, stop)
        cosines[of_query, row - start] = -torch.inf
        keys = _merged(keys, cosines, start)
        start = stop
    return keys


def _merged(keys: np.ndarray, cosines: Tensor, start: int) -> np.ndarray:
    """Return the best keys after documents from row `start` on were compared, cosines `(n, width)`."""
    n, width = cosines.shape
    at, better = _above(cosines, cosines_in(keys[:, :1]))
    firsts = np.arange(n + 1) * width
    counts = np.diff(np.searchsorted(at, firsts))
    added = sort_keys(better, start + at - np.repeat(firsts[:-1], counts))
    # One line per query, padded.
    lines = np.full((n, counts.max(initial=0)), EMPTY)
    lines[np.arange(lines.shape[1]) < counts[:, None]] = added
    return largest(np.concatenate([keys, lines], axis=1), keys.shape[1])


def _above(cosines: Tensor, lowest: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return positions in the flattened matrix, and values, of all cosines above the lowest kept."""
    if cosines.device.type == "cpu":
        # NumPy needs a fifth of torch's time.
        values = cosines.numpy()
        at = np.flatnonzero(values > lowest)
        return at, values.reshape(-1)[at]
    places = (cosines > torch.from_numpy(lowest).to(cosines.device)).flatten().nonzero().squeeze(1)
    return places.cpu().numpy(), cosines.flatten()[places].cpu().numpy()


def _normalized(embeddings: np.ndarray, device: torch.device) -> Tensor:
    # A copy, because torch warns about arrays that are memory-mapped and read-only.
    copy = torch.from_numpy(np.array(embeddings, dtype=np.float32)).to(device)
    return torch.nn.functional.normalize(copy, dim=1, out=copy)


def _slices(size: int, parts: int) -> list[slice]:
    ends = np.linspace(0, size, parts + 1).astype(int).tolist()
    return [slice(start, stop) for start, stop in pairwise(ends)]


def _by_row(row_lists: Sequence[np.ndarray] | None) -> tuple[np.ndarray, np.ndarray]:
    """Return pairs of a query and a row of its list, sorted by row."""
    row_lists = row_lists or []
    rows = np.concatenate([np.empty(0, dtype=np.int64), *row_lists])
    queries = np.repeat(np.arange(len(row_lists)), [len(rows) for rows in row_lists])
    order = np.argsort(rows, kind="stable")
    return queries[order], rows[order]


def _between(pairs: tuple[np.ndarray, np.ndarray], start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the pairs whose row is in [start, stop)."""
    queries, rows = pairs
    part = slice(*np.searchsorted(rows, (start, stop)))
    return queries[part], rows[part]
