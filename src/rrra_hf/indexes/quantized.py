"""Search among quantised embeddings, which take a quarter of the memory or less."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Iterator
from numbers import Integral
from typing import Any, ClassVar

import faiss
import numpy as np
from typing_extensions import Self

from ..embeddings import check_embeddings, load_embeddings, save_embeddings
from ..embeddings.storage import load_columns, save_columns
from .best import rescored, search_blocks
from .checks import check_allowed, check_rows, check_search, flat_parameters, normalized
from .folder import current_folder, new_current_folder
from .vectors import BLOCK_SIZE, VectorStore

CODES_NAME = "codes.arrow"
RANGES_NAME = "ranges.arrow"
CODES = "code"

# A range that is too narrow for a later document is widened by this share more, so that few others follow.
MARGIN = 0.1
# Values of embeddings of length 1 are at most 1, and their ranges end at 1.3 at most.
WIDEST = 2
# Pairs of query and document to rescore at a time: 100 MB at dimension 384.
PAIRS = 65_536
# With fewer candidates, embeddings of one bit per value could miss the best document.
MIN_CANDIDATES = 64


class QuantizedIndex(ABC):
    """An index that compares a query with the quantised embeddings of all documents, using FAISS.

    The best `rescore_multiplier * k` of them are rescored: the query's embedding, which is not quantised, is
    compared with embeddings of 8 bits per value. So cosines are those of what `reconstruct` returns.

    The 8 bits of a value are its place in the range that its dimension has among the documents that were
    added first. If a later document lies outside, the range is widened, and all are quantised again.

    Args:
        dim: Dimension of the embeddings.
        rescore_multiplier: Number of candidates per requested document. There are at least 64 candidates per
            query.

    Raises:
        ValueError: If an argument is less than 1.
    """

    storage: ClassVar[str]
    """What an index of this class is chosen by."""

    def __init__(self, dim: int, *, rescore_multiplier: int = 4):
        for name, value in (("dim", dim), ("rescore_multiplier", rescore_multiplier)):
            if not isinstance(value, Integral) or value < 1:
                raise ValueError(f"{name} must be at least 1, got {value!r}.")
        self.rescore_multiplier = rescore_multiplier
        self._start(np.zeros((2, dim), dtype=np.float32))

    def _start(self, ranges: np.ndarray) -> None:
        """Begin without documents, with the least and the greatest value of each dimension, `(2, dim)`."""
        self._ranges = ranges
        # It learns the ranges from these two embeddings.
        self._quantizer: Any = faiss.IndexScalarQuantizer(
            ranges.shape[1], faiss.ScalarQuantizer.QT_8bit, faiss.METRIC_INNER_PRODUCT
        )
        self._quantizer.train(ranges)

    @property
    def dim(self) -> int:
        """Dimension of the embeddings."""
        return self._quantizer.d

    def __len__(self) -> int:
        return len(self._codes)

    @property
    @abstractmethod
    def _codes(self) -> np.ndarray:
        """Embeddings of 8 bits per value, `(n, dim)` uint8."""

    @abstractmethod
    def _append(self, codes: np.ndarray) -> None:
        """Append documents, given their embeddings of 8 bits per value, `(n, dim)` uint8."""

    @abstractmethod
    def _candidates(self, queries: np.ndarray, count: int, parameters: Any) -> np.ndarray:
        """Return the rows of the best documents by quantised embeddings, `(n, count)`, padded with -1.

        Args:
            queries: Normalised embeddings, `(n, dim)`.
            count: Number of documents per query.
            parameters: FAISS search parameters, which select the documents to search among.
        """

    def add(self, embeddings: np.ndarray) -> None:
        """Append documents.

        Args:
            embeddings: Embeddings, `(n, dim)`. They don't need to be normalised.

        Raises:
            ValueError: If the shape is wrong or a value isn't finite. Nothing is added then.
        """
        embeddings = check_embeddings(embeddings, "embeddings", self.dim)
        self._fit_ranges(_ranges_of(embeddings))
        for block in _blocks(embeddings):
            self._append(self._quantizer.sa_encode(normalized(block)))

    def _fit_ranges(self, found: np.ndarray) -> None:
        """Make the ranges hold those that were found, `(2, dim)`."""
        if not len(self):
            self._start(found)
            return
        low, high = self._ranges
        # What is cut off is no more than what quantisation costs anyhow.
        half_step = (high - low) / 510
        outside = np.stack([found[0] < low - half_step, found[1] > high + half_step])
        if outside.any():
            # The codes may be in the memory of this quantiser, which lives as long as its method.
            decode, codes = self._quantizer.sa_decode, self._codes
            self._start(_widened(self._ranges, found, outside))
            for block in _blocks(codes):
                self._append(self._quantizer.sa_encode(decode(block)))

    def search(
        self, queries: np.ndarray, k: int, allowed: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Find the `k` nearest documents per query, or all documents if there are fewer.

        Args:
            queries: Embeddings, `(n, dim)`. They don't need to be normalised.
            k: Number of documents per query.
            allowed: Rows of the documents to search among, ascending; all by default.

        Returns:
            Cosines `(n, k)` float32, descending, and rows `(n, k)` int64. Ties are sorted by row.

        Raises:
            ValueError: If `queries` has a wrong shape or values that aren't finite, `k` is less than 1,
                `allowed` isn't legal, or the index is empty.
        """
        queries = check_search(queries, k, self.dim, len(self))
        allowed = check_allowed(allowed, len(self))
        most = len(self) if allowed is None else len(allowed)
        k = min(k, most)
        count = min(max(self.rescore_multiplier * k, MIN_CANDIDATES), most)
        parameters = flat_parameters(allowed, len(self))

        def search(unit: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            return rescored(unit, self._candidates(unit, count, parameters), self.reconstruct, k)

        return search_blocks(queries, k, max(1, PAIRS // count), search)

    def reconstruct(self, rows: np.ndarray) -> np.ndarray:
        """Return the embeddings of documents, from 8 bits per value. They are of length 1, or little less.

        Args:
            rows: Rows of documents, of any shape `(...)`.

        Returns:
            `(..., dim)` float32.

        Raises:
            ValueError: If a row is out of range.
        """
        rows = check_rows(rows, len(self))
        embeddings = self._quantizer.sa_decode(self._codes[rows.reshape(-1)])
        # None is made longer: zeros, which no step of 8 bits stands for, would become a direction.
        embeddings /= np.maximum(np.linalg.norm(embeddings, axis=1, keepdims=True), 1)
        return embeddings.reshape(*rows.shape, self.dim)

    def updated(self, kept: np.ndarray, embeddings: np.ndarray | None = None) -> Self:
        """Return an index of some of the documents and, after them, of others. This one stays as it is.

        Args:
            kept: Rows of the documents to keep, ascending, `(m,)`.
            embeddings: Embeddings of the others, `(n, dim)`, of any length; none by default.

        Raises:
            ValueError: If a row is out of range, the shape is wrong or a value isn't finite.
        """
        new = type(self)(self.dim, rescore_multiplier=self.rescore_multiplier)
        new._start(self._ranges)
        for rows in _blocks(check_rows(kept, len(self))):
            new._append(self._codes[rows])
        if embeddings is not None:
            new.add(embeddings)
        return new

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the index to a folder with Arrow and JSON files. A partial index is never left."""
        meta = {
            "storage": self.storage,
            "dim": self.dim,
            "documents": len(self),
            "rescore_multiplier": self.rescore_multiplier,
        }
        with new_current_folder(path, meta) as folder:
            save_columns(folder / CODES_NAME, {CODES: self._codes})
            save_embeddings(folder / RANGES_NAME, self._ranges)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> QuantizedIndex:
        """Open an index that `save` wrote, of either class. FAISS reads no file, which may come from anybody.

        Raises:
            FileNotFoundError: If the folder doesn't exist.
            ValueError: If a file is missing, damaged or doesn't match the others.
        """
        folder, meta = current_folder(path, ("storage", "dim", "documents", "rescore_multiplier"))
        storage, shape = meta.pop("storage"), (meta.pop("documents"), meta["dim"])
        try:
            if not isinstance(storage, str) or storage not in STORAGES:
                raise ValueError(f"storage must be one of {', '.join(STORAGES)}, got {storage!r}.")
            codes = load_columns(folder / CODES_NAME)[CODES]
            ranges = load_embeddings(folder / RANGES_NAME)
            if (codes.shape, codes.dtype, ranges.shape) != (shape, np.uint8, (2, shape[1])):
                raise ValueError(
                    f"its files have {codes.dtype} {codes.shape} and ranges {ranges.shape}, not {shape}."
                )
            if not (np.abs(ranges).max() <= WIDEST and (ranges[0] <= ranges[1]).all()):
                raise ValueError(f"{RANGES_NAME} has no ranges of embeddings of length 1.")
            index = STORAGES[storage](**meta)
        except (OSError, KeyError, ValueError) as error:
            raise ValueError(f"{folder} is damaged: {error}") from error
        index._start(np.array(ranges))
        index._open(codes)
        return index

    def _open(self, codes: np.ndarray) -> None:
        """Hold documents, given their embeddings of 8 bits per value on disk, `(n, dim)` uint8."""
        for block in _blocks(codes):
            self._append(block)


class Int8Index(QuantizedIndex):
    """A `QuantizedIndex` that keeps 8 bits per value in memory, FAISS's `IndexScalarQuantizer`.

    It misses hardly any document, because candidates are found by the same 8 bits as they are rescored by.

    Example:
        >>> index = Int8Index(2)
        >>> index.add(np.array([[2.0, 0.0], [0.0, 1.0], [1.0, 1.0]]))
        >>> cosines, rows = index.search(np.array([[1.0, 0.0]]), k=2)
        >>> rows.tolist(), cosines.round(2).tolist()
        ([[0, 2]], [[1.0, 0.7099999785423279]])
    """

    storage = "int8"

    @property
    def _codes(self) -> np.ndarray:
        codes = self._quantizer.codes
        values = faiss.rev_swig_ptr(codes.data(), codes.size()) if codes.size() else np.empty(0, np.uint8)
        return values.reshape(-1, self.dim)

    def _append(self, codes: np.ndarray) -> None:
        self._quantizer.add_sa_codes(codes)

    def _candidates(self, queries: np.ndarray, count: int, parameters: Any) -> np.ndarray:
        return self._quantizer.search(queries, count, params=parameters)[1]


class BinaryIndex(QuantizedIndex):
    """A `QuantizedIndex` that keeps the signs of the values in memory, FAISS's `IndexBinaryFlat`.

    Candidates are the documents with the most signs in common with the query [1]. The embeddings of 8 bits
    per value that rescore them are mapped from disk. Until the index is saved, they are in a temporary file.

    Example:
        >>> index = BinaryIndex(2)
        >>> index.add(np.array([[2.0, 0.0], [0.0, 1.0], [1.0, 1.0]]))
        >>> cosines, rows = index.search(np.array([[1.0, 0.0]]), k=2)
        >>> rows.tolist(), cosines.round(2).tolist()
        ([[0, 2]], [[1.0, 0.7099999785423279]])

    References:
        [1] Yamada, Asai and Hajishirzi, Efficient passage retrieval with hashing for open-domain question
        answering, ACL 2021.
    """

    storage = "binary"

    def _start(self, ranges: np.ndarray) -> None:
        super()._start(ranges)
        self._store = VectorStore(np.empty((0, self.dim), dtype=np.uint8))
        self._bits: Any = faiss.IndexBinaryFlat(8 * -(-self.dim // 8))
        self._zero = self._quantizer.sa_encode(np.zeros((1, self.dim), dtype=np.float32))

    @property
    def _codes(self) -> np.ndarray:
        return self._store.matrix()

    def _append(self, codes: np.ndarray) -> None:
        self._store.append(codes)
        self._add_signs(codes)

    def _open(self, codes: np.ndarray) -> None:
        self._store = VectorStore(codes)
        for block in _blocks(codes):
            self._add_signs(block)

    def _add_signs(self, codes: np.ndarray) -> None:
        # Read from the 8 bits, so that a saved index has the same.
        self._bits.add(np.packbits(codes > self._zero, axis=1))

    def _candidates(self, queries: np.ndarray, count: int, parameters: Any) -> np.ndarray:
        return self._bits.search(np.packbits(queries > 0, axis=1), count, params=parameters)[1]


STORAGES: dict[str, type[QuantizedIndex]] = {index.storage: index for index in (Int8Index, BinaryIndex)}


def _blocks(rows: np.ndarray) -> Iterator[np.ndarray]:
    for start in range(0, len(rows), BLOCK_SIZE):
        yield rows[start : start + BLOCK_SIZE]


def _ranges_of(embeddings: np.ndarray) -> np.ndarray:
    """Return the least and the greatest value of each dimension, after normalisation, `(2, dim)`."""
    units = map(normalized, _blocks(embeddings))
    found = np.array([(unit.min(axis=0), unit.max(axis=0)) for unit in units])
    return np.stack([found[:, 0].min(axis=0), found[:, 1].max(axis=0)])


def _widened(ranges: np.ndarray, found: np.ndarray, outside: np.ndarray) -> np.ndarray:
    """Return ranges `(2, dim)` that hold those found; they leave room at the ends that were outside."""
    low, high = np.minimum(ranges[0], found[0]), np.maximum(ranges[1], found[1])
    room = MARGIN * (high - low)
    return np.where(outside, np.stack([low - room, high + room]), ranges)
