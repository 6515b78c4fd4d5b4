"""Metadata of the documents of a corpus as columns, in which a filter finds rows."""

from __future__ import annotations

import operator
from array import array
from collections.abc import Iterable, Iterator, Mapping
from functools import reduce
from typing import Any

import numpy as np

from ..data.metadata import parse_metadata
from .filters import All, AnyOf, Compare, Condition, Exists, Not, Scalar

ORDERS = {"$gt": operator.gt, "$gte": operator.ge, "$lt": operator.lt, "$lte": operator.le}
# Kinds of values. Those of different kinds are never equal.
KINDS = {bool: "boolean", int: "number", float: "number", str: "string"}


class Values:
    """The values of one kind that documents have for one key, each distinct value once.

    Args:
        size: Number of documents.
    """

    def __init__(self, size: int):
        self._size = size
        self._numbers: dict[Scalar, int] = {}
        # One entry per value of a document: a document with a list has several.
        self._rows, self._number_of = array("q"), array("q")

    def add(self, row: int, value: Scalar) -> None:
        """Add a value of a document."""
        self._rows.append(row)
        self._number_of.append(self._numbers.setdefault(value, len(self._numbers)))

    def hold(self, operator: str, wanted: list[Scalar]) -> np.ndarray:
        """Return whether each document has a value for which a comparison holds, `(size,)`.

        Args:
            operator: One of the operators of `Compare`.
            wanted: What to compare with, of the same kind; several only for `"$in"`.
        """
        if operator in ORDERS:
            compare = ORDERS[operator]
            found = (compare(value, wanted[0]) for value in self._numbers)
            holds = np.fromiter(found, bool, len(self._numbers))
        else:
            holds = np.zeros(len(self._numbers), dtype=bool)
            holds[[self._numbers[value] for value in wanted if value in self._numbers]] = True
        return self._documents(holds[np.asarray(self._number_of)])

    def exist(self) -> np.ndarray:
        """Return whether each document has a value, `(size,)`."""
        return self._documents(np.ones(len(self._rows), dtype=bool))

    def _documents(self, holds: np.ndarray) -> np.ndarray:
        documents = np.zeros(self._size, dtype=bool)
        documents[np.asarray(self._rows)[holds]] = True
        return documents


class MetadataColumns:
    """The metadata of the documents of a corpus, by key and by kind of value.

    Args:
        metadata: JSON texts of the documents' metadata, empty for those without.

    Example:
        >>> from rrra_hf.retrieval.filters import parse_filter
        >>> columns = MetadataColumns(['{"year":2019}', "", '{"tags":["new","red"],"year":2021}'])
        >>> columns.rows(parse_filter({"year": {"$gte": 2020}})).tolist()
        [2]
        >>> columns.rows(parse_filter({"tags": {"$nin": ["red", "blue"]}})).tolist()
        [0, 1]
    """

    def __init__(self, metadata: Iterable[str]):
        texts = list(metadata)
        self._size = len(texts)
        self._found: dict[str, dict[str, Values]] = {}
        for row, text in enumerate(texts):
            for field, value in entries_of(parse_metadata(text)):
                kinds = self._found.setdefault(field, {})
                kind = KINDS[type(value)]
                if kind not in kinds:
                    kinds[kind] = Values(self._size)
                kinds[kind].add(row, value)

    def rows(self, condition: Condition) -> np.ndarray:
        """Return the rows of the documents for which a condition holds, ascending, `(n,)` int64."""
        return np.flatnonzero(self._hold(condition))

    def _hold(self, condition: Condition) -> np.ndarray:
        match condition:
            case Not():
                return ~self._hold(condition.condition)
            case All():
                failing = (~self._hold(part) for part in condition.conditions)
                return ~self._any(failing)
            case AnyOf():
                return self._any(map(self._hold, condition.conditions))
            case Exists():
                return self._any(values.exist() for values in self._found.get(condition.field, {}).values())
            case Compare():
                return self._any(self._compared(condition))

    def _compared(self, condition: Compare) -> Iterator[np.ndarray]:
        wanted = condition.value if isinstance(condition.value, tuple) else (condition.value,)
        for kind, values in self._found.get(condition.field, {}).items():
            same = [value for value in wanted if KINDS[type(value)] == kind]
            if same:
                yield values.hold(condition.operator, same)

    def _any(self, holding: Iterable[np.ndarray]) -> np.ndarray:
        """Return whether one of them holds for each document, `(size,)`."""
        return reduce(np.logical_or, holding, np.zeros(self._size, dtype=bool))


def entries_of(metadata: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Scalar]]:
    """Yield each value with its key. A list has several values, a dictionary has keys with dots."""
    for key, value in metadata.items():
        if isinstance(value, Mapping):
            yield from entries_of(value, f"{prefix}{key}.")
        else:
            listed = value if isinstance(value, list) else [value]
            yield from ((prefix + key, entry) for entry in listed if type(entry) in KINDS)
