"""Damages the contents of files, the same way for the same random numbers."""

from __future__ import annotations

import json
from collections.abc import Callable
from random import Random
from typing import Any

DEEP = "[" * 100_000 + "]" * 100_000
EXTREMES: list[Any] = [
    *(None, True, -1, 0, 1, 2.5, 2**31, 10**9, 10**18, 10**30, 1e308, float("nan"), float("inf")),
    *("", "../..", "/etc/passwd", "\0", "\udcff", "x" * 100_000, [], {}, [[]], {"a": {}}, [None], ["../x"]),
]


def damage(content: bytes, name: str, random: Random) -> bytes:
    """Return other contents of a file.

    Args:
        content: What it holds.
        name: Its name: JSON and lines of text are also damaged in ways that keep them readable.
        random: Decides how.
    """
    kinds = [flip_bits, truncate, overwrite, insert, cut, repeat, empty]
    if name.endswith(".json"):
        kinds = [*kinds, *[change_entry] * 7]
    elif name.endswith((".jsonl", ".csv", ".tsv")):
        kinds = [*kinds, *[change_line] * 7]
    while True:
        damaged = random.choice(kinds)(content, random)
        if damaged != content:
            return damaged


def flip_bits(content: bytes, random: Random) -> bytes:
    changed = bytearray(content)
    for _ in range(random.choice([1, 1, 1, 5, 50]) if content else 0):
        changed[random.randrange(len(content))] ^= 1 << random.randrange(8)
    return bytes(changed)


def truncate(content: bytes, random: Random) -> bytes:
    return content[: random.randrange(len(content) + 1)]


def empty(content: bytes, random: Random) -> bytes:
    return b" " if not content else b""


def overwrite(content: bytes, random: Random) -> bytes:
    start, length = _part(content, random)
    filling = random.choice([b"\0", b"\xff", b"\x7f", b"9", b'"', random.randbytes(1)])
    return content[:start] + filling * length + content[start + length :]


def insert(content: bytes, random: Random) -> bytes:
    start, length = _part(content, random)
    return content[:start] + random.randbytes(min(length + 1, 64)) + content[start:]


def cut(content: bytes, random: Random) -> bytes:
    start, length = _part(content, random)
    return content[:start] + content[start + length :]


def repeat(content: bytes, random: Random) -> bytes:
    start, length = _part(content, random)
    return content[: start + length] + content[start:]


def _part(content: bytes, random: Random) -> tuple[int, int]:
    start = random.randrange(len(content) + 1)
    return start, min(random.choice([1, 4, 8, 64, len(content)]), len(content) - start)


def change_entry(content: bytes, random: Random) -> bytes:
    """Replace, remove or repeat an entry somewhere in a JSON file."""
    try:
        value = json.loads(content)
    except ValueError:
        return flip_bits(content, random)
    place = value
    while isinstance(place, (dict, list)) and place:
        key = random.choice(list(place)) if isinstance(place, dict) else random.randrange(len(place))
        if not isinstance(place[key], (dict, list)) or not place[key] or random.random() < 0.3:
            break
        place = place[key]
    else:
        return DEEP.encode()
    action = random.randrange(8)
    if action == 0:
        del place[key]
    elif action == 1 and isinstance(place, list):
        place.append(place[key])
    elif action == 2:
        place[key] = "DEEP"
    else:
        place[key] = random.choice(EXTREMES)
    return json.dumps(value).replace('"DEEP"', DEEP).encode()


def change_line(content: bytes, random: Random) -> bytes:
    """Replace, remove or repeat a line, or a field of it."""
    lines = content.splitlines(keepends=True)
    number = random.randrange(len(lines))
    changes: list[Callable[[bytes], list[bytes]]] = [
        lambda line: [],
        lambda line: [line, line],
        lambda line: [DEEP.encode(), b"\n"],
        lambda line: [b'{"_id": ', b"9" * 5000, b', "text": "a"}\n'],
        lambda line: [line.replace(b"1", b"9" * random.choice([1, 20, 400, 5000]))],
        lambda line: [line.replace(b"d", random.choice([b"", b"\0", b'"', b"\xff", b"\\ud800", b"q"]))],
        lambda line: [line.rstrip(), random.choice([b"\t1", b",1", b"}", b'"', b"\r", b"\x85"]), b"\n"],
        lambda line: [b"1\n"],
    ]
    return b"".join([*lines[:number], *random.choice(changes)(lines[number]), *lines[number + 1 :]])
