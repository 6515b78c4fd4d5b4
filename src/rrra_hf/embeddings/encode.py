"""Encoding texts shard by shard, with a cache on disk that an interrupted run resumes from."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from sentence_transformers import SentenceTransformer
from tqdm.auto import tqdm

from .cache import Cache
from .checks import check_finite
from .fingerprint import encoder_fingerprint, texts_fingerprint
from .forward import Forward, Task


def encode(
    model: SentenceTransformer,
    texts: Sequence[str],
    *,
    task: Task,
    batch_size: int = 64,
    batch_tokens: int | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    show_progress_bar: bool | None = None,
    shard_size: int = 512,
) -> np.ndarray:
    """Return the normalised embeddings of texts, from the cache if they were encoded before.

    The embeddings are those of `model.encode_query` or `model.encode_document`, to float32 rounding.
    Texts are encoded in shards, the longest first: a shard is tokenised while the one before it is computed,
    and divided into batches by length in tokens. On a CPU, each core has its own batches.

    With `cache_dir`, each finished shard is kept, so that an interrupted run goes on where it stopped.
    The cache is keyed by what decides the embeddings (weights, settings, prompts, task, texts), never
    by a name: a fine-tuned model does not meet its former embeddings. In another list of texts, those that
    were encoded before are not encoded again: where ten documents changed, ten are encoded. A finished
    list is a folder of its own that may be removed at any time.

    Processes that encode the same texts into the same `cache_dir` at once, as `accelerate launch` or
    `torchrun` start them, on machines that share the folder, divide the shards among them. All get the same
    embeddings, and the same bits as a single process where each core computes its own batches.

    Args:
        model: The encoder.
        texts: The texts, in any order; those longer than the model takes are truncated by it.
        task: Encode them as `"query"` or `"document"`.
        batch_size: Texts a forward pass, at most.
        batch_tokens: Tokens a forward pass with its padding, at most; None for 1,024 on a CPU, whose caches
            hold no more, and for no limit elsewhere.
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
    sizes = {"batch_size": batch_size, "batch_tokens": batch_tokens, "shard_size": shard_size}
    for name, size in sizes.items():
        if size is not None and size < 1:
            raise ValueError(f"{name} must be at least 1, got {size}.")
    forward = Forward(model, task, batch_size, batch_tokens)
    disable = None if show_progress_bar is None else not show_progress_bar
    if cache_dir is None:
        with tqdm(total=len(texts), desc=f"Encoding ({task})", unit="text", disable=disable) as bar:
            return _encode_in_memory(forward, texts, shard_size, bar)
    key = {"encoder": encoder_fingerprint(model), "task": task, "texts": texts_fingerprint(texts)}
    cache = Cache(Path(cache_dir) / "-".join(key.values()), key, texts, shard_size)
    cached = cache.read()
    if cached is not None:
        return cached
    with tqdm(total=len(texts), desc=f"Encoding ({task})", unit="text", disable=disable) as bar:
        return cache.fill(forward, bar.update)


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


def _encode_in_memory(forward: Forward, texts: list[str], shard_size: int, bar: tqdm) -> np.ndarray:
    # The longest first, so that batches pad little and too large a batch_size fails at once.
    order = np.argsort([-len(text) for text in texts], kind="stable")
    shards = [order[start : start + shard_size] for start in range(0, len(order), shard_size)]
    shard_texts = ([texts[position] for position in positions] for positions in shards)
    embeddings = np.empty((0, 0), dtype=np.float32)
    encoded = forward.embed(shard_texts, len(texts) > forward.batch_size)
    for positions, rows in zip(shards, encoded, strict=True):
        if not embeddings.size:
            embeddings = np.empty((len(texts), rows.shape[1]), dtype=np.float32)
        embeddings[positions] = check_finite(rows, positions)
        bar.update(len(rows))
    return embeddings
