"""The resampling loss for batches that don't fit into memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import tqdm
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.losses import CachedMultipleNegativesRankingLoss
from sentence_transformers.util import cos_sim
from torch import Tensor

from .in_batch import all_documents
from .rrra import CITATION
from .weights import checked_weights, weighted_logits


class CachedRRRALoss(CachedMultipleNegativesRankingLoss):
    """`RRRALoss` with gradient caching: memory depends on the mini-batch, negatives on the batch.

    The batch is embedded without gradients in mini-batches, the loss and its gradients with respect
    to the embeddings are computed, then each mini-batch is embedded again and those gradients are
    passed on. The loss is that of `RRRALoss`: with `s` the scaled similarities of a query, `+` its
    positive, `w_j` the weights of its own hard negatives and `i` running over all other documents of
    the batch::

        loss = -log( exp(s_+) / (exp(s_+) + sum_j w_j exp(s_j) + sum_i exp(s_i)) )

    Args:
        model: The encoder.
        scale: Similarities are multiplied by it; 1 / temperature.
        similarity_fct: Similarity of `(n, dim)` and `(m, dim)`, `(n, m)`: cosine by default.
        mini_batch_size: Texts embedded at once, and rows of the score matrix held at once.
        mini_batch_num_tokens: If given, texts are embedded in mini-batches of about so many tokens
            instead.
        gather_across_devices: Take the documents of all devices as negatives.
        show_progress_bar: Show the progress through the mini-batches.

    Requirements:
        1. (query, positive, negative_1, ..., negative_n) n-tuples.
        2. The n weights, of a query's own negatives in their order, in a column named `scores` (or
           `score`, `label`, `labels`). Without such a column all weigh 1.
        3. A large `per_device_train_batch_size` and a `mini_batch_size` that fits into memory.

    Inputs:
        +------------------------------------------------+------------------------------+
        | Inputs                                         | Labels                       |
        +================================================+==============================+
        | (query, positive, negative_1, ..., negative_n) | n weights, each at least 0   |
        +------------------------------------------------+------------------------------+
        | (query, positive, negative_1, ..., negative_n) | none: all weights 1          |
        +------------------------------------------------+------------------------------+
        | (query, positive)                              | none                         |
        +------------------------------------------------+------------------------------+

    Recommendations:
        - `draw_negatives` makes negatives and weights from a cross-fitted pool.
        - Use `BatchSamplers.NO_DUPLICATES`, so that no document of the batch is a query's positive
          and another's negative.

    Relations:
        - `RRRALoss` is the same loss, faster, with the whole batch in memory.
        - `CachedMultipleNegativesRankingLoss` is this loss with all weights 1 (equal to the last
          bit). Its options for other directions, partitions and hardness are not taken here: how a
          weight should enter those terms is not defined.

    Raises:
        ValueError: In use, if weights are of another shape, negative, or not finite.

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

    def __init__(
        self,
        model: SentenceTransformer,
        scale: float = 20.0,
        similarity_fct: Callable[[Tensor, Tensor], Tensor] = cos_sim,
        mini_batch_size: int = 32,
        mini_batch_num_tokens: int | None = None,
        gather_across_devices: bool = False,
        show_progress_bar: bool = False,
    ) -> None:
        super().__init__(
            model,
            scale=scale,
            similarity_fct=similarity_fct,
            mini_batch_size=mini_batch_size,
            mini_batch_num_tokens=mini_batch_num_tokens,
            gather_across_devices=gather_across_devices,
            show_progress_bar=show_progress_bar,
        )

    def calculate_loss(
        self, reps: list[list[Tensor]], labels: Tensor | None = None, *, with_backward: bool = False
    ) -> Tensor:
        """Return the loss of a batch.

        Args:
            reps: Queries, positives, and each column of negatives, each as mini-batches
                `(mini_batch, dim)`.
            labels: Weights of the negatives, `(batch, n)`; None if all are 1.
            with_backward: Pass gradients back to `reps` while computing; the loss comes detached.
        """
        if labels is None:
            return super().calculate_loss(reps, None, with_backward=with_backward)
        queries, *columns = (torch.cat(mini_batches) for mini_batches in reps)
        weights = checked_weights(labels, (len(queries), len(columns) - 1))
        documents, own = all_documents(columns, self.gather_across_devices)
        starts = range(0, len(queries), self.mini_batch_size)
        total = queries.new_zeros(())
        for start in tqdm.tqdm(starts, desc="Calculating loss", disable=not self.show_progress_bar):
            rows = slice(start, start + self.mini_batch_size)
            logits = self.similarity_fct(queries[rows], documents) * self.scale
            logits = weighted_logits(logits, weights[rows], own[rows])
            positive = logits.gather(1, own[rows, None]).squeeze(1)
            loss = -(positive - logits.logsumexp(dim=1)).mean() * len(logits) / len(queries)
            if with_backward:
                loss.backward()
                loss = loss.detach()
            total = total + loss
        return total

    def get_config_dict(self) -> dict[str, Any]:
        """Return the settings, for the model card."""
        settings = super().get_config_dict()
        unused = ("directions", "partition_mode", "hardness_mode", "hardness_strength")
        return {name: setting for name, setting in settings.items() if name not in unused}

    @property
    def citation(self) -> str:
        """BibTeX entries, for the model card."""
        return CITATION + super().citation
