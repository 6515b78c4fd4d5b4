"""Exact search by FAISS, every document compared with every query."""

from __future__ import annotations

import os
from pathlib import Path

import faiss
import numpy as np

from ..embeddings import check_embeddings
from ..models.files_rrra import write_aside
from .checks import check_rows, check_search, normalized
from .exact import best

# Queries or documents handled at a time, so that memory-mapped arrays are never copied whole.
BLOCK_SIZE = 4096


class FlatIndex:
    """An exact index over normalised embeddings, in memory, by FAISS's `IndexFlatIP`.

    Args:
        dim: Dimension of the embeddings.

    Raises:
        ValueError: If `dim` is less than 1.

    Example:
        >>> index = FlatIndex(2)
        >>> index.add(np.array([[2.0, 0.0], [0.0, 1.0], [1.0, 1.0]]))
        >>> scores, rows = index.search(np.array([[1.0, 0.0]]), k=2)
        >>> rows.tolist(), scores.round(3).tolist()
        ([[0, 2]], [[1.0, 0.7070000171661377]])
    """

    def __init__(self, dim: int):
        if dim < 1:
            raise ValueError(f"dim must be at least 1, got {dim}.")
        self._index = faiss.IndexFlatIP(dim)

    @property
    def dim(self) -> int:
        """Dimension of the embeddings."""
        return self._index.d

    def __len__(self) -> int:
        return self._index.ntotal

    def add(self, embeddings: np.ndarray) -> None:
        """Append documents; they are normalised.

        Args:
            embeddings: `(n, dim)`.

        Raises:
            ValueError: If the shape is wrong or a value is not finite; then nothing is added.
        """
        embeddings = check_embeddings(embeddings, "embeddings", self.dim)
        for start in range(0, len(embeddings), BLOCK_SIZE):
            self._index.add(normalized(embeddings[start : start + BLOCK_SIZE]))

    def search(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Find each query's `k` nearest documents, or all if there are fewer.

        Args:
            queries: `(n, dim)`; they are normalised.
            k: Documents a query.

        Returns:
            Cosines `(n, k)` float32, descending, and rows `(n, k)` int64; ties by row, ascending.

        Raises:
            ValueError: If `queries` has a wrong shape or values that are not finite, if `k` is less
                than 1, or if the index is empty.
        """
        queries = check_search(queries, k, self.dim, len(self))
        k = min(k, len(self))
        scores = np.empty((len(queries), k), dtype=np.float32)
        rows = np.empty((len(queries), k), dtype=np.int64)
        for start in range(0, len(queries), BLOCK_SIZE):
            block = slice(start, start + BLOCK_SIZE)
            found_scores, found_rows = self._index.search(normalized(queries[block]), k)
            scores[block], rows[block] = best(found_scores, found_rows, k)
        return scores, rows

    def reconstruct(self, rows: np.ndarray) -> np.ndarray:
        """Return the normalised embeddings of documents.

        Args:
            rows: Rows of documents, of any shape `(...)`.

        Returns:
            `(..., dim)` float32.

        Raises:
            ValueError: If a row is not in the index.
        """
        rows = check_rows(rows, len(self))
        return self._index.reconstruct_batch(rows.reshape(-1)).reshape(*rows.shape, self.dim)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the index to a file in FAISS's own format, complete or not at all."""
        with write_aside(path) as temporary:
            faiss.write_index(self._index, str(temporary))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> FlatIndex:
        """Read an index that `save` wrote.

        Raises:
            FileNotFoundError: If the file is not there.
            ValueError: If it is damaged or holds an index of another kind.
        """
        if not Path(path).is_file():
            raise FileNotFoundError(f"No index at {path}.")
        try:
            found = faiss.read_index(str(path))
        except (RuntimeError, MemoryError) as error:
            raise ValueError(f"{path} is damaged or holds no FAISS index: {error}") from error
        if not isinstance(found, faiss.IndexFlatIP):
            raise ValueError(f"{path} holds an index of type {type(found).__name__}, not IndexFlatIP.")
        index = cls(found.d)
        index._index = found
        return index
