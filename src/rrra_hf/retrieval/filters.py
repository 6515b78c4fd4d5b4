"""Filters of a search by the metadata of documents, in the words of MongoDB."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

COMPARISONS = ("$eq", "$gt", "$gte", "$lt", "$lte", "$in")
NEGATED = {"$ne": "$eq", "$nin": "$in"}
OPERATORS = (*COMPARISONS, *NEGATED, "$exists")
CONNECTIVES = ("$and", "$or", "$not")
# What a filter may hold at most: a request may bring one.
MOST_LEVELS = 16
MOST_VALUES = 10_000

Scalar: TypeAlias = str | int | float | bool


@dataclass(frozen=True)
class Compare:
    """A comparison with one of a document's entries. Of a list, one of its values must hold.

    Args:
        field: Key of the entry. Keys in dictionaries are joined by dots, `"author.name"`.
        operator: One of `COMPARISONS`.
        value: What to compare with, a tuple for `"$in"`. Values of different types are never equal, and none
            is greater, except that integers and floats are numbers alike.
    """

    field: str
    operator: str
    value: Scalar | tuple[Scalar, ...]


@dataclass(frozen=True)
class Exists:
    """Whether a document has an entry, other than None.

    Args:
        field: Key of the entry.
    """

    field: str


@dataclass(frozen=True)
class Not:
    """Holds where a condition doesn't, so also for documents without the entry that it names."""

    condition: Condition


@dataclass(frozen=True)
class All:
    """Holds where all conditions do."""

    conditions: tuple[Condition, ...]


@dataclass(frozen=True)
class AnyOf:
    """Holds where one of the conditions does."""

    conditions: tuple[Condition, ...]


Condition: TypeAlias = Compare | Exists | Not | All | AnyOf


def parse_filter(given: Mapping[str, Any] | Condition) -> Condition:
    """Read a filter, unless it was read already.

    Args:
        given: From keys of metadata to values, `{"lang": "en"}`, or to operators with values,
            `{"year": {"$gte": 2020}}`; all must hold. The operators are `$eq`, `$ne`, `$gt`, `$gte`, `$lt`,
            `$lte`, `$in`, `$nin` and `$exists`. `$and` and `$or` take a list of filters, `$not` takes one.
            None equals an entry that isn't there. `$ne`, `$nin` and `$not` hold for documents without the
            entry, too.

    Raises:
        ValueError: If an operator is unknown, a value is of a type that it doesn't take, or the filter is too
            large.

    Example:
        >>> parse_filter({"lang": "en", "year": {"$gte": 2020, "$ne": 2022}}).conditions[0]
        Compare(field='lang', operator='$eq', value='en')
    """
    return given if isinstance(given, Condition) else _parsed(given, 1)


def _parsed(given: object, level: int) -> Condition:
    if not isinstance(given, Mapping) or not all(isinstance(key, str) for key in given):
        raise ValueError(f"filter must be a dictionary with strings as keys, got {given!r:.80}.")
    if level > MOST_LEVELS:
        raise ValueError(f"filter must have at most {MOST_LEVELS} levels.")
    if len(given) > MOST_VALUES:
        raise ValueError(f"filter must have at most {MOST_VALUES:,} keys, got {len(given):,}.")
    conditions = []
    for key, value in given.items():
        if key in CONNECTIVES:
            conditions.append(_connected(key, value, level))
        elif key.startswith("$"):
            legal = ", ".join(CONNECTIVES)
            raise ValueError(f"filter must have keys of metadata or one of {legal}, got {key!r:.80}.")
        else:
            conditions.append(_of_field(key, value))
    return conditions[0] if len(conditions) == 1 else All(tuple(conditions))


def _connected(operator: str, value: object, level: int) -> Condition:
    if operator == "$not":
        return Not(_parsed(value, level + 1))
    if not isinstance(value, Sequence) or isinstance(value, str) or not 0 < len(value) <= MOST_VALUES:
        raise ValueError(f"filter must have a list of filters for {operator}, got {value!r:.80}.")
    conditions = tuple(_parsed(part, level + 1) for part in value)
    return All(conditions) if operator == "$and" else AnyOf(conditions)


def _of_field(field: str, value: object) -> Condition:
    if not isinstance(value, Mapping):
        return _compared(field, "$eq", value)
    unknown = [operator for operator in value if operator not in OPERATORS]
    if unknown or not value:
        got = f"{unknown[0]!r:.80}" if unknown else "none"
        raise ValueError(
            f"filter must have operators of {field!r:.80} among {', '.join(OPERATORS)}, got {got}."
        )
    conditions = tuple(_compared(field, operator, operand) for operator, operand in value.items())
    return conditions[0] if len(conditions) == 1 else All(conditions)


def _compared(field: str, operator: str, value: object) -> Condition:
    if operator in NEGATED:
        return Not(_compared(field, NEGATED[operator], value))
    if operator == "$exists":
        if not isinstance(value, bool):
            raise ValueError(
                f"filter must have true or false for $exists of {field!r:.80}, got {value!r:.80}."
            )
        return Exists(field) if value else Not(Exists(field))
    if operator == "$eq" and value is None:
        return Not(Exists(field))
    if operator == "$in":
        if not isinstance(value, Sequence | set) or isinstance(value, str) or len(value) > MOST_VALUES:
            raise ValueError(
                f"filter must have a list of at most {MOST_VALUES:,} values for $in and $nin of "
                f"{field!r:.80}, got {value!r:.80}."
            )
        return Compare(field, operator, tuple(_scalar(field, part) for part in value))
    return Compare(field, operator, _scalar(field, value))


def _scalar(field: str, value: object) -> Scalar:
    if not isinstance(value, str | int | float) or (isinstance(value, float) and not math.isfinite(value)):
        raise ValueError(
            f"filter must compare {field!r:.80} with a string, a finite number, true or false, "
            f"got {value!r:.80}."
        )
    return value
