"""Parquet files, opened only if what they hold is in proportion to their size.

A file of a kilobyte may hold one text of a gigabyte, or the same text a million times.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import partial
from itertools import chain
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from .blocks import Block, Records, valid_columns
from .problems import Location, Problems, Record

# Contents that are larger than this, and larger than a hundred times the file, are not read: texts and
# embeddings are compressed to a tenth.
FREE_BYTES = 64 * 2**20
RATIO = 100
# Bytes per value once it is read; for texts, those of its place.
WIDTHS = {"BOOLEAN": 1, "INT32": 4, "FLOAT": 4}
DEFAULT_WIDTH = 8
# Rows read at a time, of numbers and of texts. A row group's texts are read at once, and each batch has them.
BATCH_SIZE = 262_144
TEXTS = 65_536
# Records made at a time.
RECORDS = 1000


def open_parquet(path: str | os.PathLike[str]) -> pq.ParquetFile:
    """Open a Parquet file after comparing what it declares to hold with its size.

    Columns of texts are read as dictionaries: a text that is stored once is read once. Before you repeat it
    as often as it occurs, compare `text_bytes` with `allowed_bytes`.

    Args:
        path: The file.

    Raises:
        FileNotFoundError: If the file doesn't exist.
        ValueError: If it isn't a Parquet file, is damaged, or declares more than its size allows. The message
            names it.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "notes.parquet"
        >>> pq.write_table(pa.table({"text": ["a fish", "a fish"]}), path)
        >>> open_parquet(path).read()["text"].to_pylist()
        ['a fish', 'a fish']
    """
    try:
        with pq.ParquetFile(path) as file:
            schema, metadata = file.schema, file.metadata
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, FileNotFoundError):
            raise
        raise ValueError(f"{path} is damaged or not a Parquet file: {error}") from error
    declared, allowed = _declared_bytes(metadata), allowed_bytes(path)
    if declared > allowed:
        raise ValueError(
            f"{path} is damaged or not meant to be read: it has {Path(path).stat().st_size:,} bytes and "
            f"declares {declared:,}; {allowed:,} are allowed."
        )
    columns = [schema.column(number) for number in range(len(schema))]
    texts = [column.path for column in columns if column.physical_type == "BYTE_ARRAY"]
    return pq.ParquetFile(path, read_dictionary=texts)


def read_batches(
    path: str | os.PathLike[str], batch_size: int, *, check_texts: bool = True
) -> Iterator[pa.RecordBatch]:
    """Yield the rows of a Parquet file, texts as dictionaries.

    Args:
        path: The file.
        batch_size: Rows at a time.
        check_texts: Refuse a file with a text that isn't UTF-8. Otherwise whoever reads the texts finds it.

    Raises:
        FileNotFoundError: If the file doesn't exist.
        ValueError: If it isn't a Parquet file, is damaged, or holds more than its size allows; the message
            names it.
    """
    size, allowed = 0, allowed_bytes(path)
    with open_parquet(path) as file:
        # Before pyarrow 19, a file without a row group can't be iterated over.
        batches = file.iter_batches(batch_size=batch_size) if file.num_row_groups else iter(())
        while True:
            try:
                batch = next(batches)
                if check_texts:
                    batch.validate(full=True)
                else:
                    _validate_but_texts(batch)
                size += sum(map(text_bytes, batch.columns))
            except StopIteration:
                return
            except (pa.ArrowException, OSError) as error:
                raise ValueError(f"{path} is damaged: {error}") from error
            if size > allowed:
                raise ValueError(
                    f"{path} is not meant to be read: its texts have more than {allowed:,} bytes."
                )
            yield batch


def read_parquet(path: Path, problems: Problems) -> Iterator[Block]:
    """Yield the rows of a Parquet file in blocks. Texts that aren't UTF-8 are reported."""
    number = 1
    for batch in read_batches(path, TEXTS, check_texts=False):
        first = Location(str(path), number, "row")
        yield Block(_records(first, batch, problems), partial(valid_columns, first, pa.table(batch)))
        number += batch.num_rows


