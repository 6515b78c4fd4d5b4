"""The documents that a retriever ranks high for each training query, without the labelled positives."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ..embeddings.storage import read_meta

FORMAT_VERSION = 1
META_NAME = "pool.json"
DOCUMENTS_NAME = "documents.parquet"
QUERIES_NAME = "queries.parquet"
FILE_NAMES = {META_NAME, DOCUMENTS_NAME, QUERIES_NAME}
QUERIES_SCHEMA = pa.schema(
    {
        "query_id": pa.large_string(),
        "positive_ids": pa.large_list(pa.large_string()),
        "candidate_ids": pa.large_list(pa.large_string()),
        "scores": pa.large_list(pa.float32()),
        "probability": pa.large_list(pa.float32()),
    }
)
# Queries written at a time.
BLOCK_SIZE = 4096


@dataclass
class CandidatePool:
    """Candidates of each query: high-ranking documents that are unlabelled, hard or false negatives.

    A row is a document's position in `document_ids` and in the documents' embeddings. To add
    probabilities, use `dataclasses.replace(pool, probability=...)`.

    Args:
        query_ids: Ids of the queries, `n`.
        document_ids: Ids of the whole corpus, in the order of its embeddings' rows.
        positives: Rows of each query's labelled positives, `n` arrays of int32.
        candidates: Rows of each query's candidates, best first, `(n, depth)` int32; -1 where there are
            none left, always at the end.
        scores: Cosines of the candidates, `(n, depth)` float32; -inf where `candidates` is -1.
        probability: Probability that the candidate is relevant after all, `(n, depth)`
            float32; NaN where `candidates` is -1.
        fingerprint: Fingerprints of the `encoder`, `corpus` and `queries` that the pool was mined
            with; empty for embeddings from elsewhere.

    Raises:
        ValueError: If shapes disagree, ids repeat, or a row is not in the corpus.

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

    def __post_init__(self) -> None:
        self.positives = [np.asarray(rows, dtype=np.int32) for rows in self.positives]
        self.candidates = np.asarray(self.candidates, dtype=np.int32)
        self.scores = np.asarray(self.scores, dtype=np.float32)
        self._check_ids()
        self._check_shapes()
        self._check_rows()

    def _check_ids(self) -> None:
        for name in ("query_ids", "document_ids"):
            ids = getattr(self, name)
            if len(set(ids)) < len(ids):
                raise ValueError(f"{name} must be unique, {len(ids) - len(set(ids))} of {len(ids)} repeat.")

    def _check_shapes(self) -> None:
        if len(self.positives) != len(self):
            raise ValueError(
                f"positives must have one entry a query ({len(self)}), got {len(self.positives)}."
            )
        if self.candidates.ndim != 2 or len(self.candidates) != len(self):
            raise ValueError(f"candidates must have shape ({len(self)}, depth), got {self.candidates.shape}.")
        if self.scores.shape != self.candidates.shape:
            raise ValueError(f"scores must have shape {self.candidates.shape}, got {self.scores.shape}.")
        if self.probability is None:
            return
        probability = np.asarray(self.probability, dtype=np.float32)
        if probability.shape != self.candidates.shape:
            raise ValueError(f"probability must have shape {self.candidates.shape}, got {probability.shape}.")
        self.probability = probability

    def _check_rows(self) -> None:
        count = len(self.document_ids)
        positives = np.concatenate([np.empty(0, dtype=np.int32), *self.positives])
        for name, rows, lowest in (("positives", positives, 0), ("candidates", self.candidates, -1)):
            if rows.size and (rows.min() < lowest or rows.max() >= count):
                raise ValueError(
                    f"{name} must hold rows of the {count} documents, got {rows.min()} to {rows.max()}."
                )
        if ((self.candidates[:, :-1] < 0) & (self.candidates[:, 1:] >= 0)).any():
            raise ValueError("candidates must have -1 only at the end of a row.")

    def __len__(self) -> int:
        return len(self.query_ids)

    @property
    def depth(self) -> int:
        """Candidates a query, including the places that are empty."""
        return self.candidates.shape[1]

    @property
    def candidate_ids(self) -> list[list[str]]:
        """Document ids of each query's candidates, best first."""
        return [self._ids(rows[rows >= 0]) for rows in self.candidates]

    @property
    def positive_ids(self) -> list[list[str]]:
        """Document ids of each query's labelled positives."""
        return [self._ids(rows) for rows in self.positives]

    def _ids(self, rows: np.ndarray) -> list[str]:
        return [self.document_ids[row] for row in rows]

    def select(self, query_rows: Sequence[int] | np.ndarray) -> CandidatePool:
        """Return the pool of some of the queries.

        Args:
            query_rows: Positions of the queries to keep, in the order wanted.

        Raises:
            ValueError: If a position is not in the pool, or repeats.
        """
        rows = np.asarray(query_rows, dtype=np.int64).reshape(-1)
        if rows.size and (rows.min() < 0 or rows.max() >= len(self)):
            raise ValueError(f"query_rows must be in [0, {len(self)}), got {rows.min()} to {rows.max()}.")
        probability = self.probability
        return CandidatePool(
            query_ids=[self.query_ids[row] for row in rows],
            document_ids=self.document_ids,
            positives=[self.positives[row] for row in rows],
            candidates=self.candidates[rows],
            scores=self.scores[rows],
            probability=None if probability is None else probability[rows],
            # The queries are no longer those that were fingerprinted.
            fingerprint={name: value for name, value in self.fingerprint.items() if name != "queries"},
        )

    def require(self, fingerprint: dict[str, str]) -> None:
        """Refuse a pool that was mined with something else.

        Args:
            fingerprint: Fingerprints of the `encoder`, `corpus` and `queries` in use, as in
                `CollectionEmbeddings.fingerprint`. What the pool has no fingerprint of is not compared.

        Raises:
            ValueError: If one differs; the message names which.

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
        """Write the pool to a folder of Parquet and JSON, complete or not at all.

        `queries.parquet` has the columns `query_id`, `positive_ids`, `candidate_ids`, `scores` and
        `probability`; `documents.parquet` the ids of the corpus in order.

        Args:
            directory: Made if it isn't there; a pool in it is replaced.

        Raises:
            ValueError: If the folder holds other files.
        """
        directory = Path(directory)
        if directory.exists():
            check_replaceable(directory)
        directory.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=directory.parent, prefix=f".{directory.name}.") as temporary:
            self.replace(directory, Path(temporary) / "pool")

    def replace(self, directory: Path, scratch: Path) -> None:
        """Write the pool to a scratch folder, and put it in place of a folder.

        Args:
            directory: The folder; may be there or not.
            scratch: Made anew, on the same disk. It keeps what was in the folder, to be removed.
        """
        shutil.rmtree(scratch, ignore_errors=True)
        new = scratch / "new"
        new.mkdir(parents=True)
        self._write(new)
        if directory.exists():
            directory.rename(scratch / "old")
        new.rename(directory)

    def _write(self, directory: Path) -> None:
        document_ids = _strings(self.document_ids)
        pq.write_table(pa.table({"document_id": document_ids}), directory / DOCUMENTS_NAME)
        with pq.ParquetWriter(directory / QUERIES_NAME, QUERIES_SCHEMA) as writer:
            # Block by block: the ids of all candidates at once take more memory than the pool.
            for start in range(0, len(self), BLOCK_SIZE):
                writer.write_table(self._table(slice(start, start + BLOCK_SIZE), document_ids))
        meta = {
            "format_version": FORMAT_VERSION,
            "queries": len(self),
            "documents": len(self.document_ids),
            "depth": self.depth,
            "fingerprint": self.fingerprint,
        }
        (directory / META_NAME).write_text(json.dumps(meta, indent=2) + "\n")

    def _table(self, block: slice, document_ids: pa.Array) -> pa.Table:
        """Return the rows of some queries as `queries.parquet` holds them."""
        kept = self.candidates[block] >= 0
        offsets = _offsets(kept.sum(axis=1))
        positives = self.positives[block]
        probability = self.probability
        positive_offsets = _offsets(np.array([len(rows) for rows in positives], dtype=np.int64))
        columns = [
            _strings(self.query_ids[block]),
            _id_lists(np.concatenate(positives), positive_offsets, document_ids),
            _id_lists(self.candidates[block][kept], offsets, document_ids),
            pa.LargeListArray.from_arrays(offsets, pa.array(self.scores[block][kept])),
            pa.nulls(len(kept), pa.large_list(pa.float32()))
            if probability is None
            else pa.LargeListArray.from_arrays(offsets, pa.array(probability[block][kept])),
        ]
        return pa.table(columns, schema=QUERIES_SCHEMA)

    @classmethod
    def load(cls, directory: str | os.PathLike[str]) -> CandidatePool:
        """Read a pool that `save` wrote.

        Args:
            directory: The folder.

        Raises:
            FileNotFoundError: If the folder is not there.
            ValueError: If a file of it is missing or damaged; the message names the file.
        """
        directory = Path(directory)
        if not directory.is_dir():
            raise FileNotFoundError(f"No candidate pool at {directory}.")
        meta = read_meta(
            directory / META_NAME, FORMAT_VERSION, ("queries", "documents", "depth", "fingerprint")
        )
        documents = _read_table(directory / DOCUMENTS_NAME, meta["documents"])
        queries = _read_table(directory / QUERIES_NAME, meta["queries"])
        try:
            return cls._from_tables(meta, documents, queries)
        except (KeyError, TypeError, ValueError, pa.ArrowException) as error:
            raise ValueError(f"{directory / QUERIES_NAME} does not hold a candidate pool: {error}") from error

    @classmethod
    def _from_tables(cls, meta: dict[str, Any], documents: pa.Table, queries: pa.Table) -> CandidatePool:
        shape = (meta["queries"], meta["depth"])
        document_ids = documents["document_id"].combine_chunks()
        lists = {name: queries[name].combine_chunks() for name in queries.column_names}
        filled = np.arange(meta["depth"]) < _lengths(lists["candidate_ids"])[:, None]
        positives = np.split(
            _rows(lists["positive_ids"], document_ids), np.cumsum(_lengths(lists["positive_ids"]))[:-1]
        )
        probabilities = lists["probability"]
        return cls(
            query_ids=lists["query_id"].to_pylist(),
            document_ids=document_ids.to_pylist(),
            positives=positives[: shape[0]],
            candidates=_scatter(_rows(lists["candidate_ids"], document_ids), filled, -1),
            scores=_scatter(lists["scores"].flatten().to_numpy(), filled, -np.inf),
            probability=None
            if probabilities.null_count == len(probabilities)
            else _scatter(probabilities.flatten().to_numpy(), filled, np.nan),
            fingerprint=meta["fingerprint"],
        )


def check_replaceable(directory: Path) -> None:
    """Raise ValueError if a folder holds anything but a pool."""
    others = sorted({path.name for path in directory.iterdir()} - FILE_NAMES)
    if others:
        raise ValueError(f"{directory} holds other files ({', '.join(others[:3])}); save the pool elsewhere.")


def _id_lists(rows: np.ndarray, offsets: pa.Array, document_ids: pa.Array) -> pa.Array:
    return pa.LargeListArray.from_arrays(offsets, document_ids.take(pa.array(rows)))


def _strings(values: Sequence[str]) -> pa.Array:
    return pa.array(values, type=pa.large_string())


def _offsets(lengths: np.ndarray) -> pa.Array:
    return pa.array(np.concatenate([[0], np.cumsum(lengths)]), type=pa.int64())


def _lengths(lists: pa.Array) -> np.ndarray:
    return lists.value_lengths().to_numpy()


def _rows(id_lists: pa.Array, document_ids: pa.Array) -> np.ndarray:
    """Return the rows of the documents in all lists, one after the other."""
    rows = pc.index_in(id_lists.flatten(), value_set=document_ids)
    if rows.null_count:
        raise ValueError(f"{rows.null_count} document ids are not in {DOCUMENTS_NAME}")
    return rows.to_numpy()


def _scatter(values: np.ndarray, filled: np.ndarray, empty: float) -> np.ndarray:
    """Return a matrix with `values`, row by row, where `filled`, and `empty` elsewhere."""
    if len(values) != filled.sum():
        raise ValueError(f"{len(values)} values for {filled.sum()} candidates")
    matrix = np.full(filled.shape, empty, dtype=values.dtype)
    matrix[filled] = values
    return matrix


def _read_table(path: Path, count: int) -> pa.Table:
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowException) as error:
        raise ValueError(f"{path} is missing or damaged: {error}") from error
    if table.num_rows != count:
        raise ValueError(f"{path} is damaged: it has {table.num_rows} rows, not {count}.")
    return table
