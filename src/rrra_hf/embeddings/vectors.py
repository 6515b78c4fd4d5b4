"""Read embeddings from a vector database or file, to fit an adapter and rerank without encoding again.

Embeddings don't need to fit in memory. They are memory-mapped, or copied to a temporary file that is deleted
together with the array.
"""

from __future__ import annotations

import os
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ..data.parquet_files import allowed_bytes, open_parquet, text_bytes
from .checks import check_embeddings
from .storage import scratch_matrix

if TYPE_CHECKING:
    from pymilvus import MilvusClient


@dataclass(frozen=True, eq=False)
class Vectors:
    """Embeddings with ids. Pass `embeddings` to `fit_adapter`.

    Args:
        ids: Ids of the documents or queries.
        embeddings: `(n, dim)`, usually memory-mapped.

    Raises:
        ValueError: If an id occurs twice, the lengths differ, or a value isn't finite.

    Example:
        >>> vectors = Vectors(["a", "b"], np.eye(2, dtype=np.float32))
        >>> vectors.row_of["b"]
        1
    """

    ids: list[str]
    embeddings: np.ndarray

    def __post_init__(self) -> None:
        check_embeddings(self.embeddings, "embeddings")
        if len(self.ids) != len(self.embeddings):
            raise ValueError(
                f"ids must have one entry per embedding ({len(self.embeddings)}), got {len(self.ids)}."
            )
        if len(self.row_of) < len(self.ids):
            repeated, count = Counter(self.ids).most_common(1)[0]
            raise ValueError(f"ids must be unique, {repeated!r} occurs {count} times.")

    @cached_property
    def row_of(self) -> dict[str, int]:
        """Row number per id, to convert labels to the `positives` of `fit_adapter`, and hits to rows."""
        return {name: row for row, name in enumerate(self.ids)}


def read_milvus(
    client: MilvusClient,
    collection_name: str,
    *,
    id_field: str = "id",
    vector_field: str = "vector",
    batch_size: int = 1000,
    scratch_dir: str | os.PathLike[str] | None = None,
) -> Vectors:
    """Read all embeddings of a Milvus collection, from a file or a cluster.

    Args:
        client: The client.
        collection_name: Name of the collection. It must be loaded, and must not change while it is read.
        id_field: Field with the ids. Integers are converted to strings.
        vector_field: Field with the embeddings, dense floats.
        batch_size: Number of entities per request.
        scratch_dir: Folder for the temporary file with the embeddings, by default that of the system.

    Raises:
        ValueError: If a field is missing, the collection is empty, or it changed while it was read.

    Example:
        >>> from pymilvus import MilvusClient  # doctest: +SKIP
        >>> vectors = read_milvus(MilvusClient("documents.db"), "documents")  # doctest: +SKIP
    """
    fields = client.describe_collection(collection_name)["fields"]
    kinds = {field["name"]: field["type"].name for field in fields}
    if id_field not in kinds:
        raise ValueError(f"id_field must be a field of {collection_name}, {list(kinds)}, got {id_field!r}.")
    if kinds.get(vector_field) != "FLOAT_VECTOR":
        raise ValueError(
            f"vector_field must be a FLOAT_VECTOR field of {collection_name}, {kinds}, got {vector_field!r}."
        )
    strong = {"consistency_level": "Strong"}
    count = client.query(collection_name, filter="", output_fields=["count(*)"], **strong)[0]["count(*)"]

    def batches() -> Iterator[tuple[list[str], np.ndarray]]:
        iterator = client.query_iterator(
            collection_name, batch_size=batch_size, output_fields=[id_field, vector_field], **strong
        )
        try:
            while found := iterator.next():
                vectors = np.array([entity[vector_field] for entity in found], dtype=np.float32)
                yield [str(entity[id_field]) for entity in found], vectors
        finally:
            iterator.close()

    return _gather(batches(), count, f"The collection {collection_name}", scratch_dir)


