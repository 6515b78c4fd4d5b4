"""What every index of document embeddings can do."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Protocol

import numpy as np
from typing_extensions import Self


class Index(Protocol):
    """Documents' embeddings, searched by cosine; a document is known by its row, in the order of `add`."""

    @property
    def dim(self) -> int:
        """Dimension of the embeddings."""

    def __len__(self) -> int: ...

    def add(self, embeddings: np.ndarray) -> None:
        """Append documents: `(n, dim)`."""

    def search(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Find each query's `k` nearest documents, or all if there are fewer.

        Args:
            queries: `(n, dim)`.
            k: Documents a query.

        Returns:
            Cosines `(n, k)` float32, descending, and rows `(n, k)` int64; ties by row, ascending.
        """

    def reconstruct(self, rows: np.ndarray) -> np.ndarray:
        """Return the normalised embeddings of documents: rows `(...)` to `(..., dim)`."""

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the index to a file or a folder, complete or not at all."""

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read an index that `save` wrote."""


class DocumentIndex(Protocol):
    """Documents' embeddings, searched by cosine; a document is known by its id and can be replaced."""

    @property
    def dim(self) -> int:
        """Dimension of the embeddings."""

    def __len__(self) -> int: ...

    def __contains__(self, document_id: str) -> bool: ...

    def upsert(self, ids: Sequence[str], embeddings: np.ndarray) -> None:
        """Add documents, or replace those that are there; of an id given twice, the last counts."""

    def delete(self, ids: Sequence[str]) -> int:
        """Delete documents, and return how many were there."""

    def search(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, list[list[str]]]:
        """Find each query's `k` nearest documents, or all if there are fewer.

        Args:
            queries: `(n, dim)`.
            k: Documents a query.

        Returns:
            Cosines `(n, k)` float32, descending, and their documents' ids; ties by id, ascending.
        """

    def reconstruct(self, ids: Sequence[str]) -> np.ndarray:
        """Return the normalised embeddings of documents: `(n, dim)`."""
