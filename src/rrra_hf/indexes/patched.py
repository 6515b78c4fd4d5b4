"""An approximate index after a change: documents that it has, and others, which are searched exactly."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable
from typing import Protocol

import numpy as np

from .base import Index
from .best import best
from .checks import check_allowed, check_rows, check_search
from .flat import FlatIndex
from .folder import current_folder, new_current_folder
from .word_files import load_array

BASE_NAME = "base"
ADDED_NAME = "added.faiss"
KEPT_NAME = "kept"
# Documents that an index holds beside, or holds and no longer has, before it is made anew: a tenth of it.
LARGEST_PATCH = 10
BLOCK_SIZE = 16_384

logger = logging.getLogger(__name__)


class Base(Index, Protocol):
    """An approximate index."""

    def empty(self, count: int) -> Base:
        """Return an empty index with the same settings for about `count` documents."""

    def add_blocks(self, blocks: Iterable[np.ndarray]) -> None:
        """Append documents that come in blocks of embeddings."""


class PatchedIndex:
    """An approximate index without some of its documents, and with others behind them.

    The graph or the lists of an approximate index take long to make. So a change leaves them as they are:
    documents that are gone are skipped, and those that came are searched exactly. When both together are more
    than a tenth, the index is made anew. This object doesn't change: a search may go on beside an update.

    Args:
        base: The approximate index.
        kept: Rows of the documents that it still has, ascending, `(m,)` int64. They are the first `m` rows.
        added: The others.
    """

    def __init__(self, base: Base, kept: np.ndarray, added: FlatIndex):
        self._base, self._kept, self._added = base, kept, added

    @property
    def dim(self) -> int:
        """Dimension of the embeddings."""
        return self._base.dim

    def __len__(self) -> int:
        return len(self._kept) + len(self._added)

    def search(
        self, queries: np.ndarray, k: int, allowed: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Find about the `k` nearest documents per query, see `ApproximateIndex.search`."""
        queries = check_search(queries, k, self.dim, len(self))
        allowed = check_allowed(allowed, len(self))
        rows = np.arange(len(self)) if allowed is None else allowed
        old, new = np.split(rows, [np.searchsorted(rows, len(self._kept))])
        cosines = np.empty((len(queries), 0), dtype=np.float32)
        found = np.empty((len(queries), 0), dtype=np.int64)
        if len(old):
            cosines, places = self._base.search(queries, k, self._kept[old])
            found = np.searchsorted(self._kept, places)
        if len(new):
            first = len(self._kept)
            added, places = self._added.search(queries, k, new - first)
            cosines = np.concatenate([cosines, added], axis=1)
            found = np.concatenate([found, places + first], axis=1)
        return best(cosines, found, min(k, len(rows)))

    def reconstruct(self, rows: np.ndarray) -> np.ndarray:
        """Return the exact normalised embeddings of documents, rows `(...)` to `(..., dim)`."""
        rows = check_rows(rows, len(self))
        found = np.empty((*rows.shape, self.dim), dtype=np.float32)
        old = rows < len(self._kept)
        found[old] = self._base.reconstruct(self._kept[rows[old]])
        found[~old] = self._added.reconstruct(rows[~old] - len(self._kept))
        return found

    def updated(self, kept: np.ndarray, embeddings: np.ndarray | None = None) -> Index:
        """Return an index of some of the documents and, after them, of others. This one stays as it is.

        Args:
            kept: Rows of the documents to keep, ascending, `(m,)`.
            embeddings: Embeddings of the others, `(n, dim)`, of any length; none by default.
        """
        kept = check_rows(kept, len(self))
        old, new = np.split(kept, [np.searchsorted(kept, len(self._kept))])
        added = self._added.updated(new - len(self._kept), embeddings)
        changed = PatchedIndex(self._base, self._kept[old], added)
        patch = len(self._base) - len(old) + len(added)
        if LARGEST_PATCH * patch <= len(self._base):
            return changed
        logger.info("%d of %d documents changed: the index is made anew.", patch, len(self._base))
        return changed.made_anew()

    def made_anew(self) -> Index:
        """Return an approximate index of the same documents."""
        new = self._base.empty(len(self))
        blocks = (
            np.arange(start, min(start + BLOCK_SIZE, len(self))) for start in range(0, len(self), BLOCK_SIZE)
        )
        new.add_blocks(map(self.reconstruct, blocks))
        return new

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the index to a folder. A partial index is never left."""
        with new_current_folder(path, {"kept": len(self._kept), "added": len(self._added)}) as folder:
            self._base.save(folder / BASE_NAME)
            np.save(folder / f"{KEPT_NAME}.npy", self._kept)
            if len(self._added):
                self._added.save(folder / ADDED_NAME)

    @classmethod
    def load(
        cls, path: str | os.PathLike[str], load_base: Callable[[str | os.PathLike[str]], Base]
    ) -> PatchedIndex:
        """Open an index written by `save`.

        Args:
            path: The folder.
            load_base: Opens the approximate index in it.

        Raises:
            FileNotFoundError: If the folder doesn't exist.
            ValueError: If a file is missing, damaged or doesn't match the others.
        """
        folder, meta = current_folder(path, ("kept", "added"))
        try:
            base = load_base(folder / BASE_NAME)
            has_added = (folder / ADDED_NAME).exists()
            added = FlatIndex.load(folder / ADDED_NAME) if has_added else FlatIndex(base.dim)
        except FileNotFoundError as error:
            raise ValueError(f"{folder} is damaged: {error}") from error
        if type(meta["kept"]) is not int or (len(added), added.dim) != (meta["added"], base.dim):
            raise ValueError(f"{folder} is damaged: it has {len(added)} added documents of {meta['added']}.")
        kept = load_array(folder, KEPT_NAME, np.int64, meta["kept"])
        if len(kept) and (kept[0] < 0 or kept[-1] >= len(base) or (kept[1:] <= kept[:-1]).any()):
            raise ValueError(f"{folder / KEPT_NAME}.npy is damaged: its rows must ascend, below {len(base)}.")
        return cls(base, kept, added)
