"""Compute embeddings: tokenise one shard ahead, batch texts of similar length, use all cores."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from functools import partial
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.util import batch_to_device, truncate_embeddings
from torch import Tensor

from .threads import compute_threads

Task = Literal["query", "document"]

PROMPT_NAMES = {"query": ("query",), "document": ("document", "passage", "corpus")}
# Larger batches don't fit into the caches of a core.
CPU_BATCH_TOKENS = 1024


class Batch(NamedTuple):
    """A batch of texts: their positions in the shard, and the inputs of the model."""

    positions: np.ndarray
    features: dict[str, Any]


class Forward:
    """A faster `model.encode_query` or `model.encode_document`.

    Args:
        model: The encoder.
        task: `"query"` or `"document"`.
        batch_size: Maximum number of texts per batch.
    """

    def __init__(self, model: SentenceTransformer, task: Task, batch_size: int):
        self.model = model
        self.task = task
        self.batch_size = batch_size
        self.device = model.device
        on_cpu = self.device.type == "cpu"
        self.batch_tokens = CPU_BATCH_TOKENS if on_cpu else None
        # Other backends manage their threads themselves.
        self.threaded = on_cpu and model.get_backend() == "torch"
        self.prompt = _prompt(model, task)

    def embed(self, shards: Iterable[Sequence[str]], side_by_side: bool = True) -> Iterator[np.ndarray]:
        """Yield the normalised embeddings of each shard of texts, `(n, dim)` float32.

        The next shard is tokenised while the current one is computed. Up to three shards are read before the
        embeddings of the first one are yielded.

        Args:
            shards: The texts, shard by shard.
            side_by_side: Compute one batch per core. Otherwise all cores compute the same batch.
        """
        self.model.eval()
        upcoming = iter(shards)
        threaded = side_by_side and self.threaded and torch.get_num_threads() > 1
        workers_or_none = compute_threads() if threaded else nullcontext()
        with ThreadPoolExecutor(1) as tokenizer, workers_or_none as workers:

            def begin() -> Future[list[Batch]] | None:
                shard = next(upcoming, None)
                return None if shard is None else tokenizer.submit(self._batches, shard)

            tokenized = begin()
            computing: deque[list[tuple[np.ndarray, Callable[[], np.ndarray]]]] = deque()
            while tokenized is not None or computing:
                if tokenized is not None:
                    batches = tokenized.result()
                    tokenized = begin()
                    computing.append([(b.positions, self._start(workers, b.features)) for b in batches])
                # Queue the next shard before waiting for the current one, so that no worker is idle.
                if tokenized is None or len(computing) > 1:
                    yield _in_order(computing.popleft())

    def _start(
        self, workers: ThreadPoolExecutor | None, features: dict[str, Any]
    ) -> Callable[[], np.ndarray]:
        """Return a function that returns the embeddings, computed by a worker or when called."""
        if workers is None:
            return partial(self._compute, features)
        return workers.submit(self._compute, features).result

    def _batches(self, texts: Sequence[str]) -> list[Batch]:
        features = self._tokenize(texts)
        lengths = _token_counts(features, len(texts))
        if lengths is None:
            # Tokens can't be counted: use the length in characters, and tokenise each batch separately.
            characters = np.array([len(text) for text in texts])
            cuts = batches_by_length(characters, self.batch_size, None)
            return [Batch(cut, self._tokenize([texts[position] for position in cut])) for cut in cuts]
        cuts = batches_by_length(lengths, self.batch_size, self.batch_tokens)
        return [Batch(cut, _take(features, cut)) for cut in cuts]

    def _tokenize(self, texts: Sequence[str]) -> dict[str, Any]:
        return self.model.preprocess(list(texts), prompt=self.prompt, task=self.task)

    @torch.inference_mode()
    def _compute(self, features: dict[str, Any]) -> np.ndarray:
        output = self.model(batch_to_device(features, self.device), task=self.task)["sentence_embedding"]
        if self.model.truncate_dim is not None:
            output = truncate_embeddings(output, self.model.truncate_dim)
        return torch.nn.functional.normalize(output, dim=1).float().cpu().numpy()


def _prompt(model: SentenceTransformer, task: Task) -> str | None:
    for name in (*PROMPT_NAMES[task], model.default_prompt_name):
        if name is not None and name in model.prompts:
            return model.prompts[name]
    return None


def _token_counts(features: Mapping[str, Any], count: int) -> np.ndarray | None:
    """Return the number of tokens per text, or None if `features` can't be split by text.

    They can be split if all texts are padded to the longest one, and not to a fixed width.
    """
    mask = features.get("attention_mask")
    if not isinstance(mask, Tensor) or mask.ndim != 2 or len(mask) != count or not mask.any(0).all():
        return None
    tensors = [value for value in features.values() if isinstance(value, Tensor) and value.ndim]
    if any(len(value) != count or value.shape[1:] not in ((), mask.shape[1:]) for value in tensors):
        return None
    return mask.sum(1).numpy()


def _take(features: Mapping[str, Any], positions: np.ndarray) -> dict[str, Any]:
    """Return the features of some texts, without columns that are padding for all of them."""
    used = features["attention_mask"][positions].any(0)

    def take(value: Any) -> Any:
        if not isinstance(value, Tensor) or not value.ndim:
            return value
        rows = value[positions]
        return rows[:, used] if rows.ndim == 2 else rows

    return {name: take(value) for name, value in features.items()}


def batches_by_length(lengths: np.ndarray, batch_size: int, batch_tokens: int | None) -> list[np.ndarray]:
    """Divide texts into batches, the longest texts first, and return their positions.

    Example:
        >>> lengths = np.array([1, 9, 3, 8])
        >>> [batch.tolist() for batch in batches_by_length(lengths, batch_size=3, batch_tokens=16)]
        [[1], [3, 2], [0]]
    """
    order = np.argsort(-lengths, kind="stable")
    batches = []
    while len(order):
        longest = max(int(lengths[order[0]]), 1)
        fitting = batch_size if batch_tokens is None else min(batch_size, max(1, batch_tokens // longest))
        batches.append(order[:fitting])
        order = order[fitting:]
    return batches


def _in_order(computing: list[tuple[np.ndarray, Callable[[], np.ndarray]]]) -> np.ndarray:
    """Wait for the batches of a shard and return the embeddings in the order of its texts."""
    order = np.concatenate([positions for positions, _ in computing])
    rows = np.concatenate([result() for _, result in computing])
    embeddings = np.empty_like(rows)
    embeddings[order] = rows
    return embeddings
