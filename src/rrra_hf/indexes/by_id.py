"""An index of documents by id, on top of an index of rows."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ..data.parquet_files import read_columns
from ..embeddings import check_embeddings
from .checks import check_ids, check_search, last_of_each
from .choose import load_index, make_index
from .folder import current_folder, new_current_folder

logger = logging.getLogger(__name__)

VECTORS_NAME = "vectors"
IDS_NAME = "ids.parquet"
IDS_SCHEMA = pa.schema({"id": pa.string()})
BLOCK_SIZE = 16_384


class FaissDocumentIndex:
    """An index with documents by id, which can be added, replaced and deleted. It uses FAISS on one machine.

    Rows of deleted or replaced documents remain in the underlying index, and searches skip them. If more than
    half of the rows are deleted, the index is rebuilt. Ids are kept in memory and take about 150 bytes per
    document. For more than a few tens of millions of documents, use `MilvusIndex`.

    Args:
        dim: Dimension of the embeddings.
        count: Approximate number of documents.
        kind: Kind of index, see `make_index`.
        seed: Random seed for training approximate indexes.

    Raises:
        ValueError: If an argument is out of range.

    Example:
        >>> index = FaissDocumentIndex(2, count=10)
        >>> index.upsert(["a", "b"], np.array([[1.0, 0.0], [0.0, 1.0]]))
        >>> index.upsert(["b", "c"], np.array([[0.6, 0.8], [0.0, 1.0]]))
        >>> index.delete(["a", "unknown"])
        1
        >>> cosines, ids = index.search(np.array([[1.0, 0.0]]), k=5)
        >>> ids, cosines.round(1).tolist()
        ([['b', 'c']], [[0.6000000238418579, 0.0]])
    """

    def __init__(self, dim: int, count: int, kind: str = "auto", *, seed: int = 0):
        self.count, self.kind, self.seed = count, kind, seed
        self._index = make_index(dim, count, kind, seed=seed)
        # None for rows of deleted or replaced documents.
        self._ids: list[str | None] = []
        self._row_of: dict[str, int] = {}

    @property
    def dim(self) -> int:
        """Dimension of the embeddings."""
        return self._index.dim

    @property
    def ids(self) -> list[str]:
        """Ids of all documents, the oldest embedding first."""
        return [document_id for document_id in self._ids if document_id is not None]

    def __len__(self) -> int:
        return len(self._row_of)

    def __contains__(self, document_id: str) -> bool:
        return document_id in self._row_of

    def upsert(self, ids: Sequence[str], embeddings: np.ndarray) -> None:
        """Add documents, or replace them if they exist. If an id is given twice, the last embedding counts.

        Args:
            ids: Ids of the documents.
            embeddings: Embeddings, `(n, dim)`. They don't need to be normalised.

        Raises:
            ValueError: If an id isn't a string or is empty, the lengths differ, or the embeddings have a
                wrong shape or values that aren't finite. Nothing is changed then.
        """
        embeddings = check_embeddings(embeddings, "embeddings", self.dim)
        positions = last_of_each(check_ids(ids, len(embeddings)))
        if len(positions) < len(embeddings):
            embeddings = embeddings[list(positions.values())]
        first = len(self._ids)
        self._index.add(embeddings)
        self._forget(positions)
        self._ids.extend(positions)
        self._row_of.update((document_id, row) for row, document_id in enumerate(positions, first))
        self._compact_if_sparse()

    def delete(self, ids: Sequence[str]) -> int:
        """Delete documents. Unknown ids are ignored.

        Args:
            ids: Ids of the documents.

        Returns:
            Number of documents deleted.

        Raises:
            ValueError: If an id isn't a string or is empty. Nothing is changed then.
        """
        before = len(self)
        self._forget(check_ids(ids))
        deleted = before - len(self)
        self._compact_if_sparse()
        return deleted

    def search(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, list[list[str]]]:
        """Find the `k` nearest documents per query, or all documents if there are fewer.

        Args:
            queries: Embeddings, `(n, dim)`. They don't need to be normalised.
            k: Number of documents per query.

        Returns:
            Cosines `(n, k)` float32, descending, and the ids of the documents. Ties are sorted by id.

        Raises:
            ValueError: If `queries` has a wrong shape or values that aren't finite, `k` is less than 1, or
                the index is empty.
        """
        queries = check_search(queries, k, self.dim, len(self))
        k = min(k, len(self))
        wanted = math.ceil(k * len(self._ids) / len(self))
        found = self._search_living(queries, wanted)
        while min(len(hits) for hits in found) < k:
            wanted = min(2 * wanted, len(self._ids))
            found = self._search_living(queries, wanted)
        cosines = np.array([[-negated for negated, _ in hits[:k]] for hits in found], dtype=np.float32)
        return cosines, [[document_id for _, document_id in hits[:k]] for hits in found]

    def reconstruct(self, ids: Sequence[str]) -> np.ndarray:
        """Return the normalised embeddings of documents.

        Args:
            ids: Ids of the documents.

        Returns:
            `(n, dim)` float32.

        Raises:
            KeyError: If an id is unknown.
        """
        for document_id in ids:
            if document_id not in self:
                raise KeyError(f"No document {document_id!r} in the index.")
        return self._index.reconstruct(
            np.array([self._row_of[document_id] for document_id in ids], dtype=int)
        )

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the index to a folder. A partial index is never left."""
        meta = {"dim": self.dim, "count": self.count, "kind": self.kind, "seed": self.seed}
        with new_current_folder(path, {**meta, "rows": len(self._ids)}) as folder:
            self._index.save(folder / VECTORS_NAME)
            pq.write_table(pa.table({"id": self._ids}, schema=IDS_SCHEMA), folder / IDS_NAME)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> FaissDocumentIndex:
        """Read an index written by `save`.

        Raises:
            FileNotFoundError: If the folder doesn't exist.
            ValueError: If a file is missing, damaged or doesn't match the others.
        """
        folder, meta = current_folder(path, ("dim", "count", "kind", "seed", "rows"))
        rows, dim = meta.pop("rows"), meta["dim"]
        try:
            # The index itself is read, not made.
            index = cls(**{**meta, "dim": 1})
            index._index = load_index(folder / VECTORS_NAME)
            index._ids = read_columns(folder / IDS_NAME, IDS_SCHEMA)["id"].to_pylist()
        except (OSError, TypeError, ValueError) as error:
            raise ValueError(f"{folder} is damaged: {error}") from error
        if (len(index._ids), len(index._index), index.dim) != (rows, rows, dim):
            raise ValueError(
                f"{folder} is damaged: it holds {len(index._ids)} ids and {len(index._index)} embeddings "
                f"of dimension {index.dim}, not {rows} of {dim}."
            )
        index._row_of = {
            document_id: row for row, document_id in enumerate(index._ids) if document_id is not None
        }
        if "" in index._row_of or len(index._row_of) < len(index.ids):
            raise ValueError(f"{folder / IDS_NAME} is damaged: ids are empty or repeat.")
        return index

    def _forget(self, ids: Sequence[str] | dict[str, int]) -> None:
        for document_id in ids:
            row = self._row_of.pop(document_id, None)
            if row is not None:
                self._ids[row] = None

    def _search_living(self, queries: np.ndarray, wanted: int) -> list[list[tuple[float, str]]]:
        """Search `wanted` rows per query, and return those not deleted, as sorted (-cosine, id)."""
        cosines, rows = self._index.search(queries, wanted)
        return [
            sorted((-cosine, name) for cosine, row in zip(*hits, strict=True) if (name := self._ids[row]))
            for hits in zip(cosines.tolist(), rows.tolist(), strict=True)
        ]

    def _compact_if_sparse(self) -> None:
        """Rebuild the index if more than half of its rows are deleted, so the cost per change stays low."""
        if len(self._ids) <= 2 * len(self):
            return
        logger.info("Rebuilding the index with %d documents of %d rows.", len(self), len(self._ids))
        index = make_index(self.dim, self.count, self.kind, seed=self.seed)
        rows = np.array(
            [row for row, document_id in enumerate(self._ids) if document_id is not None], dtype=int
        )
        for start in range(0, len(rows), BLOCK_SIZE):
            index.add(self._index.reconstruct(rows[start : start + BLOCK_SIZE]))
        self._index = index
        self._ids = [*self.ids]
        self._row_of = {document_id: row for row, document_id in enumerate(self.ids)}
