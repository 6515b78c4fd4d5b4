"""Texts by id, kept in Arrow while they are read: a million take little more than their characters."""

from __future__ import annotations

import hashlib
from array import array
from bisect import bisect_right
from collections.abc import Iterator

import pyarrow as pa
from datasets import Dataset

from .problems import Location

# Texts that are converted at a time.
BATCH_SIZE = 10_000


class Texts:
    """Ids with one or several texts each, in the order in which they are added, and where each comes from.

    Args:
        columns: Names of the texts.

    Example:
        >>> texts = Texts("title", "text")
        >>> texts.add(Location("corpus.jsonl", 1), "d1", "Herring", "A fish.")
        >>> list(texts), "d1" in texts, str(texts.place("d1"))
        ([('d1', 'Herring', 'A fish.')], True, 'corpus.jsonl, line 1')
    """

    def __init__(self, *columns: str):
        self.schema = pa.schema({name: pa.string() for name in ("id", *columns)})
        self._rows: dict[str, int] = {}
        self._numbers = array("q")
        # The first row of each source, with its name and unit.
        self._source: str | None = None
        self._starts: list[int] = []
        self._sources: list[tuple[str, str]] = []
        self._waiting: list[tuple[str, ...]] = []
        self._batches: list[pa.RecordBatch] = []

    def __len__(self) -> int:
        return len(self._rows)

    def __contains__(self, identifier: object) -> bool:
        return identifier in self._rows

    def __iter__(self) -> Iterator[tuple[str, ...]]:
        """Yield each id with its texts."""
        for batch in self._batches:
            yield from zip(*(column.to_pylist() for column in batch.columns), strict=True)
        yield from self._waiting

    def add(self, location: Location, identifier: str, *texts: str) -> None:
        """Add an id that isn't there yet."""
        row = len(self._rows)
        self._rows[identifier] = row
        source, number, unit = location
        if source != self._source:
            self._source = source
            self._starts.append(row)
            self._sources.append((source, unit))
        self._numbers.append(number)
        self._waiting.append((identifier, *texts))
        if len(self._waiting) == BATCH_SIZE:
            self._convert()

    def place(self, identifier: str) -> Location:
        """Return where an id comes from."""
        row = self._rows[identifier]
        source, unit = self._sources[bisect_right(self._starts, row) - 1]
        return Location(source, self._numbers[row], unit)

    def dataset(self) -> Dataset:
        """Return the texts as a dataset with a column `id` and one for each text."""
        self._convert()
        # The fingerprint that datasets computes itself takes five times the memory of the texts.
        digest = hashlib.blake2b(digest_size=8)
        for batch in self._batches:
            for column in batch.columns:
                for buffer in filter(None, column.buffers()):
                    digest.update(buffer)
        table = pa.Table.from_batches(self._batches, self.schema)
        return Dataset(table, fingerprint=digest.hexdigest())

    def _convert(self) -> None:
        columns = list(zip(*self._waiting, strict=True)) or [()] * len(self.schema)
        arrays = [pa.array(values, pa.string()) for values in columns]
        self._batches.append(pa.record_batch(arrays, schema=self.schema))
        self._waiting = []
