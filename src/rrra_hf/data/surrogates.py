"""Halves of surrogate pairs: Python strings may hold one alone, and no file, table or tokenizer takes it."""

from __future__ import annotations

from collections.abc import Iterable


def lone_surrogate(text: str) -> int | None:
    """Return the position of the first lone surrogate of a text, or None.

    Example:
        >>> lone_surrogate("fish"), lone_surrogate("fish" + chr(0xD800))
        (None, 4)
    """
    if text.isascii():
        return None
    try:
        text.encode()
    except UnicodeEncodeError as error:
        return error.start
    return None


def check_unicode(kind: str, texts: Iterable[str], names: Iterable[object] | None = None) -> None:
    """Check that no text has a lone surrogate.

    Args:
        kind: What the texts are, for the message.
        texts: The texts.
        names: How the message names each text, by default its position.

    Raises:
        ValueError: If one has. The message names it.

    Example:
        >>> check_unicode("query", ["fish", "fish" + chr(0xD800)])
        Traceback (most recent call last):
        ValueError: query 1 must be valid Unicode, got a lone surrogate at character 5.
    """
    for name, text in enumerate(texts) if names is None else zip(names, texts, strict=True):
        position = lone_surrogate(text)
        if position is not None:
            raise ValueError(
                f"{kind} {name!r} must be valid Unicode, got a lone surrogate at character {position + 1}."
            )
