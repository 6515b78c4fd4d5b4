"""The interface of the indexes."""

from __future__ import annotations

import os
from typing import Protocol

import numpy as np


class Index(Protocol):
    """An index of document embeddings that is searched by cosine. Documents have row numbers."""

    @property
    def dim(self) -> int:
        """Dimension of the embeddings."""

    def __len__(self) -> int: ...

    def search(
        self, queries: np.ndarray, k: int, allowed: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Find the `k` nearest documents per query, or all documents if there are fewer.

        Args:
            queries: Query embeddings, `(n, dim)`.
            k: Number of documents per query.
            allowed: Rows of the documents to search among, ascending; all by default.

        Returns:
            Cosines `(n, k)` float32, descending, and rows `(n, k)` int64. Ties are sorted by row.
        """

    def reconstruct(self, rows: np.ndarray) -> np.ndarray:
        """Return the normalised embeddings of documents, rows `(...)` to `(..., dim)`."""

    def updated(self, kept: np.ndarray, embeddings: np.ndarray | None = None) -> Index:
        """Return an index of some of the documents and, after them, of others. This one stays as it is.

        Args:
            kept: Rows of the documents to keep, ascending.
            embeddings: Embeddings of the others, `(n, dim)`; none by default.
        """

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the index to a file or folder. A partial one is never left."""
