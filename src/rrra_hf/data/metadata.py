"""Metadata of documents: a dictionary per document, kept as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson


def metadata_json(value: object) -> str:
    """Return metadata as JSON text, with sorted keys and without entries that are None.

    JSON keeps what a file says: documents need not have the same keys, nor a key the same type everywhere.

    Args:
        value: A dictionary, or the JSON text of one. Dates become texts, numbers that aren't finite None.

    Returns:
        The text, empty if there are no entries or the value is something else.

    Raises:
        ValueError: If the dictionary holds what JSON can't.

    Example:
        >>> metadata_json({"year": 2020, "lang": "en", "doi": None})
        '{"lang":"en","year":2020}'
        >>> metadata_json(None), metadata_json("no dictionary")
        ('', '')
    """
    if isinstance(value, str):
        value = parse_metadata(value)
    if not isinstance(value, Mapping):
        return ""
    entries = {name: entry for name, entry in value.items() if entry is not None}
    if not entries:
        return ""
    try:
        return orjson.dumps(entries, option=orjson.OPT_SORT_KEYS | orjson.OPT_SERIALIZE_NUMPY).decode()
    except TypeError as error:
        raise ValueError(f"metadata must be what JSON can hold: {error}") from error


def parse_metadata(text: str) -> dict[str, Any]:
    """Return the dictionary that a JSON text holds, empty if it holds none."""
    if not text.startswith("{"):
        return {}
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return {}
