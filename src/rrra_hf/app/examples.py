"""Example queries for the page: those of a collection, or what documents say in words."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa

NUM_EXAMPLES = 4
# Longest example in characters, and words of a sentence that reads like a question.
MAX_LENGTH, MIN_WORDS, MAX_WORDS = 80, 4, 12
# Documents that are read for each example, until one has such a sentence.
TRIED = 50
SENTENCES = re.compile(r"(?<=[.!?])\s+|\n\s*\n|[。！？]")
WORD = re.compile(r"[^\W\d_]+(?:[-'’][^\W\d_]+)*,?")


def questions(queries: Sequence[str]) -> list[str]:
    """Return short queries, spread evenly.

    Args:
        queries: Queries of a collection.

    Example:
        >>> questions(["what swims", "what flies " * 50])
        ['what swims']
    """
    short = [query for query in queries if len(query) <= MAX_LENGTH]
    rows = np.linspace(0, len(short) - 1, min(NUM_EXAMPLES, len(short)), dtype=int)
    return [short[row] for row in rows]


def phrases(documents: pa.Table) -> list[str]:
    """Return sentences that consist of words from some documents; if none has any, how some begin.

    Args:
        documents: The documents, with the columns `title` and `text`.

    Example:
        >>> text = "sort(key=None) A copy is made. It returns the sorted list of words. See sorted()."
        >>> phrases(pa.table({"title": ["list.sort"], "text": [text]}))
        ['It returns the sorted list of words']
    """
    rows = np.unique(np.linspace(0, documents.num_rows, NUM_EXAMPLES, endpoint=False, dtype=int))
    parts = [documents.slice(row, TRIED).to_pylist() for row in rows]
    found = filter(None, (next(_sentences(part), None) for part in parts))
    beginnings = [(part[0]["text"] or part[0]["title"])[:MAX_LENGTH] for part in parts if part]
    return list(dict.fromkeys(found)) or beginnings


def _sentences(documents: list[dict[str, str]]) -> Iterator[str]:
    for document in documents:
        for sentence in SENTENCES.split(document["text"]):
            words = sentence.rstrip(".!?").split()
            # A sentence that begins with a small letter is a part of one, or code.
            if (
                MIN_WORDS <= len(words) <= MAX_WORDS
                and not words[0][0].islower()
                and all(map(WORD.fullmatch, words))
            ):
                yield " ".join(words)
