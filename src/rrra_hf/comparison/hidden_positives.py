"""Ground truth for false-negative detection: hide the labels of positives, or inject near-duplicates.

Both give, for each query, some documents that are known to be relevant and have no label. Other candidates
may be relevant too, wherever the labels of the collection are incomplete.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class HiddenPositives(NamedTuple):
    """Positives split into those that keep their label and those that lose it.

    Args:
        kept: For each query, row numbers of the positives that keep their label.
        hidden: For each query, row numbers of the others; may be empty.
    """

    kept: list[np.ndarray]
    hidden: list[np.ndarray]


class InjectedPositives(NamedTuple):
    """Documents to duplicate, and the queries for which the duplicates are false negatives.

    Args:
        sources: Row numbers of the documents to duplicate, ascending, `(j,)`. The duplicate of `sources[i]`
            must become row `num_documents + i` of the corpus.
        hidden: For each query, row numbers of the duplicates of its positives; may be empty.
    """

    sources: np.ndarray
    hidden: list[np.ndarray]


def hide_positives(positives: Sequence[np.ndarray], rng: np.random.Generator) -> HiddenPositives:
    """Keep one random positive per query and hide the others.

    Args:
        positives: For each query, row numbers of its relevant documents.
        rng: Random generator for the choice.

    Returns:
        Kept and hidden positives. A query with fewer than two distinct positives hides none.

    Raises:
        ValueError: If no query has two positives, so nothing can be hidden.

    Source:
        The usual way to turn multi-label data into single-label data: Cole et al. 2021, "Multi-Label Learning
        from Single Positive Labels".

    Example:
        >>> kept, hidden = hide_positives([np.array([4, 2, 9]), np.array([5])], np.random.default_rng(0))
        >>> [rows.tolist() for rows in kept], [rows.tolist() for rows in hidden]
        ([[4], [5]], [[2, 9], []])
    """
    kept, hidden = [], []
    for rows in map(np.unique, positives):
        # One draw per query, so that a query's choice doesn't depend on how many positives others have.
        lucky = int(rng.random() * len(rows))
        kept.append(rows[lucky : lucky + 1])
        hidden.append(np.delete(rows, lucky) if len(rows) else rows)
    if not any(map(len, hidden)):
        raise ValueError(f"positives must have a query with at least 2, none of the {len(hidden)} has.")
    return HiddenPositives(kept, hidden)


def inject_positives(
    positives: Sequence[np.ndarray], num_documents: int, rate: float, rng: np.random.Generator
) -> InjectedPositives:
    """Choose labelled documents to add to the corpus a second time, as unlabelled near-duplicates.

    Make the duplicates with `near_duplicate_texts` and append them to the corpus. Each is a false negative of
    every query that has its source as a positive.

    Args:
        positives: For each query, row numbers of its relevant documents.
        num_documents: Number of documents in the corpus, before duplicates are appended.
        rate: Share of the labelled documents to duplicate, in (0, 1].
        rng: Random generator for the choice.

    Returns:
        The documents to duplicate and the ground truth.

    Raises:
        ValueError: If `rate` isn't in (0, 1] or is too small to choose any document, or a row number isn't in
            the corpus.

    Example:
        >>> positives = [np.array([0, 2]), np.array([2])]
        >>> sources, hidden = inject_positives(positives, 3, 0.5, np.random.default_rng(0))
        >>> sources.tolist(), [rows.tolist() for rows in hidden]
        ([2], [[3], [3]])
    """
    labelled = np.unique(np.concatenate([np.empty(0, dtype=np.int64), *positives]))
    if len(labelled) and not 0 <= labelled[0] <= labelled[-1] < num_documents:
        raise ValueError(
            f"positives must hold rows of the {num_documents} documents, got {labelled[0]} to {labelled[-1]}."
        )
    count = round(rate * len(labelled)) if 0 < rate <= 1 else 0
    if count == 0:
        raise ValueError(
            f"rate must be in (0, 1] and choose at least one of the {len(labelled)} labelled documents, "
            f"got {rate}."
        )
    sources = np.sort(rng.choice(labelled, size=count, replace=False))
    hidden = [num_documents + np.flatnonzero(np.isin(sources, rows)) for rows in positives]
    return InjectedPositives(sources, hidden)


def near_duplicate_texts(texts: Sequence[str], rng: np.random.Generator, *, share: float = 0.1) -> list[str]:
    """Make near-duplicates of texts by dropping some words and swapping some neighbours.

    Args:
        texts: The texts. Words are separated by whitespace, and joined again by single spaces.
        rng: Random generator for the changes.
        share: Share of the words to drop, and share of the remaining places at which to swap two words; in
            (0, 1). At least one word is dropped and one pair swapped, if there are enough words.

    Returns:
        The near-duplicates. A text of one word is unchanged.

    Raises:
        ValueError: If `share` isn't in (0, 1).

    Example:
        >>> near_duplicate_texts(["list all files of a folder"], np.random.default_rng(0), share=0.2)
        ['list files all a folder']
    """
    if not 0 < share < 1:
        raise ValueError(f"share must be in (0, 1), got {share}.")
    return [_near_duplicate_text(text, rng, share) for text in texts]


def _near_duplicate_text(text: str, rng: np.random.Generator, share: float) -> str:
    words = text.split()
    if len(words) < 2:
        return text
    dropped = min(max(1, round(share * len(words))), len(words) - 1)
    words = [words[i] for i in np.sort(rng.permutation(len(words))[dropped:])]
    places = len(words) - 1
    swaps = rng.permutation(places)[: max(1, round(share * places))]
    for i in swaps:
        words[i], words[i + 1] = words[i + 1], words[i]
    return " ".join(words)
