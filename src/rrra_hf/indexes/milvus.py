"""An index of documents by id in Milvus: an embedded file (Milvus Lite), a server or a cluster."""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..embeddings import check_embeddings
from .checks import check_ids, check_search, last_of_each, normalized

# Limits of Milvus: bytes per id, documents per query.
MAX_ID_BYTES = 1024
MAX_K = 16_384
# The limit per request is 64 MB; this leaves room for the ids.
REQUEST_BYTES = 16 * 2**20
IDS_A_REQUEST = 1000
HITS_A_REQUEST = 100_000

# Number of open indexes per embedded file. Its engine runs until the last one is closed.
_users: Counter[str] = Counter()


class MilvusIndex:
    """An index with documents by id in Milvus, which can be added, replaced and deleted.

    A change is stored when the call returns, and the next search sees it (strong consistency). The search is
    exact or approximate depending on `index_type`; `FLAT` is exact.

    Args:
        dim: Dimension of the embeddings.
        uri: Path of a file that ends in `.db`, or address of a server or cluster, `http://host:19530`. A file
            is created if needed, and can be used by one process at a time.
        collection: Name of the collection. It is created if needed.
        token: `user:password` or a token, if the server needs one.
        index_type: Milvus index type of a new collection.

    Raises:
        ImportError: If pymilvus isn't installed.
        ValueError: If `dim` is less than 1 or differs from an existing collection, or `uri` is neither a file
            ending in `.db` nor an address.
    """

    def __init__(
        self,
        dim: int,
        uri: str | os.PathLike[str] = "documents.db",
        collection: str = "documents",
        *,
        token: str = "",
        index_type: str = "AUTOINDEX",
    ):
        if dim < 1:
            raise ValueError(f"dim must be at least 1, got {dim}.")
        self.uri, self.collection, self._dim = os.fspath(uri), collection, dim
        self._is_file = "://" not in self.uri
        if self._is_file:
            if not self.uri.endswith(".db"):
                raise ValueError(f"uri must be a file ending in .db or an address, got {self.uri!r}.")
            path = Path(self.uri).resolve()
            path.parent.mkdir(parents=True, exist_ok=True)
            self.uri = str(path)
        self._client = _client(self.uri, token)
        _users[self.uri] += 1
        try:
            self._open(index_type)
        except BaseException:
            self.close()
            raise

    @property
    def dim(self) -> int:
        """Dimension of the embeddings."""
        return self._dim

    def __len__(self) -> int:
        counted = self._client.query(self.collection, filter="", output_fields=["count(*)"])
        return counted[0]["count(*)"]

    def __contains__(self, document_id: str) -> bool:
        return bool(self._present(check_ids([document_id])))

    def upsert(self, ids: Sequence[str], embeddings: np.ndarray) -> None:
        """Add documents, or replace them if they exist. If an id is given twice, the last embedding counts.

        Large calls are sent in several requests. If the connection breaks, some documents are stored; repeat
        the call.

        Args:
            ids: Ids of the documents, at most 1,024 bytes each, without control characters.
            embeddings: Embeddings, `(n, dim)`. They don't need to be normalised.

        Raises:
            ValueError: If an id isn't legal, the lengths differ, or the embeddings have a wrong shape or
                values that aren't finite. Nothing is changed then.
        """
        embeddings = check_embeddings(embeddings, "embeddings", self.dim)
        positions = last_of_each(_check_ids(ids, len(embeddings)))
        names, rows = list(positions), np.fromiter(positions.values(), dtype=np.int64)
        step = max(1, REQUEST_BYTES // (4 * self.dim + MAX_ID_BYTES))
        for start in range(0, len(names), step):
            block = slice(start, start + step)
            vectors = normalized(embeddings[rows[block]])
            entities = [
                {"id": name, "embedding": vector} for name, vector in zip(names[block], vectors, strict=True)
            ]
            self._client.upsert(self.collection, entities)

    def delete(self, ids: Sequence[str]) -> int:
        """Delete documents. Unknown ids are ignored.

        Args:
            ids: Ids of the documents.

        Returns:
            Number of documents deleted.

        Raises:
            ValueError: If an id isn't legal. Nothing is changed then.
        """
        present = self._present(_check_ids(ids))
        for condition in _conditions(present):
            self._client.delete(self.collection, filter=condition)
        return len(present)

    def search(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, list[list[str]]]:
        """Find the `k` nearest documents per query, or all documents if there are fewer.

        Args:
            queries: Embeddings, `(n, dim)`. They don't need to be normalised.
            k: Number of documents per query, at most 16,384.

        Returns:
            Cosines `(n, k)` float32, descending, and the ids of the documents. Ties are sorted by id.

        Raises:
            ValueError: If `queries` has a wrong shape or values that aren't finite, `k` is out of range, or
                the index is empty.
            RuntimeError: If Milvus finds fewer than `k` documents although there are enough.
        """
        size = len(self)
        queries = check_search(queries, k, self.dim, size)
        k = min(k, size)
        if k > MAX_K:
            raise ValueError(f"k must be at most {MAX_K} with Milvus, got {k}.")
        step = max(1, min(HITS_A_REQUEST // k, MAX_K))
        found = [
            sorted((-hit["distance"], hit["id"]) for hit in hits)
            for start in range(0, len(queries), step)
            for hits in self._client.search(
                self.collection, data=list(normalized(queries[start : start + step])), limit=k
            )
        ]
        if (fewest := min(len(hits) for hits in found)) < k:
            raise RuntimeError(
                f"Milvus found {fewest} documents for a query instead of {k}; "
                "use another index_type or a smaller k."
            )
        cosines = np.array([[-negated for negated, _ in hits] for hits in found], dtype=np.float32)
        return cosines, [[document_id for _, document_id in hits] for hits in found]

    def reconstruct(self, ids: Sequence[str]) -> np.ndarray:
        """Return the normalised embeddings of documents.

        Args:
            ids: Ids of the documents.

        Returns:
            `(n, dim)` float32.

        Raises:
            KeyError: If an id is unknown.
        """
        ids = _check_ids(ids)
        vectors = {entity["id"]: entity["embedding"] for entity in self._query(ids, ["id", "embedding"])}
        for document_id in ids:
            if document_id not in vectors:
                raise KeyError(f"No document {document_id!r} in the index.")
        found = [vectors[document_id] for document_id in ids]
        return np.array(found, dtype=np.float32).reshape(len(ids), self.dim)

    def close(self) -> None:
        """Close the connection, so that another process can open an embedded file."""
        if self._client is None:
            return
        self._client.close()
        self._client = None
        _users[self.uri] -= 1
        if self._is_file and not _users[self.uri]:
            from milvus_lite import server_manager_instance

            server_manager_instance.release_server(self.uri)

    def _open(self, index_type: str) -> None:
        """Create the collection, or check an existing one, and load it."""
        if not self._client.has_collection(self.collection):
            self._create(index_type)
        fields = {
            field["name"]: field for field in self._client.describe_collection(self.collection)["fields"]
        }
        found = fields.get("embedding", {}).get("params", {}).get("dim")
        if "id" not in fields or found is None or int(found) != self.dim:
            raise ValueError(
                f"Collection {self.collection!r} at {self.uri} must have the fields id and embedding of "
                f"dimension {self.dim}, got {', '.join(fields)}, dimension {found}."
            )
        self._client.load_collection(self.collection)

    def _create(self, index_type: str) -> None:
        from pymilvus import DataType

        schema = self._client.create_schema(auto_id=False, enable_dynamic_field=False)
        schema.add_field("id", DataType.VARCHAR, is_primary=True, max_length=MAX_ID_BYTES)
        schema.add_field("embedding", DataType.FLOAT_VECTOR, dim=self.dim)
        parameters = self._client.prepare_index_params()
        # Inner products of normalised embeddings are cosines, and also defined for zero vectors.
        parameters.add_index("embedding", index_type=index_type, metric_type="IP")
        self._client.create_collection(
            self.collection, schema=schema, index_params=parameters, consistency_level="Strong"
        )

    def _present(self, ids: Sequence[str]) -> list[str]:
        return [entity["id"] for entity in self._query(list(dict.fromkeys(ids)), ["id"])]

    def _query(self, ids: Sequence[str], fields: list[str]) -> list[dict[str, Any]]:
        return [
            entity
            for condition in _conditions(ids)
            for entity in self._client.query(self.collection, filter=condition, output_fields=fields)
        ]


def _client(uri: str, token: str) -> Any:
    try:
        from pymilvus import MilvusClient
    except ImportError as error:
        raise ImportError("MilvusIndex needs pymilvus: pip install 'rrra-hf[milvus]'.") from error
    return MilvusClient(uri, token=token)


def _check_ids(ids: Sequence[str], count: int | None = None) -> list[str]:
    ids = check_ids(ids, count)
    for document_id in ids:
        if len(document_id.encode()) > MAX_ID_BYTES:
            raise ValueError(f"ids must have at most {MAX_ID_BYTES} bytes, got {document_id[:50]!r}...")
        if re.search(r"[\x00-\x1f\x7f]", document_id):
            raise ValueError(f"ids must have no control characters with Milvus, got {document_id!r}.")
    return ids


def _conditions(ids: Sequence[str]) -> Iterator[str]:
    """Yield filters for ids, a number of ids at a time.

    Ids are escaped here because the methods of the client put them in quotes without escaping.
    """
    for start in range(0, len(ids), IDS_A_REQUEST):
        quoted = (json.dumps(name, ensure_ascii=False) for name in ids[start : start + IDS_A_REQUEST])
        yield f"id in [{', '.join(quoted)}]"
