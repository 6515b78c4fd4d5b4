"""Fitting the ranking head of an adapter on the features of candidates."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ..candidates.labelled import shuffled_batches
from ..models.heads_rrra import Head
from ..models.reader_rrra import RANKING_UNITS
from .arguments import FitArguments

logger = logging.getLogger(__name__)

BATCH_SIZE = 64
# A head of its own starts from nothing, and takes more steps where there are thousands of queries: nDCG@10 of
# 5,600 unseen queries is 0.754 after 400 steps and 0.757 after 800. One that starts from a trained head takes
# smaller steps, and is held to where it started: the labels of one collection say less than those of many.
OWN_STEPS, OWN_EPOCHS, OWN_STEPS_AT_MOST, OWN_LEARNING_RATE = 400, 12, 800, 3e-3
STARTED_STEPS, STARTED_LEARNING_RATE, HELD = 300, 1e-3, 0.003


def candidate_weights(
    relevant: np.ndarray, remembered: np.ndarray, judged: np.ndarray, arguments: FitArguments
) -> Tensor:
    """Return the weight of each candidate in a fit, so that being remembered doesn't count against it.

    Where each document is labelled for one query, a document that is remembered from another query never
    has the label of this one. Such collections are made that way. It says nothing about relevance, but a head
    that sees what is remembered would learn it. So with `even_odds`, unlabelled candidates that are
    remembered count less if they are labelled less often than others: just enough less to make the odds of
    both equal.

    Args:
        relevant: Whether each candidate is labelled, `(n, k)`.
        remembered: Whether another query is labelled with it, `(n, k)`.
        judged: Whether it is known to be relevant or not, `(n, k)`. Those that aren't known to be relevant,
            and aren't, have the weight 1.
        arguments: `even_odds` is used.

    Returns:
        `(n, k)` float32, in (0, 1].

    Example:
        >>> relevant, remembered = np.array([[True, False, False]]), np.array([[False, False, True]])
        >>> candidate_weights(relevant, remembered, relevant, FitArguments())
        tensor([[1.0000, 1.0000, 0.3333]])
    """
    if not arguments.even_odds:
        return torch.ones(relevant.shape)

    def odds(part: np.ndarray) -> float:
        return ((relevant & part).sum() + 0.5) / ((~judged & part).sum() + 0.5)

    weight = min(1.0, odds(remembered) / odds(~remembered))
    return torch.from_numpy(np.where(remembered & ~judged, weight, 1.0).astype(np.float32))


def own_head(features: Tensor, present: Tensor, arguments: FitArguments) -> Head:
    """Return a head that gives 0, for features of the scale of the given ones, `(n, k, features)`."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(arguments.seed)
        head = Head(features.shape[-1], RANKING_UNITS)
    if present.any():
        head.standardize(features[present])
    return head


def started_head(
    trained: Head, known: Sequence[str], names: Sequence[str], features: Tensor, present: Tensor
) -> Head:
    """Return a head that gives what a trained one gives, and has more or fewer features.

    Args:
        trained: The trained head.
        known: Names of its features.
        names: Names of the new head's features. Those that the trained head doesn't know have no effect yet.
        features: Features of candidates, for the scale of those, `(n, k, len(names))`.
        present: Where there is a candidate, `(n, k)`.
    """
    head = Head(len(names), RANKING_UNITS)
    head.standardize(features[present])
    kept = [place for place, name in enumerate(names) if name in known]
    theirs = [list(known).index(names[place]) for place in kept]
    with torch.no_grad():
        for name in ("second", "output"):
            getattr(head, name).load_state_dict(getattr(trained, name).state_dict())
        for buffer in ("mean", "deviation"):
            getattr(head, buffer)[kept] = getattr(trained, buffer)[theirs]
        for name in ("linear", "first"):
            ours, trained_layer = getattr(head, name), getattr(trained, name)
            ours.weight.zero_()
            ours.weight[:, kept] = trained_layer.weight[:, theirs]
            ours.bias.copy_(trained_layer.bias)
    return head


def fit_ranking_head(
    head: Head,
    features: Tensor,
    present: Tensor,
    relevant: Tensor,
    weights: Tensor,
    arguments: FitArguments,
    *,
    started: bool,
) -> Head:
    """Fit a head with a softmax of each labelled candidate against the others.

    Args:
        head: The head; it is changed.
        features: Features of the candidates, `(n, k, features)`.
        present: Where there is a candidate, `(n, k)`.
        relevant: Whether each candidate is labelled, `(n, k)`.
        weights: Weight of each candidate, `(n, k)`.
        arguments: `seed` is used.
        started: Whether the head starts from a trained one, which it is then held to.
    """
    usable = relevant.any(-1) & (present & ~relevant).any(-1)
    if not usable.any():
        logger.warning("No training query has both a labelled and an unlabelled candidate to learn from.")
        return head
    features, present, labels = features[usable], present[usable], relevant[usable].float()
    logs = weights[usable].log().masked_fill(~present | (labels > 0), -torch.inf)
    epochs = OWN_EPOCHS * len(labels) // BATCH_SIZE
    steps = STARTED_STEPS if started else min(max(OWN_STEPS, epochs), OWN_STEPS_AT_MOST)
    rate, decay = (STARTED_LEARNING_RATE, 0.0) if started else (OWN_LEARNING_RATE, 0.01)
    start = [parameter.detach().clone() for parameter in head.parameters()]
    optimizer = torch.optim.AdamW(head.parameters(), lr=rate, weight_decay=decay)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.02, steps)
    batches = shuffled_batches(len(labels), BATCH_SIZE, np.random.default_rng(arguments.seed))
    for _ in range(steps):
        batch = next(batches)
        z, y = head(features[batch]), labels[batch]
        others = (z + logs[batch]).logsumexp(-1, keepdim=True)
        loss = (((torch.logaddexp(z, others) - z) * y).sum(-1) / y.sum(-1)).mean()
        if started:
            moved = zip(head.parameters(), start, strict=True)
            loss = loss + HELD * torch.stack([(now - then).square().sum() for now, then in moved]).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return head
