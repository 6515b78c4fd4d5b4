"""Labelled queries as arrays."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from scipy.sparse import csr_array
from torch import Tensor

from .excluded import excluded_rows

if TYPE_CHECKING:
    from ..data import Collection


class LabelledQueries(NamedTuple):
    """Query embeddings with the rows of their relevant documents.

    Args:
        embeddings: `(n, dim)`.
        positives: For each query the rows of its relevant documents, at least one.
        words: Counts of the queries' words, `(n, vocabulary)`, for an adapter that reads words.
        negatives: For each query the rows of documents that were judged and aren't relevant; None if none are
            known.
        excluded: For each query the rows of documents that are neither relevant nor not, such as the query
            itself where queries are documents too. None of them is a positive. They are left out.
    """

    embeddings: np.ndarray
    positives: Sequence[np.ndarray]
    words: csr_array | None = None
    negatives: Sequence[np.ndarray] | None = None
    excluded: Sequence[np.ndarray] | None = None

    @classmethod
    def of(cls, collection: Collection, embeddings: np.ndarray, words: csr_array | None) -> LabelledQueries:
        """Return the queries of a collection, each with at least one relevant document.

        Args:
            collection: The collection, or a split of it.
            embeddings: Embeddings of its queries, `(n, dim)`.
            words: Counts of the queries' words; None to read no words.
        """
        negatives, excluded = collection.negative_rows, excluded_rows(collection)
        return cls(embeddings, collection.positive_rows, words, negatives, excluded)

    @property
    def num_relevant(self) -> np.ndarray:
        """Number of distinct relevant documents of each query, `(n,)`."""
        return np.array([len(np.unique(rows)) for rows in self.positives])

    @property
    def no_negatives(self) -> Sequence[np.ndarray]:
        """For each query the rows of documents that are not to be learnt as irrelevant."""
        if self.excluded is None:
            return self.positives
        return [np.concatenate(rows) for rows in zip(self.positives, self.excluded, strict=True)]

    def select(self, rows: np.ndarray) -> LabelledQueries:
        """Return the queries at the given rows."""
        positives = [self.positives[row] for row in rows]
        words = None if self.words is None else self.words[rows]
        negatives, excluded = (
            None if lists is None else [lists[row] for row in rows]
            for lists in (self.negatives, self.excluded)
        )
        return LabelledQueries(self.embeddings[rows], positives, words, negatives, excluded)


def pair_rows(positives: Sequence[np.ndarray]) -> np.ndarray:
    """Return every (query row, positive row), `(pairs, 2)`."""
    queries = np.repeat(np.arange(len(positives)), [len(rows) for rows in positives])
    documents = np.concatenate([np.empty(0, dtype=np.int64), *positives])
    return np.column_stack([queries, documents])


def at_most(count: int, positives: Sequence[np.ndarray], rng: np.random.Generator) -> list[np.ndarray]:
    """Return each query's positives; of those that have more than `count`, so many at random."""
    return [rows if len(rows) <= count else rng.choice(rows, count, replace=False) for rows in positives]


def labelled_among(positives: Sequence[np.ndarray], queries: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Return which of some documents are labelled relevant for each query, `(n, k)`.

    It takes time for the labels of these queries, not for all pairs of a query and a document.

    Args:
        positives: Rows of the relevant documents of all queries.
        queries: Rows of the queries, `(n,)`; they may repeat.
        rows: Rows of the documents, ascending, `(k,)`.

    Example:
        >>> labelled_among([np.array([4]), np.array([1, 2])], np.array([1, 0]), np.array([2, 3])).tolist()
        [[True, False], [False, False]]
    """
    distinct, place = np.unique(queries, return_inverse=True)
    asking, documents = pair_rows([positives[row] for row in distinct]).T
    found = np.searchsorted(rows, documents).clip(max=len(rows) - 1)
    among = rows[found] == documents
    labelled = np.zeros((len(distinct), len(rows)), dtype=bool)
    labelled[asking[among], found[among]] = True
    return labelled[place]


def gather(embeddings: np.ndarray, rows: np.ndarray) -> Tensor:
    """Return the embeddings at the given rows as float32, `(*rows.shape, dim)`."""
    return torch.from_numpy(np.asarray(embeddings[rows], dtype=np.float32))


def hold_out(n: int, fraction: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows of the queries held out for development, and of the others, each ascending.

    Args:
        n: Number of queries.
        fraction: Share that is held out: at least one query, and never all.
        seed: Seed of the choice.

    Raises:
        ValueError: If there are fewer than two queries.
    """
    if n < 2:
        raise ValueError(f"Fitting needs at least two queries, got {n}.")
    order = np.random.default_rng(seed).permutation(n)
    count = min(max(1, round(n * fraction)), n - 1)
    return np.sort(order[:count]), np.sort(order[count:])


def shuffled_batches(n: int, size: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Yield rows `0 ... n - 1` in batches, in a new order for each pass, without end."""
    while True:
        order = rng.permutation(n)
        yield from (order[start : start + size] for start in range(0, n, size))


class KnownPositives:
    """Answers, for arrays of query and document rows, which pairs are labelled relevant."""

    def __init__(self, positives: Sequence[np.ndarray], num_documents: int):
        self._num_documents = num_documents
        lengths = [len(rows) for rows in positives]
        queries = np.repeat(np.arange(len(positives), dtype=np.int64), lengths)
        self._keys = np.sort(queries * num_documents + np.concatenate(positives).astype(np.int64))

    def contains(self, queries: np.ndarray, documents: np.ndarray) -> np.ndarray:
        """Return whether each pair is labelled; the two arrays are broadcast against each other."""
        keys = queries.astype(np.int64) * self._num_documents + documents
        found = np.searchsorted(self._keys, keys)
        return self._keys[np.minimum(found, len(self._keys) - 1)] == keys
