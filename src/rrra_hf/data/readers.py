"""Read records and their locations from files, one reader per format, and from datasets."""

from __future__ import annotations

import csv
import json
import logging
import sys
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from itertools import chain
from pathlib import Path

import pyarrow as pa
from datasets import Dataset

from .parquet_files import read_batches
from .problems import Location, Problems, Record, brief
from .text_files import COMPRESSIONS, is_decodable, open_text, read_lines

logger = logging.getLogger(__name__)

BATCH_SIZE = 1000
# Columns of TSV files without a header, by their number.
HEADERLESS = {2: ("id", "text"), 3: ("query", "positive", "negative")}
# Headers have shorter fields than texts.
LONGEST_NAME = 40


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
        return _read_tsv(path, problems, columns)
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


def read_tsv_rows(path: Path, problems: Problems) -> Iterator[tuple[Location, list[str]]]:
    """Yield the fields of each line of a TSV file. Empty lines are skipped.

    A quote is a character like any other: in the files of TREC, BEIR and MS MARCO, texts begin with quotes
    that nothing closes.
    """
    quoted = 0
    for location, line in read_lines(path, problems):
        row = line.removesuffix("\n").removesuffix("\r").split("\t")
        quoted += any(len(field) > 1 and field[0] == field[-1] == '"' for field in row)
        if row != [""]:
            yield location, row
    if quoted:
        logger.warning(
            "%s: fields in %s lines begin and end with a quote, which is read as part of the text. If the "
            "quotes only mark the fields, save the file as CSV.",
            path,
            f"{quoted:,}",
        )


def _read_csv_rows(path: Path, problems: Problems) -> Iterator[tuple[Location, list[str]]]:
    # The default limit of 131,072 characters per field is too low for some documents.
    csv.field_size_limit(min(sys.maxsize, 2**31 - 1))
    with open_text(path, newline="") as file:
        reader = csv.reader(file, strict=True)
        while True:
            location = Location(str(path), reader.line_num + 1)
            try:
                row = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                last = reader.line_num
                message = f"not a row of delimited fields ({error}); it ends in line {last}"
                lines = max(1, last - location.number + 1)
                problems.report(location, "malformed line", message, lines)
                continue
            if row and is_decodable(location, "".join(row), problems):
                yield location, row


def _with_header(
    rows: Iterator[tuple[Location, list[str]]], problems: Problems
) -> Iterator[tuple[Location, Record]]:
    place, header = next(rows, (None, []))
    twice = [name for name, count in Counter(header).items() if count > 1]
    if twice:
        raise ValueError(f"{place}: the header has columns {brief(twice)} more than once.")
    for location, row in rows:
        if len(row) == len(header):
            yield location, dict(zip(header, row, strict=True))
        else:
            message = f"{len(row)} fields where the header has {len(header)}"
            problems.report(location, "malformed line", message)


def _read_csv(path: Path, problems: Problems) -> Iterator[tuple[Location, Record]]:
    return _with_header(_read_csv_rows(path, problems), problems)


def _read_tsv(
    path: Path, problems: Problems, columns: Collection[str] = ()
) -> Iterator[tuple[Location, Record]]:
    rows = read_tsv_rows(path, problems)
    first = next(rows, None)
    if first is None:
        return iter(())
    names = HEADERLESS.get(len(first[1]))
    if names is None or set(first[1]) & set(columns) or not _is_content(first[1]):
        return _with_header(chain([first], rows), problems)
    logger.warning(
        "%s: the first line is no header, so the columns are %s; a header names others.",
        *(path, ", ".join(names)),
    )
    return _with_header(chain([(first[0], list(names)), first], rows), problems)


def _is_content(row: list[str]) -> bool:
    """Whether a row can't be a header: an id with a digit and a text, or a long text."""
    has_id = len(row) == 2 and any(map(str.isdigit, row[0])) and " " not in row[0]
    return has_id or any(len(field) > LONGEST_NAME for field in row)


def _read_jsonl(path: Path, problems: Problems) -> Iterator[tuple[Location, Record]]:
    for location, line in read_lines(path, problems):
        if line.isspace():
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
    source, number = str(path), 0
    for batch in read_batches(path, BATCH_SIZE, check_texts=False):
        for record in _decoded(batch):
            number += 1
            location = Location(source, number, "row")
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


Reader = Callable[[Path, Problems], Iterator[tuple[Location, Record]]]
_READERS: dict[str, Reader] = {
    ".jsonl": _read_jsonl,
    ".csv": _read_csv,
    ".tsv": _read_tsv,
    ".parquet": _read_parquet,
}
FORMATS = tuple(_READERS)
