"""Read CSV, with quotes around fields that have commas, quotes or line breaks."""

from __future__ import annotations

import csv
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from .problems import Location, Problems, Record, brief
from .text_files import is_decodable, open_text


def read_csv(path: Path, problems: Problems) -> Iterator[tuple[Location, Record]]:
    """Yield each row of a CSV file with its location, the fields by the names of the header."""
    return with_header(_read_rows(path, problems), problems)


def with_header(
    rows: Iterator[tuple[Location, list[str]]], problems: Problems
) -> Iterator[tuple[Location, Record]]:
    """Yield rows as records, with the names in the first row. Those of another length are reported."""
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


def _read_rows(path: Path, problems: Problems) -> Iterator[tuple[Location, list[str]]]:
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
