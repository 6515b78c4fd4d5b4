"""Documents in Milvus: in an embedded file (Milvus Lite), on a server or in a cluster."""

from __future__ import annotations

import json
import os
import re
import weakref
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from .checks import check_ids, check_search, normalized
from .word_statistics import NO_WORD

# Limits of Milvus: bytes per id and per text, documents per query.
MAX_ID_BYTES = 1024
MAX_TEXT_BYTES = 65_535
MAX_K = 16_384
# The limit per request is 64 MB; this leaves room for what a request has beside documents.
REQUEST_BYTES = 16 * 2**20
IDS_A_REQUEST = 1000
HITS_A_REQUEST = 100_000
TEXTS = ("title", "text", "metadata")
DENSE, SPARSE = "embedding", "words"

# Number of open indexes per embedded file. Its engine runs until the last one is closed.
_users: Counter[str] = Counter()


class Entity(NamedTuple):
    """A document as it is stored.

    Args:
        id: Id, at most 1,024 bytes, without control characters.
        title: Title, at most 65,535 bytes.
        text: Text, likewise.
        metadata: Metadata as JSON text, likewise; empty for none.
        entries: What filters of a search read.
        length: Number of words.
        embedding: Embedding, `(dim,)` float32, of length 1.
        words: Weights of its words, by their dimensions. That of a document without words isn't empty, since
            Milvus stores no empty vectors: it has the dimension `NO_WORD`.
    """

    id: str
    title: str
    text: str
    metadata: str
    entries: dict[str, Any]
    length: int
    embedding: np.ndarray
    words: dict[int, float]


