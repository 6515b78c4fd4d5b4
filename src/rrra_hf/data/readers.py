"""Read records and their locations from JSONL, CSV, TSV and Parquet files and from datasets."""

from __future__ import annotations

import csv
import json
import logging
import reprlib
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from datasets import Dataset

from .parquet_files import read_batches

logger = logging.getLogger(__name__)

Record = dict[str, Any]

BATCH_SIZE = 1000
_REPR = reprlib.Repr()
_REPR.maxstring = _REPR.maxother = _REPR.maxlong = 80
_REPR.maxlist = 20


class Location(NamedTuple):
    """Location of a record, such as `corpus.jsonl, line 3`."""

    source: str
    number: int
    unit: str = "line"

    def __str__(self) -> str:
        return f"{self.source}, {self.unit} {self.number}"


class Problems:
    """Handles bad records: raises an error with their location, or counts them.

    Args:
        skip_bad: Count bad records instead of raising.

    Example:
        >>> problems = Problems(skip_bad=True)
        >>> problems.report(Location("corpus.jsonl", 3), "empty text", "document 'd1' has no text")
        >>> problems.skipped
        Counter({'empty text': 1})
    """

    def __init__(self, skip_bad: bool = False):
        self.skip_bad = skip_bad
        self.skipped: Counter[str] = Counter()

    def report(self, location: Location, reason: str, message: str) -> None:
        """Raise a `ValueError` with location and message, or count the reason."""
        if not self.skip_bad:
            raise ValueError(f"{location}: {message}.")
        logger.debug("%s: %s; skipped.", location, message)
        self.skipped[reason] += 1


def brief(value: object) -> str:
    """Return how a value looks in Python, on one short line however long and deep it is.

    Example:
        >>> brief([[[[[[[["deep"]]]]]]]])
        '[[[[[[[...]]]]]]]'
    """
    return _REPR.repr(value)


def read_records(path: Path, problems: Problems) -> Iterator[tuple[Location, Record]]:
    """Yield each record of a JSONL, CSV, TSV or Parquet file with its location.

    Raises:
        FileNotFoundError: If the file doesn't exist.
        ValueError: If the file has another suffix, or a record is malformed and `problems` raises.
    """
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {path}.")
    if path.suffix not in _READERS:
        raise ValueError(f"{path} has an unknown format; supported are {', '.join(FORMATS)}.")
    return _READERS[path.suffix](path, problems)


def read_dataset(name: str, dataset: Dataset) -> Iterator[tuple[Location, Record]]:
    """Yield each row of a dataset with its location. Rows are counted from 0."""
    number = 0
    for columns in dataset.with_format(None).iter(batch_size=BATCH_SIZE):
        for values in zip(*columns.values(), strict=True):
            yield Location(name, number, "row"), dict(zip(columns, values, strict=True))
            number += 1


def read_rows(path: Path, delimiter: str, problems: Problems) -> Iterator[tuple[Location, list[str]]]:
    """Yield the fields of each row of a delimited file. Empty lines are skipped."""
    # The default limit of 131,072 characters per field is too low for some documents.
    csv.field_size_limit(min(sys.maxsize, 2**31 - 1))
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        reader = csv.reader(file, delimiter=delimiter, strict=True)
        while True:
            location = Location(str(path), reader.line_num + 1)
            try:
                row = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                problems.report(location, "malformed line", f"not a row of delimited fields ({error})")
                continue
            if row and _decodable(location, "".join(row), problems):
                yield location, row


def _read_csv(path: Path, problems: Problems) -> Iterator[tuple[Location, Record]]:
    rows = read_rows(path, "\t" if path.suffix == ".tsv" else ",", problems)
    _, header = next(rows, (None, []))
    for location, row in rows:
        if len(row) == len(header):
            yield location, dict(zip(header, row, strict=True))
        else:
            message = f"{len(row)} fields where the header has {len(header)}"
            problems.report(location, "malformed line", message)


def _read_jsonl(path: Path, problems: Problems) -> Iterator[tuple[Location, Record]]:
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="\n") as file:
        for number, line in enumerate(file, start=1):
            location = Location(str(path), number)
            if line.isspace() or not _decodable(location, line, problems):
                continue
            try:
                record = json.loads(line)
            # Python refuses integers of thousands of digits, and lists in lists a thousand levels deep.
            except (ValueError, RecursionError) as error:
                problems.report(location, "malformed line", f"not JSON ({error}): {brief(line.strip())}")
                continue
            if isinstance(record, dict):
                yield location, record
            else:
                problems.report(location, "malformed line", f"not a JSON object: {brief(line.strip())}")


def _read_parquet(path: Path, problems: Problems) -> Iterator[tuple[Location, Record]]:
    number = 0
    for batch in read_batches(path, BATCH_SIZE):
        for row in range(batch.num_rows):
            number += 1
            location = Location(str(path), number, "row")
            try:
                yield location, batch.slice(row, 1).to_pylist()[0]
            except UnicodeDecodeError as error:
                problems.report(location, "undecodable bytes", f"not UTF-8 ({error})")


def _decodable(location: Location, text: str, problems: Problems) -> bool:
    """Report text with bytes that are not UTF-8, which `surrogateescape` decodes as surrogates."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        byte = f"byte 0x{ord(text[error.start]) & 0xFF:02x} at character {error.start + 1}"
        problems.report(location, "undecodable bytes", f"not UTF-8 ({byte})")
        return False
    return True


_READERS = {".jsonl": _read_jsonl, ".csv": _read_csv, ".tsv": _read_csv, ".parquet": _read_parquet}
FORMATS = tuple(_READERS)
