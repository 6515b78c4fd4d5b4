"""Exact embeddings on disk, appended while an index is built and read memory-mapped."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator

import numpy as np

from ..embeddings import load_embeddings, save_embeddings
from .checks import check_normalized

# Documents read at a time: 24 MB at dimension 384.
BLOCK_SIZE = 16_384


class VectorStore:
    """Normalised embeddings of documents, stored on disk.

    Appended embeddings are written to a temporary file in `tempfile.gettempdir()`, which is deleted with the
    store. `save` writes an Arrow file.

    Args:
        saved: Embeddings that are already on disk, `(n, dim)`: float32 and normalised, or quantised. Those
            that are appended have the same type.

    Example:
        >>> store = VectorStore(np.empty((0, 2), dtype=np.float32))
        >>> store.append(np.eye(2, dtype=np.float32))
        >>> len(store), store.take(np.array([[1], [0]])).tolist()
        (2, [[[0.0, 1.0]], [[1.0, 0.0]]])
    """

    def __init__(self, saved: np.ndarray):
        self._saved = saved
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 - open as long as the store
        self._appended = np.empty((0, saved.shape[1]), dtype=saved.dtype)
        self._count = len(saved)

    @property
    def shape(self) -> tuple[int, int]:
        """Number of documents and dimension."""
        return self._count, self._saved.shape[1]

    def __len__(self) -> int:
        return self._count

    def append(self, embeddings: np.ndarray) -> None:
        """Append embeddings, `(n, dim)`."""
        self._file.seek(0, os.SEEK_END)
        self._file.write(np.ascontiguousarray(embeddings, dtype=self._saved.dtype).data)
        self._count += len(embeddings)

    def take(self, rows: np.ndarray) -> np.ndarray:
        """Return the embeddings of documents, rows `(...)` to `(..., dim)`."""
        appended = self._map_appended()
        if not len(appended):
            return self._saved[rows]
        if not len(self._saved):
            return appended[rows]
        found = np.empty((*rows.shape, self.shape[1]), dtype=self._saved.dtype)
        is_saved = rows < len(self._saved)
        found[is_saved] = self._saved[rows[is_saved]]
        found[~is_saved] = appended[rows[~is_saved] - len(self._saved)]
        return found

    def __getitem__(self, rows: slice) -> np.ndarray:
        return self.take(np.arange(*rows.indices(len(self))))

    def blocks(self, start: int = 0) -> Iterator[np.ndarray]:
        """Yield the embeddings from row `start`, at most `BLOCK_SIZE` at a time."""
        for first in range(start, len(self), BLOCK_SIZE):
            yield self.take(np.arange(first, min(first + BLOCK_SIZE, len(self))))

    def matrix(self) -> np.ndarray:
        """Return all embeddings, mapped from disk, `(n, dim)`."""
        if len(self._saved) and self._count > len(self._saved):
            self._gather()
        return self._map_appended() if self._count > len(self._saved) else self._saved

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write all embeddings to an Arrow file."""
        save_embeddings(path, self.matrix())

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> VectorStore:
        """Open a file written by `save`, memory-mapped.

        Raises:
            FileNotFoundError: If the file doesn't exist.
            ValueError: If the file is damaged, or has embeddings that are not normalised.
        """
        store = cls(load_embeddings(path))
        for number, block in enumerate(store.blocks()):
            check_normalized(block, path, number * BLOCK_SIZE)
        return store

    def _map_appended(self) -> np.ndarray:
        """Return the appended embeddings. The file is mapped again only if it has grown."""
        count = self._count - len(self._saved)
        if len(self._appended) < count:
            self._file.flush()
            shape = (count, self.shape[1])
            self._appended = np.memmap(self._file, dtype=self._saved.dtype, mode="r", shape=shape)
        return self._appended

    def _gather(self) -> None:
        """Move all embeddings to one temporary file, because an Arrow file is written from one matrix."""
        whole = VectorStore(np.empty((0, self.shape[1]), dtype=self._saved.dtype))
        for block in self.blocks():
            whole.append(block)
        self.__dict__.update(whole.__dict__)
