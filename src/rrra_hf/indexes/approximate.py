"""Approximate search with FAISS, and exact scores for the results."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable
from numbers import Integral, Real
from typing import Any

import faiss
import numpy as np

from ..embeddings import check_embeddings
from .base import Index
from .best import rescored, search_blocks
from .checks import check_allowed, check_rows, check_search, normalized, selector
from .faiss_files import FaissHeader, read_header
from .flat import FlatIndex
from .flat_search import search_flat
from .folder import current_folder, new_current_folder
from .kinds import FACTORY, FILE_TYPES, new_faiss_index, search_parameters, training_size
from .patched import PatchedIndex
from .vectors import BLOCK_SIZE, VectorStore

CANDIDATES_NAME = "candidates.faiss"
VECTORS_NAME = "embeddings.arrow"

# Pairs of query and document to score at a time: 100 MB at dimension 384.
PAIRS = 65_536
# With fewer candidates, coarsely compressed embeddings could miss the best document.
MIN_CANDIDATES = 64
# To find documents among m of n, an exact search takes time as m, an approximate one as n / m. They take the
# same where m * m / n is about this, measured with 100,000 documents of 384 dimensions.
EXACT = 4000
# If fewer than k documents are found, the search is widened by these factors, then exact.
WIDER = (1, 4, 16)


class ApproximateIndex:
    """An approximate index that compares a query with some of the documents only, using FAISS.

    FAISS finds `oversample * k` candidates with compressed embeddings. These are scored with the exact
    embeddings from a memory-mapped file. So cosines are exact, but documents can be missed; `recall_report`
    measures how many. A query always gets `k` documents: if FAISS finds fewer, the search is widened, in the
    end to an exact search.

    Kinds:

    * `hnsw`: a graph over 16-bit embeddings [1]. The fastest kind, with `2 dim + 300` bytes of memory per
      document. With several threads, the graph depends on their timing. With `OMP_NUM_THREADS=1` it is
      deterministic.
    * `ivf-flat`, `ivf-sq8`, `ivf-pq`: inverted lists of float, 8-bit or product-quantised embeddings [2],
    with
      `4 dim`, `dim` or `dim / 4` bytes per document, and 8 for its row.

    Inverted lists are trained once, on a sample of the documents. Until there are enough documents
    (`training_size`), the search is exact.

    Args:
        dim: Dimension of the embeddings.
        kind: `hnsw`, `ivf-flat`, `ivf-sq8` or `ivf-pq`.
        count: Approximate number of documents. It determines the number of lists and the training sample.
        oversample: Number of candidates per requested document. There are at least 64 candidates per query.
        effort: Search effort of FAISS. Higher is slower and misses fewer documents.
        seed: Random seed for training.

    Raises:
        ValueError: If an argument is out of range.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> documents = rng.standard_normal((500, 8))
        >>> index = ApproximateIndex(8, "ivf-sq8", count=500)
        >>> index.add(documents)
        >>> cosines, rows = index.search(documents[:3], k=1)
        >>> rows.tolist(), cosines.round(3).tolist()
        ([[0], [1], [2]], [[1.0], [1.0], [1.0]])

    References:
        [1] Malkov and Yashunin, Efficient and robust approximate nearest neighbor search using
        Hierarchical Navigable Small World graphs, TPAMI 2020.
        [2] Jégou, Douze and Schmid, Product quantization for nearest neighbor search, TPAMI 2011.
    """

    def __init__(
        self, dim: int, kind: str, count: int, *, oversample: int = 2, effort: float = 1.0, seed: int = 0
    ):
        _check_settings(dim, kind, count, oversample, effort, seed)
        self.kind, self.count, self.oversample, self.effort, self.seed = kind, count, oversample, effort, seed
        self._faiss = new_faiss_index(kind, dim, count, seed)
        self._vectors = VectorStore(np.empty((0, dim), dtype=np.float32))
        self._mapped = False

    @property
    def dim(self) -> int:
        """Dimension of the embeddings."""
        return self._faiss.d

    @property
    def is_exact(self) -> bool:
        """Whether the search is exact because there are too few documents to train the index."""
        return not self._faiss.ntotal

    def __len__(self) -> int:
        return len(self._vectors)

    def add(self, embeddings: np.ndarray) -> None:
        """Append documents.

        The index is trained as soon as there are enough documents, on a sample of them. So append many
        documents at once, memory-mapped if they are large, rather than a few about one subject first.

        Args:
            embeddings: Embeddings, `(n, dim)`. They don't need to be normalised.

        Raises:
            ValueError: If the shape is wrong or a value isn't finite. Nothing is added then.
        """
        embeddings = check_embeddings(embeddings, "embeddings", self.dim)
        self.add_blocks(embeddings[at : at + BLOCK_SIZE] for at in range(0, len(embeddings), BLOCK_SIZE))

    def add_blocks(self, blocks: Iterable[np.ndarray]) -> None:
        """Append documents that come in blocks of embeddings, each `(n, dim)` and finite, see `add`."""
        for block in blocks:
            self._vectors.append(normalized(block))
        if len(self) < training_size(self.kind, self.count):
            return
        if self._mapped:
            # FAISS crashes if a memory-mapped index is changed.
            self._faiss, self._mapped = faiss.deserialize_index(faiss.serialize_index(self._faiss)), False
        if not self._faiss.is_trained:
            self._faiss.train(self._sample())
        for block in self._vectors.blocks(self._faiss.ntotal):
            self._faiss.add(block)

    def empty(self, count: int) -> ApproximateIndex:
        """Return an empty index with the same settings for about `count` documents."""
        return ApproximateIndex(**{**self._settings(), "count": count})

    def search(
        self, queries: np.ndarray, k: int, allowed: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Find about the `k` nearest documents per query, or all documents if there are fewer.

        Args:
            queries: Embeddings, `(n, dim)`. They don't need to be normalised.
            k: Number of documents per query.
            allowed: Rows of the documents to search among, ascending; all by default. Among so few that it is
                faster, the search is exact; among more, its effort grows as their share shrinks.

        Returns:
            Exact cosines `(n, k)` float32, descending, and rows `(n, k)` int64. Ties are sorted by row.

        Raises:
            ValueError: If `queries` has a wrong shape or values that aren't finite, `k` is less than 1,
                `allowed` isn't legal, or the index is empty.
        """
        queries = check_search(queries, k, self.dim, len(self))
        allowed = check_allowed(allowed, len(self))
        most = len(self) if allowed is None else len(allowed)
        k = min(k, most)
        if self.is_exact or (allowed is not None and most**2 <= EXACT * len(self)):
            return self.search_exactly(queries, k, allowed)
        wanted = min(max(self.oversample * k, MIN_CANDIDATES), most)
        selected = selector(allowed, len(self))

        def search(unit: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            candidates = self._candidates(unit, k, wanted, allowed, selected)
            return rescored(unit, candidates, self._vectors.take, k)

        return search_blocks(queries, k, max(1, PAIRS // wanted), search)

    def search_exactly(
        self, queries: np.ndarray, k: int, allowed: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Find the exact `k` nearest documents per query, see `search`."""
        queries = normalized(check_search(queries, k, self.dim, len(self)))
        allowed = check_allowed(allowed, len(self))
        if allowed is None:
            return search_flat(queries, self._vectors, min(k, len(self)))
        cosines, places = search_flat(queries, _Some(self._vectors, allowed), min(k, len(allowed)))
        return cosines, allowed[places]

    def reconstruct(self, rows: np.ndarray) -> np.ndarray:
        """Return the exact normalised embeddings of documents.

        Args:
            rows: Rows of documents, of any shape `(...)`.

        Returns:
            `(..., dim)` float32.

        Raises:
            ValueError: If a row is out of range.
        """
        rows = check_rows(rows, len(self))
        return self._vectors.take(rows)

    def updated(self, kept: np.ndarray, embeddings: np.ndarray | None = None) -> Index:
        """Return an index of some of the documents and, after them, of others. This one stays as it is.

        Args:
            kept: Rows of the documents to keep, ascending, `(m,)`.
            embeddings: Embeddings of the others, `(n, dim)`, of any length; none by default.

        Raises:
            ValueError: If a row is out of range, the shape is wrong or a value isn't finite.
        """
        return PatchedIndex(self, np.arange(len(self)), FlatIndex(self.dim)).updated(kept, embeddings)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the index to a folder with FAISS, Arrow and JSON files. A partial index is never left."""
        with new_current_folder(path, {**self._settings(), "documents": len(self)}) as folder:
            faiss.write_index(self._faiss, str(folder / CANDIDATES_NAME))
            self._vectors.save(folder / VECTORS_NAME)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> ApproximateIndex:
        """Open an index written by `save`, memory-mapped.

        FAISS reads its part, and trusts what it reads: open indexes of people whom you trust.

        Raises:
            FileNotFoundError: If the folder doesn't exist.
            ValueError: If a file is missing, damaged or doesn't match the others.
        """
        names = ("dim", "kind", "count", "oversample", "effort", "seed", "documents")
        folder, meta = current_folder(path, names)
        shape = (meta.pop("documents"), meta["dim"])
        try:
            _check_settings(**meta)
            vectors = VectorStore.load(folder / VECTORS_NAME)
            found = read_header(folder / CANDIDATES_NAME)
        except (OSError, ValueError) as error:
            raise ValueError(f"{folder} is damaged: {error}") from error
        expected = [FaissHeader(FILE_TYPES[meta["kind"]], meta["dim"], count) for count in (0, len(vectors))]
        if vectors.shape != shape or found not in expected:
            raise ValueError(
                f"{folder} is damaged: its files have {vectors.shape} embeddings and {found}, not {shape}."
            )
        # FAISS's part is read, not made.
        index = cls(**{**meta, "dim": 1})
        try:
            index._faiss = faiss.read_index(str(folder / CANDIDATES_NAME), faiss.IO_FLAG_MMAP_IFC)
        except (RuntimeError, MemoryError) as error:
            raise ValueError(f"{folder / CANDIDATES_NAME} is damaged: {error}") from error
        index._vectors, index._mapped = vectors, True
        return index

    def _settings(self) -> dict[str, Any]:
        return {
            "dim": self.dim,
            "kind": self.kind,
            "count": self.count,
            "oversample": self.oversample,
            "effort": self.effort,
            "seed": self.seed,
        }

    def _sample(self) -> np.ndarray:
        """Return the embeddings of a random sample of the documents, in the order of their rows."""
        size = training_size(self.kind, self.count)
        rng = np.random.default_rng(self.seed)
        return self._vectors.take(np.sort(rng.choice(len(self), size=size, replace=False)))

    def _candidates(
        self, queries: np.ndarray, k: int, wanted: int, allowed: np.ndarray | None, selected: Any
    ) -> np.ndarray:
        """Return the rows of candidates, `(n, wanted)`, at least `k` per query, padded with -1."""
        rows = np.full((len(queries), wanted), -1, dtype=np.int64)
        short = np.arange(len(queries))
        effort = self.effort if allowed is None else self.effort * len(self) / len(allowed)
        for factor in WIDER:
            parameters = search_parameters(self._faiss, factor * effort, wanted, selected)
            rows[short] = self._faiss.search(queries[short], wanted, params=parameters)[1]
            short = short[(rows[short] >= 0).sum(axis=1) < k]
            if not len(short):
                return rows
        rows[short] = self.search_exactly(queries[short], wanted, allowed)[1]
        return rows


class _Some:
    """Some of the embeddings of a store, which are read block by block."""

    def __init__(self, vectors: VectorStore, rows: np.ndarray):
        self._vectors, self._rows = vectors, rows
        self.shape = len(rows), vectors.shape[1]

    def __getitem__(self, rows: slice) -> np.ndarray:
        return self._vectors.take(self._rows[rows])


def _check_settings(dim: int, kind: str, count: int, oversample: int, effort: float, seed: int) -> None:
    if not isinstance(kind, str) or kind not in FACTORY:
        raise ValueError(f"kind must be one of {', '.join(FACTORY)}, got {kind!r}.")
    for name, value in (("dim", dim), ("count", count), ("oversample", oversample)):
        if not isinstance(value, Integral) or value < 1:
            raise ValueError(f"{name} must be at least 1, got {value!r}.")
    if not isinstance(effort, Real) or not 0 < effort < math.inf:
        raise ValueError(f"effort must be greater than 0, got {effort!r}.")
    if not isinstance(seed, Integral) or not 0 <= seed < 2**31:
        raise ValueError(f"seed must be from 0 to {2**31 - 1}, got {seed!r}.")
