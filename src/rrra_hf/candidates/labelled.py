"""Training and development queries as arrays, and the candidates drawn for a step."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from scipy.sparse import csr_array
from torch import Tensor

from ..indexes import FlatIndex


class LabelledQueries(NamedTuple):
    """Query embeddings with the rows of their relevant documents.

    Args:
        embeddings: `(n, dim)`.
        positives: For each query the rows of its relevant documents, at least one.
        words: Counts of the queries' words, `(n, vocabulary)`, for an adapter that reads words.
    """

    embeddings: np.ndarray
    positives: Sequence[np.ndarray]
    words: csr_array | None = None

    @property
    def num_relevant(self) -> np.ndarray:
        """Number of distinct relevant documents of each query, `(n,)`."""
        return np.array([len(np.unique(rows)) for rows in self.positives])

    def select(self, rows: np.ndarray) -> LabelledQueries:
        """Return the queries at the given rows."""
        words = None if self.words is None else self.words[rows]
        return LabelledQueries(self.embeddings[rows], [self.positives[row] for row in rows], words)


def pair_rows(positives: Sequence[np.ndarray]) -> np.ndarray:
    """Return every (query row, positive row), `(pairs, 2)`."""
    return np.concatenate([np.stack([np.full(len(rows), q), rows], 1) for q, rows in enumerate(positives)])


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


@dataclass(frozen=True)
class RetrievedCandidates:
    """What the retriever ranks for the development queries: what there is to rerank.

    Args:
        queries: `(n, dim)`.
        rows: Retrieved documents, best first, `(n, depth)`.
        cosines: Their cosines, `(n, depth)`.
        relevant: Whether they are labelled relevant, `(n, depth)`.
        num_relevant: Labelled documents of each query in the whole corpus, `(n,)`.
        words: Counts of the queries' words, `(n, vocabulary)`.
    """

    queries: np.ndarray
    rows: np.ndarray
    cosines: np.ndarray
    relevant: np.ndarray
    num_relevant: np.ndarray
    words: csr_array | None = None

    @classmethod
    def retrieve(cls, labelled: LabelledQueries, documents: np.ndarray, depth: int) -> RetrievedCandidates:
        """Search the documents for each development query."""
        index = FlatIndex(documents.shape[1])
        index.add(documents)
        cosines, rows = index.search(labelled.embeddings, depth)
        known = KnownPositives(labelled.positives, len(documents))
        relevant = known.contains(np.arange(len(rows))[:, None], rows)
        return cls(labelled.embeddings, rows, cosines, relevant, labelled.num_relevant, labelled.words)


class Candidates(NamedTuple):
    """The documents that a step's queries are trained against.

    Args:
        own: Rows of each query's own documents, its positive first, `(n, 1 + mined)`.
        shared: Rows of the documents all queries of the step share, `(m,)`.
        labels: 1 for the positive at hand, 0 for the others, `(n, 1 + mined + m)`.
        mask: False for other documents known to be relevant to the query, same shape.
    """

    own: np.ndarray
    shared: np.ndarray
    labels: Tensor
    mask: Tensor


class CandidateSampler:
    """Draws a step's candidates: a positive, mined documents, and documents shared by the step."""

    def __init__(
        self,
        positives: Sequence[np.ndarray],
        mined: np.ndarray,
        num_documents: int,
        num_mined: int,
        num_random: int,
        rng: np.random.Generator,
    ):
        self._positives = positives
        self._mined = mined
        self._num_documents = num_documents
        self._num_mined = num_mined
        self._num_random = num_random
        self._rng = rng
        self._known = KnownPositives(positives, num_documents)

    def draw(self, batch: np.ndarray) -> Candidates:
        """Draw the candidates for the queries at the given rows."""
        positive = np.array([self._rng.choice(self._positives[row]) for row in batch])
        own = np.concatenate([positive[:, None], self._draw_mined(batch)], axis=1)
        random = self._rng.integers(0, self._num_documents, size=self._num_random)
        shared = np.unique(np.concatenate([positive, random]))
        everything = np.concatenate([own, np.broadcast_to(shared, (len(batch), len(shared)))], axis=1)
        labels = torch.zeros(everything.shape, dtype=torch.long)
        labels[:, 0] = 1
        mask = ~self._known.contains(batch[:, None], everything)
        mask[:, 0] = True
        return Candidates(own, shared, labels, torch.from_numpy(mask))

    def _draw_mined(self, batch: np.ndarray) -> np.ndarray:
        """Draw mined documents with replacement; a query that has none gets random documents."""
        mined = self._mined[batch]
        counts = (mined >= 0).sum(axis=1, keepdims=True)
        size = (len(batch), self._num_mined)
        picks = (self._rng.random(size) * np.maximum(counts, 1)).astype(np.int64)
        random = self._rng.integers(0, self._num_documents, size=size)
        return np.where(counts > 0, np.take_along_axis(mined, picks, axis=1), random)
