"""What an adapter is fitted on."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ..candidates.labelled import LabelledQueries, hold_out
from ..indexes import WordIndex
from ..models.adapter_rrra import RetrieverAdapter
from ..models.reader_rrra import FeatureReader


class FitData(NamedTuple):
    """Training queries, the corpus, and development queries.

    Args:
        training: Training queries.
        candidates: Rows of each training query's mined candidates, `(n, depth)`, -1 where none are left.
        documents: Embeddings of the documents, `(m, dim)`.
        development: Development queries, which nothing is fitted on; None if there are none.
        document_words: The documents' words; None if no words are read.
        given_start: The reader that a fit of features starts from; that of the adapter that comes trained
            if not given.
    """

    training: LabelledQueries
    candidates: np.ndarray
    documents: np.ndarray
    development: LabelledQueries | None
    document_words: WordIndex | None = None
    given_start: FeatureReader | None = None

    @property
    def start(self) -> FeatureReader:
        """The reader that a fit of features starts from."""
        return self.given_start or trained_reader(RetrieverAdapter.pretrained())


def trained_reader(adapter: RetrieverAdapter) -> FeatureReader:
    """Return the reader of an adapter that a fit may start from.

    Raises:
        ValueError: If the adapter reads no features, or features of the labels of a collection.
    """
    if not isinstance(adapter.reader, FeatureReader) or adapter.reader.remembers:
        raise ValueError("start must be an adapter that reads features and remembers no training queries.")
    return adapter.reader


# The training queries are dealt into this many folds. The features of each fold are computed with the maps
# and the memory of the others, as they will be for unseen queries.
FOLDS = 3
# Queries to imagine on which what is fitted changes nothing: the best of many options on ten queries is luck.
PRIOR_QUERIES = 20


def deal(count: int, seed: int, folds: int = FOLDS) -> list[np.ndarray]:
    """Deal rows `0 ... count - 1` into folds at random; each row is in one.

    Args:
        count: Number of rows.
        seed: Seed of the choice.
        folds: Number of folds; fewer if there are fewer rows.

    Raises:
        ValueError: If there are fewer than two rows.

    Example:
        >>> [len(fold) for fold in deal(7, seed=0)]
        [3, 2, 2]
    """
    if count < 2:
        raise ValueError(f"Fitting needs at least two training queries, got {count}.")
    folds = min(folds, count)
    dealt = np.random.default_rng(seed).permutation(count) % folds
    return [np.flatnonzero(dealt == fold) for fold in range(folds)]


def hold_out_development(data: FitData, fraction: float, seed: int) -> FitData:
    """Return the data with development queries; if there are none, a part of the training queries.

    Raises:
        ValueError: If there are fewer than two queries to hold one out of.
    """
    if data.development is not None:
        return data
    held_out, kept = hold_out(len(data.training.positives), fraction, seed)
    return data._replace(
        training=data.training.select(kept),
        candidates=data.candidates[kept],
        development=data.training.select(held_out),
    )
