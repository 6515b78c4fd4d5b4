"""A cross-encoder as a judge."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from sentence_transformers import CrossEncoder

from .base import Cost, Texts, about_tokens

# Pairs between two answers: few are lost if the process is killed.
BATCH = 32


class CrossEncoderJudge:
    """Judges by a cross-encoder of sentence-transformers, which runs here.

    A document is relevant if the sigmoid of its score, the cross-encoder's probability, is more than .5.

    Args:
        model: Folder or Hub name of a cross-encoder with one score per pair.
        options: Further arguments of `sentence_transformers.CrossEncoder`, such as `device`.

    Raises:
        OSError: If there is no such model.
        ValueError: If it has several scores per pair.
    """

    def __init__(self, model: str, **options: Any):
        self.name = f"cross-encoder:{model}"
        self.calls = 0
        self.model = CrossEncoder(model, **options)
        if self.model.num_labels != 1:
            raise ValueError(f"model must have one score per pair, {model} has {self.model.num_labels}.")

    def cost(self, texts: Sequence[Texts]) -> Cost:
        """Return how many pairs and about how many tokens there are to read."""
        return Cost(len(texts), sum(about_tokens(*pair) for pair in texts))

    def probabilities(self, texts: Sequence[Texts]) -> np.ndarray:
        """Return the cross-encoder's probability of relevance for each pair of texts, `(n,)` float32."""
        return np.asarray(
            self.model.predict(
                list(texts), batch_size=BATCH, activation_fn=torch.nn.Sigmoid(), show_progress_bar=False
            ),
            dtype=np.float32,
        )

    def judge(
        self, texts: Sequence[Texts], max_calls: int | None = None
    ) -> Iterator[tuple[int, bool | None]]:
        """Yield the place of each pair of texts, and whether the document is relevant."""
        texts = texts[:max_calls]
        for start in range(0, len(texts), BATCH):
            batch = texts[start : start + BATCH]
            self.calls += len(batch)
            for place, probability in enumerate(self.probabilities(batch), start):
                yield place, bool(probability > 0.5)