def _records(first: Location, batch: pa.RecordBatch, problems: Problems) -> Records:
    parts = (batch.slice(start, RECORDS) for start in range(0, batch.num_rows, RECORDS))
    for number, record in enumerate(chain.from_iterable(map(_decoded, parts)), first.number):
        location = first._replace(number=number)
        if isinstance(record, UnicodeDecodeError):
            problems.report(location, "undecodable bytes", f"not UTF-8 ({record})")
        else:
            yield location, record


def _decoded(batch: pa.RecordBatch) -> Iterator[Record | UnicodeDecodeError]:
    try:
        yield from batch.to_pylist()
    except UnicodeDecodeError:
        for row in range(batch.num_rows):
            try:
                yield batch.slice(row, 1).to_pylist()[0]
            except UnicodeDecodeError as error:
                yield error


def read_columns(path: str | os.PathLike[str], schema: pa.Schema) -> pa.Table:
    """Read the columns of a schema from a Parquet file, in its types.

    Args:
        path: The file.
        schema: Names and types of the columns.

    Raises:
        FileNotFoundError: If the file doesn't exist.
        ValueError: As `read_batches`, or if the file lacks a column or has one of another type.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "notes.parquet"
        >>> pq.write_table(pa.table({"text": ["a fish", "a fish"]}), path)
        >>> read_columns(path, pa.schema({"text": pa.large_string()}))["text"].to_pylist()
        ['a fish', 'a fish']
    """
    batches = [schema.empty_table()]
    for batch in read_batches(path, BATCH_SIZE):
        found = {field.name: _kind(field.type) for field in batch.schema}
        for field in schema:
            if found.get(field.name) != _kind(field.type):
                raise ValueError(
                    f"{path} is damaged: its column {field.name!r} must be of type {_kind(field.type)}, "
                    f"got {found.get(field.name)}."
                )
        batches.append(pa.table(batch).select(schema.names).cast(schema))
    return pa.concat_tables(batches)


def _validate_but_texts(batch: pa.RecordBatch) -> None:
    """Raise if a batch is damaged, whatever the bytes of its texts."""
    for column in batch.columns:
        if column.type == pa.dictionary(pa.int32(), pa.string()):
            column.indices.validate(full=True)
            # Indices beyond the dictionary are found by `text_bytes`.
            column = column.dictionary.view(pa.binary())
        column.validate(full=True)


def _kind(column: pa.DataType) -> str:
    """Return the name of a type, however it is stored."""
    if pa.types.is_dictionary(column):
        return _kind(column.value_type)
    if pa.types.is_list(column) or pa.types.is_large_list(column):
        return f"list of {_kind(column.value_type)}"
    return str(column).removeprefix("large_")


def allowed_bytes(path: str | os.PathLike[str]) -> int:
    """Return how many bytes a file may hold once it is read: 64 MB, or a hundred times its size."""
    return max(FREE_BYTES, RATIO * Path(path).stat().st_size)


def text_bytes(column: pa.Array) -> int:
    """Return the size of all texts of a column, each as often as it occurs.

    Args:
        column: Array of a file that `open_parquet` opened.

    Example:
        >>> text_bytes(pa.array(["a fish", "a fish"]).dictionary_encode())
        12
    """
    if pa.types.is_nested(column.type):
        parts = column.flatten()
        return sum(map(text_bytes, parts if isinstance(parts, list) else [parts]))
    if not pa.types.is_dictionary(column.type):
        return 0
    return pc.sum(pc.take(pc.binary_length(column.dictionary), column.indices)).as_py() or 0


def _declared_bytes(metadata: pq.FileMetaData) -> int:
    chunks = [
        metadata.row_group(group).column(number)
        for group in range(metadata.num_row_groups)
        for number in range(metadata.num_columns)
    ]
    return metadata.num_rows + sum(
        max(chunk.total_uncompressed_size, chunk.num_values * WIDTHS.get(chunk.physical_type, DEFAULT_WIDTH))
        for chunk in chunks
    )
