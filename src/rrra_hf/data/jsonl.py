"""Read JSONL: an object per line."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow.json import ParseOptions, ReadOptions, read_json

from .blocks import Block, Columns
from .problems import Location, Problems, Record, brief
from .text_files import Lines, read_blocks, read_lines

# Arrow reads a block in parts, each by a thread. A line must fit into a part.
PARTS, LONGEST = 8, 2**16
# Lines that say what the columns are, and bytes that they may have.
SAMPLE, LONGEST_SAMPLE = 300, 2**20
OPEN, CLOSE, RETURN = map(ord, "{}\r")


def read_jsonl(path: Path, problems: Problems) -> Iterator[Block]:
    """Yield blocks of objects of a JSONL file.

    Blocks come as columns if all their objects have columns and types of the first block, and no others.
    """
    schema = None
    for block in read_blocks(path):
        yield Block(_records(read_lines([block], problems), problems), partial(_columns, block, schema))
        if block.first.number == 1:
            schema = _schema(block.content)


def _records(lines: Iterable[tuple[Location, str]], problems: Problems) -> Iterator[tuple[Location, Record]]:
    for location, line in lines:
        if not line or line.isspace():
            continue
        try:
            record = _parsed(line)
        # Python refuses integers of thousands of digits, and lists in lists a thousand levels deep.
        except (ValueError, RecursionError) as error:
            problems.report(location, "malformed line", f"not JSON ({error}): {brief(line.strip())}")
            continue
        if isinstance(record, dict):
            yield location, record
        else:
            problems.report(location, "malformed line", f"not a JSON object: {brief(line.strip())}")


def _parsed(line: str) -> object:
    try:
        record = orjson.loads(line)
        # Integers of more than 64 bits become floats.
        exact = not isinstance(record, dict) or float not in map(type, record.values())
        return record if exact else json.loads(line)
    except orjson.JSONDecodeError:
        # Python reads more: NaN and surrogates. Whether they are legal depends on what they stand for.
        return json.loads(line)


def _schema(content: bytes) -> pa.Schema | None:
    """Return columns and types of the first lines of a block, or None if a column has several types."""
    if len(content) > LONGEST_SAMPLE:
        return None
    lines = content.split(b"\n", SAMPLE)[:SAMPLE]
    try:
        found = pa.array([_parsed(line.decode()) for line in lines if line]).type
    except (ValueError, RecursionError, OverflowError, pa.ArrowException):
        return None
    if not pa.types.is_struct(found):
        return None
    return pa.schema(
        field.with_type(pa.string()) if pa.types.is_null(field.type) else field for field in found
    )


def _columns(block: Lines, schema: pa.Schema | None) -> Columns | None:
    """Return the objects of a block as columns, or None if a line may be something else than one object.

    Arrow refuses other columns and types, columns that an object has twice, lone surrogates, and texts that
    aren't UTF-8.
    """
    lines = _lines_of_objects(block)
    if schema is None or lines is None or lines * _width(pa.struct(schema)) > len(block.content):
        return None
    try:
        table = read_json(
            pa.BufferReader(block.content),
            ReadOptions(block_size=max(len(block.content) // PARTS, LONGEST)),
            ParseOptions(explicit_schema=schema, unexpected_field_behavior="error"),
        )
        table.validate(full=True)
    except pa.ArrowException:
        return None
    columns = (column for batch in table.to_batches() for column in batch.columns)
    return (block.first, table) if table.num_rows == lines and all(map(_is_finite, columns)) else None


def _width(column: pa.DataType) -> int:
    """Return how many values a row may have. They take memory even if a line doesn't have them."""
    return 1 + sum(_width(column.field(number).type) for number in range(column.num_fields))


def _is_finite(column: pa.Array) -> bool:
    """Whether no number has thousands of digits: only Arrow reads it, as infinite."""
    if pa.types.is_nested(column.type):
        parts = column.flatten()
        return all(map(_is_finite, parts if isinstance(parts, list) else [parts]))
    return not pa.types.is_floating(column.type) or pc.all(pc.is_finite(column)).as_py() is not False


def _lines_of_objects(block: Lines) -> int | None:
    """Return the number of lines, or None if one may not begin with an object.

    An object that ends before a line break, with another after it, is inside of nothing.
    """
    found, ends = np.frombuffer(block.content, np.uint8), block.ends
    starts = np.append(0, ends + 1)
    starts = starts[starts < len(found)]
    last = np.where(found[ends - 1] == RETURN, found[ends - 2], found[ends - 1])
    objects = (found[starts] == OPEN).all() and (last == CLOSE).all()
    return len(starts) if objects else None
