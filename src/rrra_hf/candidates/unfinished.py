"""A pool during mining: one file per block of queries, in a hidden folder next to the finished pool."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from ..embeddings.shards import claimed
from ..embeddings.storage import load_columns, save_columns
from ..models.files_rrra import check_replaceable, read_json, write_aside
from .pool import CandidatePool
from .pool_files import FILE_NAMES, META_NAME, write_pool

logger = logging.getLogger(__name__)

Search = Callable[[slice], tuple[np.ndarray, np.ndarray]]


class UnfinishedPool:
    """The finished blocks of a pool, mined by this or other processes.

    Args:
        folder: Folder of the finished pool.
        mining: Fingerprint of everything that affects the pool.
        blocks: Slices of the queries.
        depth: Number of candidates per query.

    Raises:
        ValueError: If the folder holds other files.
    """

    def __init__(self, folder: Path, mining: str, blocks: Sequence[slice], depth: int):
        if folder.exists():
            check_replaceable(folder, FILE_NAMES)
        self.folder = folder
        self.mining = mining
        self.blocks = blocks
        self.depth = depth
        self.shards = folder.with_name(f".{folder.name}.{mining}")

    def finished(self) -> bool:
        """Return whether the folder has this pool."""
        try:
            meta = read_json(self.folder / META_NAME)
            return meta["fingerprint"]["mining"] == self.mining
        except (OSError, ValueError, KeyError, TypeError):
            return False

    def load(self) -> CandidatePool:
        """Return the finished pool, and remove files left by an interruption at the end."""
        shutil.rmtree(self.shards, ignore_errors=True)
        return CandidatePool.load(self.folder)

    def mine(self, search: Search, block: slice, wait: bool = False) -> None:
        """Mine a block of queries and save it, unless another process has mined it or is mining it.

        Args:
            search: Function that returns rows and scores of a block.
            block: Slice of the queries.
            wait: Wait for the other process, and mine the block if that process dies.
        """
        path = self._path(block)
        if self._done(path, block):
            return
        with claimed(path, wait) as ours:
            if ours and not self._done(path, block):
                rows, scores = search(block)
                save_columns(path, {"row": rows, "score": scores})

    def finish(
        self, search: Search, make_pool: Callable[[np.ndarray, np.ndarray], CandidatePool]
    ) -> CandidatePool:
        """Mine the missing blocks, save the pool, and return it.

        Args:
            search: Function that returns rows and scores of a block.
            make_pool: Function that builds the pool from rows and scores of the candidates.
        """
        for block in self.blocks:
            self.mine(search, block, wait=True)
        with claimed(self.shards / "pool", wait=True):
            if self.finished():
                return self.load()
            pool = make_pool(*self._merged())
            with write_aside(self.folder, owned=FILE_NAMES, scratch=self.shards) as temporary:
                write_pool(temporary, **vars(pool))
        shutil.rmtree(self.shards, ignore_errors=True)
        return pool

    def _path(self, block: slice) -> Path:
        return self.shards / f"{block.start}-{block.stop}.arrow"

    def _done(self, path: Path, block: slice) -> bool:
        # The order matters: a process that merges the blocks saves the pool before it removes them.
        return self._load(path, block) is not None or self.finished()

    def _load(self, path: Path, block: slice) -> tuple[np.ndarray, np.ndarray] | None:
        try:
            columns = load_columns(path)
            rows, scores = columns["row"], columns["score"]
            expected = (block.stop - block.start, self.depth)
            if (rows.shape, scores.shape) != (expected, expected):
                raise ValueError(f"{path} has arrays of shape {rows.shape}, not {expected}")
        except FileNotFoundError:
            return None
        except (KeyError, ValueError) as error:
            logger.warning("%s; mining again.", error)
            path.unlink(missing_ok=True)
            return None
        return rows, scores

    def _merged(self) -> tuple[np.ndarray, np.ndarray]:
        shape = (self.blocks[-1].stop, self.depth)
        candidates, scores = np.empty(shape, dtype=np.int32), np.empty(shape, dtype=np.float32)
        for block in self.blocks:
            columns = load_columns(self._path(block))
            candidates[block], scores[block] = columns["row"], columns["score"]
        return candidates, scores
