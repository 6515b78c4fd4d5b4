"""Read TSV: fields between tabs, without quotes, and perhaps without a header."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator
from itertools import chain
from pathlib import Path

from .csv_files import with_header
from .problems import Location, Problems, Record
from .text_files import read_blocks, read_lines

logger = logging.getLogger(__name__)

# Columns of files without a header, by their number.
HEADERLESS = {2: ("id", "text"), 3: ("query", "positive", "negative")}
# Headers have shorter fields than texts.
LONGEST_NAME = 40


def read_tsv(
    path: Path, problems: Problems, columns: Collection[str] = ()
) -> Iterator[tuple[Location, Record]]:
    """Yield each line of a TSV file with its location, the fields by the names of the header.

    Args:
        path: The file.
        problems: Handles bad lines.
        columns: Names that tell that the first line is a header. Collections of MS MARCO have none.
    """
    rows = read_tsv_rows(path, problems)
    first = next(rows, None)
    if first is None:
        return iter(())
    names = HEADERLESS.get(len(first[1]))
    if names is None or set(first[1]) & set(columns) or not _is_content(first[1]):
        return with_header(chain([first], rows), problems)
    logger.warning(
        "%s: the first line is no header, so the columns are %s; a header names others.",
        *(path, ", ".join(names)),
    )
    return with_header(chain([(first[0], list(names)), first], rows), problems)


def _is_content(row: list[str]) -> bool:
    """Whether a row can't be a header: an id with a digit and a text, or a long text."""
    has_id = len(row) == 2 and any(map(str.isdigit, row[0])) and " " not in row[0]
    return has_id or any(len(field) > LONGEST_NAME for field in row)


def read_tsv_rows(path: Path, problems: Problems) -> Iterator[tuple[Location, list[str]]]:
    """Yield the fields of each line of a TSV file. Empty lines are skipped.

    A quote is a character like any other: in the files of TREC, BEIR and MS MARCO, texts begin with quotes
    that nothing closes.
    """
    quoted = 0
    for location, line in read_lines(read_blocks(path), problems):
        row = line.removesuffix("\r").split("\t")
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
