"""Filters by metadata as expressions of Milvus, and what they read of documents."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from ..indexes.milvus import quoted
from .filters import All, AnyOf, Compare, Condition, Exists, Not, Scalar
from .metadata import KINDS, entries_of

# Which end of the values of a key a comparison reads, and how Milvus writes it.
ENDS = {
    "$gt": ("greatest", ">"),
    "$gte": ("greatest", ">="),
    "$lt": ("least", "<"),
    "$lte": ("least", "<="),
}
EVERY, NONE = 'id != ""', 'id == ""'


def filter_entries(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Return what filters read of a document's metadata.

    Milvus compares no lists, and knows no kinds of values. So all values of a key are kept by kind, and of
    them the least and the greatest: one of them is greater than a number if the greatest is.

    Args:
        metadata: The metadata.

    Example:
        >>> filter_entries({"tags": ["new", "red"]})["greatest"]
        {'string:tags': 'red'}
    """
    values: dict[str, list[Scalar]] = {}
    for field, value in entries_of(metadata):
        values.setdefault(_key(type(value), field), []).append(_number(value))
    return {
        "keys": list(values),
        "values": values,
        "least": {key: min(found) for key, found in values.items()},
        "greatest": {key: max(found) for key, found in values.items()},
    }


def milvus_filter(condition: Condition | None) -> str:
    """Return a filter as an expression of Milvus, empty for none.

    Args:
        condition: The filter.

    Raises:
        ValueError: If a string in it has control characters, for which Milvus has no way to write them.

    Example:
        >>> milvus_filter(Exists("year"))
        'json_contains_any(entries["keys"], ["boolean:year", "number:year", "string:year"])'
    """
    match condition:
        case None:
            return ""
        case Not():
            return f"not ({milvus_filter(condition.condition)})"
        case All():
            return _joined(condition.conditions, " and ") or EVERY
        case AnyOf():
            return _joined(condition.conditions, " or ") or NONE
        case Exists():
            keys = sorted({f"{kind}:{condition.field}" for kind in KINDS.values()})
            return f'json_contains_any(entries["keys"], {_listed(keys)})'
        case Compare():
            return _compared(condition)


def _joined(conditions: Iterable[Condition], word: str) -> str:
    return word.join(f"({milvus_filter(part)})" for part in conditions)


def _compared(condition: Compare) -> str:
    wanted = condition.value if isinstance(condition.value, tuple) else (condition.value,)
    by_key: dict[str, list[Scalar]] = {}
    for value in wanted:
        by_key.setdefault(_key(type(value), condition.field), []).append(_number(value))
    parts = []
    for key, values in by_key.items():
        name = _written(key)
        if condition.operator in ENDS:
            end, sign = ENDS[condition.operator]
            holds = f'entries["{end}"][{name}] {sign} {_written(values[0])}'
        else:
            holds = f'json_contains_any(entries["values"][{name}], {_listed(values)})'
        # Comparisons with what isn't there are neither true nor false.
        parts.append(f'(json_contains(entries["keys"], {name}) and {holds})')
    return " or ".join(parts) or NONE


def _key(kind: type, field: str) -> str:
    return f"{KINDS[kind]}:{field}"


def _number(value: Scalar) -> Scalar:
    """Return a value as it is stored: Milvus tells 2.0 from 2, and orders no truth values."""
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return int(value)
    return int(value) if isinstance(value, bool) else value


def _listed(values: Iterable[Scalar]) -> str:
    return f"[{', '.join(map(_written, values))}]"


def _written(value: Scalar) -> str:
    if not isinstance(value, str):
        return repr(value)
    if re.search(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]", value):
        raise ValueError(f"filter must have no control characters with Milvus, got {value!r:.80}.")
    return quoted(value)
