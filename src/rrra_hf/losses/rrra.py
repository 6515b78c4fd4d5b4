"""Contrastive loss with a resampling weight on each hard negative."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss
from sentence_transformers.util import cos_sim
from torch import Tensor

from .in_batch import in_batch_logits
from .weights import checked_weights, weighted_logits

CITATION = """
@misc{rrra2025,
      title={RRRA: Resampling and Reranking through a Retriever Adapter},
      year={2025},
      eprint={2508.11670},
      archivePrefix={arXiv},
      url={https://arxiv.org/abs/2508.11670},
}
"""


class RRRALoss(MultipleNegativesRankingLoss):
    """In-batch softmax in which each query's own hard negatives count as much as their weights say.

    With `s` the scaled similarities of a query, `+` its positive, `w_j` the weights of its own hard
    negatives and `i` running over all other documents of the batch, which weigh 1::

        loss = -log( exp(s_+) / (exp(s_+) + sum_j w_j exp(s_j) + sum_i exp(s_i)) )

    A negative of weight 1 counts as in `MultipleNegativesRankingLoss`, one of weight 0 is as good as
    removed, one of weight 2 counts as if it were there twice.

    Args:
        model: The encoder.
        scale: Similarities are multiplied by it; 1 / temperature.
        similarity_fct: Similarity of `(n, dim)` and `(m, dim)`, `(n, m)`: cosine by default.
        gather_across_devices: Take the documents of all devices as negatives.

    Requirements:
        1. (query, positive, negative_1, ..., negative_n) n-tuples.
        2. The n weights, of a query's own negatives in their order, in a column named `scores` (or
           `score`, `label`, `labels`). Without such a column all weigh 1.

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
        - `CachedRRRALoss` is this loss in mini-batches, for batches that don't fit into memory.
        - `MultipleNegativesRankingLoss` is this loss with all weights 1 (equal to the last bit). Its
          options for other directions, partitions and hardness are not taken here: how a weight
          should enter those terms is not defined.

    Raises:
        ValueError: In use, if weights are of another shape, negative, or not finite.

    Source:
        Resampling scores of RRRA, arXiv 2508.11670, as log-weights in the softmax denominator.

    Example:
        ::

            from datasets import Dataset
            from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer
            from rrra_hf.losses import RRRALoss

            model = SentenceTransformer("sentence-transformers/all-MiniLM-L6-v2")
            train_dataset = Dataset.from_dict({
                "query": ["how to list files", "how to copy a file"],
                "positive": ["ls prints the files of a folder", "cp copies files"],
                "negative_1": ["find walks a folder", "mv moves files"],
                "negative_2": ["cat prints a file", "install copies files"],
                "scores": [[0.3, 1.0], [1.0, 0.1]],
            })
            trainer = SentenceTransformerTrainer(
                model=model, train_dataset=train_dataset, loss=RRRALoss(model)
            )
            trainer.train()
    """

    def __init__(
        self,
        model: SentenceTransformer,
        scale: float = 20.0,
        similarity_fct: Callable[[Tensor, Tensor], Tensor] = cos_sim,
        gather_across_devices: bool = False,
    ) -> None:
        super().__init__(
            model, scale=scale, similarity_fct=similarity_fct, gather_across_devices=gather_across_devices
        )

    def compute_loss_from_embeddings(self, embeddings: list[Tensor], labels: Tensor | None) -> Tensor:
        """Return the loss of a batch.

        Args:
            embeddings: Queries, positives, and each column of negatives, all `(batch, dim)`.
            labels: Weights of the negatives, `(batch, n)`; None if all are 1.
        """
        if labels is None:
            return super().compute_loss_from_embeddings(embeddings, labels)  # type: ignore[arg-type]
        weights = checked_weights(labels, (len(embeddings[0]), len(embeddings) - 2))
        logits, own = in_batch_logits(self, embeddings)
        logits = weighted_logits(logits, weights, own)
        positive = logits.gather(1, own[:, None]).squeeze(1)
        return -(positive - logits.logsumexp(dim=1)).mean()

    def get_config_dict(self) -> dict[str, Any]:
        """Return the settings, for the model card."""
        settings = super().get_config_dict()
        return {name: settings[name] for name in ("scale", "similarity_fct", "gather_across_devices")}

    @property
    def citation(self) -> str:
        """BibTeX entry, for the model card."""
        return CITATION
