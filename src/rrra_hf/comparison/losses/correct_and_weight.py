"""Contrastive loss that corrects for relevant negatives and trusts the confident ones: a reconstruction."""

from __future__ import annotations

import math
from typing import Any

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss
from torch import Tensor
from torch.nn.functional import logsigmoid

from ...losses.in_batch import in_batch_logits
from .debiased import debiased_loss


class CorrectAndWeightLoss(MultipleNegativesRankingLoss):
    """A RECONSTRUCTION of the "Corrected and Weighted" (CW) loss: its exact formula was not at hand.

    Taken from the paper's abstract and summaries: a softmax loss; the distribution of true negatives is
    estimated from those of all documents and of positives, `p- = (p - tau_plus p+) / (1 - tau_plus)`; and
    each negative is weighted by the model's present scores, those far below the positive (surely negative)
    more, those near or above it (perhaps relevant) less. The form of the weight, its normalisation, that
    no gradient flows through it, and the lower bound are ours: figures obtained with this loss say nothing
    certain about the authors' own.

    With `s` a query's cosines times the scale, `+` its positive, and `j` running over the `N` other
    documents of the batch, its own hard negatives among them::

        p_j  = sigmoid(s_j - s_+)                           how probably j ranks above the positive
        w_j  = N (1 - p_j)^gamma / sum_i (1 - p_i)^gamma    the mean of the weights is 1
        N_g  = max( (sum_j w_j exp(s_j) - N tau_plus exp(s_+)) / (1 - tau_plus), N exp(-scale) )
        loss = -log( exp(s_+) / (exp(s_+) + N_g) )

    The weight has the form of a resampling weight, with the model's own opinion of a negative in place of
    a false-negative probability.

    Args:
        model: The encoder.
        tau_plus: Share of relevant documents among the negatives, from 0 (no correction) to below 1.
        gamma: Strength of the weights, at least 0 (all weigh 1).
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
        - Hard negatives are weighted down because they are hard, relevant or not: with mined ones a
          gamma well above 1 throws away what they were mined for.
        - A query that scores many negatives above its positive keeps weights of mean 1 among them:
          the weights are relative, so that it goes on teaching.
        - As in `DebiasedContrastiveLoss`, a query on its lower bound teaches almost nothing; weights
          bring it there sooner, for they make the sum over negatives smaller.

    Relations:
        - `DebiasedContrastiveLoss` is this loss with `gamma=0`; `MultipleNegativesRankingLoss` is it with
          `tau_plus=0` besides.
        - `RRRALoss` weighs negatives by an estimate that is not the trained model's own score.

    Raises:
        ValueError: If tau_plus is not at least 0 and below 1, or gamma is negative or not finite.

    Source:
        After Yin, Hu, Liu, Gong, Ye and Li, "Correct and Weight: A Simple Yet Effective Loss for Implicit
        Feedback Recommendation", 2026, arXiv 2601.04291. The lower bound is that of arXiv 2007.00224.

    Example:
        ::

            from datasets import Dataset
            from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer
            from rrra_hf.losses import CorrectAndWeightLoss

            model = SentenceTransformer("sentence-transformers/all-MiniLM-L6-v2")
            train_dataset = Dataset.from_dict({
                "query": ["how to list files", "how to copy a file"],
                "positive": ["ls prints the files of a folder", "cp copies files"],
                "negative": ["find walks a folder", "mv moves files"],
            })
            loss = CorrectAndWeightLoss(model, tau_plus=0.05, gamma=0.5)
            trainer = SentenceTransformerTrainer(model=model, train_dataset=train_dataset, loss=loss)
            trainer.train()
    """

    def __init__(
        self,
        model: SentenceTransformer,
        tau_plus: float = 0.1,
        gamma: float = 1.0,
        scale: float = 20.0,
        gather_across_devices: bool = False,
    ) -> None:
        if not 0 <= tau_plus < 1:
            raise ValueError(f"tau_plus must be at least 0 and below 1, got {tau_plus}.")
        if not 0 <= gamma < math.inf:
            raise ValueError(f"gamma must be at least 0 and finite, got {gamma}.")
        # Cosine only: the lower bound is what a similarity of -1 gives.
        super().__init__(model, scale=scale, gather_across_devices=gather_across_devices)
        self.tau_plus = tau_plus
        self.gamma = gamma

    def compute_loss_from_embeddings(self, embeddings: list[Tensor], labels: Tensor | None) -> Tensor:
        """Return the loss of a batch.

        Args:
            embeddings: Queries, positives, and each column of negatives, all `(batch, dim)`.
            labels: Not used.
        """
        logits, own = in_batch_logits(self, embeddings)
        logits = logits.float()
        return debiased_loss(logits + self._log_weights(logits, own), own, self.tau_plus, self.scale)

    @torch.no_grad()
    def _log_weights(self, logits: Tensor, own: Tensor) -> Tensor:
        """Return the logarithms of the weights, `(batch, num_documents)`; 0 for the positives."""
        margins = logits.gather(1, own[:, None]) - logits
        trust = (self.gamma * logsigmoid(margins)).scatter(1, own[:, None], -torch.inf)
        num_negatives = max(logits.shape[1] - 1, 1)
        return (trust.log_softmax(dim=1) + math.log(num_negatives)).scatter(1, own[:, None], 0.0)

    def get_config_dict(self) -> dict[str, Any]:
        """Return the settings, for the model card."""
        settings = super().get_config_dict()
        kept = ("scale", "similarity_fct", "gather_across_devices")
        return {"tau_plus": self.tau_plus, "gamma": self.gamma, **{name: settings[name] for name in kept}}

    @property
    def citation(self) -> str:
        """BibTeX entry, for the model card."""
        return """
@misc{yin2026correct,
    title={Correct and Weight: A Simple Yet Effective Loss for Implicit Feedback Recommendation},
    author={Minglei Yin and Chuanbo Hu and Bin Liu and Neil Zhenqiang Gong and Yanfang Ye and Xin Li},
    year={2026},
    eprint={2601.04291},
    archivePrefix={arXiv},
    url={https://arxiv.org/abs/2601.04291},
}
"""
