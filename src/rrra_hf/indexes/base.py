"""Interfaces of the indexes."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Protocol

import numpy as np
from typing_extensions import Self


class Index(Protocol):
    """An index of document embeddings that is searched by cosine. Documents have row numbers."""

    @property
    def dim(self) -> int:
        """Dimension of the embeddings."""

    def __len__(self) -> int: ...

    def add(self, embeddings: np.ndarray) -> None:
        """Append documents, `(n, dim)`."""

    def search(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Find the `k` nearest documents per query, or all documents if there are fewer.

        Args:
            queries: Query embeddings, `(n, dim)`.
            k: Number of documents per query.

        Returns:
            Cosines `(n, k)` float32, descending, and rows `(n, k)` int64. Ties are sorted by row.
        """

    def reconstruct(self, rows: np.ndarray) -> np.ndarray:
        """Return the normalised embeddings of documents, rows `(...)` to `(..., dim)`."""

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the index to a file or folder. A partial one is never left."""

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read an index written by `save`."""


class DocumentIndex(Protocol):
    """An index of document embeddings that is searched by cosine. Documents have ids and can be replaced."""

    @property
    def dim(self) -> int:
        """Dimension of the embeddings."""

    def __len__(self) -> int: ...

    def __contains__(self, document_id: str) -> bool: ...

    def upsert(self, ids: Sequence[str], embeddings: np.ndarray) -> None:
        """Add documents, or replace them if they exist. The last embedding of an id counts."""

    def delete(self, ids: Sequence[str]) -> int:
        """Delete documents, and return the number deleted."""

    def search(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, list[list[str]]]:
        """Find the `k` nearest documents per query, or all documents if there are fewer.

        Args:
            queries: Query embeddings, `(n, dim)`.
            k: Number of documents per query.

        Returns:
            Cosines `(n, k)` float32, descending, and the ids of the documents. Ties are sorted by id.
        """

    def reconstruct(self, ids: Sequence[str]) -> np.ndarray:
        """Return the normalised embeddings of documents, `(n, dim)`."""
