"""Contrastive loss in which hard negatives count by their probability of being relevant."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss
from sentence_transformers.util import cos_sim
from torch import Tensor
from torch.nn import functional as F

from ..candidates import CandidatePool
from ..labels.weights import check_gamma
from ..models.adapter_rrra import RetrieverAdapter
from ..models.modeling_rrra import RRRAModel
from .directions import direction_logits
from .duplicates import copies_of_negatives, known_positives, queries_of_positives, text_ids
from .in_batch import InBatch, gather_batch
from .pool_pairs import PoolPairs
from .targets import TARGETS, RowTargets, targets_of_probability, targets_of_teacher, weighted
from .weights import adapter_log_odds, check_labels, log_weights

logger = logging.getLogger(__name__)

HALF = {torch.float16, torch.bfloat16}

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
    """What is known about a batch besides its embeddings.

    Args:
        values: What a column of the dataset says of the documents, see `RRRALoss`; None without it.
        ids: Ids of query, positive and hard negatives, `(batch, 2 + n)`; None if unknown.
        adapter: Used instead of the model's adapter.
    """

    values: Tensor | None = None
    ids: Tensor | None = None
    adapter: RetrieverAdapter | None = None


class RRRALoss(MultipleNegativesRankingLoss):
    """In-batch softmax loss that knows how probably each query's own hard negatives are relevant.

    With `z` the logarithm of the sum of `exp` of a query's scaled similarities `s` to all documents of the
    batch, `+` its positive and `p_j` the probabilities of its own hard negatives, `targets` says what the
    probabilities do:

    * `"weights"`: `loss = z - s_+`, with `w_j exp(s_j)` in the sum, `w_j = (1 - p_j) ** gamma`. A negative of
      weight 0 counts as if it were removed, and one of weight 2 as if it were there twice. This is the
      default without a pool, as datasets have weights.
    * `"drop"`: the same, with the weight 0 for suspects, which have `p_j > threshold`, and 1 for others.
      With a pool, what the adapter ranks above a labelled document is suspect, too. This is the default if
      you give a pool: of the five, it trained the best encoders.
    * `"soft"`: positive and hard negatives share the target in proportion to 1 and `p_j`: with the shares
      `t`, `loss = sum_i t_i (z - s_i) + sum_i t_i log(t_i)`, the Kullback-Leibler divergence.
    * `"relabel"`: those with `p_j > threshold` are positives, too, and other suspects are dropped. Each of
      the row's positives has a loss of its own, without the others in its sum; `loss` is their mean, in which
      a relabelled one counts `p_j` times as much.
    * `"distill"`: the loss of `"soft"`, where the shares are the softmax of a teacher's scores of positive
      and hard negatives. The positive's is raised to the best.

    Where all `p_j` are 0, the loss is that of `MultipleNegativesRankingLoss`. `source` says where
    probabilities and scores come from:

    * `"dataset"`: a column of the dataset. This is the default.
    * `"pool"`: a `pool`, looked up by rows. This is the default if you give a pool. Its `ranking_scores`
      teach.
    * `"adapter"`: the model's adapter, at this step. No gradient flows through them. It does not teach.

    A document that was judged and isn't relevant is a full negative: `p_j = 0` and no share. With a pool,
    suspects among the documents of other rows are masked, but for `"weights"`.

    Documents of other rows that are known not to be negatives are masked (`mask_known_positives`): copies of
    the query's own documents, positives of the same query in other rows, and the pool's labelled positives.

    Args:
        model: The encoder. `source="adapter"` and `adapter_weight` need one that holds an `RRRAModel` with a
            residual adapter, as `ResidualFitArguments` fits it.
        scale: Similarities are multiplied by it; 1 / temperature.
        similarity_fct: Similarity of `(n, dim)` and `(m, dim)`, `(n, m)`: cosine by default.
        gather_across_devices: Use the documents of all devices as negatives.
        directions: As in `MultipleNegativesRankingLoss`. Probabilities apply in `"query_to_doc"`, masks in
            all directions.
        partition_mode: As in `MultipleNegativesRankingLoss`.
        hardness_mode: As in `MultipleNegativesRankingLoss`: a term that is added to logits, like the weights.
        hardness_strength: As in `MultipleNegativesRankingLoss`.
        pool: Candidates with false-negative probabilities. The dataset's labels must then be integers, the
            rows of query, positive and negatives in the pool.
        targets: `"weights"`, `"drop"`, `"soft"`, `"relabel"` or `"distill"`, see above.
        source: `"dataset"`, `"pool"` or `"adapter"`, see above.
        gamma: Exponent of the weights of a pool or adapter, see `rrra_weights`.
        threshold: Probability above which a document is a suspect.
        teacher_temperature: A teacher's scores are divided by it.
        mask_known_positives: Mask documents that are known not to be negatives. Equal texts are found by the
            rows of the pool, or else by a hash of the text.
        adapter_weight: If above 0, the adapter is trained too: its own loss is added with this weight. That
            loss is the cross-entropy of its log-odds, of the positive against the query's hard negatives and
            the positives of the batch.

    Requirements:
        1. (query, positive, negative_1, ..., negative_n) n-tuples.
        2. With `source="dataset"` a column of labels named `scores` (or `score`, `label`, `labels`): the n
           weights of the query's own negatives; or, with other targets, their n probabilities; or the 1 + n
           scores of a teacher. Without that column, all negatives count in full. With a pool, a column of
           2 + n rows.

    Inputs:
        +------------------------------------------------+----------------------------------------------+
        | Inputs                                         | Labels                                       |
        +================================================+==============================================+
        | (query, positive, negative_1, ..., negative_n) | `"weights"`: n weights, each at least 0      |
        +------------------------------------------------+----------------------------------------------+
        | (query, positive, negative_1, ..., negative_n) | `"drop"`, `"soft"`, `"relabel"`:             |
        |                                                | n probabilities                              |
        +------------------------------------------------+----------------------------------------------+
        | (query, positive, negative_1, ..., negative_n) | `"distill"`: 1 + n scores                    |
        +------------------------------------------------+----------------------------------------------+
        | (query, positive, negative_1, ..., negative_n) | with `pool`: 2 + n rows                      |
        +------------------------------------------------+----------------------------------------------+
        | (query, positive, negative_1, ..., negative_n) | none: p = 0, or that of an adapter           |
        +------------------------------------------------+----------------------------------------------+
        | (query, positive)                              | none, or with `pool`: 2 rows                 |
        +------------------------------------------------+----------------------------------------------+

    Recommendations:
        - Use a pool and a `Resampler`, which draws negatives that aren't suspect.
        - A residual adapter is overconfident on queries that it was fitted on. Prefer the probabilities of a
          cross-fitted pool, and recompute them while training with `Refresh`.
        - Freeze the adapter (`requires_grad_(False)`) if `adapter_weight` is 0, so that no optimizer state
          is kept for it.

    Relations:
        - `CachedRRRALoss` is this loss in mini-batches, for batches that don't fit into memory.
        - `MultipleNegativesRankingLoss` is this loss with all probabilities 0 and nothing masked; the values
          are equal to the last bit.
        - In `MatryoshkaLoss`, the sources `"dataset"` and `"pool"` work. `source="adapter"` and
          `adapter_weight` raise an error, as the adapter reads whole embeddings.

    Raises:
        ValueError: If a setting is not legal, the pool has no probabilities or scores, or a residual adapter
            is needed and the model has none; in use, if labels have another shape or a value isn't legal.

    Source:
        Resampling scores of RRRA, arXiv 2508.11670, as log-weights in the softmax denominator; the joint
        loss of its stage 3. Shared targets: ListNet (Cao et al. 2007, section 4). Several positives, each
        with a sum of its own: `L_out` of supervised contrastive learning, arXiv 2004.11362, equation 2.
        Relabelling by a judge: RLHN, arXiv 2505.16967.

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
        targets: str | None = None,
        source: str | None = None,
        gamma: float = 1.0,
        threshold: float = 0.5,
        teacher_temperature: float = 1.0,
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
        check_gamma(gamma)
        if not 0 <= adapter_weight < float("inf"):
            raise ValueError(f"adapter_weight must be a number of at least 0, got {adapter_weight}.")
        targets = ("weights" if pool is None else "drop") if targets is None else targets
        if targets not in TARGETS:
            raise ValueError(f"targets must be one of {', '.join(TARGETS)}, got {targets!r}.")
        if not 0 <= threshold < 1:
            raise ValueError(f"threshold must be in [0, 1), got {threshold}.")
        if not 0 < teacher_temperature < float("inf"):
            raise ValueError(f"teacher_temperature must be positive, got {teacher_temperature}.")
        legal = ("dataset" if pool is None else "pool", *(["adapter"] if targets != "distill" else []))
        self.source = legal[0] if source is None else source
        if self.source not in legal:
            given = "without a pool" if pool is None else "with a pool"
            raise ValueError(
                f"source must be {' or '.join(map(repr, legal))} {given} and targets={targets!r}, "
                f"got {source!r}."
            )
        if gamma != 1.0 and (self.source == "dataset" or targets != "weights"):
            raise ValueError(
                "gamma needs targets='weights' and source='pool' or 'adapter', "
                f"got {gamma} with targets={targets!r} and source={self.source!r}."
            )
        self.targets = targets
        self.gamma = gamma
        self.threshold = threshold
        self.teacher_temperature = teacher_temperature
        self.mask_known_positives = mask_known_positives
        self.adapter_weight = adapter_weight
        self.pairs = None if pool is None else self._pairs(pool)
        if self.source == "adapter" or self.trains_adapter:
            self._check_adapter()
        # As its parent, the loss can do without a model if it is given embeddings.
        trained = [] if model is None else [weight for weight in model.parameters() if weight.requires_grad]
        half = {weight.dtype for weight in trained} & HALF
        if half:
            logger.warning(
                "The weights to train are %s, which most updates are too small for: call model.float() "
                "first, and train with bf16=True if memory is short.",
                " and ".join(map(str, half)),
            )

    def _pairs(self, pool: CandidatePool) -> PoolPairs:
        if self.targets == "distill" and pool.ranking_scores is None:
            raise ValueError(
                "pool must have ranking_scores for targets='distill', this one has none: add them with "
                "cross_fit, or mine it again."
            )
        return PoolPairs(pool, self.threshold)

    def _check_adapter(self) -> None:
        if not self.adapter.reads_pairs:
            raise ValueError(
                "source='adapter' and adapter_weight need a residual adapter, as ResidualFitArguments fits "
                "it. The model's adapter compares the candidates of a query; give a pool with its "
                "probabilities instead."
            )
        trainable = any(parameter.requires_grad for parameter in self.adapter.parameters())
        if self.trains_adapter and not trainable:
            raise ValueError(
                "adapter_weight trains the model's adapter, which is frozen: call requires_grad_(True) on it."
            )

    @property
    def pool(self) -> CandidatePool | None:
        """The pool whose rows are the labels; you can replace it by another one of the same documents."""
        return None if self.pairs is None else self.pairs.pool

    @pool.setter
    def pool(self, pool: CandidatePool) -> None:
        if self.pairs is None:
            raise ValueError("The loss was made without a pool: make it with pool=...")
        self.pairs = self._pairs(pool).to(self.pairs.labelled_keys.device)

    @property
    def adapter(self) -> RetrieverAdapter:
        """The adapter of the model."""
        # A trainer wraps the model for several devices, or to compile it.
        model = self.model
        while not isinstance(model, SentenceTransformer):
            model = model.module if hasattr(model, "module") else model._orig_mod
        return RRRAModel.from_sentence_transformer(model).adapter

    @property
    def trains_adapter(self) -> bool:
        """Whether gradients of this loss reach the adapter."""
        return self.adapter_weight > 0

    # ---------------------------------------------------------------- the loss of a batch

    def forward(self, sentence_features: Iterable[dict[str, Tensor]], labels: Tensor | None) -> Tensor:
        """Return the loss of a batch.

        Args:
            sentence_features: Tokenized queries, positives, and each column of negatives.
            labels: Values of the documents, or with a pool rows `(batch, 2 + n)`; None if there are none.
        """
        columns = list(sentence_features)
        return super().forward(columns, self.row_labels(labels, columns))  # type: ignore[arg-type]

    def row_labels(self, labels: Tensor | None, columns: list[dict[str, Tensor]] | None = None) -> RowLabels:
        """Return what labels and texts say about a batch.

        Args:
            labels: As given to `forward`.
            columns: Tokenized texts of each column; without them, equal texts aren't found.

        Raises:
            ValueError: If labels are given that the source doesn't allow, or needed and not given.
        """
        if self.pairs is not None:
            return RowLabels(ids=self.pairs.checked_rows(labels))
        if self.source == "adapter" and labels is not None:
            raise ValueError("source='adapter' takes no labels: remove the dataset's column of labels.")
        ids = text_ids(columns) if columns is not None and self.mask_known_positives else None
        return RowLabels(labels, ids)

    def compute_loss_from_embeddings(
        self, embeddings: list[Tensor], labels: Tensor | RowLabels | None
    ) -> Tensor:
        """Return the loss of a batch.

        Args:
            embeddings: Queries, positives, and each column of negatives, all `(batch, dim)`.
            labels: As given to `forward`, or the result of `row_labels`.
        """
        labels = labels if isinstance(labels, RowLabels) else self.row_labels(labels)
        batch = self.gathered(embeddings, labels)
        return self.row_losses(batch, batch.own, labels).mean()

    def gathered(self, embeddings: list[Tensor], labels: RowLabels) -> InBatch:
        """Return the batch, gathered from all devices if `gather_across_devices` is set.

        Args:
            embeddings: Queries, positives, and each column of negatives, all `(batch, dim)`.
            labels: What is known about the batch.

        Raises:
            ValueError: If labels and embeddings don't fit together.
        """
        if len(embeddings) < 2:
            raise ValueError(f"The loss needs queries and positives, got {len(embeddings)} column(s).")
        batch, num_columns = len(embeddings[0]), len(embeddings)
        if labels.values is not None:
            check_labels(labels.values, self.targets, (batch, num_columns - 2))
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
            labels: What is known about the whole batch.

        Returns:
            `(rows,)`.
        """
        masks = self.mask_known_positives and labels.ids is not None
        known = known_positives(batch, own, self.pairs) if masks else None
        logits = direction_logits(self, batch, own)
        targets = self._targets(batch, own, labels)
        forward = logits["query_to_doc"]
        places = batch.negative_places(own)
        if targets is not None:
            spread = torch.zeros_like(forward).scatter(1, places, targets.log_weights.to(forward))
            logits["query_to_doc"] = forward + spread
        for direction, mask in self._masks(batch, own, known).items():
            logits[direction] = logits[direction].masked_fill(mask, -torch.inf)
        if targets is None or self.targets in ("weights", "drop"):
            positive = logits["query_to_doc"].gather(1, own[:, None]).squeeze(1)
            losses = -(positive - self._log_sums(logits))
        else:
            losses = self._shared_losses(logits, torch.cat([own[:, None], places], dim=1), targets.shares)
        if self.trains_adapter:
            losses = losses + self.adapter_weight * self._adapter_losses(batch, own, known, labels)
        return losses

    def _log_sums(self, logits: dict[str, Tensor]) -> Tensor:
        """Return the logarithm of the softmax's denominator of each row, `(rows,)`."""
        if self.partition_mode == "joint":
            return torch.cat(list(logits.values()), dim=1).logsumexp(dim=1)
        return torch.stack([values.logsumexp(dim=1) for values in logits.values()]).mean(dim=0)

    def _shared_losses(self, logits: dict[str, Tensor], places: Tensor, shares: Tensor) -> Tensor:
        """Return the losses of rows whose own documents share the target, `(rows,)`.

        Args:
            logits: Masked logits by direction, `(rows, ...)` each.
            places: Places of each row's own documents among all, `(rows, 1 + n)`.
            shares: Their shares, `(rows, 1 + n)`.
        """
        own = logits["query_to_doc"].gather(1, places)
        # What is masked is a labelled document, or a copy of the positive, which has the positive's share.
        shares = shares.to(own).masked_fill(own.detach() == -torch.inf, 0.0)
        shares = shares / shares.sum(dim=1, keepdim=True)
        if self.targets == "relabel":
            log_sums = torch.stack(
                [self._log_sums_of(logits, places, shares, i) for i in range(shares.shape[1])], 1
            )
        else:
            log_sums = self._log_sums(logits)[:, None]
        # Not by multiplication alone: 0 * inf is NaN.
        losses = torch.where(shares > 0, shares * (log_sums - own), 0.0).sum(dim=1)
        return losses if self.targets == "relabel" else losses - torch.special.entr(shares).sum(dim=1)

    def _log_sums_of(self, logits: dict[str, Tensor], places: Tensor, shares: Tensor, column: int) -> Tensor:
        """Return the logarithms of the denominators in which one of each row's positives is alone."""
        others = (shares > 0).index_fill(1, torch.tensor(column, device=shares.device), False)
        forward = logits["query_to_doc"]
        mask = torch.zeros_like(forward, dtype=torch.bool).scatter(1, places, others)
        return self._log_sums({**logits, "query_to_doc": forward.masked_fill(mask, -torch.inf)})

    def _targets(self, batch: InBatch, own: Tensor, labels: RowLabels) -> RowTargets | None:
        """Return the part that each row's own documents have; None if all negatives count in full."""
        values = None if labels.values is None else labels.values[own - batch.own[0]]
        if self.source == "dataset" and values is None:
            return None
        if self.targets == "distill":
            scores = self._teacher_scores(batch, own) if values is None else values
            return targets_of_teacher(scores, self.teacher_temperature)
        if values is None:
            log_irrelevant = self._log_irrelevant(batch, own, labels)
        elif self.targets == "weights":
            return weighted(log_weights(values))
        else:
            log_irrelevant = torch.log1p(-values)
        suspects = self._suspects(batch, own) if self.source == "pool" else None
        return targets_of_probability(self.targets, log_irrelevant, self.gamma, self.threshold, suspects)

    def _log_irrelevant(self, batch: InBatch, own: Tensor, labels: RowLabels) -> Tensor:
        """Return `log(1 - p)` of each row's own hard negatives, `(rows, n)`."""
        places = batch.negative_places(own)
        pairs = batch.query_ids[own][:, None], batch.document_ids[places]
        if self.source == "pool":
            assert self.pairs is not None
            return self.pairs.log_irrelevant(*pairs)
        adapter = labels.adapter or self.adapter
        with torch.no_grad():
            log_odds = adapter_log_odds(adapter, batch.queries[own][:, None], batch.documents[places])
        # Exact for probabilities near 1.
        logs = -F.softplus(log_odds)
        return logs if self.pairs is None else logs.masked_fill(self.pairs.known_negative(*pairs), 0.0)

    def _suspects(self, batch: InBatch, own: Tensor) -> Tensor:
        """Return which of each row's own hard negatives are suspects of the pool, `(rows, n)`."""
        assert self.pairs is not None
        documents = batch.document_ids[batch.negative_places(own)]
        return self.pairs.suspect(batch.query_ids[own][:, None], documents)

    def _teacher_scores(self, batch: InBatch, own: Tensor) -> Tensor:
        """Return the pool's scores of each row's own documents, `(rows, 1 + n)`."""
        assert self.pairs is not None
        queries = batch.query_ids[own][:, None]
        negatives = self.pairs.teacher_scores(queries, batch.document_ids[batch.negative_places(own)])
        return torch.cat([self.pairs.best_teacher_scores(queries), negatives], dim=1)

    def _masks(self, batch: InBatch, own: Tensor, known: Tensor | None) -> dict[str, Tensor]:
        """Return which texts are known not to be negatives, in each direction, `(rows, ...)` each."""
        if known is None:
            return {}
        no_negatives = known | copies_of_negatives(batch, own)
        if self.source == "pool" and self.targets != "weights":
            assert self.pairs is not None
            suspects = self.pairs.suspect(batch.query_ids[own][:, None], batch.document_ids)
            no_negatives |= suspects & ~batch.is_own(own)
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
                adapter_log_odds(adapter, queries, batch.documents[None, : batch.world]),
                adapter_log_odds(adapter, queries, batch.documents[places]),
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
        names = (
            "targets",
            "source",
            "gamma",
            "threshold",
            "teacher_temperature",
            "mask_known_positives",
            "adapter_weight",
        )
        return {**super().get_config_dict(), **{name: getattr(self, name) for name in names}}

    @property
    def citation(self) -> str:
        """BibTeX entry, for the model card."""
        return CITATION
