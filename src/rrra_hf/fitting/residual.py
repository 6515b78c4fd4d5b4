"""Training the adapter's head on frozen embeddings."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from tqdm.auto import tqdm

from ..candidates import LabelledQueries
from ..candidates.labelled import Candidates, CandidateSampler, RetrievedCandidates, gather, shuffled_batches
from ..models.adapter_rrra import AdapterOutput, RetrieverAdapter
from ..models.configuration_rrra import AdapterConfig
from .arguments import FitArguments
from .objectives import four_class_loss, listwise_loss, pointwise_loss, positive_unlabelled_loss, segment_loss
from .tuning import quality_by_lambda

logger = logging.getLogger(__name__)


def fit_head(
    training: LabelledQueries,
    mined: np.ndarray,
    documents: np.ndarray,
    development: RetrievedCandidates,
    arguments: FitArguments,
    make: Callable[[AdapterConfig], RetrieverAdapter] = RetrieverAdapter,
) -> RetrieverAdapter:
    """Train the head, and return it as it was when the development queries were ranked best.

    Args:
        training: Training queries.
        mined: Rows of each training query's candidates, `(n, depth)`, -1 where there are none left.
        documents: Document embeddings, `(m, dim)`.
        development: What is retrieved for the development queries.
        arguments: Settings.
        make: Makes the adapter to be trained, under the seed.
    """
    rng = np.random.default_rng(arguments.seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(arguments.seed)
        adapter = make(_adapter_config(documents.shape[1], arguments))
        sampler = CandidateSampler(
            training.positives,
            mined,
            len(documents),
            arguments.mined_negatives,
            arguments.random_negatives,
            rng,
        )
        return _train(adapter, training, mined, documents, sampler, development, arguments, rng)


def _adapter_config(dim: int, arguments: FitArguments) -> AdapterConfig:
    return AdapterConfig(
        embedding_dim=dim,
        hidden_size=arguments.hidden_size,
        dropout=arguments.dropout,
        linear_skip=arguments.linear_skip,
        num_classes=4 if arguments.objective == "four_class" else 1,
        scoring=arguments.scoring,
        tau=arguments.tau,
    )


def _train(
    adapter: RetrieverAdapter,
    training: LabelledQueries,
    mined: np.ndarray,
    documents: np.ndarray,
    sampler: CandidateSampler,
    development: RetrievedCandidates,
    arguments: FitArguments,
    rng: np.random.Generator,
) -> RetrieverAdapter:
    cutoffs = _cutoffs(training.embeddings, mined, documents)
    if arguments.objective != "listwise":
        _centre(adapter, cutoffs)
    optimizer = torch.optim.AdamW(
        adapter.parameters(), lr=arguments.learning_rate, weight_decay=arguments.weight_decay
    )
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, arguments.max_steps)
    batches = shuffled_batches(len(training.positives), arguments.batch_size, rng)
    best, best_quality, since_best = copy.deepcopy(adapter.state_dict()), -1.0, 0
    for step in tqdm(range(1, arguments.max_steps + 1), desc="Fitting adapter", leave=False, disable=None):
        batch = next(batches)
        adapter.train()
        loss = _step_loss(adapter, training, documents, sampler.draw(batch), batch, cutoffs, arguments)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % arguments.eval_steps and step < arguments.max_steps:
            continue
        quality = quality_by_lambda(adapter, development, documents).mean(axis=1).max()
        logger.info("Step %d: loss %.4f, development nDCG@10 %.4f", step, loss.item(), quality)
        since_best += 1
        if quality > best_quality:
            best, best_quality, since_best = copy.deepcopy(adapter.state_dict()), quality, 0
        if since_best >= arguments.patience:
            break
    adapter.load_state_dict(best)
    return adapter.eval()


@torch.no_grad()
def _centre(adapter: RetrieverAdapter, cutoffs: Tensor) -> None:
    """Start a pointwise readout at even odds where the candidates' cosines end.

    At a bias of zero every cosine would mean certainty, and the bias would take the whole budget to
    learn the level of this encoder's cosines.
    """
    adapter.readout.bias.copy_(-adapter.readout.weight[:, 0] * cutoffs.mean())


def _step_loss(
    adapter: RetrieverAdapter,
    training: LabelledQueries,
    documents: np.ndarray,
    drawn: Candidates,
    batch: np.ndarray,
    cutoffs: Tensor,
    arguments: FitArguments,
) -> Tensor:
    q = F.normalize(gather(training.embeddings, batch), dim=-1)[:, None]
    own_c = F.normalize(gather(documents, drawn.own), dim=-1)
    shared_c = F.normalize(gather(documents, drawn.shared), dim=-1)[None]
    own, shared = adapter(q, own_c), adapter(q, shared_c)
    output = AdapterOutput(
        own.adapted, *(torch.cat(pair, dim=1) for pair in zip(own[1:], shared[1:], strict=True))
    )
    cosines = torch.cat([(q * own_c).sum(-1), (q * shared_c).sum(-1)], dim=1)
    loss = _objective(output, drawn, cosines >= cutoffs[batch, None], arguments)
    if arguments.segment_weight:
        loss = loss + arguments.segment_weight * segment_loss(own.adapted, q, own_c)
    return loss


def _objective(
    output: AdapterOutput, drawn: Candidates, retrieved: Tensor, arguments: FitArguments
) -> Tensor:
    if arguments.objective == "listwise":
        return listwise_loss(output.logits, drawn.labels, drawn.mask)
    if arguments.objective == "four_class":
        return four_class_loss(
            output.class_logits, drawn.labels, retrieved, drawn.mask, arguments.class_balance
        )
    if arguments.class_prior is None:
        return pointwise_loss(output.logits, drawn.labels, drawn.mask, arguments.class_balance)
    return positive_unlabelled_loss(output.logits, drawn.labels, drawn.mask, arguments.class_prior)


def _cutoffs(queries: np.ndarray, mined: np.ndarray, documents: np.ndarray) -> Tensor:
    """Return the cosine of each query's last candidate: what reaches it counts as retrieved, `(n,)`."""
    last = mined[np.arange(len(mined)), np.maximum((mined >= 0).sum(axis=1) - 1, 0)]
    return F.cosine_similarity(gather(queries, np.arange(len(queries))), gather(documents, last), dim=-1)
