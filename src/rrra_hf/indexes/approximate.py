"""Approximate search by FAISS, with exact re-scoring of what it finds."""

from __future__ import annotations

import os
from typing import Any

import faiss
import numpy as np

from ..embeddings import check_embeddings
from .checks import check_rows, check_search, normalized
from .exact import best
from .folder import current_folder, new_current_folder
from .kinds import FACTORY, new_faiss_index, search_parameters, training_size
from .vectors import BLOCK_SIZE, VectorStore

CANDIDATES_NAME = "candidates.faiss"
VECTORS_NAME = "embeddings.arrow"

# Pairs of query and document re-scored at a time: 100 MB at dimension 384.
PAIRS = 65_536
# Few candidates would miss the best document where the compressed embeddings are coarse.
MIN_CANDIDATES = 64
# Where fewer than k documents are found, the search is widened by these factors before it is exact.
WIDER = (1, 4, 16)


class ApproximateIndex:
    """An index that compares a query with a part of the documents only, by FAISS.

    FAISS finds `oversample * k` candidates among compressed embeddings; they are scored anew by the exact
    embeddings, which lie in a memory-mapped file. So cosines are exact, and only documents may be missed;
    `recall_report` tells how many. A query always gets `k` documents: where FAISS finds fewer, the search is
    widened, at last to an exact one.

    The kinds:

    * `hnsw`: a graph over 16-bit embeddings [1]; the fastest, `2 dim + 300` bytes of memory a document.
      Built by several threads, it depends on their timing; with `OMP_NUM_THREADS=1` it is the same each time.
    * `ivf-flat`, `ivf-sq8`, `ivf-pq`: inverted lists of float, 8-bit or product-quantised embeddings [2];
      `4 dim`, `dim` or `dim / 4` bytes a document, and 8 for its row.

    Inverted lists are trained once, on a sample of the documents. Until there are enough of them
    (`training_size`) the search is exact.

    Args:
        dim: Dimension of the embeddings.
        kind: `hnsw`, `ivf-flat`, `ivf-sq8` or `ivf-pq`.
        count: Documents that will be in the index, about; the lists and their sample depend on it.
        oversample: Candidates for each document asked for; there are at least 64 a query.
        effort: How far FAISS searches; more is slower and misses less.
        seed: Seed of the training.

    Raises:
        ValueError: If an argument is out of its range.

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
        if kind not in FACTORY:
            raise ValueError(f"kind must be one of {', '.join(FACTORY)}, got {kind!r}.")
        for name, value in (("dim", dim), ("count", count), ("oversample", oversample)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}.")
        if not effort > 0:
            raise ValueError(f"effort must be greater than 0, got {effort}.")
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
        """Whether there are too few documents yet to train the index, so that it searches all of them."""
        return not self._faiss.ntotal

    def __len__(self) -> int:
        return len(self._vectors)

    def add(self, embeddings: np.ndarray) -> None:
        """Append documents; they are normalised.

        Training happens when there are enough documents, on a sample of those that are there: give many at
        once, memory-mapped if they are large, rather than a few of one subject first.

        Args:
            embeddings: `(n, dim)`.

        Raises:
            ValueError: If the shape is wrong or a value is not finite; then nothing is added.
        """
        embeddings = check_embeddings(embeddings, "embeddings", self.dim)
        for start in range(0, len(embeddings), BLOCK_SIZE):
            self._vectors.append(normalized(embeddings[start : start + BLOCK_SIZE]))
        if len(self) < training_size(self.kind, self.count):
            return
        if self._mapped:
            # FAISS ends the process when it is to change a memory-mapped index.
            self._faiss, self._mapped = faiss.deserialize_index(faiss.serialize_index(self._faiss)), False
        if not self._faiss.is_trained:
            self._faiss.train(self._sample())
        for block in self._vectors.blocks(self._faiss.ntotal):
            self._faiss.add(block)

    def search(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Find each query's `k` nearest documents, or all if there are fewer; some may be missed.

        Args:
            queries: `(n, dim)`; they are normalised.
            k: Documents a query.

        Returns:
            Cosines `(n, k)` float32, exact, descending, and rows `(n, k)` int64; ties by row, ascending.

        Raises:
            ValueError: If `queries` has a wrong shape or values that are not finite, if `k` is less
                than 1, or if the index is empty.
        """
        queries = check_search(queries, k, self.dim, len(self))
        k = min(k, len(self))
        wanted = min(max(self.oversample * k, MIN_CANDIDATES), len(self))
        step = max(1, PAIRS // wanted)
        cosines = np.empty((len(queries), k), dtype=np.float32)
        rows = np.empty((len(queries), k), dtype=np.int64)
        for start in range(0, len(queries), step):
            block = slice(start, start + step)
            cosines[block], rows[block] = self._search_block(normalized(queries[block]), k, wanted)
        return cosines, rows

    def search_exactly(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Find each query's `k` nearest documents by comparing it with all; see `search`."""
        queries = check_search(queries, k, self.dim, len(self))
        return self._vectors.search(normalized(queries), k)

    def reconstruct(self, rows: np.ndarray) -> np.ndarray:
        """Return the exact normalised embeddings of documents.

        Args:
            rows: Rows of documents, of any shape `(...)`.

        Returns:
            `(..., dim)` float32.

        Raises:
            ValueError: If a row is not in the index.
        """
        rows = check_rows(rows, len(self))
        return self._vectors.take(rows)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the index to a folder, complete or not at all: FAISS's own format, Arrow and JSON."""
        with new_current_folder(path, {**self._settings(), "documents": len(self)}) as folder:
            faiss.write_index(self._faiss, str(folder / CANDIDATES_NAME))
            self._vectors.save(folder / VECTORS_NAME)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> ApproximateIndex:
        """Open an index that `save` wrote, memory-mapped.

        Raises:
            FileNotFoundError: If the folder is not there.
            ValueError: If a file of it is missing, damaged or doesn't belong to the others.
        """
        names = ("dim", "kind", "count", "oversample", "effort", "seed", "documents")
        folder, meta = current_folder(path, names)
        documents = meta.pop("documents")
        index = cls(**meta)
        try:
            index._faiss = faiss.read_index(str(folder / CANDIDATES_NAME), faiss.IO_FLAG_MMAP_IFC)
            index._vectors = VectorStore.load(folder / VECTORS_NAME)
        except (RuntimeError, MemoryError, OSError) as error:
            raise ValueError(f"{folder} is damaged: {error}") from error
        index._mapped = True
        shape = (index._faiss.ntotal, index._faiss.d)
        if index._vectors.shape != (documents, meta["dim"]) or shape not in (
            (0, meta["dim"]),
            index._vectors.shape,
        ):
            raise ValueError(
                f"{folder} is damaged: its files hold {shape} and {index._vectors.shape} embeddings, "
                f"not {(documents, meta['dim'])}."
            )
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

    def _search_block(self, queries: np.ndarray, k: int, wanted: int) -> tuple[np.ndarray, np.ndarray]:
        if self.is_exact:
            return self._vectors.search(queries, k)
        rows = self._candidates(queries, k, wanted)
        # A place where FAISS found nothing holds -1: it gets the last rank.
        documents = self._vectors.take(np.maximum(rows, 0))
        cosines = np.matmul(documents, queries[:, :, None])[:, :, 0]
        cosines[rows < 0] = -np.inf
        return best(cosines, rows, k)

    def _candidates(self, queries: np.ndarray, k: int, wanted: int) -> np.ndarray:
        """Return the rows of candidates, `(n, wanted)`; at least `k` a query, then -1."""
        rows = np.full((len(queries), wanted), -1, dtype=np.int64)
        short = np.arange(len(queries))
        for factor in WIDER:
            parameters = search_parameters(self._faiss, factor * self.effort, wanted)
            rows[short] = self._faiss.search(queries[short], wanted, params=parameters)[1]
            short = short[(rows[short] >= 0).sum(axis=1) < k]
            if not len(short):
                return rows
        rows[short] = self._vectors.search(queries[short], wanted)[1]
        return rows
