"""The resampling loss for batches that don't fit into memory."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from typing import Any

import torch
import tqdm
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.losses import CachedMultipleNegativesRankingLoss
from sentence_transformers.util import cos_sim
from torch import Tensor

from ..candidates import CandidatePool
from ..models.adapter_rrra import RetrieverAdapter
from .rrra import CITATION, RowLabels, RRRALoss


class CachedRRRALoss(CachedMultipleNegativesRankingLoss):
    """`RRRALoss` with gradient caching: memory depends on the mini-batch, not on the batch.

    The batch is embedded in mini-batches without gradients, the loss and its gradients with respect to the
    embeddings are computed, then each mini-batch is embedded again and those gradients are passed on. The
    loss is that of `RRRALoss`, with all its `targets`.

    Args:
        model: The encoder, as in `RRRALoss`.
        scale: Similarities are multiplied by it; 1 / temperature.
        similarity_fct: Similarity of `(n, dim)` and `(m, dim)`, `(n, m)`: cosine by default.
        mini_batch_size: Number of texts that are embedded at once, and of rows of the score matrix in memory
            at once.
        mini_batch_num_tokens: If given, texts are embedded in mini-batches of about so many tokens instead.
        gather_across_devices: Use the documents of all devices as negatives.
        directions: As in `RRRALoss`.
        partition_mode: As in `RRRALoss`.
        show_progress_bar: Show a progress bar of the mini-batches.
        hardness_mode: As in `RRRALoss`.
        hardness_strength: As in `RRRALoss`.
        settings: `pool`, `targets`, `source`, `gamma`, `threshold`, `teacher_temperature`,
            `mask_known_positives` and `adapter_weight`, as in `RRRALoss`.

    Requirements:
        1. (query, positive, negative_1, ..., negative_n) n-tuples.
        2. Labels as in `RRRALoss`.
        3. A large `per_device_train_batch_size`, and a `mini_batch_size` that fits into memory.

    Inputs:
        As in `RRRALoss`.

    Recommendations:
        - Use a pool and a `Resampler`, which draws negatives that aren't suspect.

    Relations:
        - `RRRALoss` is the same loss with the whole batch in memory, and faster.
        - `CachedMultipleNegativesRankingLoss` is this loss with all probabilities 0 and nothing masked; the
          values are equal to the last bit.

    Raises:
        ValueError: As in `RRRALoss`.

    Source:
        Resampling scores of RRRA, arXiv 2508.11670, as log-weights in the softmax denominator;
        gradient caching, arXiv 2101.06983.

    Example:
        ::

            from datasets import Dataset
            from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer
            from rrra_hf.losses import CachedRRRALoss

            model = SentenceTransformer("sentence-transformers/all-MiniLM-L6-v2")
            train_dataset = Dataset.from_dict({
                "query": ["how to list files", "how to copy a file"],
                "positive": ["ls prints the files of a folder", "cp copies files"],
                "negative_1": ["find walks a folder", "mv moves files"],
                "negative_2": ["cat prints a file", "install copies files"],
                "scores": [[0.3, 1.0], [1.0, 0.1]],
            })
            loss = CachedRRRALoss(model, mini_batch_size=64)
            trainer = SentenceTransformerTrainer(model=model, train_dataset=train_dataset, loss=loss)
            trainer.train()
    """

    loss: RRRALoss

    def __init__(
        self,
        model: SentenceTransformer,
        scale: float = 20.0,
        similarity_fct: Callable[[Tensor, Tensor], Tensor] = cos_sim,
        mini_batch_size: int = 32,
        mini_batch_num_tokens: int | None = None,
        gather_across_devices: bool = False,
        directions: tuple[str, ...] = ("query_to_doc",),
        partition_mode: str = "joint",
        show_progress_bar: bool = False,
        hardness_mode: str | None = None,
        hardness_strength: float = 0.0,
        **settings: Any,
    ) -> None:
        super().__init__(
            model,
            mini_batch_size=mini_batch_size,
            mini_batch_num_tokens=mini_batch_num_tokens,
            show_progress_bar=show_progress_bar,
        )
        # The wrapped loss owns and checks the settings.
        self.loss = RRRALoss(
            model,
            scale,
            similarity_fct,
            gather_across_devices,
            directions,
            partition_mode,
            hardness_mode,
            hardness_strength,
            **settings,
        )

    @property
    def pool(self) -> CandidatePool | None:
        """The pool whose rows are the labels; you can replace it by another one of the same documents."""
        return self.loss.pool

    @pool.setter
    def pool(self, pool: CandidatePool) -> None:
        self.loss.pool = pool

    def forward(self, sentence_features: Iterable[dict[str, Tensor]], labels: Tensor | None) -> Tensor:
        """Return the loss of a batch.

        Args:
            sentence_features: Tokenized queries, positives, and each column of negatives.
            labels: Weights `(batch, n)`, or with a pool rows `(batch, 2 + n)`; None if there are none.
        """
        columns = list(sentence_features)
        known = self.loss.row_labels(labels, columns)
        if not (torch.is_grad_enabled() and self.loss.trains_adapter):
            return super().forward(columns, known)  # type: ignore[arg-type]
        # The parent computes the gradients of the embeddings in its forward pass. Those of the adapter are
        # collected in a copy, and reach the adapter in the backward pass, scaled as the loss is.
        adapter = self.loss.adapter
        copied = copy.deepcopy(adapter)
        copied.zero_grad()
        loss = super().forward(columns, known._replace(adapter=copied))  # type: ignore[arg-type]
        # The hook of this new node runs before the parent's backward pass, which embeds the mini-batches
        # again and, on several devices, ends with the exchange of all gradients.
        loss = loss * 1.0
        loss.register_hook(lambda gradient: _pass_on(copied, adapter, gradient))
        return loss

    def calculate_loss(
        self,
        reps: list[list[Tensor]],
        labels: Tensor | RowLabels | None = None,
        *,
        with_backward: bool = False,
    ) -> Tensor:
        """Return the loss of a batch.

        Args:
            reps: Queries, positives, and each column of negatives, each as mini-batches
                `(mini_batch, dim)`.
            labels: As given to `forward`, or the result of `RRRALoss.row_labels`.
            with_backward: Compute gradients of `reps`, too; the loss is then detached.
        """
        labels = labels if isinstance(labels, RowLabels) else self.loss.row_labels(labels)
        batch = self.loss.gathered([torch.cat(mini_batches) for mini_batches in reps], labels)
        total = batch.queries.new_zeros(())
        for own in tqdm.tqdm(
            batch.own.split(self.mini_batch_size),
            desc="Calculating loss",
            disable=not self.show_progress_bar,
        ):
            loss = self.loss.row_losses(batch, own, labels).mean() * len(own) / len(batch.own)
            if with_backward:
                loss.backward()
                loss = loss.detach()
            total = total + loss
        return total

    def get_config_dict(self) -> dict[str, Any]:
        """Return the settings, for the model card."""
        return {**super().get_config_dict(), **self.loss.get_config_dict()}

    @property
    def citation(self) -> str:
        """BibTeX entries, for the model card."""
        return CITATION + super().citation


def _pass_on(copied: RetrieverAdapter, adapter: RetrieverAdapter, gradient: Tensor) -> None:
    """Add the gradients of the copy, times the gradient of the loss, to those of the adapter."""
    for collected, parameter in zip(copied.parameters(), adapter.parameters(), strict=True):
        if parameter.requires_grad and collected.grad is not None:
            scaled = collected.grad * gradient
            parameter.grad = scaled if parameter.grad is None else parameter.grad + scaled
