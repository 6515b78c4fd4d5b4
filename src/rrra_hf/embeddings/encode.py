"""Encode texts shard by shard, with a cache on disk from which an interrupted run resumes."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from sentence_transformers import SentenceTransformer
from tqdm.auto import tqdm

from ..data.surrogates import check_unicode
from .cache import Cache
from .checks import check_finite
from .fingerprint import encoder_fingerprint, texts_fingerprint
from .forward import Forward, Task
from .similarity import check_similarity


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
    """Encode texts into normalised embeddings, or read them from the cache.

    The embeddings equal those of `model.encode_query` or `model.encode_document` up to float32 rounding.
    Texts are encoded in shards, the longest texts first. The next shard is tokenised while the current one is
    computed. Batches have texts of similar length in tokens. On a CPU, each core computes its own batches.

    With `cache_dir`, each finished shard is saved, and an interrupted run resumes from there. The cache key
    covers everything that affects the embeddings (weights, settings, prompts, task, texts), but no names, so
    a fine-tuned model never reads embeddings from before. Texts that occur in another cached list are not
    encoded again: if ten documents changed, ten are encoded. Each finished list is a folder that you can
    delete at any time.

    Several processes that encode the same texts with the same `cache_dir`, for example under
    `accelerate launch` or `torchrun`, divide the shards among them, also on several machines that share the
    folder. All get the same embeddings. On CPUs, these are bit for bit those of a single process.

    Args:
        model: The encoder.
        texts: The texts, in any order. The model truncates texts that are too long.
        task: Encode the texts as `"query"` or `"document"`.
        batch_size: Maximum number of texts per batch. On a CPU, a batch also has at most 1,024 tokens, which
            is what fits into its caches.
        cache_dir: Cache folder, None for no cache.
        show_progress_bar: Show a progress bar. None shows one on a terminal only.
        shard_size: Number of texts per shard.

    Returns:
        Embeddings in the order of `texts`, `(n, dim)` float32. With `cache_dir`, they are memory-mapped and
        read-only.

    Raises:
        ValueError: If `texts` is empty or has an entry that isn't a string or has a lone surrogate, `task`
            or a size isn't legal, the model isn't one for cosines, see `check_similarity`, or it returns NaN
            or infinite values.

    Example:
        >>> from sentence_transformers.sentence_transformer.modules import BoW
        >>> encoder = SentenceTransformer(modules=[BoW(vocab=["copy", "file", "list"])])
        >>> encode(encoder, ["copy", "the list"], task="query").tolist()
        [[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]
    """
    texts = _check_texts(texts)
    if task not in ("query", "document"):
        raise ValueError(f"task must be 'query' or 'document', got {task!r}.")
    for name, size in (("batch_size", batch_size), ("shard_size", shard_size)):
        if size < 1:
            raise ValueError(f"{name} must be at least 1, got {size}.")
    check_similarity(model)
    forward = Forward(model, task, batch_size)
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
    check_unicode("text", texts)
    return texts


def _encode_in_memory(forward: Forward, texts: list[str], shard_size: int, bar: tqdm) -> np.ndarray:
    # Longest texts first: batches need little padding, and a batch_size that is too large fails at once.
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
