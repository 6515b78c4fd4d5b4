"""How hard each strategy pushes the negatives of each rank, and how much of it falls on false negatives."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice

import numpy as np
import pyarrow as pa
import torch
from torch import nn

from .cells import Result
from .methods import Method, register
from .strategies import STRATEGIES, Strategy
from .train_maps import drawn_batches, embeddings_of, labels_of
from .trial import Trial
from .truth import ground_truth

# Draws of a query's negatives that are averaged.
DRAWS = 4000
SETTINGS = ("fit", "num_negatives", "injected_rate", "gamma", "folds", "cross_encoder")


def gradients_by_rank(trial: Trial, strategy: Strategy) -> tuple[np.ndarray, float]:
    """Return the expected gradient of a negative by its rank, and the share that hits false negatives.

    The gradient of the strategy's loss, of one query with its positive and the negatives drawn for it,
    with regard to each negative's frozen embedding. Its length is summed by the negative's rank and
    divided by the number of draws, so that a rank that is drawn rarely counts little.

    Args:
        trial: The trial.
        strategy: A strategy that draws negatives.

    Returns:
        Lengths by rank, `(depth,)`, and the share of their sum that falls on known false negatives.

    Source:
        The gradient analysis of RRRA, arXiv 2508.11670, there as a plot.
    """
    truth = ground_truth(trial)
    loss = strategy.loss(nn.Identity(), 1 / trial.arguments.fit.tau)
    by_rank, on_false_negatives = np.zeros(truth.pool.depth), 0.0
    for batch in islice(drawn_batches(trial, strategy, 1), DRAWS):
        raw = embeddings_of(truth, batch)
        negatives = [x.requires_grad_() for x in raw[2:]]
        value = loss.compute_loss_from_embeddings(raw, labels_of(strategy, batch))
        lengths = torch.cat(torch.autograd.grad(value, negatives)).norm(dim=1).numpy()
        np.add.at(by_rank, batch.places[0], lengths)
        on_false_negatives += lengths[truth.false_negative[batch.rows[0, 0], batch.places[0]]].sum()
    return by_rank / DRAWS, on_false_negatives / max(by_rank.sum(), 1e-12)


def _run(strategy: Strategy) -> Callable[[Trial], Result]:
    def run(trial: Trial) -> Result:
        (by_rank, share), seconds = trial.timed(lambda: gradients_by_rank(trial, strategy))
        rows = pa.table({"rank": np.arange(len(by_rank)), "gradient": by_rank})
        figures = {"by rank": by_rank.tolist(), "share on false negatives": float(share)}
        return Result(figures, rows, seconds)

    return run


for _name, _strategy in STRATEGIES.items():
    if _strategy.chances is not None:
        register(
            Method(
                "gradients",
                _name,
                "gradient by rank",
                _run(_strategy),
                SETTINGS,
                needs="cross_encoder" if _name == "rocketqa" else None,
            )
        )
