"""A pool while it is mined: a file for each block of queries, beside the folder that the pool will be in."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from ..embeddings.shards import claimed
from ..embeddings.storage import load_columns, save_columns
from .pool import META_NAME, CandidatePool, check_replaceable

logger = logging.getLogger(__name__)

Search = Callable[[slice], tuple[np.ndarray, np.ndarray]]


class UnfinishedPool:
    """The blocks of a pool that are mined already, whichever process mined them.

    Args:
        folder: Where the pool will be.
        mining: Fingerprint of all that decides the pool.
        blocks: The queries, block by block.
        depth: Candidates a query.

    Raises:
        ValueError: If the folder holds other files.
    """

    def __init__(self, folder: Path, mining: str, blocks: Sequence[slice], depth: int):
        if folder.exists():
            check_replaceable(folder)
        self.folder = folder
        self.mining = mining
        self.blocks = blocks
        self.depth = depth
        self.shards = folder.with_name(f".{folder.name}.{mining}")

    def finished(self) -> bool:
        """Whether the folder holds this very pool."""
        try:
            meta = json.loads((self.folder / META_NAME).read_text(encoding="utf-8"))
            return meta["fingerprint"]["mining"] == self.mining
        except (OSError, ValueError, KeyError, TypeError):
            return False

    def load(self) -> CandidatePool:
        """Return the pool that is finished, and remove what an interruption at the very end left."""
        shutil.rmtree(self.shards, ignore_errors=True)
        return CandidatePool.load(self.folder)

    def mine(self, search: Search, block: slice, wait: bool = False) -> None:
        """Search for a block of queries and keep what is found, if nobody has done so or is about to.

        Args:
            search: Returns rows and scores of a block.
            block: Which queries.
            wait: Wait for a process that is about to, in case that it dies.
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
        """Mine what other processes left undone, save the pool, and return it.

        Args:
            search: Returns rows and scores of a block.
            make_pool: Makes the pool of the candidates' rows and scores.
        """
        for block in self.blocks:
            self.mine(search, block, wait=True)
        with claimed(self.shards / "pool", wait=True):
            if self.finished():
                return self.load()
            pool = make_pool(*self._merged())
            pool.replace(self.folder, self.shards / "pool")
        shutil.rmtree(self.shards, ignore_errors=True)
        return pool

    def _path(self, block: slice) -> Path:
        return self.shards / f"{block.start}-{block.stop}.arrow"

    def _done(self, path: Path, block: slice) -> bool:
        # In this order: whoever merges the blocks saves the pool before it removes them.
        return self._load(path, block) is not None or self.finished()

    def _load(self, path: Path, block: slice) -> tuple[np.ndarray, np.ndarray] | None:
        try:
            columns = load_columns(path)
            rows, scores = columns["row"], columns["score"]
            expected = (block.stop - block.start, self.depth)
            if (rows.shape, scores.shape) != (expected, expected):
                raise ValueError(f"{path} holds arrays of shape {rows.shape}, not {expected}")
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
