"""Blocks of records: a source is read block by block, as columns where they can be trusted."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from typing import NamedTuple

import pyarrow as pa

from .problems import Location, Record

Records = Iterable[tuple[Location, Record]]
Columns = tuple[Location, pa.Table]
"""The records of a block as columns, and the location of the first. The others follow it one by one."""


class Block(NamedTuple):
    """Records that follow each other.

    Args:
        records: The records. Reading them reports those that are bad.
        columns: Returns the same records as columns, or None if a record may be bad, or they say less: a
            missing value is null, and so is one in a column that another record has.
    """

    records: Records
    columns: Callable[[], Columns | None] = lambda: None


def one_by_one(blocks: Iterable[Block]) -> Iterator[tuple[Location, Record]]:
    """Yield the records of all blocks."""
    return chain.from_iterable(block.records for block in blocks)


def with_first(
    blocks: Iterable[Block],
) -> tuple[tuple[Location, Record] | None, Iterator[Block]]:
    """Return the first record, None if there is none, and all blocks."""
    blocks = iter(blocks)
    for block in blocks:
        records = iter(block.records)
        first = next(records, None)
        if first is not None:
            return first, chain([Block(chain([first], records))], blocks)
    return None, blocks


def valid_columns(first: Location, table: pa.Table) -> Columns | None:
    """Return rows as columns if all texts are UTF-8 and nothing else is damaged."""
    try:
        table.validate(full=True)
    except pa.ArrowException:
        return None
    return first, table
