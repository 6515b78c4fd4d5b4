"""Read blocks of records from files, by the reader of their format, and from datasets."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from functools import partial
from pathlib import Path

import pyarrow as pa
from datasets import Dataset, Value

from .blocks import Block, Columns, Records, valid_columns
from .csv_files import read_csv
from .jsonl import read_jsonl
from .parquet_files import read_parquet
from .problems import Location, Problems
from .text_files import COMPRESSIONS
from .tsv import read_tsv

BATCH_SIZE = 1000

FORMATS = (".jsonl", ".csv", ".tsv", ".parquet")


def read_file(path: Path, problems: Problems, columns: Collection[str] = ()) -> Iterator[Block]:
    """Yield the records of a JSONL, CSV, TSV or Parquet file, in blocks.

    All but Parquet may be compressed, with the suffix `.gz` or `.zst` after that of the format.

    Args:
        path: The file.
        problems: Handles bad records.
        columns: Names that tell that the first line of a TSV file is its header. Collections and triples of
            MS MARCO have none.

    Raises:
        FileNotFoundError: If the file doesn't exist.
        ValueError: If the file has another suffix, or a record is malformed and `problems` raises.
    """
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {path}.")
    suffix = format_of(path)
    if suffix is None:
        raise ValueError(f"{path} has an unknown format; supported are {', '.join(FORMATS)}.")
    if suffix == ".jsonl":
        return read_jsonl(path, problems)
    if suffix == ".parquet":
        return read_parquet(path, problems)
    records = read_tsv(path, problems, columns) if suffix == ".tsv" else read_csv(path, problems)
    return iter([Block(records)])


def format_of(path: Path) -> str | None:
    """Return the suffix that tells the format of a file, without that of its compression.

    Example:
        >>> format_of(Path("corpus.jsonl.gz")), format_of(Path("scifact"))
        ('.jsonl', None)
    """
    suffix = Path(path.stem).suffix if path.suffix in COMPRESSIONS else path.suffix
    if suffix == ".parquet" and path.suffix in COMPRESSIONS:
        return None
    return suffix if suffix in FORMATS else None


def read_dataset(name: str, dataset: Dataset) -> Iterator[Block]:
    """Yield the rows of a dataset in blocks. Rows are counted from 0."""
    for start in range(0, len(dataset), BATCH_SIZE):
        first, rows = Location(name, start, "row"), range(start, min(start + BATCH_SIZE, len(dataset)))
        yield Block(_dataset_records(first, dataset, rows), partial(_dataset_columns, first, dataset, rows))


def _dataset_records(first: Location, dataset: Dataset, rows: range) -> Records:
    columns = dataset.with_format(None)[rows.start : rows.stop]
    for number, values in zip(rows, zip(*columns.values(), strict=True), strict=True):
        yield first._replace(number=number), dict(zip(columns, values, strict=True))


def _dataset_columns(first: Location, dataset: Dataset, rows: range) -> Columns | None:
    # Values of other kinds aren't what Arrow holds.
    plain = [name for name, feature in dataset.features.items() if isinstance(feature, Value)]
    return valid_columns(first, dataset.with_format("arrow")[rows.start : rows.stop].select(plain))


def read_arrow(name: str, table: pa.Table) -> Iterator[Block]:
    """Yield the rows of an Arrow table in blocks. Rows are counted from 0."""
    first = Location(name, 0, "row")
    for batch in table.to_batches(max_chunksize=BATCH_SIZE):
        yield Block(_batch_records(first, batch), partial(valid_columns, first, pa.table(batch)))
        first = first._replace(number=first.number + batch.num_rows)


def _batch_records(first: Location, batch: pa.RecordBatch) -> Records:
    for number, record in enumerate(batch.to_pylist(), first.number):
        yield first._replace(number=number), record
