"""Read records and their locations from files, by the reader of their format, and from datasets."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from pathlib import Path

from datasets import Dataset

from .csv_files import read_csv
from .jsonl import read_jsonl
from .parquet_files import read_parquet_rows
from .problems import Location, Problems, Record
from .text_files import COMPRESSIONS
from .tsv import read_tsv

BATCH_SIZE = 1000

Reader = Callable[[Path, Problems], Iterator[tuple[Location, Record]]]
_READERS: dict[str, Reader] = {
    ".jsonl": read_jsonl,
    ".csv": read_csv,
    ".tsv": read_tsv,
    ".parquet": read_parquet_rows,
}
FORMATS = tuple(_READERS)


def read_records(
    path: Path, problems: Problems, columns: Collection[str] = ()
) -> Iterator[tuple[Location, Record]]:
    """Yield each record of a JSONL, CSV, TSV or Parquet file with its location.

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
    if format_of(path) is None:
        raise ValueError(f"{path} has an unknown format; supported are {', '.join(FORMATS)}.")
    if format_of(path) == ".tsv":
        return read_tsv(path, problems, columns)
    return _READERS[format_of(path) or ""](path, problems)


def format_of(path: Path) -> str | None:
    """Return the suffix that tells the format of a file, without that of its compression.

    Example:
        >>> format_of(Path("corpus.jsonl.gz")), format_of(Path("scifact"))
        ('.jsonl', None)
    """
    suffix = Path(path.stem).suffix if path.suffix in COMPRESSIONS else path.suffix
    if suffix == ".parquet" and path.suffix in COMPRESSIONS:
        return None
    return suffix if suffix in _READERS else None


def read_dataset(name: str, dataset: Dataset) -> Iterator[tuple[Location, Record]]:
    """Yield each row of a dataset with its location. Rows are counted from 0."""
    number = 0
    for columns in dataset.with_format(None).iter(batch_size=BATCH_SIZE):
        for values in zip(*columns.values(), strict=True):
            yield Location(name, number, "row"), dict(zip(columns, values, strict=True))
            number += 1
