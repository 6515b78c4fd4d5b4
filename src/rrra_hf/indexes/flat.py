"""Exact search with FAISS: every document is compared with every query."""

from __future__ import annotations

import os
from pathlib import Path

import faiss
import numpy as np

from ..embeddings import check_embeddings
from ..models.files_rrra import write_aside
from .best import best, search_blocks
from .checks import check_allowed, check_normalized, check_rows, check_search, flat_parameters, normalized
from .faiss_files import read_flat

# Queries or documents per block, so that memory-mapped arrays are never copied as a whole.
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
        """Append documents.

        Args:
            embeddings: Embeddings, `(n, dim)`. They don't need to be normalised.

        Raises:
            ValueError: If the shape is wrong or a value isn't finite. Nothing is added then.
        """
        embeddings = check_embeddings(embeddings, "embeddings", self.dim)
        for start in range(0, len(embeddings), BLOCK_SIZE):
            self._index.add(normalized(embeddings[start : start + BLOCK_SIZE]))

    def search(
        self, queries: np.ndarray, k: int, allowed: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Find the `k` nearest documents per query, or all documents if there are fewer.

        Args:
            queries: Embeddings, `(n, dim)`. They don't need to be normalised.
            k: Number of documents per query.
            allowed: Rows of the documents to search among, ascending; all by default.

        Returns:
            Cosines `(n, k)` float32, descending, and rows `(n, k)` int64. Ties are sorted by row.

        Raises:
            ValueError: If `queries` has a wrong shape or values that aren't finite, `k` is less than 1,
                `allowed` isn't legal, or the index is empty.
        """
        queries = check_search(queries, k, self.dim, len(self))
        allowed = check_allowed(allowed, len(self))
        k = min(k, len(self) if allowed is None else len(allowed))
        parameters = flat_parameters(allowed, len(self))

        def search(unit: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            return best(*self._index.search(unit, k, params=parameters), k)

        return search_blocks(queries, k, BLOCK_SIZE, search)

    def reconstruct(self, rows: np.ndarray) -> np.ndarray:
        """Return the normalised embeddings of documents.

        Args:
            rows: Rows of documents, of any shape `(...)`.

        Returns:
            `(..., dim)` float32.

        Raises:
            ValueError: If a row is out of range.
        """
        rows = check_rows(rows, len(self))
        return self._index.reconstruct_batch(rows.reshape(-1)).reshape(*rows.shape, self.dim)

    def updated(self, kept: np.ndarray, embeddings: np.ndarray | None = None) -> FlatIndex:
        """Return an index of some of the documents and, after them, of others. This one stays as it is.

        Args:
            kept: Rows of the documents to keep, ascending, `(m,)`.
            embeddings: Embeddings of the others, `(n, dim)`, of any length; none by default.

        Raises:
            ValueError: If a row is out of range, the shape is wrong or a value isn't finite.
        """
        new = FlatIndex(self.dim)
        # At once: FAISS moves what it holds whenever it grows.
        new._index.add(self.reconstruct(kept))
        if embeddings is not None:
            new.add(embeddings)
        return new

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the index to a file in the format of FAISS. A partial file is never left."""
        with write_aside(path) as temporary:
            faiss.write_index(self._index, str(temporary))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> FlatIndex:
        """Read an index written by `save`. The file is not given to FAISS, so it may come from anybody.

        Raises:
            FileNotFoundError: If the file doesn't exist.
            ValueError: If the file is damaged, has an index of another kind, or embeddings that are not
                normalised.
        """
        if not Path(path).is_file():
            raise FileNotFoundError(f"No index at {path}.")
        vectors = read_flat(path)
        index = cls(vectors.shape[1])
        for start in range(0, len(vectors), BLOCK_SIZE):
            block = np.array(vectors[start : start + BLOCK_SIZE])
            check_normalized(block, path, start)
            index._index.add(block)
        return index
