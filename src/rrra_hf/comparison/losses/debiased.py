"""Contrastive loss that corrects for the share of relevant documents among the negatives."""

from __future__ import annotations

from typing import Any

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss
from torch import Tensor

from ...losses.in_batch import in_batch_logits


class DebiasedContrastiveLoss(MultipleNegativesRankingLoss):
    """In-batch softmax whose negatives are taken as unlabelled, of which a known share is relevant.

    With `s` a query's cosines times the scale, `+` its positive, and `j` running over the `N` other
    documents of the batch, its own hard negatives among them, what true negatives would add to the
    denominator is estimated by subtracting the share `tau_plus` that is relevant, and kept above what
    it could be at least (all cosines -1)::

        N_g = max( (sum_j exp(s_j) - N tau_plus exp(s_+)) / (1 - tau_plus), N exp(-scale) )
        loss = -log( exp(s_+) / (exp(s_+) + N_g) )

    This is the estimator of the paper with one positive, its mean over negatives times `N`, and
    equally that of the code its authors released.

    Args:
        model: The encoder.
        tau_plus: Share of relevant documents among the negatives, from 0 to below 1.
        scale: Cosines are multiplied by it; 1 / temperature.
        gather_across_devices: Take the documents of all devices as negatives.

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
        - The estimator supposes that negatives are drawn at random. Mined ones hold more relevant
          documents than random ones do: `tau_plus` is the share in both together.
        - Where `N tau_plus exp(s_+)` is above the sum over negatives, the lower bound holds and the
          query teaches almost nothing: with a large scale that is the rule for queries that already
          score their positive highest.

    Relations:
        - `MultipleNegativesRankingLoss` is this loss with `tau_plus=0`.
        - `RRRALoss` takes what is known of each negative from its weight; here all negatives of a
          query are corrected together.

    Raises:
        ValueError: If tau_plus is not at least 0 and below 1.

    Source:
        Chuang, Robinson, Lin, Torralba and Jegelka, "Debiased Contrastive Learning", NeurIPS 2020,
        arXiv 2007.00224.

    Example:
        ::

            from datasets import Dataset
            from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer
            from rrra_hf.losses import DebiasedContrastiveLoss

            model = SentenceTransformer("sentence-transformers/all-MiniLM-L6-v2")
            train_dataset = Dataset.from_dict({
                "query": ["how to list files", "how to copy a file"],
                "positive": ["ls prints the files of a folder", "cp copies files"],
                "negative": ["find walks a folder", "mv moves files"],
            })
            loss = DebiasedContrastiveLoss(model, tau_plus=0.05)
            trainer = SentenceTransformerTrainer(model=model, train_dataset=train_dataset, loss=loss)
            trainer.train()
    """

    def __init__(
        self,
        model: SentenceTransformer,
        tau_plus: float = 0.1,
        scale: float = 20.0,
        gather_across_devices: bool = False,
    ) -> None:
        if not 0 <= tau_plus < 1:
            raise ValueError(f"tau_plus must be at least 0 and below 1, got {tau_plus}.")
        # Cosine only: the lower bound is what a similarity of -1 gives.
        super().__init__(model, scale=scale, gather_across_devices=gather_across_devices)
        self.tau_plus = tau_plus

    def compute_loss_from_embeddings(self, embeddings: list[Tensor], labels: Tensor | None) -> Tensor:
        """Return the loss of a batch.

        Args:
            embeddings: Queries, positives, and each column of negatives, all `(batch, dim)`.
            labels: Not used.
        """
        logits, own = in_batch_logits(self, embeddings)
        return debiased_loss(logits.float(), own, self.tau_plus, self.scale)

    def get_config_dict(self) -> dict[str, Any]:
        """Return the settings, for the model card."""
        settings = super().get_config_dict()
        kept = ("scale", "similarity_fct", "gather_across_devices")
        return {"tau_plus": self.tau_plus, **{name: settings[name] for name in kept}}

    @property
    def citation(self) -> str:
        """BibTeX entry, for the model card."""
        return """
@inproceedings{chuang2020debiased,
    title={Debiased Contrastive Learning},
    author={Ching-Yao Chuang and Joshua Robinson and Yen-Chen Lin and Antonio Torralba and Stefanie Jegelka},
    booktitle={Advances in Neural Information Processing Systems},
    year={2020},
    eprint={2007.00224},
    archivePrefix={arXiv},
    url={https://arxiv.org/abs/2007.00224},
}
"""


def debiased_loss(logits: Tensor, own: Tensor, tau_plus: float, scale: float) -> Tensor:
    """Return the mean over queries of the loss that `DebiasedContrastiveLoss` documents.

    Args:
        logits: Of each query and all documents, single precision, `(batch, num_documents)`.
        own: Where each query's positive is, `(batch,)`.
        tau_plus: Share of relevant documents among the negatives.
        scale: Of the cosines.
    """
    # A shift by the largest logit cancels out in the loss and keeps exp from overflowing.
    largest = logits.detach().amax(dim=1, keepdim=True)
    shifted = logits - largest
    positive = shifted.gather(1, own[:, None]).squeeze(1)
    unlabelled = shifted.scatter(1, own[:, None], -torch.inf).exp().sum(dim=1)
    num_negatives = logits.shape[1] - 1
    estimate = (unlabelled - num_negatives * tau_plus * positive.exp()) / (1 - tau_plus)
    at_least = num_negatives * (-scale - largest.squeeze(1)).exp()
    return ((positive.exp() + torch.maximum(estimate, at_least)).log() - positive).mean()
