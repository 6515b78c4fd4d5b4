"""Bad records: where they are, and what becomes of them."""

from __future__ import annotations

import logging
import reprlib
from collections import Counter
from typing import Any, NamedTuple

logger = logging.getLogger(__name__)

Record = dict[str, Any]

# Skipped records that the log names, per reason. The others are counted.
NAMED = 5
_REPR = reprlib.Repr()
_REPR.maxstring = _REPR.maxother = _REPR.maxlong = 80
_REPR.maxlist = 20


class Location(NamedTuple):
    """Location of a record, such as `corpus.jsonl, line 3`."""

    source: str
    number: int
    unit: str = "line"

    def __str__(self) -> str:
        return f"{self.source}, {self.unit} {self.number}"


class Problems:
    """Handles bad records: raises an error with their location, or names and counts them.

    Args:
        skip_bad: Count bad records instead of raising.

    Example:
        >>> problems = Problems(skip_bad=True)
        >>> problems.report(Location("corpus.jsonl", 3), "empty text", "document 'd1' has no text")
        >>> problems.skipped
        Counter({'empty text': 1})
    """

    def __init__(self, skip_bad: bool = False):
        self.skip_bad = skip_bad
        self.skipped: Counter[str] = Counter()

    def report(self, location: Location, reason: str, message: str, lines: int = 1) -> None:
        """Raise a `ValueError` with location and message, or count the lines that are skipped."""
        if not self.skip_bad:
            raise ValueError(f"{location}: {message}.")
        level = logging.WARNING if self.skipped[reason] < NAMED else logging.DEBUG
        skipped = "skipped" if lines == 1 else f"{lines:,} lines skipped"
        logger.log(level, "%s: %s; %s.", location, message, skipped)
        self.skipped[reason] += lines


def brief(value: object) -> str:
    """Return how a value looks in Python, on one short line however long and deep it is.

    Example:
        >>> brief([[[[[[[["deep"]]]]]]]])
        '[[[[[[[...]]]]]]]'
    """
    return _REPR.repr(value)
