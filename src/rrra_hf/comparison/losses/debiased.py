"""In-batch contrastive loss that corrects for an expected share of false negatives."""

from __future__ import annotations

from typing import Any

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss
from torch import Tensor

from ...losses.in_batch import in_batch_logits


class DebiasedContrastiveLoss(MultipleNegativesRankingLoss):
    """In-batch contrastive loss that treats negatives as unlabelled, with a known share of relevant ones.

    The loss estimates what true negatives would add to the softmax denominator: it subtracts the expected
    share `tau_plus` of relevant documents. The estimate is kept above its lower bound, the value that it has
    if all cosines are -1. With `s` the scaled cosines of a query, `+` its positive, and `j` running over the
    `N` other documents of the batch, including its own hard negatives::

        N_g = max( (sum_j exp(s_j) - N tau_plus exp(s_+)) / (1 - tau_plus), N exp(-scale) )
        loss = -log( exp(s_+) / (exp(s_+) + N_g) )

    This is the estimator of the paper with one positive, and that of the code its authors released.

    Args:
        model: The encoder to train.
        tau_plus: Share of relevant documents among the negatives, at least 0 and below 1.
        scale: Factor applied to the cosines, 1 / temperature.
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
        - The estimator assumes that negatives are drawn at random. Mined negatives contain more relevant
          documents than random ones. Set `tau_plus` to the share among both together.
        - Where `N tau_plus exp(s_+)` exceeds the sum over negatives, the lower bound applies and the query
          contributes almost no gradient. With a large scale this is common for queries that already rank
          their positive first.

    Relations:
        - With `tau_plus=0`, this is `MultipleNegativesRankingLoss`.
        - `RRRALoss` weights each negative by its own estimate. This loss corrects all negatives of a query
          together.

    Raises:
        ValueError: If tau_plus is negative, or 1 or more.

    Source:
        Chuang, Robinson, Lin, Torralba and Jegelka, "Debiased Contrastive Learning", NeurIPS 2020,
        arXiv 2007.00224.

    Example:
        ::

            from datasets import Dataset
            from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer
            from rrra_hf.comparison.losses import DebiasedContrastiveLoss

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
        # The lower bound is the value at a similarity of -1, so only the cosine is supported.
        super().__init__(model, scale=scale, gather_across_devices=gather_across_devices)
        self.tau_plus = tau_plus

    def compute_loss_from_embeddings(self, embeddings: list[Tensor], labels: Tensor | None) -> Tensor:
        """Compute the loss of a batch.

        Args:
            embeddings: Queries, positives, and one tensor per column of negatives, each `(batch, dim)`.
            labels: Not used.
        """
        logits, own = in_batch_logits(self, embeddings)
        return _debiased_loss(logits.float(), own, self.tau_plus, self.scale)

    def get_config_dict(self) -> dict[str, Any]:
        """Return the settings for the model card."""
        settings = super().get_config_dict()
        kept = ("scale", "similarity_fct", "gather_across_devices")
        return {"tau_plus": self.tau_plus, **{name: settings[name] for name in kept}}

    @property
    def citation(self) -> str:
        """BibTeX entry for the model card."""
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


def _debiased_loss(logits: Tensor, own: Tensor, tau_plus: float, scale: float) -> Tensor:
    """Compute the mean debiased loss over queries.

    Args:
        logits: Scaled cosines of each query with all documents, in single precision, `(batch, documents)`.
        own: Column of each query's positive, `(batch,)`.
        tau_plus: Share of relevant documents among the negatives.
        scale: Factor that was applied to the cosines.
    """
    # Subtracting the largest logit keeps exp from overflowing. It cancels out in the loss.
    largest = logits.detach().amax(dim=1, keepdim=True)
    shifted = logits - largest
    positive = shifted.gather(1, own[:, None]).squeeze(1)
    unlabelled = shifted.scatter(1, own[:, None], -torch.inf).exp().sum(dim=1)
    num_negatives = logits.shape[1] - 1
    estimate = (unlabelled - num_negatives * tau_plus * positive.exp()) / (1 - tau_plus)
    lower_bound = num_negatives * (-scale - largest.squeeze(1)).exp()
    return ((positive.exp() + torch.maximum(estimate, lower_bound)).log() - positive).mean()
