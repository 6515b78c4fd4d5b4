"""Read JSONL: an object per line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import orjson

from .problems import Location, Problems, Record, brief
from .text_files import read_lines


def read_jsonl(path: Path, problems: Problems) -> Iterator[tuple[Location, Record]]:
    """Yield each object of a JSONL file with its location."""
    for location, line in read_lines(path, problems):
        if line.isspace():
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
