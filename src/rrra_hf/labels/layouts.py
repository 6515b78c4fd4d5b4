"""Layouts of training sets, for the losses of this package and of sentence-transformers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from .training_rows import TrainingRows
from .weights import rrra_weights

Columns = dict[str, list[Any]]


class Tuples(NamedTuple):
    """Rows to write: an anchor, a positive, and negatives with the probability that they are relevant.

    Args:
        pairs: Numbers of anchor and positive, `(n, 2)`.
        negatives: Numbers of the negatives, `(n, k)`; -1 where there is none.
        probability: Their probabilities, `(n, k)`; NaN where there is none.
    """

    pairs: np.ndarray
    negatives: np.ndarray
    probability: np.ndarray

    def select(self, kept: np.ndarray) -> Tuples:
        """Return some of the rows."""
        return Tuples(*(values[kept] for values in self))

    @property
    def complete(self) -> np.ndarray:
        """Whether each row has all its negatives, `(n,)`."""
        return np.all(self.negatives >= 0, axis=1)

    @property
    def soft(self) -> np.ndarray:
        """Probability of the positive, 1, and of each negative, `(n, 1 + k)`."""
        return np.column_stack([np.ones(len(self.pairs), dtype=np.float32), self.probability])


def tuples(rows: TrainingRows, written: Tuples, negative: Sequence[str]) -> Columns:
    """Return the texts of anchors, positives and negatives, each in a column.

    Args:
        rows: The training set that has the texts.
        written: What to write.
        negative: Names of the columns of negatives.
    """
    columns = {rows.anchor: [rows.queries[row] for row in written.pairs[:, 0]]}
    numbers = [written.pairs[:, 1], *written.negatives.T]
    for name, documents in zip((rows.positive, *negative), numbers, strict=True):
        columns[name] = [rows.documents[row] for row in documents]
    return columns


def weighted_tuples(rows: TrainingRows, written: Tuples, negative: Sequence[str], gamma: float) -> Columns:
    """Return tuples and a column `scores`: lists of the weights of their negatives, for `RRRALoss`."""
    weights = rrra_weights(written.probability, gamma)
    return {**tuples(rows, written, negative), "scores": weights.tolist()}


def weighted_triplets(rows: TrainingRows, written: Tuples, gamma: float) -> Columns:
    """Return a triplet for each negative, and `scores`, lists of one weight."""
    row, column = np.nonzero(written.negatives >= 0)
    single = Tuples(
        written.pairs[row], written.negatives[row, column][:, None], written.probability[row, column][:, None]
    )
    return weighted_tuples(rows, single, ["negative"], gamma)


def soft_tuples(rows: TrainingRows, written: Tuples, negative: Sequence[str]) -> Columns:
    """Return tuples and a column `label`: lists of the probabilities of positive and negatives."""
    return {**tuples(rows, written, negative), "label": written.soft.tolist()}


def labelled_pairs(rows: TrainingRows, written: Tuples) -> Columns:
    """Return each pair of anchor and document once, with its probability as `label`."""
    documents = np.column_stack([written.pairs[:, 1], written.negatives])
    queries = np.broadcast_to(written.pairs[:, :1], documents.shape)[documents >= 0]
    labels, documents = written.soft[documents >= 0], documents[documents >= 0]
    _, first = np.unique(queries * len(rows.documents) + documents, return_index=True)
    first.sort()
    return {
        rows.anchor: [rows.queries[row] for row in queries[first]],
        rows.positive: [rows.documents[row] for row in documents[first]],
        "label": labels[first].tolist(),
    }


def labelled_lists(rows: TrainingRows, written: Tuples) -> Columns:
    """Return the documents of each row as a list, with their probabilities as `labels`."""
    written = written.select(np.any(written.negatives >= 0, axis=1))
    documents = np.column_stack([written.pairs[:, 1], written.negatives])
    there = documents >= 0
    lists = zip(documents, written.soft, there, strict=True)
    texts, labels = [], []
    for numbers, soft, present in lists:
        texts.append([rows.documents[row] for row in numbers[present]])
        labels.append(soft[present].tolist())
    return {
        rows.anchor: [rows.queries[row] for row in written.pairs[:, 0]],
        rows.positive: texts,
        "labels": labels,
    }
