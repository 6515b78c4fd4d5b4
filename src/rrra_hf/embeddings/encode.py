"""Encoding texts shard by shard, with a cache on disk that an interrupted run resumes from."""

from __future__ import annotations

import json
import logging
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import IO, Literal

import numpy as np
from sentence_transformers import SentenceTransformer
from tqdm.auto import tqdm

from .checks import non_finite_rows
from .fingerprint import encoder_fingerprint, texts_fingerprint
from .storage import atomic_path, load_embeddings, save_embeddings

logger = logging.getLogger(__name__)

Task = Literal["query", "document"]

EMBEDDINGS_NAME = "embeddings.arrow"
META_NAME = "meta.json"


def encode(
    model: SentenceTransformer,
    texts: Sequence[str],
    *,
    task: Task,
    batch_size: int = 64,
    cache_dir: str | os.PathLike[str] | None = None,
    show_progress_bar: bool | None = None,
    shard_size: int = 512,
) -> np.ndarray:
    """Return the normalised embeddings of texts, from the cache if they were encoded before.

    Texts are encoded by `model.encode_query` or `model.encode_document`, the longest first, in shards.
    With `cache_dir`, each finished shard is kept, so that an interrupted run goes on where it stopped.
    The cache is keyed by what decides the embeddings (weights, settings, prompts, task, texts), never
    by a name: a fine-tuned model does not meet its former embeddings.

    Args:
        model: The encoder.
        texts: The texts, in any order; those longer than the model takes are truncated by it.
        task: Encode them as `"query"` or `"document"`.
        batch_size: Texts a forward pass.
        cache_dir: Folder of the cache; None to keep nothing on disk.
        show_progress_bar: None shows one on a terminal only.
        shard_size: Texts a shard, the unit of resuming.

    Returns:
        `(n, dim)` float32, row `i` for `texts[i]`. With `cache_dir`, memory-mapped and read-only.

    Raises:
        ValueError: If `texts` is empty or one of them is no string, if `task` or a size is not legal,
            or if the model gives NaN or infinite values.
    """
    texts = _check_texts(texts)
    if task not in ("query", "document"):
        raise ValueError(f"task must be 'query' or 'document', got {task!r}.")
    for name, size in (("batch_size", batch_size), ("shard_size", shard_size)):
        if size < 1:
            raise ValueError(f"{name} must be at least 1, got {size}.")
    # The longest first, so that batches pad little and too large a batch_size fails at once.
    order = np.argsort([-len(text) for text in texts], kind="stable")
    shards = [order[start : start + shard_size] for start in range(0, len(order), shard_size)]
    encode_task = model.encode_query if task == "query" else model.encode_document

    def encode_shard(positions: np.ndarray) -> np.ndarray:
        embeddings = encode_task(
            [texts[position] for position in positions],
            batch_size=batch_size,
            show_progress_bar=False,
            normalize_embeddings=True,
        )
        return _check_finite(np.asarray(embeddings, dtype=np.float32), positions)

    run = partial(_encoded, shards, description=f"Encoding ({task})", show_progress_bar=show_progress_bar)
    if cache_dir is None:
        return _gather(run(encode_shard), len(texts))
    key = {"encoder": encoder_fingerprint(model), "task": task, "texts": texts_fingerprint(texts)}
    folder = Path(cache_dir) / "-".join(key.values())
    cached = _read_cache(folder, len(texts))
    if cached is not None:
        return cached
    _write_cache(folder, key, run(partial(_resume_shard, folder, encode_shard)), len(texts))
    return load_embeddings(folder / EMBEDDINGS_NAME)


def _check_texts(texts: Sequence[str]) -> list[str]:
    if isinstance(texts, str):
        raise ValueError("texts must be a list of strings, got one string.")
    texts = list(texts)
    if not texts:
        raise ValueError("texts must not be empty.")
    for position, text in enumerate(texts):
        if not isinstance(text, str):
            raise ValueError(f"texts must be strings, got {type(text).__name__} at position {position}.")
    return texts


def _check_finite(embeddings: np.ndarray, positions: np.ndarray) -> np.ndarray:
    bad = non_finite_rows(embeddings)
    if len(bad):
        raise ValueError(
            f"The model gave NaN or infinite values for {len(bad)} of {len(embeddings)} texts encoded "
            f"together, the first at position {positions[bad].min()}; its weights may be damaged, or its "
            "precision too low."
        )
    return embeddings


def _encoded(
    shards: list[np.ndarray],
    encode_shard: Callable[[np.ndarray], np.ndarray],
    description: str,
    show_progress_bar: bool | None,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield the positions of each shard's texts and their embeddings, under one progress bar."""
    disable = None if show_progress_bar is None else not show_progress_bar
    count = sum(len(positions) for positions in shards)
    with tqdm(total=count, desc=description, unit="text", disable=disable) as bar:
        for positions in shards:
            yield positions, encode_shard(positions)
            bar.update(len(positions))


def _gather(
    encoded: Iterator[tuple[np.ndarray, np.ndarray]], count: int, scratch: IO[bytes] | None = None
) -> np.ndarray:
    """Put the shards' rows in the order of the texts, in memory or in the file `scratch`."""
    embeddings = np.empty((0, 0), dtype=np.float32)
    for positions, shard in encoded:
        if not embeddings.size:
            shape = (count, shard.shape[1])
            embeddings = (
                np.memmap(scratch, np.float32, "w+", shape=shape) if scratch else np.empty(shape, np.float32)
            )
        embeddings[positions] = shard
    return embeddings


def _resume_shard(
    folder: Path, encode_shard: Callable[[np.ndarray], np.ndarray], positions: np.ndarray
) -> np.ndarray:
    """Read a shard that an interrupted run finished, else encode it and keep it."""
    path = folder / f"shard-{texts_fingerprint(map(str, positions))}.arrow"
    try:
        embeddings = load_embeddings(path)
        if len(embeddings) == len(positions):
            return embeddings
        logger.warning("%s holds %d rows, not %d; encoding again.", path, len(embeddings), len(positions))
    except FileNotFoundError:
        pass
    except ValueError as error:
        logger.warning("%s; encoding again.", error)
    embeddings = encode_shard(positions)
    save_embeddings(path, embeddings)
    return embeddings


def _write_cache(
    folder: Path, key: dict[str, str], encoded: Iterator[tuple[np.ndarray, np.ndarray]], count: int
) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    # The scratch file has no name, so nothing of it is left behind, and the matrix need not fit in memory.
    with tempfile.TemporaryFile(dir=folder) as scratch:
        embeddings = _gather(encoded, count, scratch)
        with atomic_path(folder / META_NAME) as temporary:
            meta = {**key, "count": count, "dim": embeddings.shape[1]}
            temporary.write_text(json.dumps(meta, indent=2) + "\n")
        save_embeddings(folder / EMBEDDINGS_NAME, embeddings)
    for shard in folder.glob("shard-*.arrow"):
        shard.unlink(missing_ok=True)


def _read_cache(folder: Path, count: int) -> np.ndarray | None:
    """Return the finished embeddings of a cache folder, or None if there are none to trust."""
    path = folder / EMBEDDINGS_NAME
    if not path.exists():
        return None
    try:
        shape = (count, json.loads((folder / META_NAME).read_text())["dim"])
        embeddings = load_embeddings(path)
        if embeddings.shape != shape:
            raise ValueError(f"{path} has shape {embeddings.shape}, not {shape}")
    except (OSError, ValueError, KeyError, TypeError) as error:
        logger.warning("The cached embeddings are damaged and are encoded again: %s", error)
        return None
    return embeddings
