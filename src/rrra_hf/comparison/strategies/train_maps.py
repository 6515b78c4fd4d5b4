"""Training linear maps on frozen embeddings with a strategy's negatives."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm.auto import tqdm

from ...candidates.labelled import KnownPositives, gather, pair_rows, shuffled_batches
from ...fitting.maps import Maps
from ...labels import draw
from ...losses.rrra import RowLabels
from ..ranking import Rank, searcher
from ..trial import Trial
from ..truth import GroundTruth, ground_truth
from .chances import Strategy


class Batch(NamedTuple):
    """Pairs and the negatives drawn for them.

    Args:
        rows: Row numbers of query, positive and negatives, `(n, 2 + negatives)`.
        weights: Weights of the negatives, `(n, negatives)`.
        places: Columns of the negatives in the candidate pool, `(n, negatives)`.
    """

    rows: np.ndarray
    weights: Tensor
    places: np.ndarray


def train_maps(trial: Trial, strategy: Strategy) -> Rank:
    """Train residual maps of queries and documents, and return the search with them.

    All strategies train for the same number of steps, without early stopping, so that only the negatives
    differ.

    Args:
        trial: The trial.
        strategy: Chooses the negatives, and the loss.
    """
    truth, arguments = ground_truth(trial), trial.arguments
    dim = truth.documents.shape[1]
    query, document = (nn.Parameter(torch.zeros(dim, dim)) for _ in range(2))
    optimizer = torch.optim.AdamW([query, document], lr=arguments.peak_learning_rate, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.02, arguments.steps)
    loss = strategy.make_loss(nn.Identity(), trial)
    batches = drawn_batches(trial, strategy, arguments.batch_size)
    for _ in tqdm(range(arguments.steps), desc="Training maps", leave=False, disable=None):
        batch = next(batches)
        raw = embeddings_of(truth, batch)
        mapped = [_residual(query, raw[0]), *(_residual(document, x) for x in raw[1:])]
        value = loss.compute_loss_from_embeddings(mapped, labels_of(strategy, batch))
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        schedule.step()
    eye = torch.eye(dim)
    maps = Maps(eye + query.detach(), eye + document.detach())
    return searcher(maps.map_documents(trial.task.documents), arguments.fit.depth, maps.map_queries)


def drawn_batches(trial: Trial, strategy: Strategy, size: int) -> Iterator[Batch]:
    """Yield batches of pairs with the negatives that a strategy draws for them, without end.

    Args:
        trial: The trial.
        strategy: Chooses the negatives.
        size: Number of pairs per batch. Pairs that conflict with each other are left out.
    """
    truth, rng = ground_truth(trial), np.random.default_rng(trial.seed)
    pairs = pair_rows(truth.training.positives)
    chances, weights, negatives = np.ones((len(truth.pool), 1)), None, 0
    if strategy.chances is not None:
        (chances, weights), negatives = strategy.chances(trial), trial.arguments.num_negatives
        pairs = pairs[np.any(chances > 0, axis=1)[pairs[:, 0]]]
    known = KnownPositives(truth.training.positives, len(truth.documents))
    for batch in shuffled_batches(len(pairs), size, rng):
        queries = pairs[batch, 0]
        # In-batch training draws one negative and drops it, so that it sees the same pairs as the others.
        places = draw(chances, max(1, negatives), rng=rng, query_rows=queries)[:, :negatives]
        rows = np.concatenate([pairs[batch], truth.pool.candidates[queries[:, None], places]], axis=1)
        drawn = np.ones(places.shape) if weights is None else weights[queries[:, None], places]
        kept = _without_conflicts(rows, known)
        yield Batch(rows[kept], torch.from_numpy(drawn[kept].astype(np.float32)), places[kept])


def embeddings_of(truth: GroundTruth, batch: Batch) -> list[Tensor]:
    """Return the frozen embeddings of queries, positives and each column of negatives, each `(n, dim)`."""
    documents = [gather(truth.documents, column) for column in batch.rows[:, 1:].T]
    return [gather(truth.training.embeddings, batch.rows[:, 0]), *documents]


def labels_of(strategy: Strategy, batch: Batch) -> RowLabels | None:
    """Return the labels of a batch for the strategy's loss."""
    rows = torch.from_numpy(batch.rows)
    if strategy.labels == "rows":
        return RowLabels(ids=rows)
    return RowLabels(batch.weights, rows) if strategy.labels == "weights" else None


def _without_conflicts(rows: np.ndarray, known: KnownPositives) -> np.ndarray:
    """Return the rows of a batch in which no document is labelled for the query of another row.

    The baseline losses don't know the labels. So pairs are left out for all losses if one's document is a
    labelled positive of the other's query, as sentence-transformers' sampler without duplicates does.
    """
    documents = rows[:, 1:]
    labelled = np.any(known.contains(rows[:, 0][:, None, None], documents[None]), axis=2)
    conflict = labelled | labelled.T
    kept: list[int] = []
    for row in range(len(rows)):
        if not conflict[row, kept].any():
            kept.append(row)
    return np.array(kept)


def _residual(matrix: Tensor, x: Tensor) -> Tensor:
    return F.normalize(x + x @ matrix.T, dim=-1)
