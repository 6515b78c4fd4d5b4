"""In-batch contrastive loss with the contrastive confidence regulariser (CCR)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss
from sentence_transformers.util import cos_sim
from torch import Tensor

from ...losses.in_batch import in_batch_logits


class CCRLoss(MultipleNegativesRankingLoss):
    """In-batch contrastive loss with the contrastive confidence regulariser (CCR).

    A false negative among the negatives makes the softmax hedge between two relevant documents. The
    regulariser rewards a confident softmax. With `s` the scaled similarities of a query to all documents of
    the batch, and `+` its positive::

        loss = -log softmax(s)_+ + beta * mean_j log softmax(s)_j
             = -s_+ + beta * mean(s) + (1 - beta) * logsumexp(s)

    The mean is taken over all documents of the batch: the query's positive, its hard negatives, and the
    documents of the other queries. The loss can be negative.

    Args:
        model: The encoder to train.
        beta: Weight of the regulariser, from 0 (off) to 1. Above 1, the loss would pull probable negatives
            closer.
        scale: Factor applied to the similarities, 1 / temperature. It is 1 by default. The regulariser grows
            with the scale, so a larger scale needs a smaller beta.
        similarity_fct: Similarity of `(n, dim)` and `(m, dim)`, returning `(n, m)`. Cosine by default. With
            an unbounded similarity and beta above 0, the loss has no minimum.
        gather_across_devices: Use the documents of all devices as negatives.

    Requirements:
        1. (query, positive) pairs or (query, positive, negative_1, ..., negative_n) n-tuples.

    Inputs:
        +------------------------------------------------+--------+
        | Inputs                                         | Labels |
        +================================================+========+
        | (query, positive)                              | none   |
        +------------------------------------------------+--------+
        | (query, positive, negative_1, ..., negative_n) | none   |
        +------------------------------------------------+--------+

    Recommendations:
        - Use `BatchSamplers.NO_DUPLICATES`, so that a query's positive is never a negative of the same batch.

    Relations:
        - With `beta=0`, this is `MultipleNegativesRankingLoss` with the same scale.
        - `RRRALoss` needs an estimated weight for each negative. This loss needs none.

    Raises:
        ValueError: If beta isn't from 0 to 1.

    Source:
        Wang, Zhang and Nguyen, "Mitigating the Impact of False Negatives in Dense Retrieval with
        Contrastive Confidence Regularization", AAAI 2024, arXiv 2401.00165.

    Example:
        ::

            from datasets import Dataset
            from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer
            from rrra_hf.comparison.losses import CCRLoss

            model = SentenceTransformer("sentence-transformers/all-MiniLM-L6-v2")
            train_dataset = Dataset.from_dict({
                "query": ["how to list files", "how to copy a file"],
                "positive": ["ls prints the files of a folder", "cp copies files"],
                "negative": ["find walks a folder", "mv moves files"],
            })
            trainer = SentenceTransformerTrainer(
                model=model, train_dataset=train_dataset, loss=CCRLoss(model, beta=0.5)
            )
            trainer.train()
    """

    def __init__(
        self,
        model: SentenceTransformer,
        beta: float = 0.5,
        scale: float = 1.0,
        similarity_fct: Callable[[Tensor, Tensor], Tensor] = cos_sim,
        gather_across_devices: bool = False,
    ) -> None:
        if not 0 <= beta <= 1:
            raise ValueError(f"beta must be from 0 to 1, got {beta}.")
        super().__init__(
            model, scale=scale, similarity_fct=similarity_fct, gather_across_devices=gather_across_devices
        )
        self.beta = beta

    def compute_loss_from_embeddings(self, embeddings: list[Tensor], labels: Tensor | None) -> Tensor:
        """Compute the loss of a batch.

        Args:
            embeddings: Queries, positives, and one tensor per column of negatives, each `(batch, dim)`.
            labels: Not used.
        """
        logits, own = in_batch_logits(self, embeddings)
        positive = logits.gather(1, own[:, None]).squeeze(1)
        normalizer = logits.logsumexp(dim=1)
        regularizer = logits.mean(dim=1) - normalizer
        return (normalizer - positive + self.beta * regularizer).mean()

    def get_config_dict(self) -> dict[str, Any]:
        """Return the settings for the model card."""
        settings = super().get_config_dict()
        kept = ("scale", "similarity_fct", "gather_across_devices")
        return {"beta": self.beta, **{name: settings[name] for name in kept}}

    @property
    def citation(self) -> str:
        """BibTeX entry for the model card."""
        return """
@inproceedings{wang2024mitigating,
    title={Mitigating the Impact of False Negatives in Dense Retrieval with Contrastive Confidence Regularization},
    author={Shiqi Wang and Yeqin Zhang and Cam-Tu Nguyen},
    booktitle={Proceedings of the AAAI Conference on Artificial Intelligence},
    year={2024},
    eprint={2401.00165},
    archivePrefix={arXiv},
    url={https://arxiv.org/abs/2401.00165},
}
"""  # noqa: E501
