"""Rows of a training set, anchors with documents, as numbers of distinct texts."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from datasets import Dataset

from ..data import Collection
from ..data.builder import COLUMNS
from ..data.pairs import DEFAULT_SPLIT

NEGATIVE = re.compile(rf"(?:{'|'.join(COLUMNS['negative'])})(?:_?\d+)?")
# Columns of weights, or of scores, of a row's documents. They are estimated anew.
ESTIMATES = {"scores", "labels", *COLUMNS["label"]}


@dataclass(frozen=True)
class TrainingRows:
    """Anchors, positives and negatives of a training set, and all documents that are known.

    Args:
        anchor: Name of the column of anchors.
        positive: Name of the column of positives.
        negative: Names of the columns of negatives.
        queries: Distinct anchors.
        documents: Distinct documents: those of the corpus, then those of the training set.
        pairs: Numbers of the anchor and the document of each row, `(n, 2)`.
        relevant: Whether each row's document is relevant to its anchor; not if its label is 0, `(n,)`.
        negatives: Numbers of the documents in each row's columns of negatives, `(n, k)`.
        labelled: Whether the training set has a column of labels.
        left_out: What of the training set isn't here, for the log.
    """

    anchor: str
    positive: str
    negative: list[str]
    queries: list[str]
    documents: list[str]
    pairs: np.ndarray
    relevant: np.ndarray
    negatives: np.ndarray
    labelled: bool
    left_out: str

    @cached_property
    def positives(self) -> list[np.ndarray]:
        """Numbers of each query's relevant documents, distinct and ascending."""
        return self._by_query(self._relevant)

    @cached_property
    def irrelevant(self) -> list[np.ndarray]:
        """Numbers of the documents that have the label 0 for each query, but for its positives."""
        return self._by_query(np.setdiff1d(self._keys(*self.pairs[~self.relevant].T), self._relevant))

    @cached_property
    def given_negatives(self) -> list[np.ndarray]:
        """Numbers of the documents in each query's columns of negatives, but for its positives."""
        given = self._keys(self.pairs[:, :1], self.negatives)
        return self._by_query(np.setdiff1d(given, self._relevant))

    @property
    def _relevant(self) -> np.ndarray:
        return np.unique(self._keys(*self.pairs[self.relevant].T))

    def _keys(self, queries: np.ndarray, documents: np.ndarray) -> np.ndarray:
        """Return one number for each pair of a query and a document."""
        return queries * len(self.documents) + documents

    def _by_query(self, keys: np.ndarray) -> list[np.ndarray]:
        """Return the documents of each query, from ascending keys of pairs."""
        queries, documents = np.divmod(keys, len(self.documents))
        return np.split(documents, np.searchsorted(queries, np.arange(1, len(self.queries))))

    def collection(self, negatives: Sequence[np.ndarray]) -> Collection:
        """Return the collection of these documents and queries.

        Args:
            negatives: Numbers of the documents that are known not to be relevant to each query.
        """
        ids = [str(number) for number in range(len(self.documents))]
        names = [f"query {number}" for number in range(len(self.queries))]
        qrels = {
            name: {**{ids[row]: 1 for row in positives.tolist()}, **{ids[row]: 0 for row in others.tolist()}}
            for name, positives, others in zip(names, self.positives, negatives, strict=True)
        }
        return Collection(
            "dataset",
            Dataset.from_dict({"id": ids, "title": [""] * len(ids), "text": self.documents}),
            Dataset.from_dict({"id": names, "text": self.queries}),
            {DEFAULT_SPLIT: qrels},
        )


