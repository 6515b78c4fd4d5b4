"""Texts by id, kept in Arrow while they are read, on the disk if they are many."""

from __future__ import annotations

import tempfile
from array import array
from bisect import bisect_right
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO

import numpy as np
import pyarrow as pa
from datasets import Dataset
from datasets.fingerprint import generate_random_fingerprint

from .id_rows import IdRows
from .problems import Location

# Texts that are converted at a time, and characters that wait for it.
BATCH_SIZE = 10_000
BATCH_CHARACTERS = 2**22
# Bytes that are kept in memory before they move to the disk.
MEMORY_BYTES = 2**24


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
        self._rows = IdRows()
        self._places = _Places()
        self._batches: list[pa.RecordBatch] = []
        # The first row of each batch.
        self._starts = array("q")
        # Batches at the end that are in memory, and their bytes.
        self._kept = self._kept_bytes = 0
        # Texts that are no batch yet.
        self._waiting: dict[str, tuple[str, ...]] = {}
        self._characters = 0

    def __len__(self) -> int:
        return len(self._rows) + len(self._waiting)

    def __contains__(self, identifier: str) -> bool:
        return identifier in self._waiting or self._row(identifier) is not None

    def __iter__(self) -> Iterator[tuple[str, ...]]:
        """Yield each id with its texts."""
        for batch in self._batches:
            yield from zip(*(column.to_pylist() for column in batch.columns), strict=True)
        yield from ((identifier, *texts) for identifier, texts in self._waiting.items())

    def add(self, location: Location, identifier: str, *texts: str) -> None:
        """Add an id that isn't there yet."""
        self._places.add(len(self), location)
        self._waiting[identifier] = texts
        self._characters += sum(map(len, texts))
        if len(self._waiting) == BATCH_SIZE or self._characters > BATCH_CHARACTERS:
            self._convert()

    def add_columns(self, location: Location, columns: pa.Table) -> bool:
        """Add ids and their texts at once, or return False if one of the ids may be there, or twice.

        Args:
            location: Where the first comes from. The others follow it.
            columns: Ids and texts, with the schema of these.
        """
        self._convert()
        hashes = _hashes(columns["id"].to_pylist())
        if len(np.unique(hashes)) < len(hashes) or self._rows.has_any(hashes):
            return False
        self._places.add(len(self), location)
        self._append(columns, hashes)
        return True

    def place(self, identifier: str) -> Location:
        """Return where an id comes from."""
        row = self._row(identifier)
        return self._places[len(self._rows) + list(self._waiting).index(identifier) if row is None else row]

    def dataset(self) -> Dataset:
        """Return the texts as a dataset with a column `id` and one for each text."""
        self._convert()
        table = pa.Table.from_batches(self._batches, self.schema)
        # The fingerprint that datasets computes takes five times the memory of the texts. It names files of a
        # cache, which a dataset like this doesn't have.
        return Dataset(table, fingerprint=generate_random_fingerprint())

    def _row(self, identifier: str) -> int | None:
        return next((row for row in self._rows.of(hash(identifier)) if self._id(row) == identifier), None)

    def _id(self, row: int) -> str:
        number = bisect_right(self._starts, row) - 1
        return self._batches[number].column(0)[row - self._starts[number]].as_py()

    def _convert(self) -> None:
        if not self._waiting:
            return
        columns = zip(*((identifier, *texts) for identifier, texts in self._waiting.items()), strict=True)
        arrays = [pa.array(values, pa.string()) for values in columns]
        hashes = _hashes(self._waiting)
        self._waiting, self._characters = {}, 0
        self._append(pa.table(arrays, schema=self.schema), hashes)

    def _append(self, columns: pa.Table, hashes: np.ndarray) -> None:
        row = len(self._rows)
        self._rows.add(hashes)
        for batch in columns.to_batches():
            self._starts.append(row)
            self._batches.append(batch)
            row += batch.num_rows
            self._kept, self._kept_bytes = self._kept + 1, self._kept_bytes + batch.nbytes
        if self._kept_bytes > MEMORY_BYTES:
            self._batches[-self._kept :] = on_disk(self._batches[-self._kept :])
            self._kept = self._kept_bytes = 0


class _Places:
    """Where rows come from. Rows that follow each other in their source take no memory."""

    def __init__(self) -> None:
        # The first row of each run of rows that follow each other, its number and its source.
        self._rows, self._numbers = array("q"), array("q")
        self._sources: list[tuple[str, str]] = []

    def add(self, row: int, location: Location) -> None:
        """Say where a row comes from. Those after it, up to the next that is added, follow it."""
        source, number, unit = location
        if self._sources and self[row] == location:
            return
        self._rows.append(row)
        self._numbers.append(number)
        self._sources.append((source, unit))

    def __getitem__(self, row: int) -> Location:
        run = bisect_right(self._rows, row) - 1
        source, unit = self._sources[run]
        return Location(source, self._numbers[run] + row - self._rows[run], unit)


def on_disk(batches: Sequence[pa.RecordBatch]) -> list[pa.RecordBatch]:
    """Return batches that are read from a temporary file when they are used.

    The file is in the folder that the environment variable TMPDIR names. It is removed at once, and its space
    is free again when nothing uses the batches.

    Args:
        batches: Batches, at least one.

    Raises:
        OSError: If the folder can't take them.
    """
    try:
        with tempfile.NamedTemporaryFile(delete=False) as file:
            try:
                return _written(batches, file)
            finally:
                with suppress(PermissionError):  # on Windows, while it is mapped
                    Path(file.name).unlink()
    except OSError as error:
        raise OSError(
            f"The folder for temporary files, {tempfile.gettempdir()}, can't take the texts: {error}. The "
            "environment variable TMPDIR names another."
        ) from error


def _written(batches: Sequence[pa.RecordBatch], file: IO[bytes]) -> list[pa.RecordBatch]:
    with pa.ipc.new_stream(file, batches[0].schema) as writer:
        for batch in batches:
            writer.write_batch(batch)
    file.flush()
    # What is mapped stays when the file is closed. A map of Python's own would keep the file open.
    with pa.memory_map(file.name) as mapped:
        return list(pa.ipc.open_stream(mapped))


def _hashes(identifiers: Collection[str]) -> np.ndarray:
    return np.fromiter(map(hash, identifiers), np.int64, len(identifiers))
