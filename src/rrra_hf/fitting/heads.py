"""Fitting the two heads of an adapter on the features of candidates."""

from __future__ import annotations

import logging
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ..candidates.labelled import shuffled_batches
from ..models.heads_rrra import Head
from ..models.reader_rrra import RANKING_UNITS, RELEVANCE_UNITS
from .arguments import FitArguments

logger = logging.getLogger(__name__)

BATCH_SIZE = 128
LEARNING_RATE = 3e-3
# Many steps overfit the relevance head, since its labels are noisy; the ranking head gains from them.
RANKING_STEPS = 800
RELEVANCE_STEPS = 80
# Slope with which the relevance head starts to follow the retriever's score.
RELEVANCE_SLOPE = 0.2


def candidate_weights(relevant: np.ndarray, remembered: np.ndarray, arguments: FitArguments) -> Tensor:
    """Return the weight of each candidate in a fit, so that being remembered doesn't count against it.

    Where each document is labelled for one query, a document that is remembered from another query never
    has the label of this one. Such collections are made that way. It says nothing about relevance, but a head
    that sees what is remembered would learn it. So with `even_odds`, unlabelled candidates that are
    remembered count less if they are labelled less often than others: just enough less to make the odds of
    both equal.

    Args:
        relevant: Whether each candidate is labelled, `(n, k)`.
        remembered: Whether another query is labelled with it, `(n, k)`.
        arguments: `even_odds` is used.

    Returns:
        `(n, k)` float32, in (0, 1].

    Example:
        >>> relevant, remembered = np.array([[True, False, False]]), np.array([[False, False, True]])
        >>> candidate_weights(relevant, remembered, FitArguments())
        tensor([[1.0000, 1.0000, 0.3333]])
    """
    if not arguments.even_odds:
        return torch.ones(relevant.shape)

    def odds(part: np.ndarray) -> float:
        positives = int((relevant & part).sum())
        return (positives + 0.5) / (int(part.sum()) - positives + 0.5)

    weight = min(1.0, odds(remembered) / odds(~remembered))
    return torch.from_numpy(np.where(remembered & ~relevant, weight, 1.0).astype(np.float32))


def fit_ranking_head(
    features: Tensor, relevant: np.ndarray, weights: Tensor, cosines: Tensor, arguments: FitArguments
) -> Head:
    """Fit what is added to the retriever's score, with a softmax of each positive against the others.

    Args:
        features: Features of the candidates, `(n, k, features)`.
        relevant: Whether each candidate is labelled, `(n, k)`.
        weights: Weight of each candidate, `(n, k)`.
        cosines: Cosines of the candidates, `(n, k)`.
        arguments: `tau` and `seed` are used.
    """
    usable = torch.from_numpy(relevant.any(axis=1) & ~relevant.all(axis=1))
    labels = torch.from_numpy(relevant).float()[usable]
    features, scores, logs = features[usable], cosines[usable] / arguments.tau, weights[usable].log()

    def loss(head: Head, batch: np.ndarray) -> Tensor:
        z, y = scores[batch] + head(features[batch]), labels[batch]
        others = (z + logs[batch]).masked_fill(y > 0, -torch.inf).logsumexp(-1, keepdim=True)
        return (((torch.logaddexp(z, others) - z) * y).sum(-1) / y.sum(-1)).mean()

    return _fit(_head(features, RANKING_UNITS, arguments.seed), len(labels), loss, RANKING_STEPS, arguments)


def fit_relevance_head(
    features: Tensor, relevant: np.ndarray, weights: Tensor, names: list[str], arguments: FitArguments
) -> Head:
    """Fit what estimates the probability of relevance, with the log loss of each candidate.

    Args:
        features: Features of the candidates, `(n, k, features)`.
        relevant: Whether each candidate is labelled, `(n, k)`.
        weights: Weight of each candidate, `(n, k)`.
        names: Names of the features.
        arguments: `tau` and `seed` are used.
    """
    labels = torch.from_numpy(relevant).float()
    head = _head(features, RELEVANCE_UNITS, arguments.seed)
    share = (labels.sum() + 0.5) / (weights.sum() + 1)
    with torch.no_grad():
        head.linear.bias.fill_(torch.logit(share))
        if "mapped" in names:
            place = names.index("mapped")
            head.linear.weight[0, place] = RELEVANCE_SLOPE * head.deviation[place] / arguments.tau

    def loss(head: Head, batch: np.ndarray) -> Tensor:
        losses = F.binary_cross_entropy_with_logits(
            head(features[batch]), labels[batch], weights[batch], reduction="sum"
        )
        return losses / len(batch)

    return _fit(head, len(labels), loss, RELEVANCE_STEPS, arguments)


def _head(features: Tensor, units: int, seed: int) -> Head:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        head = Head(features.shape[-1], units)
    if len(features):
        head.standardize(features)
    return head


def _fit(
    head: Head,
    count: int,
    loss: Callable[[Head, np.ndarray], Tensor],
    steps: int,
    arguments: FitArguments,
) -> Head:
    if not count:
        logger.warning("No training query has both a labelled and an unlabelled candidate to learn from.")
        return head
    optimizer = torch.optim.AdamW(head.parameters(), lr=LEARNING_RATE, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.02, steps)
    batches = shuffled_batches(count, BATCH_SIZE, np.random.default_rng(arguments.seed))
    for _ in range(steps):
        value = loss(head, next(batches))
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        schedule.step()
    return head
