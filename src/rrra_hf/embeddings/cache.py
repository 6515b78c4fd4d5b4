"""The cache of embeddings: finished shards, and embeddings of texts that were encoded before."""

from __future__ import annotations

import logging
import tempfile
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..models.files_rrra import read_json, write_json
from .checks import BLOCK_SIZE, check_finite
from .fingerprint import array_fingerprint, text_hashes
from .forward import Forward
from .shards import claimed, keep_only, remove_leftovers
from .storage import load_columns, load_embeddings, save_embeddings, scratch_matrix

logger = logging.getLogger(__name__)

EMBEDDINGS_NAME = "embeddings.arrow"
META_NAME = "meta.json"


class Shard(NamedTuple):
    """A group of texts to encode together: their positions in `Cache.hashes`, and the file to write."""

    path: Path
    rows: np.ndarray


class Cache:
    """Cached embeddings of one list of texts, for one encoder and task, in one folder.

    Texts that occur in other lists of the same encoder and task are not encoded again. Several processes can
    fill the folder at the same time, each with different shards.

    Args:
        folder: The folder. Other lists of the same encoder and task are in its parent folder.
        key: Fingerprints of the `encoder` and the `texts`, and the `task`.
        texts: The texts.
        shard_size: Number of texts per shard.
    """

    def __init__(self, folder: Path, key: dict[str, str], texts: Sequence[str], shard_size: int):
        self.folder = folder
        self.key = key
        self.texts = texts
        self.shard_size = shard_size

    def read(self) -> np.ndarray | None:
        """Return the finished embeddings, or None if they are missing or damaged."""
        path = self.folder / EMBEDDINGS_NAME
        if not path.exists():
            return None
        try:
            shape = (len(self.texts), read_json(self.folder / META_NAME)["dim"])
            embeddings = load_embeddings(path)
            if embeddings.shape != shape:
                raise ValueError(f"{path} has shape {embeddings.shape}, not {shape}")
        except (OSError, ValueError, KeyError, TypeError) as error:
            logger.warning("The cached embeddings are damaged and are encoded again: %s", error)
            path.unlink(missing_ok=True)
            return None
        remove_leftovers(path, META_NAME)
        return embeddings

    def fill(self, forward: Forward, advance: Callable[[int], object]) -> np.ndarray:
        """Encode missing texts, together with other processes, and return all embeddings.

        Args:
            forward: The encoder.
            advance: Called with the number of finished texts, for a progress bar.
        """
        all_hashes = text_hashes(self.texts)
        self.hashes, self.first, self.inverse = np.unique(all_hashes, return_index=True, return_inverse=True)
        self.reused: list[np.ndarray] = []
        # Location of each text's embedding: index into `reused`, or -1, and row.
        self.source = np.full(len(self.hashes), -1)
        self.row = np.zeros(len(self.hashes), dtype=np.int64)
        self._find_known_rows()
        shards = self._shards()
        advance(len(self.texts) - sum(len(shard.rows) for shard in shards))
        self._encode_unclaimed(shards, forward, advance)
        self._encode_abandoned(shards, forward)
        with claimed(self.folder / EMBEDDINGS_NAME, wait=True):
            if not self._finished():
                self._merge(shards, all_hashes)
            keep_only(self.folder, EMBEDDINGS_NAME, META_NAME)
        return load_embeddings(self.folder / EMBEDDINGS_NAME)

    def _finished(self) -> bool:
        return (self.folder / EMBEDDINGS_NAME).exists()

    # ---------------------------------------------------------------- texts of other lists

    def _find_known_rows(self) -> None:
        prefix = f"{self.key['encoder']}-{self.key['task']}-"
        beside = [
            path for path in self.folder.parent.glob(f"{prefix}*/*.arrow") if path.parent != self.folder
        ]
        for path in beside:
            if (self.source >= 0).all():
                return
            self._find_rows_in(path)

    def _find_rows_in(self, path: Path) -> None:
        try:
            columns = load_columns(path)
            hashes, embeddings = columns["text_hash"], columns["embedding"]
        except (OSError, ValueError, KeyError) as error:
            logger.info("Embeddings in %s can't be reused: %s", path, error)
            return
        place = np.minimum(np.searchsorted(self.hashes, hashes), len(self.hashes) - 1)
        found = np.flatnonzero((self.hashes[place] == hashes) & (self.source[place] < 0))
        if len(found):
            self.source[place[found]] = len(self.reused)
            self.row[place[found]] = found
            self.reused.append(embeddings)

    # ---------------------------------------------------------------- shards

    def _shards(self) -> list[Shard]:
        """Divide missing texts into shards, the longest first. All processes get the same shards."""
        missing = np.flatnonzero(self.source < 0)
        lengths = np.array([len(self.texts[self.first[row]]) for row in missing], dtype=np.int64)
        missing = missing[np.argsort(-lengths, kind="stable")]
        parts = (missing[at : at + self.shard_size] for at in range(0, len(missing), self.shard_size))
        return [
            Shard(self.folder / f"shard-{array_fingerprint(self.hashes[rows])}.arrow", rows) for rows in parts
        ]

    def _shard_texts(self, shard: Shard) -> list[str]:
        return [self.texts[position] for position in self.first[shard.rows]]

    def _encode_unclaimed(
        self, shards: list[Shard], forward: Forward, advance: Callable[[int], object]
    ) -> None:
        taken: deque[tuple[Shard, ExitStack]] = deque()

        def take() -> Iterator[list[str]]:
            for shard in shards:
                claim = ExitStack()
                if (
                    not self._done(shard)
                    and claim.enter_context(claimed(shard.path))
                    and not self._done(shard)
                ):
                    taken.append((shard, claim))
                    yield self._shard_texts(shard)
                else:
                    claim.close()
                    advance(len(shard.rows))

        try:
            for embeddings in forward.embed(take(), len(self.texts) > forward.batch_size):
                shard, claim = taken.popleft()
                with claim:
                    self._save(shard, embeddings)
                advance(len(embeddings))
        finally:
            for _, claim in taken:
                claim.close()

    def _encode_abandoned(self, shards: list[Shard], forward: Forward) -> None:
        """Wait for the shards of other processes, and encode those of processes that died."""
        for shard in shards:
            if self._done(shard):
                continue
            # One claim at a time, so that two processes can't wait for each other forever.
            with claimed(shard.path, wait=True):
                if not self._done(shard):
                    for embeddings in forward.embed([self._shard_texts(shard)]):
                        self._save(shard, embeddings)

    def _save(self, shard: Shard, embeddings: np.ndarray) -> None:
        save_embeddings(shard.path, check_finite(embeddings, self.first[shard.rows]), self.hashes[shard.rows])

    def _done(self, shard: Shard) -> bool:
        # The order matters: a process that merges the shards writes the result before it removes them.
        return self._load(shard) is not None or self._finished()

    def _load(self, shard: Shard) -> np.ndarray | None:
        try:
            embeddings = load_embeddings(shard.path)
            if len(embeddings) == len(shard.rows):
                return embeddings
            logger.warning(
                "%s has %d rows instead of %d; encoding again.", shard.path, len(embeddings), len(shard.rows)
            )
        except FileNotFoundError:
            return None
        except ValueError as error:
            logger.warning("%s; encoding again.", error)
        shard.path.unlink(missing_ok=True)
        return None

    # ---------------------------------------------------------------- the whole

    def _merge(self, shards: list[Shard], all_hashes: np.ndarray) -> None:
        for number, shard in enumerate(shards, len(self.reused)):
            self.source[shard.rows] = number
            self.row[shard.rows] = np.arange(len(shard.rows))
        source = self.source[self.inverse]
        order = np.argsort(source, kind="stable")
        ends = np.searchsorted(source[order], np.arange(len(self.reused) + len(shards)), side="right")
        # A temporary file, because the matrix may not fit in memory.
        with tempfile.TemporaryFile(dir=self.folder) as scratch:
            dim = self._rows_of(0, shards).shape[1]
            embeddings = scratch_matrix(scratch, len(self.texts), dim)
            for number, (start, end) in enumerate(zip([0, *ends], ends, strict=False)):
                rows = self._rows_of(number, shards)
                for at in range(start, end, BLOCK_SIZE):
                    positions = order[at : min(at + BLOCK_SIZE, end)]
                    embeddings[positions] = rows[self.row[self.inverse[positions]]]
            write_json(self.folder / META_NAME, {**self.key, "count": len(self.texts), "dim": dim})
            save_embeddings(self.folder / EMBEDDINGS_NAME, embeddings, all_hashes)

    def _rows_of(self, number: int, shards: list[Shard]) -> np.ndarray:
        if number < len(self.reused):
            return self.reused[number]
        return load_embeddings(shards[number - len(self.reused)].path)
