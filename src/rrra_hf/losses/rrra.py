"""Contrastive loss with a resampling weight on each hard negative."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss
from sentence_transformers.util import cos_sim
from torch import Tensor
from torch.nn import functional as F

from ..candidates import CandidatePool
from ..labels.weights import check_settings
from ..models.adapter_rrra import RetrieverAdapter
from ..models.modeling_rrra import RRRAModel
from .directions import direction_logits
from .duplicates import copies_of_negatives, known_positives, queries_of_positives, text_ids
from .in_batch import InBatch, gather_batch
from .pool_pairs import PoolPairs
from .weights import adapter_logits, check_weights, log_hardness, log_weights

CITATION = """
@misc{rrra2025,
      title={RRRA: Resampling and Reranking through a Retriever Adapter},
      year={2025},
      eprint={2508.11670},
      archivePrefix={arXiv},
      url={https://arxiv.org/abs/2508.11670},
}
"""


class RowLabels(NamedTuple):
    """What is known of a batch beside its embeddings.

    Args:
        weights: Weights of the hard negatives, `(batch, n)`; None if the dataset gave none.
        ids: Ids of query, positive and hard negatives, `(batch, 2 + n)`; None if unknown.
        adapter: Stands for the model's adapter.
    """

    weights: Tensor | None = None
    ids: Tensor | None = None
    adapter: RetrieverAdapter | None = None


class RRRALoss(MultipleNegativesRankingLoss):
    """In-batch softmax in which each query's own hard negatives count as much as their weights say.

    With `s` the scaled similarities of a query, `+` its positive, `w_j` the weights of its own hard
    negatives and `i` running over the other documents of the batch::

        loss = -log( exp(s_+) / (exp(s_+) + sum_j w_j exp(s_j) + sum_i w_i exp(s_i)) )

    A negative of weight 1 counts as in `MultipleNegativesRankingLoss`, one of weight 0 is as good as
    removed, one of weight 2 counts as if it were there twice. The weights `w_j` come from

    * the dataset: a column of weights, which is the default;
    * a `pool`: `w_j = (1 - p_j) ** gamma`, with the pool's false-negative probabilities;
    * the model's adapter, as it is at this step, with `live=True`: the same with its probabilities.

    The others of the batch, `w_i`, weigh 1, or with `weigh_in_batch` what pool or adapter say. Among
    them, what is known to be no negative is masked (`mask_known_positives`): copies of the query's
    own documents, the positives of the same query in other rows, and the pool's labelled positives.

    Args:
        model: The encoder; for live weights and for `adapter_weight` one that holds an `RRRAModel`.
        scale: Similarities are multiplied by it; 1 / temperature.
        similarity_fct: Similarity of `(n, dim)` and `(m, dim)`, `(n, m)`: cosine by default.
        gather_across_devices: Take the documents of all devices as negatives.
        directions: As in `MultipleNegativesRankingLoss`. A weight is that of a (query, document) pair
            and holds in `"query_to_doc"` and `"doc_to_query"`; masks hold in all directions.
        partition_mode: As in `MultipleNegativesRankingLoss`.
        hardness_mode: As in `MultipleNegativesRankingLoss`: a term added to logits, beside the weights.
        hardness_strength: As in `MultipleNegativesRankingLoss`.
        pool: Candidates with false-negative probabilities. The dataset's labels are then whole numbers,
            the rows of query, positive and negatives in the pool.
        live: Take the weights from the model's adapter.
        gamma: How much a probable false negative loses, see `rrra_weights`; not for weights from the dataset.
        hardness: How much a similar hard negative gains, see `rrra_weights`; with the cosines as they are
            at this step, over the query's own hard negatives.
        detach_weights: Take live weights as constants. Otherwise the loss trains the adapter through
            them, and there is nothing but `adapter_weight` to keep it from calling everything relevant.
        weigh_in_batch: Weigh the documents of other rows, too.
        mask_known_positives: Mask what is known to be no negative, by rows of the pool, or else by a hash of
            the text; never by similarity.
        adapter_weight: Weight of the adapter's own loss, which is added: the softmax of the adapter's
            log-odds of the positive against the hard negatives and the positives of the batch.

    Requirements:
        1. (query, positive, negative_1, ..., negative_n) n-tuples.
        2. A column of labels named `scores` (or `score`, `label`, `labels`): the n weights, of a query's
           own negatives in their order; or with `pool`, 2 + n rows. Without it, all weigh 1.

    Inputs:
        +------------------------------------------------+------------------------------------+
        | Inputs                                         | Labels                             |
        +================================================+====================================+
        | (query, positive, negative_1, ..., negative_n) | n weights, each at least 0         |
        +------------------------------------------------+------------------------------------+
        | (query, positive, negative_1, ..., negative_n) | with `pool`: 2 + n rows            |
        +------------------------------------------------+------------------------------------+
        | (query, positive, negative_1, ..., negative_n) | none: all weights 1, or live       |
        +------------------------------------------------+------------------------------------+
        | (query, positive)                              | none, or with `pool`: 2 rows       |
        +------------------------------------------------+------------------------------------+

    Recommendations:
        - `Resampler` feeds a trainer with negatives drawn from a cross-fitted pool and their weights.
        - A head that was fitted on the very queries that it now weighs is too sure of itself: prefer
          the dataset's weights from a cross-fitted pool, or refresh them with `Refresh`.
        - Freeze the adapter (`requires_grad_(False)`) where no gradient of this loss trains it.

    Relations:
        - `CachedRRRALoss` is this loss in mini-batches, for batches that don't fit into memory.
        - `MultipleNegativesRankingLoss` is this loss with all weights 1 and nothing masked (equal to
          the last bit).
        - In `MatryoshkaLoss`, weights from the dataset and from a pool work; live weights and
          `adapter_weight` are refused, as the adapter reads whole embeddings.

    Raises:
        ValueError: If a setting is not legal, an adapter is needed and the model has none, or the pool has
            no probabilities; in use, if labels are of another shape, or weights negative or not finite.

    Source:
        Resampling scores of RRRA, arXiv 2508.11670, as log-weights in the softmax denominator; the
        joint loss of its stage 3.

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
        directions: tuple[str, ...] = ("query_to_doc",),
        partition_mode: str = "joint",
        hardness_mode: str | None = None,
        hardness_strength: float = 0.0,
        *,
        pool: CandidatePool | None = None,
        live: bool = False,
        gamma: float = 1.0,
        hardness: float = 0.0,
        detach_weights: bool = True,
        weigh_in_batch: bool = False,
        mask_known_positives: bool = True,
        adapter_weight: float = 0.0,
    ) -> None:
        super().__init__(
            model,
            scale=scale,
            similarity_fct=similarity_fct,
            gather_across_devices=gather_across_devices,
            directions=directions,  # type: ignore[arg-type]
            partition_mode=partition_mode,  # type: ignore[arg-type]
            hardness_mode=hardness_mode,  # type: ignore[arg-type]
            hardness_strength=hardness_strength,
        )
        check_settings(gamma, hardness, tau=1 / scale)
        if not 0 <= adapter_weight < float("inf"):
            raise ValueError(f"adapter_weight must be a number of at least 0, got {adapter_weight}.")
        if pool is None and not live:
            unused = {"gamma": gamma != 1.0, "hardness": hardness != 0.0, "weigh_in_batch": weigh_in_batch}
            for name in (name for name, given in unused.items() if given):
                raise ValueError(
                    f"{name} needs weights from a pool or live ones; the dataset's hold as they are."
                )
        if not (live or detach_weights):
            raise ValueError("detach_weights=False needs live=True: other weights are constants.")
        self.live = live
        self.gamma = gamma
        self.hardness = hardness
        self.detach_weights = detach_weights
        self.weigh_in_batch = weigh_in_batch
        self.mask_known_positives = mask_known_positives
        self.adapter_weight = adapter_weight
        self.pairs: PoolPairs | None = None
        self.pool = pool
        if live or adapter_weight:
            if self.adapter.features is not None:
                raise ValueError(
                    "live weights and adapter_weight need a residual adapter, this one reads features of "
                    "candidates; give a pool with its probabilities instead."
                )
            trainable = any(parameter.requires_grad for parameter in self.adapter.parameters())
            if self.trains_adapter and not trainable:
                raise ValueError(
                    "adapter_weight and detach_weights=False train the adapter, this one is frozen: call "
                    "requires_grad_(True) on it."
                )

    @property
    def pool(self) -> CandidatePool | None:
        """The pool whose rows are the labels; set another one of the same documents at any time."""
        return None if self.pairs is None else self.pairs.pool

    @pool.setter
    def pool(self, pool: CandidatePool | None) -> None:
        device = None if self.pairs is None else self.pairs.labelled_keys.device
        self.pairs = None if pool is None else PoolPairs(pool, self.gamma).to(device)

    @property
    def adapter(self) -> RetrieverAdapter:
        """The adapter of the model."""
        # A trainer puts wrappers for several devices or compilation around the model.
        model = self.model
        while not isinstance(model, SentenceTransformer):
            model = model.module if hasattr(model, "module") else model._orig_mod
        return RRRAModel.from_sentence_transformer(model).adapter

    @property
    def trains_adapter(self) -> bool:
        """Whether gradients of this loss reach the adapter."""
        return self.adapter_weight > 0 or not self.detach_weights

    # ---------------------------------------------------------------- of a batch

    def forward(self, sentence_features: Iterable[dict[str, Tensor]], labels: Tensor | None) -> Tensor:
        """Return the loss of a batch.

        Args:
            sentence_features: Tokenized queries, positives, and each column of negatives.
            labels: Weights `(batch, n)`, or with a pool rows `(batch, 2 + n)`; None if there are none.
        """
        columns = list(sentence_features)
        return super().forward(columns, self.row_labels(labels, columns))  # type: ignore[arg-type]

    def row_labels(self, labels: Tensor | None, columns: list[dict[str, Tensor]] | None = None) -> RowLabels:
        """Return what labels and texts say of a batch.

        Args:
            labels: As given to `forward`.
            columns: Tokenized texts of each column; without them, equal texts are not known.

        Raises:
            ValueError: If labels don't fit.
        """
        if self.pairs is not None:
            return RowLabels(ids=self.pairs.checked_rows(labels))
        if self.live and labels is not None:
            raise ValueError("live weights come from the adapter: remove the dataset's column of labels.")
        ids = text_ids(columns) if columns is not None and self.mask_known_positives else None
        return RowLabels(labels, ids)

    def compute_loss_from_embeddings(
        self, embeddings: list[Tensor], labels: Tensor | RowLabels | None
    ) -> Tensor:
        """Return the loss of a batch.

        Args:
            embeddings: Queries, positives, and each column of negatives, all `(batch, dim)`.
            labels: As given to `forward`, or what `row_labels` made of them.
        """
        labels = labels if isinstance(labels, RowLabels) else self.row_labels(labels)
        batch = self.gathered(embeddings, labels)
        return self.row_losses(batch, batch.own, labels).mean()

    def gathered(self, embeddings: list[Tensor], labels: RowLabels) -> InBatch:
        """Return the batch, of all devices if they are gathered.

        Args:
            embeddings: Queries, positives, and each column of negatives, all `(batch, dim)`.
            labels: What is known of the batch.

        Raises:
            ValueError: If labels and embeddings don't fit together.
        """
        if len(embeddings) < 2:
            raise ValueError(f"The loss needs queries and positives, got {len(embeddings)} column(s).")
        batch, num_columns = len(embeddings[0]), len(embeddings)
        if labels.weights is not None:
            check_weights(labels.weights, (batch, num_columns - 2))
        if labels.ids is not None and labels.ids.shape != (batch, num_columns):
            raise ValueError(
                "labels must hold the pool's rows of query, positive and negatives, "
                f"{(batch, num_columns)}, got shape {tuple(labels.ids.shape)}."
            )
        return gather_batch(embeddings, self.gather_across_devices, labels.ids)

    def row_losses(self, batch: InBatch, own: Tensor, labels: RowLabels) -> Tensor:
        """Return the losses of some of the rows.

        Args:
            batch: The batch.
            own: Places of the rows in the batch, `(rows,)`.
            labels: What is known of the whole batch.

        Returns:
            `(rows,)`.
        """
        known = known_positives(batch, own, self.pairs) if self.mask_known_positives else None
        logits = direction_logits(self, batch, own)
        for direction, values in self._log_weights(batch, own, labels).items():
            logits[direction] = logits[direction] + values.to(logits[direction])
        for direction, mask in self._masks(batch, own, known).items():
            logits[direction] = logits[direction].masked_fill(mask, -torch.inf)
        positive = logits["query_to_doc"].gather(1, own[:, None]).squeeze(1)
        if self.partition_mode == "joint":
            log_z = torch.cat(list(logits.values()), dim=1).logsumexp(dim=1)
        else:
            log_z = torch.stack([values.logsumexp(dim=1) for values in logits.values()]).mean(dim=0)
        losses = -(positive - log_z)
        if self.adapter_weight:
            losses = losses + self.adapter_weight * self._adapter_losses(batch, own, known, labels)
        return losses

    # ---------------------------------------------------------------- weights and masks

    def _log_weights(self, batch: InBatch, own: Tensor, labels: RowLabels) -> dict[str, Tensor]:
        """Return the log-weights of queries and documents, `(rows, documents)` and `(rows, queries)`."""
        if labels.weights is not None:
            return {"query_to_doc": _spread(batch, own, log_weights(labels.weights[own - batch.own[0]]))}
        if not self.live and self.pairs is None:
            return {}
        queries, places = own[:, None], batch.negative_places(own)
        made: dict[str, Tensor] = {}
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.detach_weights):
            negatives, others = self._pair_log_weights(batch, queries, places, labels), None
            if self.hardness and batch.num_negatives:
                cosines = self.similarity_fct(batch.queries[own], batch.documents).gather(1, places)
                negatives = negatives + log_hardness(cosines, self.hardness * self.scale)
            if self.weigh_in_batch:
                everything = torch.arange(len(batch.documents), device=own.device)[None]
                others = self._pair_log_weights(batch, queries, everything, labels)
            made["query_to_doc"] = _spread(batch, own, negatives, others)
            if self.weigh_in_batch and "doc_to_query" in self.directions:
                weights = self._pair_log_weights(batch, everything[:, : batch.world], own[:, None], labels)
                made["doc_to_query"] = weights.scatter(1, own[:, None], 0.0)
        return made

    def _pair_log_weights(
        self, batch: InBatch, queries: Tensor, documents: Tensor, labels: RowLabels
    ) -> Tensor:
        """Return `gamma * log(1 - p)` of queries and documents at places that are broadcast to each other."""
        if self.pairs is not None and not self.live:
            return self.pairs.log_weights(batch.query_ids[queries], batch.document_ids[documents])
        adapter = labels.adapter or self.adapter
        logits = adapter_logits(adapter, batch.queries[queries], batch.documents[documents])
        # log(1 - sigmoid(x)), exact for probabilities near 1.
        return -self.gamma * F.softplus(logits)

    def _masks(self, batch: InBatch, own: Tensor, known: Tensor | None) -> dict[str, Tensor]:
        """Return what is known to be no negative in each direction, `(rows, ...)` each."""
        if known is None:
            return {}
        no_negatives = known | copies_of_negatives(batch, own)
        masks = {"query_to_doc": no_negatives, "doc_to_doc": no_negatives}
        if "query_to_query" in self.directions:
            masks["query_to_query"] = batch.query_ids == batch.query_ids[own][:, None]
        if "doc_to_query" in self.directions:
            masks["doc_to_query"] = queries_of_positives(batch, own, self.pairs)
        return {direction: mask for direction, mask in masks.items() if direction in self.directions}

    def _adapter_losses(self, batch: InBatch, own: Tensor, known: Tensor | None, labels: RowLabels) -> Tensor:
        """Return the cross-entropy of each row's positive by the adapter's log-odds, `(rows,)`."""
        queries, places = batch.queries[own][:, None], batch.negative_places(own)
        adapter = labels.adapter or self.adapter
        logits = torch.cat(
            [
                adapter_logits(adapter, queries, batch.documents[None, : batch.world]),
                adapter_logits(adapter, queries, batch.documents[places]),
            ],
            dim=1,
        )
        if known is not None:
            mask = torch.cat([known[:, : batch.world], known.gather(1, places)], dim=1)
            logits = logits.masked_fill(mask, -torch.inf)
        return F.cross_entropy(logits, own, reduction="none")

    # ---------------------------------------------------------------- for the model card

    def get_config_dict(self) -> dict[str, Any]:
        """Return the settings, for the model card."""
        weights = "adapter" if self.live else "dataset" if self.pool is None else "pool"
        names = (
            "gamma",
            "hardness",
            "detach_weights",
            "weigh_in_batch",
            "mask_known_positives",
            "adapter_weight",
        )
        return {
            **super().get_config_dict(),
            "weights": weights,
            **{name: getattr(self, name) for name in names},
        }

    @property
    def citation(self) -> str:
        """BibTeX entry, for the model card."""
        return CITATION


def _spread(batch: InBatch, own: Tensor, negatives: Tensor, others: Tensor | None = None) -> Tensor:
    """Return log-weights of all documents from those of each row's hard negatives, `(rows, documents)`.

    Args:
        batch: The batch.
        own: Rows, `(rows,)`.
        negatives: `(rows, n)`.
        others: What the documents of other rows weigh, `(rows, documents)`; 0 if not given.
    """
    if others is None:
        others = negatives.new_zeros(len(own), len(batch.documents))
    return others.scatter(1, batch.negative_places(own), negatives).scatter(1, own[:, None], 0.0)
