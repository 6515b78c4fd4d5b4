"""Row numbers by the hash of an id: some 20 bytes an id, where a dictionary takes ten times as much."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

# Places at the beginning, a power of 2. At least half of all places are free.
PLACES = 1024
FREE = -1


class IdRows:
    """Finds the rows of ids by open addressing: a row is at the place of its hash, or at one after it.

    Ids themselves are kept elsewhere. Two ids may have the same hash, so compare them.

    Example:
        >>> rows = IdRows()
        >>> rows.add(np.array([hash("d1"), hash("d2")]))
        >>> list(rows.of(hash("d2"))), list(rows.of(hash("d3")))
        ([1], [])
    """

    def __init__(self) -> None:
        self._count = 0
        self._hashes = np.empty(PLACES // 2, np.int64)
        self._places = np.full(PLACES, FREE, np.int64)

    def __len__(self) -> int:
        return self._count

    def add(self, hashes: np.ndarray) -> None:
        """Add the hashes of the next rows, `(n,)` int64."""
        first, self._count = self._count, self._count + len(hashes)
        if self._count > len(self._hashes):
            self._grow(first)
        self._hashes[first : self._count] = hashes
        self._place(np.arange(first, self._count))

    def of(self, identifier: int) -> Iterator[int]:
        """Yield the rows with this hash."""
        last = len(self._places) - 1
        place = identifier & last
        while (row := self._places.item(place)) != FREE:
            if self._hashes.item(row) == identifier:
                yield row
            place = (place + 1) & last

    def has_any(self, hashes: np.ndarray) -> bool:
        """Whether one of these hashes, `(n,)` int64, is that of a row."""
        last = len(self._places) - 1
        places = hashes & last
        while len(hashes):
            rows = self._places[places]
            taken = rows != FREE
            hashes, rows = hashes[taken], rows[taken]
            if (self._hashes[rows] == hashes).any():
                return True
            places = (places[taken] + 1) & last
        return False

    def _grow(self, filled: int) -> None:
        size = 1 << self._count.bit_length()
        self._hashes = np.concatenate([self._hashes[:filled], np.empty(size - filled, np.int64)])
        self._places = np.full(2 * size, FREE, np.int64)
        self._place(np.arange(filled))

    def _place(self, rows: np.ndarray) -> None:
        """Give each row the first free place from that of its hash on."""
        last = len(self._places) - 1
        places = self._hashes[rows] & last
        while len(rows):
            free = self._places[places] == FREE
            # Of several rows with the same place, one gets it.
            self._places[places[free]] = rows[free]
            others = self._places[places] != rows
            rows, places = rows[others], (places[others] + 1) & last