def read_rows(
    dataset: Dataset,
    anchor_column_name: str | None = None,
    positive_column_name: str | None = None,
    corpus: Sequence[str] | None = None,
) -> TrainingRows:
    """Read a training set.

    Args:
        dataset: Pairs, triplets, n-tuples, or pairs with labels. Anchors may repeat.
        anchor_column_name: Column of anchors. If not given, one with a usual name, or else the first.
        positive_column_name: Column of positives. If not given, one with a usual name, or else the first of
            the others.
        corpus: Further documents.

    Raises:
        TypeError: If `dataset` isn't a `datasets.Dataset`.
        ValueError: If it has no rows, a column doesn't exist or holds something else than texts, or integers
            as labels, or no row is relevant. The message names column and row.

    Example:
        >>> rows = read_rows(Dataset.from_dict({"query": ["a", "b"], "answer": ["x", "y"]}), corpus=["z"])
        >>> rows.documents, rows.pairs.tolist()
        (['z', 'x', 'y'], [[0, 1], [1, 2]])
    """
    if not isinstance(dataset, Dataset):
        splits = f" with the splits {list(dataset)}; pass one of them" if isinstance(dataset, dict) else ""
        raise TypeError(f"dataset must be a datasets.Dataset, got {type(dataset).__name__}{splits}.")
    if isinstance(corpus, str):
        raise ValueError("corpus must be a list of texts, got one text.")
    if not len(dataset):
        raise ValueError("dataset must have rows, got none.")
    if dataset.format["type"] != "custom":
        # Arrays and tensors of other formats are no texts and integers; what a transform gives may be.
        dataset = dataset.with_format(None)
    anchor = _column(dataset, "anchor_column_name", anchor_column_name, "query", None)
    positive = _column(dataset, "positive_column_name", positive_column_name, "document", anchor)
    negative = [name for name in dataset.column_names if NEGATIVE.fullmatch(name) and name != positive]
    texts = {name: _checked(f"column {name!r}", dataset[name][:]) for name in (anchor, positive, *negative)}
    label, relevant = _labels(dataset)
    answered = {text for text, is_relevant in zip(texts[anchor], relevant, strict=True) if is_relevant}
    if not answered:
        raise ValueError(f"dataset must have relevant documents; all labels in column {label!r} are 0.")
    kept = [row for row, text in enumerate(texts[anchor]) if text in answered]
    others = set(dataset.column_names) - {*texts} - ESTIMATES
    queries = _numbered([[texts[anchor][row] for row in kept]])
    further = _checked("corpus", corpus or [])
    documents = _numbered([further, *(texts[name] for name in (positive, *negative))])

    def numbers(name: str, of: dict[str, int]) -> np.ndarray:
        return np.array([of[texts[name][row]] for row in kept], dtype=np.int64)

    negatives = [numbers(name, documents) for name in negative]
    return TrainingRows(
        anchor,
        positive,
        negative,
        list(queries),
        list(documents),
        np.column_stack([numbers(anchor, queries), numbers(positive, documents)]),
        relevant[kept],
        np.column_stack(negatives) if negatives else np.empty((len(kept), 0), dtype=np.int64),
        label is not None,
        _left_out(len(dataset) - len(kept), sorted(others)),
    )


def _column(dataset: Dataset, argument: str, name: str | None, role: str, before: str | None) -> str:
    """Return the column that is named, has a usual name for the role, or is the first that has no other."""
    columns = [column for column in dataset.column_names if column != before]
    if name is not None:
        if name not in columns:
            raise ValueError(f"{argument} must be one of {columns}, got {name!r}.")
        return name
    usual = [column for column in COLUMNS[role] if column in columns]
    others = ESTIMATES.union(COLUMNS["id"])
    free = [column for column in columns if not NEGATIVE.fullmatch(column) and column not in others]
    if not usual and not free:
        raise ValueError(f"dataset must have columns of anchors and positives, got {dataset.column_names}.")
    return (usual or free)[0]


def _checked(name: str, texts: Sequence[Any]) -> list[str]:
    for row, text in enumerate(texts):
        if not isinstance(text, str) or not text.strip():
            given = "an empty text" if isinstance(text, str) else type(text).__name__
            raise ValueError(f"{name} must hold texts, got {given} in row {row}.")
    return list(texts)


def _labels(dataset: Dataset) -> tuple[str | None, np.ndarray]:
    """Return the column of labels, not of lists, None if there is none, and which rows are relevant."""
    column = next((name for name in COLUMNS["label"] if name in dataset.column_names), None)
    if column is not None and isinstance(dataset[0][column], list):
        column = None
    values: list[Any] = [1] * len(dataset) if column is None else dataset[column][:]
    for row, value in enumerate(values):
        if not isinstance(value, (int, float)) or not float(value).is_integer():
            raise ValueError(f"column {column!r} must hold integers, got {value!r} in row {row}.")
    return column, np.array(values) > 0


def _numbered(columns: Iterable[Iterable[str]]) -> dict[str, int]:
    """Return the number of each distinct text, in the order of its first place."""
    distinct = dict.fromkeys(text for column in columns for text in column)
    return {text: number for number, text in enumerate(distinct)}


def _left_out(rows: int, columns: list[str]) -> str:
    parts = [f"{rows} rows of anchors without a positive"] if rows else []
    parts += [f"the columns {columns}"] if columns else []
    return f"; left out: {' and '.join(parts)}" if parts else ""
