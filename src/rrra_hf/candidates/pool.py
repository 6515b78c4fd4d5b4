"""The candidate pool: the best unlabelled documents per training query."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ..evaluation import membership
from ..models.files_rrra import write_aside
from .pool_files import FILE_NAMES, QUERIES_NAME, read_pool, write_pool


@dataclass
class CandidatePool:
    """Candidates per query: highly ranked documents without a label, which are hard or false negatives.

    Row numbers are positions in `document_ids` and in the embeddings of the documents. To add probabilities,
    use `dataclasses.replace(pool, probability=...)`.

    Args:
        query_ids: Ids of the `n` queries.
        document_ids: Ids of the whole corpus, in the order of its embeddings.
        positives: Row numbers of the labelled positives per query, `n` arrays of int32.
        candidates: Row numbers of the candidates, best first, `(n, depth)` int32. Shorter rows are padded
            with -1.
        scores: Cosines of the candidates, `(n, depth)` float32; -inf where `candidates` is -1.
        probability: Probability that a candidate is relevant although it has no label, `(n, depth)` float32;
            NaN where `candidates` is -1. That of a known negative is set to 0.
        fingerprint: Fingerprints of the `encoder`, `corpus` and `queries` that the pool was mined with. Empty
            for embeddings from other sources.
        negatives: Row numbers per query of documents that were judged and aren't relevant, `n` arrays of
            int32; none are known by default. They may be candidates.
        excluded: Row numbers per query of documents that are neither relevant nor not, such as the query
            itself where queries are documents too, `n` arrays of int32. None of them is a positive.
        ranking_scores: By how much an adapter ranks each candidate above a labelled document of its query,
            `(n, depth)` float32; -inf where `candidates` is -1. That of a known negative is set to -inf.

    Raises:
        ValueError: If shapes don't match, ids repeat, a row number is out of range, a candidate repeats or is
            a positive, a score isn't finite, or a probability isn't in [0, 1].

    Example:
        >>> pool = CandidatePool(
        ...     query_ids=["q1"],
        ...     document_ids=["d1", "d2", "d3"],
        ...     positives=[np.array([1])],
        ...     candidates=np.array([[2, 0]]),
        ...     scores=np.array([[0.9, 0.1]]),
        ... )
        >>> pool.positive_ids, pool.candidate_ids
        ([['d2']], [['d3', 'd1']])
    """

    query_ids: list[str]
    document_ids: list[str]
    positives: list[np.ndarray]
    candidates: np.ndarray
    scores: np.ndarray
    probability: np.ndarray | None = None
    fingerprint: dict[str, str] = field(default_factory=dict)
    negatives: list[np.ndarray] = field(default_factory=list)
    excluded: list[np.ndarray] = field(default_factory=list)
    ranking_scores: np.ndarray | None = None

    def __post_init__(self) -> None:
        self.positives = _row_lists(self.positives)
        nothing = [np.empty(0, dtype=np.int32)] * len(self)
        self.negatives = _row_lists(self.negatives or nothing)
        self.excluded = _row_lists(self.excluded or nothing)
        self.candidates = np.asarray(self.candidates, dtype=np.int32)
        self.scores = np.asarray(self.scores, dtype=np.float32)
        self._check_ids()
        self._check_shapes()
        self._check_rows()
        self._check_values()
        if any(map(len, self.negatives)):
            self._judge_known_negatives()

    def _judge_known_negatives(self) -> None:
        known = self.known_negative
        if self.probability is not None:
            self.probability = np.where(known, np.float32(0), self.probability)
        if self.ranking_scores is not None:
            self.ranking_scores = np.where(known, np.float32(-np.inf), self.ranking_scores)

    def _check_ids(self) -> None:
        for name in ("query_ids", "document_ids"):
            ids = getattr(self, name)
            if len(set(ids)) < len(ids):
                raise ValueError(f"{name} must be unique, {len(ids) - len(set(ids))} of {len(ids)} repeat.")

    def _check_shapes(self) -> None:
        for name in ("positives", "negatives", "excluded"):
            count = len(getattr(self, name))
            if count != len(self):
                raise ValueError(f"{name} must have one entry per query ({len(self)}), got {count}.")
        if self.candidates.ndim != 2 or len(self.candidates) != len(self):
            raise ValueError(f"candidates must have shape ({len(self)}, depth), got {self.candidates.shape}.")
        if self.scores.shape != self.candidates.shape:
            raise ValueError(f"scores must have shape {self.candidates.shape}, got {self.scores.shape}.")
        for name in ("probability", "ranking_scores"):
            if getattr(self, name) is None:
                continue
            values = np.asarray(getattr(self, name), dtype=np.float32)
            if values.shape != self.candidates.shape:
                raise ValueError(f"{name} must have shape {self.candidates.shape}, got {values.shape}.")
            setattr(self, name, values)

    def _check_rows(self) -> None:
        count = len(self.document_ids)
        labels = [(name, _joined(getattr(self, name)), 0) for name in ("positives", "negatives", "excluded")]
        for name, rows, lowest in (*labels, ("candidates", self.candidates, -1)):
            if rows.size and (rows.min() < lowest or rows.max() >= count):
                raise ValueError(
                    f"{name} must hold rows of the {count} documents, got {rows.min()} to {rows.max()}."
                )
        if ((self.candidates[:, :-1] < 0) & (self.candidates[:, 1:] >= 0)).any():
            raise ValueError("candidates must have -1 only at the end of a row.")

        self._check_labels()

    def _check_labels(self) -> None:
        """Refuse candidates that repeat in a row, or are labelled positives of its query."""
        ordered = np.sort(self.candidates, axis=1)
        repeat = (ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] >= 0)
        if repeat.any():
            query, _ = np.argwhere(repeat)[0]
            raise ValueError(f"candidates must not repeat, those of the query {self.query_ids[query]!r} do.")
        # Numbers that ascend with the query, then with the row; -1 is the first of each query.
        width = len(self.document_ids) + 1
        numbers = (np.arange(len(self))[:, None] * width + ordered + 1).reshape(-1)
        queries, negatives_of = (
            np.repeat(np.arange(len(self)), [len(rows) for rows in lists])
            for lists in (self.positives, self.negatives)
        )
        labelled = queries * width + _joined(self.positives) + 1
        contradiction = np.isin(negatives_of * width + _joined(self.negatives) + 1, labelled)
        if contradiction.any():
            query = negatives_of[contradiction.argmax()]
            raise ValueError(
                f"negatives must not be positives, one of the query {self.query_ids[query]!r} is."
            )
        found = np.searchsorted(numbers, labelled, side="right") > np.searchsorted(numbers, labelled)
        if found.any():
            query = queries[found.argmax()]
            raise ValueError(
                f"candidates must not be positives, one of the query {self.query_ids[query]!r} is."
            )

    def _check_values(self) -> None:
        present = self.candidates >= 0
        if not np.isfinite(self.scores[present]).all() or not np.isneginf(self.scores[~present]).all():
            raise ValueError("scores must be finite, and -inf where candidates is -1.")
        if self.ranking_scores is not None:
            ranked = self.ranking_scores
            # -inf may also be a known negative.
            if not (ranked[present] < np.inf).all() or not np.isneginf(ranked[~present]).all():
                raise ValueError("ranking_scores must be numbers, and -inf where candidates is -1.")
        if self.probability is None:
            return
        probability = self.probability[present]
        # A comparison with NaN is false.
        if not ((probability >= 0) & (probability <= 1)).all():
            raise ValueError("probability must be in [0, 1] for each candidate.")

    def __len__(self) -> int:
        return len(self.query_ids)

    @property
    def depth(self) -> int:
        """Number of candidates per query, including empty places."""
        return self.candidates.shape[1]

    @property
    def known_negative(self) -> np.ndarray:
        """Which candidates were judged and aren't relevant, `(n, depth)` bool."""
        return membership(self.candidates, self.negatives)

    @property
    def required_probability(self) -> np.ndarray:
        """`probability`, where it must be known.

        Raises:
            ValueError: If the pool has no probabilities.
        """
        if self.probability is None:
            raise ValueError("pool must have probabilities, this one has none: add them with cross_fit.")
        return self.probability

    def suspects(self, threshold: float = 0.5) -> np.ndarray:
        """Return which candidates are taken for relevant, `(n, depth)` bool.

        They have a probability above the threshold, or the adapter ranks them above a labelled document.

        Args:
            threshold: The probability.

        Raises:
            ValueError: If the pool has no probabilities.
        """
        # A comparison with NaN is false.
        probable = self.required_probability > threshold
        return probable if self.ranking_scores is None else probable | (self.ranking_scores > 0)

    @property
    def candidate_ids(self) -> list[list[str]]:
        """Document ids of the candidates per query, best first."""
        return [self._ids(rows[rows >= 0]) for rows in self.candidates]

    @property
    def positive_ids(self) -> list[list[str]]:
        """Document ids of the labelled positives per query."""
        return [self._ids(rows) for rows in self.positives]

    def _ids(self, rows: np.ndarray) -> list[str]:
        return [self.document_ids[row] for row in rows]

    def select(self, query_rows: Sequence[int] | np.ndarray) -> CandidatePool:
        """Return a pool with some of the queries.

        Args:
            query_rows: Positions of the queries to keep, in the new order.

        Raises:
            ValueError: If a position is out of range or repeats.
        """
        rows = np.asarray(query_rows, dtype=np.int64).reshape(-1)
        if rows.size and (rows.min() < 0 or rows.max() >= len(self)):
            raise ValueError(f"query_rows must be in [0, {len(self)}), got {rows.min()} to {rows.max()}.")
        probability, ranking_scores = self.probability, self.ranking_scores
        return CandidatePool(
            query_ids=[self.query_ids[row] for row in rows],
            document_ids=self.document_ids,
            positives=[self.positives[row] for row in rows],
            negatives=[self.negatives[row] for row in rows],
            excluded=[self.excluded[row] for row in rows],
            candidates=self.candidates[rows],
            scores=self.scores[rows],
            probability=None if probability is None else probability[rows],
            ranking_scores=None if ranking_scores is None else ranking_scores[rows],
            # The fingerprint of the queries no longer applies.
            fingerprint={name: value for name, value in self.fingerprint.items() if name != "queries"},
        )

    def require(self, fingerprint: dict[str, str]) -> None:
        """Check that the pool was mined with the given encoder, corpus and queries.

        Args:
            fingerprint: Fingerprints of the `encoder`, `corpus` and `queries` in use, see
                `CollectionEmbeddings.fingerprint`. Only fingerprints that the pool also has are compared.

        Raises:
            ValueError: If a fingerprint differs. The message names it.

        Example:
            >>> nothing = np.empty((0, 1))
            >>> pool = CandidatePool([], ["d1"], [], nothing, nothing, fingerprint={"corpus": "a1"})
            >>> pool.require({"corpus": "b2"})
            Traceback (most recent call last):
            ValueError: The pool was mined with another corpus (a1, not b2); mine it again.
        """
        for name in ("encoder", "corpus", "queries"):
            mined, used = self.fingerprint.get(name), fingerprint.get(name)
            if mined and used and mined != used:
                what = "other queries" if name == "queries" else f"another {name}"
                raise ValueError(f"The pool was mined with {what} ({mined}, not {used}); mine it again.")

    def save(self, directory: str | os.PathLike[str]) -> None:
        """Write the pool to a folder with Parquet and JSON files. A partial pool is never left.

        `queries.parquet` has the columns `query_id`, `positive_ids`, `candidate_ids`, `scores`,
        `probability`, `negative_ids`, `excluded_ids` and `ranking_scores`. `documents.parquet` has the
        ids of the corpus.

        Args:
            directory: The folder. It is created if needed, and an existing pool in it is replaced.

        Raises:
            ValueError: If the folder holds other files.
        """
        with write_aside(directory, owned=FILE_NAMES) as temporary:
            write_pool(temporary, **vars(self))

    @classmethod
    def load(cls, directory: str | os.PathLike[str]) -> CandidatePool:
        """Read a pool written by `save`.

        Args:
            directory: The folder.

        Raises:
            FileNotFoundError: If the folder doesn't exist.
            ValueError: If a file is missing or damaged. The message names the file.
        """
        directory = Path(directory)
        if not directory.is_dir():
            raise FileNotFoundError(f"No candidate pool at {directory}.")
        fields = read_pool(directory)
        try:
            return cls(**fields)
        except ValueError as error:
            raise ValueError(f"{directory / QUERIES_NAME} has no candidate pool: {error}") from error


def _row_lists(row_lists: list[np.ndarray]) -> list[np.ndarray]:
    return [np.asarray(rows, dtype=np.int32) for rows in row_lists]


def _joined(row_lists: list[np.ndarray]) -> np.ndarray:
    return np.concatenate([np.empty(0, dtype=np.int64), *row_lists])