class MilvusIndex:
    """Documents with their embeddings and words in Milvus, which can be added, replaced and deleted.

    A change is stored when the call returns, and the next search sees it (strong consistency). The search by
    embeddings is exact or approximate depending on `index_type`; `FLAT` is exact.

    Args:
        dim: Dimension of the embeddings.
        uri: Path of a file that ends in `.db`, or address of a server or cluster, `http://host:19530`. A file
            is created if needed, and can be used by one process at a time.
        collection_name: Name of the collection. It is created if needed.
        token: `user:password` or a token, if the server needs one; by default that of the environment
            variable `MILVUS_TOKEN`. It is never saved.
        index_type: Milvus index type of the embeddings in a new collection.

    Raises:
        ImportError: If pymilvus isn't installed.
        ValueError: If `dim` is less than 1 or differs from an existing collection, or `uri` is neither a file
            ending in `.db` nor an address.
    """

    def __init__(
        self,
        dim: int,
        uri: str | os.PathLike[str] = "documents.db",
        collection_name: str = "documents",
        *,
        token: str | None = None,
        index_type: str = "AUTOINDEX",
    ):
        if dim < 1:
            raise ValueError(f"dim must be at least 1, got {dim}.")
        self.uri, self.collection_name, self._dim = checked_uri(uri), collection_name, dim
        self._client = _client(self.uri, token)
        _users[self.uri] += 1
        # Also called when the index is no longer used, or the process ends.
        self.close = weakref.finalize(self, _close, self._client, self.uri)
        """Close the connection, so that another process can open an embedded file."""
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
        counted = self._client.query(self.collection_name, filter="", output_fields=["count(*)"])
        return counted[0]["count(*)"]

    def upsert(self, entities: Sequence[Entity]) -> None:
        """Add documents, or replace them if they exist.

        Large calls are sent in several requests. If the connection breaks, some documents are stored; repeat
        the call.

        Args:
            entities: The documents, each id once, of which `check_storable` has nothing to say.
        """
        for request in _requests(entities):
            self._client.upsert(self.collection_name, [entity._asdict() for entity in request])

    def delete(self, ids: Sequence[str]) -> None:
        """Delete documents. Unknown ids are ignored.

        Args:
            ids: Ids of the documents.

        Raises:
            ValueError: If an id isn't legal. Nothing is changed then.
        """
        for condition in _conditions(_check_ids(ids)):
            self._client.delete(self.collection_name, filter=condition)

    def clear(self) -> None:
        """Delete all documents."""
        self._client.delete(self.collection_name, filter='id != ""')

    def search(self, queries: np.ndarray, k: int, condition: str = "") -> list[list[str]]:
        """Find the `k` nearest documents per query, or all documents if there are fewer.

        Args:
            queries: Embeddings, `(n, dim)`. They don't need to be normalised.
            k: Number of documents per query, at most 16,384.
            condition: Filter expression of Milvus; all documents by default.

        Returns:
            Ids of the documents per query, the nearest first. An approximate index may find fewer.

        Raises:
            ValueError: If `queries` has a wrong shape or values that aren't finite, or `k` is out of range.
        """
        queries = check_search(queries, k, self.dim, MAX_K)
        return self._search(list(normalized(queries)), DENSE, k, condition)

    def search_words(
        self, queries: Sequence[Mapping[int, float]], k: int, condition: str = ""
    ) -> list[list[str]]:
        """Find the `k` documents per query with the greatest product of their weights of words.

        Args:
            queries: Weights of words by their dimensions.
            k: Number of documents per query, at most 16,384.
            condition: Filter expression of Milvus; all documents by default.

        Returns:
            Ids of the documents per query, the best first, of those that share a word with it.

        Raises:
            ValueError: If `k` is out of range.
        """
        # Milvus refuses empty vectors.
        asked = [dict(query) or {NO_WORD - 1: 1.0} for query in queries]
        return self._search(asked, SPARSE, k, condition)

    def _search(self, queries: list[Any], field: str, k: int, condition: str) -> list[list[str]]:
        if k > MAX_K:
            raise ValueError(f"k must be at most {MAX_K} with Milvus, got {k}.")
        step = max(1, min(HITS_A_REQUEST // k, MAX_K))
        return [
            [hit["id"] for hit in hits]
            for start in range(0, len(queries), step)
            for hits in self._client.search(
                self.collection_name,
                data=queries[start : start + step],
                anns_field=field,
                limit=k,
                filter=condition,
                output_fields=["id"],
            )
        ]

    def fetch(self, ids: Sequence[str], fields: Sequence[str]) -> list[dict[str, Any]]:
        """Return documents. Unknown ids are left out.

        Args:
            ids: Ids of the documents, each once.
            fields: Names of fields of `Entity`.

        Returns:
            Their fields, in any order.
        """
        return [
            entity
            for condition in _conditions(_check_ids(ids))
            for entity in self._client.query(
                self.collection_name, filter=condition, output_fields=list(fields)
            )
        ]

    def entities(self, fields: Sequence[str]) -> Iterator[list[dict[str, Any]]]:
        """Yield all documents, some at a time.

        Args:
            fields: Names of fields of `Entity`.
        """
        iterator = self._client.query_iterator(
            self.collection_name, batch_size=IDS_A_REQUEST, output_fields=list(fields)
        )
        try:
            while found := iterator.next():
                yield found
        finally:
            iterator.close()

    def _open(self, index_type: str) -> None:
        """Create the collection, or check an existing one, and load it."""
        if not self._client.has_collection(self.collection_name):
            self._create(index_type)
        described = self._client.describe_collection(self.collection_name)["fields"]
        fields = {field["name"]: field for field in described}
        dim = fields.get(DENSE, {}).get("params", {}).get("dim")
        if set(fields) != set(Entity._fields) or int(dim) != self.dim:
            raise ValueError(
                f"Collection {self.collection_name!r} at {self.uri} must have the fields "
                f"{', '.join(Entity._fields)} and embeddings of dimension {self.dim}, "
                f"got {', '.join(fields)} and dimension {dim}."
            )
        self._client.load_collection(self.collection_name)

    def _create(self, index_type: str) -> None:
        from pymilvus import DataType

        schema = self._client.create_schema(auto_id=False, enable_dynamic_field=False)
        schema.add_field("id", DataType.VARCHAR, is_primary=True, max_length=MAX_ID_BYTES)
        for name in TEXTS:
            schema.add_field(name, DataType.VARCHAR, max_length=MAX_TEXT_BYTES)
        schema.add_field("entries", DataType.JSON)
        schema.add_field("length", DataType.INT64)
        schema.add_field(DENSE, DataType.FLOAT_VECTOR, dim=self.dim)
        schema.add_field(SPARSE, DataType.SPARSE_FLOAT_VECTOR)
        parameters = self._client.prepare_index_params()
        # Inner products of normalised embeddings are cosines, and also defined for zero vectors.
        parameters.add_index(DENSE, index_type=index_type, metric_type="IP")
        parameters.add_index(SPARSE, index_type="SPARSE_INVERTED_INDEX", metric_type="IP")
        self._client.create_collection(
            self.collection_name, schema=schema, index_params=parameters, consistency_level="Strong"
        )


def check_storable(ids: Sequence[str], texts: Mapping[str, Sequence[str]]) -> None:
    """Refuse documents that Milvus can't hold.

    Args:
        ids: Their ids.
        texts: Their texts by field, such as title and text.

    Raises:
        ValueError: If an id is too long or has control characters, or a text is too long.
    """
    _check_ids(ids)
    for field, values in texts.items():
        for document_id, text in zip(ids, values, strict=True):
            size = len(text.encode())
            if size > MAX_TEXT_BYTES:
                raise ValueError(
                    f"documents must have at most {MAX_TEXT_BYTES:,} bytes as {field} with Milvus, "
                    f"{document_id!r} has {size:,}."
                )


def checked_uri(uri: str | os.PathLike[str]) -> str:
    """Return an address as it is, and a file as an absolute path, whose folder is made.

    Raises:
        ValueError: If it is neither a file ending in `.db` nor an address.
    """
    name = os.fspath(uri)
    if "://" in name:
        return name
    if not name.endswith(".db"):
        raise ValueError(f"uri must be a file ending in .db or an address, got {name!r}.")
    path = Path(name).resolve()
    path.parent.mkdir(parents=True, exist_ok=True)
    return str(path)


def _client(uri: str, token: str | None) -> Any:
    try:
        from pymilvus import MilvusClient
    except ImportError as error:
        raise ImportError("Milvus needs pymilvus: pip install 'rrra-hf[milvus]'.") from error
    return MilvusClient(uri, token=os.environ.get("MILVUS_TOKEN", "") if token is None else token)


def _close(client: Any, uri: str) -> None:
    client.close()
    _users[uri] -= 1
    if "://" not in uri and not _users[uri]:
        from milvus_lite import server_manager_instance

        server_manager_instance.release_server(uri)


def _check_ids(ids: Sequence[str]) -> list[str]:
    ids = check_ids(ids)
    for document_id in ids:
        if len(document_id.encode()) > MAX_ID_BYTES:
            raise ValueError(f"ids must have at most {MAX_ID_BYTES} bytes, got {document_id[:50]!r}...")
        if re.search(r"[\x00-\x1f\x7f]", document_id):
            raise ValueError(f"ids must have no control characters with Milvus, got {document_id!r}.")
    return ids


def _requests(entities: Sequence[Entity]) -> Iterator[list[Entity]]:
    """Yield entities in groups that fit into a request."""
    request: list[Entity] = []
    size = 0
    for entity in entities:
        texts = (entity.id, entity.title, entity.text, entity.metadata, json.dumps(entity.entries))
        own = sum(len(text.encode()) for text in texts) + 4 * len(entity.embedding) + 8 * len(entity.words)
        if request and size + own > REQUEST_BYTES:
            yield request
            request, size = [], 0
        request.append(entity)
        size += own
    if request:
        yield request


def _conditions(ids: Sequence[str]) -> Iterator[str]:
    """Yield filters for ids, a number of ids at a time.

    Ids are escaped here because the methods of the client put them in quotes without escaping.
    """
    for start in range(0, len(ids), IDS_A_REQUEST):
        yield f"id in [{', '.join(map(quoted, ids[start : start + IDS_A_REQUEST]))}]"


def quoted(text: str) -> str:
    """Return a text as a string of Milvus's filter expressions. It has no control characters."""
    return json.dumps(text, ensure_ascii=False)
