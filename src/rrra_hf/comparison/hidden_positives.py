"""Ground truth for false-negative detection: positives with hidden labels, or copies put into the corpus.

Both tell of each query some documents that are certainly relevant and not labelled. What they don't
name may be relevant all the same, wherever the collection's own labels are incomplete.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ..evaluation.checks import check_between


class HiddenPositives(NamedTuple):
    """Positives divided into those that keep their label and those that lose it.

    Args:
        kept: For each query the rows of the positives that stay labelled.
        hidden: For each query the rows of those that don't; possibly none.
    """

    kept: list[np.ndarray]
    hidden: list[np.ndarray]


class InjectedPositives(NamedTuple):
    """Which documents get a near-duplicate, and whose false negatives these are.

    Args:
        sources: Rows of the documents to be duplicated, ascending, `(j,)`; the duplicate of
            `sources[i]` is to become row `num_documents + i` of the corpus.
        hidden: For each query the rows of the near-duplicates of its positives; possibly none.
    """

    sources: np.ndarray
    hidden: list[np.ndarray]


def hide_positives(positives: Sequence[np.ndarray], rng: np.random.Generator) -> HiddenPositives:
    """Keep one positive of each query at random and hide the others.

    Args:
        positives: For each query the rows of its relevant documents.
        rng: Source of the choice.

    Returns:
        Kept and hidden positives. A query with fewer than two distinct positives keeps what it has
        and hides none.

    Raises:
        ValueError: If no query has two positives, so that nothing could be hidden.

    Source:
        The usual way to make single-label data of a multi-label one: Cole et al. 2021, "Multi-Label
        Learning from Single Positive Labels".

    Example:
        >>> kept, hidden = hide_positives([np.array([4, 2, 9]), np.array([5])], np.random.default_rng(0))
        >>> [rows.tolist() for rows in kept], [rows.tolist() for rows in hidden]
        ([[4], [5]], [[2, 9], []])
    """
    kept, hidden = [], []
    for rows in map(np.unique, positives):
        # Drawn for every query, so that one query's choice does not depend on the length of another's.
        lucky = int(rng.random() * len(rows))
        kept.append(rows[lucky : lucky + 1])
        hidden.append(np.delete(rows, lucky) if len(rows) else rows)
    if not any(map(len, hidden)):
        raise ValueError(f"positives must have a query with at least 2, none of the {len(hidden)} has.")
    return HiddenPositives(kept, hidden)


def inject_positives(
    positives: Sequence[np.ndarray], num_documents: int, rate: float, rng: np.random.Generator
) -> InjectedPositives:
    """Choose labelled documents of which the corpus is to hold an unlabelled near-duplicate.

    Make the duplicates with `near_duplicate_embeddings` or `near_duplicate_texts` and append them to
    the corpus. Each is then a false negative of every query for which its source is labelled.

    Args:
        positives: For each query the rows of its relevant documents.
        num_documents: Number of documents in the corpus, to which the duplicates are appended.
        rate: Share of the documents labelled for some query that get a near-duplicate, in (0, 1].
        rng: Source of the choice.

    Returns:
        The documents to duplicate and the ground truth.

    Raises:
        ValueError: If `rate` is not in (0, 1] or so small that it chooses no document, or a row is
            not in the corpus.

    Example:
        >>> positives = [np.array([0, 2]), np.array([2])]
        >>> documents = np.eye(3, dtype=np.float32)
        >>> rng = np.random.default_rng(0)
        >>> sources, hidden = inject_positives(positives, len(documents), 0.5, rng)
        >>> sources.tolist(), [rows.tolist() for rows in hidden]
        ([2], [[3], [3]])
        >>> documents = np.concatenate([documents, near_duplicate_embeddings(documents[sources], 0.9, rng)])
        >>> bool(np.isclose(documents[3] @ documents[2], 0.9))
        True
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


def near_duplicate_embeddings(embeddings: np.ndarray, cosine: float, rng: np.random.Generator) -> np.ndarray:
    """Return embeddings at exactly the given cosine from the given ones, in a random direction.

    A random direction is nearly orthogonal to every query, so a duplicate scores about `cosine` times
    what its source does. What an encoder makes of changed words is less regular: for that, encode
    `near_duplicate_texts`.

    Args:
        embeddings: `(j, dim)`, `dim` at least 2, none of length 0.
        cosine: Cosine of each duplicate with its source, in [0, 1].
        rng: Source of the directions.

    Returns:
        The duplicates, as long as their sources (so of unit length if these are), `(j, dim)`, of the
        same type.

    Raises:
        ValueError: If `cosine` is outside [0, 1], there are not two dimensions, or an embedding is of
            length 0 or not finite.

    Example:
        >>> source = np.array([[3.0, 4.0]])
        >>> duplicate = near_duplicate_embeddings(source, 0.8, np.random.default_rng(0))
        >>> float(round((source @ duplicate.T).item() / 25, 6))
        0.8
    """
    check_between("cosine", np.asarray(cosine, dtype=np.float64), 0, 1)
    if embeddings.ndim != 2 or embeddings.shape[1] < 2:
        raise ValueError(f"embeddings must have shape (j, dim), dim at least 2, got {embeddings.shape}.")
    wide = embeddings.astype(np.float64)
    lengths = np.linalg.norm(wide, axis=1, keepdims=True)
    illegal = int((~np.isfinite(lengths) | (lengths == 0)).sum())
    if illegal:
        raise ValueError(f"embeddings must be finite and not 0, {illegal} of {len(lengths)} are not.")
    units = wide / lengths
    noise = rng.standard_normal(wide.shape)
    noise -= (noise * units).sum(1, keepdims=True) * units
    noise /= np.linalg.norm(noise, axis=1, keepdims=True)
    return (lengths * (cosine * units + np.sqrt(1 - cosine**2) * noise)).astype(embeddings.dtype)


def near_duplicate_texts(texts: Sequence[str], rng: np.random.Generator, *, share: float = 0.1) -> list[str]:
    """Return texts with some words dropped and some neighbours swapped.

    Args:
        texts: Any texts; words are what whitespace separates, and become separated by single spaces.
        rng: Source of the choice.
        share: Share of the words that are dropped, at least one, and, of what is left, share of the
            places at which a word is swapped with the next one, at least one if there are two words;
            in (0, 1).

    Returns:
        The near-duplicates. A text of one word stays as it is.

    Raises:
        ValueError: If `share` is not in (0, 1).

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