def read_parquet(
    path: str | os.PathLike[str],
    *,
    id_column: str = "id",
    vector_column: str = "embedding",
    batch_size: int = 4096,
    scratch_dir: str | os.PathLike[str] | None = None,
) -> Vectors:
    """Read embeddings from a Parquet file, or from all `*.parquet` files of a folder, sorted by name.

    Args:
        path: The file or folder.
        id_column: Column with the ids. Integers are converted to strings.
        vector_column: Column with the embeddings, lists of floats of equal length.
        batch_size: Number of rows to read at a time.
        scratch_dir: Folder for the temporary file with the embeddings, by default that of the system.

    Raises:
        FileNotFoundError: If the file doesn't exist.
        ValueError: If a file is damaged, a column is missing, or a row has a list of another length. The
            message has the file and the row.

    Example:
        >>> path = Path(tempfile.mkdtemp()) / "vectors.parquet"
        >>> pq.write_table(pa.table({"id": [7, 8], "embedding": [[1.0, 0.0], [0.0, 1.0]]}), path)
        >>> read_parquet(path).ids
        ['7', '8']
    """
    path = Path(path)
    files = sorted(path.glob("*.parquet")) if path.is_dir() else [path]
    if not files or not files[0].exists():
        raise FileNotFoundError(f"No Parquet file at {path}.")
    count = 0
    for file in files:
        with _open_parquet(file, id_column, vector_column) as parquet:
            count += parquet.metadata.num_rows

    def batches() -> Iterator[tuple[list[str], np.ndarray]]:
        for file in files:
            with _open_parquet(file, id_column, vector_column) as parquet:
                row = 0
                for batch in parquet.iter_batches(batch_size, columns=[id_column, vector_column]):
                    if text_bytes(batch.column(id_column)) > allowed_bytes(file):
                        raise ValueError(f"{file} is not meant to be read: its ids are too long.")
                    names = [str(name) for name in batch.column(id_column).to_pylist()]
                    yield names, _matrix(batch.column(vector_column), file, row)
                    row += len(batch)

    return _gather(batches(), count, str(path), scratch_dir)


def read_npy(path: str | os.PathLike[str], ids: Sequence[str] | None = None) -> Vectors:
    """Open a file written by `numpy.save`, memory-mapped.

    Args:
        path: File with an array, `(n, dim)`.
        ids: Ids of the rows, by default their positions.

    Raises:
        FileNotFoundError: If the file doesn't exist.
        ValueError: If the file is damaged or has other content. Pickled objects are never read.

    Example:
        >>> path = Path(tempfile.mkdtemp()) / "vectors.npy"
        >>> np.save(path, np.eye(2))
        >>> read_npy(path).ids
        ['0', '1']
    """
    try:
        embeddings = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise
    except Exception as error:  # What NumPy raises for a damaged header is of many kinds.
        raise ValueError(f"{path} is damaged or has no array of numbers: {error}") from error
    if not isinstance(embeddings, np.ndarray):
        raise ValueError(f"{path} must have one array, got an archive of several.")
    return Vectors([str(row) for row in range(len(embeddings))] if ids is None else list(ids), embeddings)


def _open_parquet(file: Path, id_column: str, vector_column: str) -> pq.ParquetFile:
    parquet = open_parquet(file)
    schema = parquet.schema_arrow
    for argument, name in (("id_column", id_column), ("vector_column", vector_column)):
        if name not in schema.names:
            raise ValueError(f"{argument} must be a column of {file}, {schema.names}, got {name!r}.")
    kind = schema.field(vector_column).type
    # Texts are opened as dictionaries.
    shown = kind.value_type if pa.types.is_dictionary(kind) else kind
    if not hasattr(kind, "value_type") or not pa.types.is_floating(kind.value_type):
        raise ValueError(f"{file} must have lists of floats as {vector_column}, got {shown}.")
    return parquet


def _matrix(column: pa.Array, file: Path, first_row: int) -> np.ndarray:
    """Return lists of equal length as an array, `(n, dim)`."""
    lengths = pc.list_value_length(column).to_numpy(zero_copy_only=False)
    odd = np.flatnonzero((lengths != lengths[0]) | ~column.is_valid().to_numpy(zero_copy_only=False))
    if len(odd):
        raise ValueError(
            f"{file} must have embeddings of one dimension, got {column[odd[0]].as_py()} in row "
            f"{first_row + odd[0]} and {lengths[0]} dimensions in row {first_row}."
        )
    return column.flatten().to_numpy(zero_copy_only=False).reshape(len(column), -1)


def _gather(
    batches: Iterator[tuple[list[str], np.ndarray]],
    count: int,
    source: str,
    scratch_dir: str | os.PathLike[str] | None,
) -> Vectors:
    """Concatenate batches of ids and embeddings, the embeddings in a temporary file."""
    if count == 0:
        raise ValueError(f"{source} has no embeddings.")
    ids: list[str] = []
    embeddings = np.empty((0, 0), dtype=np.float32)
    with tempfile.TemporaryFile(dir=scratch_dir) as scratch:
        for names, block in batches:
            if not ids:
                embeddings = scratch_matrix(scratch, count, block.shape[1])
            end = len(ids) + len(names)
            if block.shape[1] != embeddings.shape[1]:
                raise ValueError(
                    f"{source} must have embeddings of one dimension, got {block.shape[1]} in row {len(ids)} "
                    f"and {embeddings.shape[1]} before."
                )
            if end <= count:
                embeddings[len(ids) : end] = block
            ids += names
    if len(ids) != count:
        raise ValueError(f"{source} changed while it was read: {len(ids)} embeddings, {count} before.")
    return Vectors(ids, embeddings)
