"""Texts to embeddings: tokenised a shard ahead, in batches of similar length, on all cores."""

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
# Beyond that, a batch no longer stays in a core's caches.
CPU_BATCH_TOKENS = 1024


class Batch(NamedTuple):
    """Texts that go through the model together: their positions in the shard, and what the model reads."""

    positions: np.ndarray
    features: dict[str, Any]


class Forward:
    """Computes what `model.encode_query` or `model.encode_document` does, faster.

    Args:
        model: The encoder.
        task: Which of the two.
        batch_size: Texts a forward pass, at most.
        batch_tokens: Tokens a forward pass with its padding, at most, where it has several texts; None
            for 1,024 on a CPU and no limit elsewhere.
    """

    def __init__(
        self, model: SentenceTransformer, task: Task, batch_size: int, batch_tokens: int | None = None
    ):
        self.model = model
        self.task = task
        self.batch_size = batch_size
        self.device = model.device
        on_cpu = self.device.type == "cpu"
        self.batch_tokens = batch_tokens or (CPU_BATCH_TOKENS if on_cpu else None)
        # Other backends have threads of their own.
        self.threaded = on_cpu and model.get_backend() == "torch"
        self.prompt = _prompt(model, task)

    def embed(self, shards: Iterable[Sequence[str]], side_by_side: bool = True) -> Iterator[np.ndarray]:
        """Yield the normalised embeddings of each shard of texts, `(n, dim)` float32.

        While a shard is computed, the next one is tokenised. Up to three shards are taken from `shards`
        before the first one's embeddings are yielded.

        Args:
            shards: The texts, shard by shard.
            side_by_side: Whether there are batches enough for a core each, not all cores for a batch.
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
                # A second shard is queued before the first is awaited, so that no worker idles in between.
                if tokenized is None or len(computing) > 1:
                    yield _in_order(computing.popleft())

    def _start(
        self, workers: ThreadPoolExecutor | None, features: dict[str, Any]
    ) -> Callable[[], np.ndarray]:
        """Return what gives the embeddings when called: computed by a worker, or then."""
        if workers is None:
            return partial(self._compute, features)
        return workers.submit(self._compute, features).result

    def _batches(self, texts: Sequence[str]) -> list[Batch]:
        features = self._tokenize(texts)
        lengths = _token_counts(features, len(texts))
        if lengths is None:
            # No tokens to count or to cut out: the length in characters, and each batch tokenised alone.
            characters = np.array([len(text) for text in texts])
            cuts = _cut(characters, self.batch_size, None)
            return [Batch(cut, self._tokenize([texts[position] for position in cut])) for cut in cuts]
        cuts = _cut(lengths, self.batch_size, self.batch_tokens)
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
    """Return each text's tokens, or None if `features` are not rows that can be taken apart.

    They can be where all are padded to the longest one, and not, say, to a width that the model wants.
    """
    mask = features.get("attention_mask")
    if not isinstance(mask, Tensor) or mask.ndim != 2 or len(mask) != count or not mask.any(0).all():
        return None
    tensors = [value for value in features.values() if isinstance(value, Tensor) and value.ndim]
    if any(len(value) != count or value.shape[1:] not in ((), mask.shape[1:]) for value in tensors):
        return None
    return mask.sum(1).numpy()


def _take(features: Mapping[str, Any], positions: np.ndarray) -> dict[str, Any]:
    """Return the features of some texts, without the columns in which all of them are padding."""
    used = features["attention_mask"][positions].any(0)

    def take(value: Any) -> Any:
        if not isinstance(value, Tensor) or not value.ndim:
            return value
        rows = value[positions]
        return rows[:, used] if rows.ndim == 2 else rows

    return {name: take(value) for name, value in features.items()}


def _cut(lengths: np.ndarray, batch_size: int, batch_tokens: int | None) -> list[np.ndarray]:
    """Return the positions of each batch, the longest texts first.

    Example:
        >>> [batch.tolist() for batch in _cut(np.array([1, 9, 3, 8]), batch_size=3, batch_tokens=16)]
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
    """Wait for a shard's batches, and return their rows in the order of its texts."""
    order = np.concatenate([positions for positions, _ in computing])
    rows = np.concatenate([result() for _, result in computing])
    embeddings = np.empty_like(rows)
    embeddings[order] = rows
    return embeddings
