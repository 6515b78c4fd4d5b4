"""Frozen stage 1: linear maps on cached embeddings, trained with in-batch negatives."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm.auto import tqdm

from ..evaluation import ndcg_per_query
from ..indexes import FlatIndex
from .arguments import FitArguments
from .examples import KnownPositives, LabelledQueries, gather, pair_rows, shuffled_batches
from .selection import smallest_within_one_standard_error

logger = logging.getLogger(__name__)

BATCH_SIZE = 1024
LEARNING_RATE = 2e-3
# A budget in steps: passes over a few hundred pairs would end long before the maps have moved.
STEPS = 240
EVAL_STEPS = 8
STRENGTHS = (0.0, 0.25, 0.5, 0.75, 1.0)


@dataclass(frozen=True)
class Maps:
    """Matrices `M` of a frozen stage 1; `x @ M.T`, normalised, replaces `x`.

    Args:
        query: `(dim, dim)`.
        document: `(dim, dim)`, or `None` where documents stay as they are.
    """

    query: Tensor
    document: Tensor | None

    def shrunk(self, strength: float) -> Maps:
        """Return the maps moved towards the identity: 0 is the identity, 1 these maps."""
        eye = torch.eye(len(self.query))
        document = None if self.document is None else torch.lerp(eye, self.document, strength)
        return Maps(torch.lerp(eye, self.query, strength), document)

    def map_queries(self, embeddings: np.ndarray) -> np.ndarray:
        """Return mapped query embeddings, `(n, dim)`."""
        return _apply(self.query, embeddings)

    def map_documents(self, embeddings: np.ndarray) -> np.ndarray:
        """Return mapped document embeddings, `(n, dim)`."""
        return embeddings if self.document is None else _apply(self.document, embeddings)


def fit_maps(
    training: LabelledQueries,
    documents: np.ndarray,
    development: LabelledQueries,
    arguments: FitArguments,
) -> Maps:
    """Fit residual linear maps by contrast with in-batch documents; the identity if that doesn't help.

    The step is chosen by development nDCG@10, and so is the strength with which the maps are
    applied, by the one-standard-error rule with 0 among the choices: where queries are few, a map
    at full strength can rank unseen queries worse than none.

    Args:
        training: Training queries.
        documents: Document embeddings, `(m, dim)`.
        development: Development queries.
        arguments: `stage1` says which sides are mapped, `tau` and `seed` are used too.

    Returns:
        The maps at the chosen strength.
    """
    rng = np.random.default_rng(arguments.seed)
    dim = documents.shape[1]
    sides = ["query"] if arguments.stage1 == "query" else ["query", "document"]
    residuals = nn.ParameterDict({side: torch.zeros(dim, dim) for side in sides})
    pairs = pair_rows(training.positives)
    known = KnownPositives(training.positives, len(documents))
    optimizer = torch.optim.AdamW(residuals.parameters(), lr=LEARNING_RATE, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.02, STEPS)
    batches = shuffled_batches(len(pairs), BATCH_SIZE, rng)
    best, best_quality = _as_maps(residuals), _quality(_as_maps(residuals), documents, development).mean()
    for step in tqdm(range(1, STEPS + 1), desc="Fitting maps", leave=False, disable=None):
        batch = pairs[next(batches)]
        loss = _in_batch_loss(residuals, batch, training.embeddings, documents, known, arguments.tau)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % EVAL_STEPS:
            continue
        quality = _quality(_as_maps(residuals), documents, development).mean()
        if quality > best_quality:
            best, best_quality = _as_maps(residuals), quality

    qualities = np.stack([_quality(best.shrunk(s), documents, development) for s in STRENGTHS])
    chosen = smallest_within_one_standard_error(STRENGTHS, qualities)
    logger.info(
        "Stage 1: maps at strength %.2f, development nDCG@10 %.4f (%.4f without)",
        STRENGTHS[chosen],
        qualities[chosen].mean(),
        qualities[0].mean(),
    )
    return best.shrunk(STRENGTHS[chosen])


def _in_batch_loss(
    residuals: nn.ParameterDict,
    batch: np.ndarray,
    queries: np.ndarray,
    documents: np.ndarray,
    known: KnownPositives,
    tau: float,
) -> Tensor:
    """Return the cross-entropy of each pair's document among the batch's distinct documents."""
    rows, labels = np.unique(batch[:, 1], return_inverse=True)
    others = known.contains(batch[:, :1], rows)
    others[np.arange(len(batch)), labels] = False
    q = _residual(residuals["query"], gather(queries, batch[:, 0]))
    c = F.normalize(gather(documents, rows), dim=-1)
    if "document" in residuals:
        c = _residual(residuals["document"], c)
    logits = (q @ c.T / tau).masked_fill(torch.from_numpy(others), -torch.inf)
    return F.cross_entropy(logits, torch.from_numpy(labels))


def _residual(matrix: Tensor, x: Tensor) -> Tensor:
    return F.normalize(x + x @ matrix.T, dim=-1)


def _as_maps(residuals: nn.ParameterDict) -> Maps:
    matrices = {side: torch.eye(len(matrix)) + matrix.detach() for side, matrix in residuals.items()}
    return Maps(matrices["query"], matrices.get("document"))


def _apply(matrix: Tensor, embeddings: np.ndarray) -> np.ndarray:
    mapped = np.asarray(embeddings, dtype=np.float32) @ matrix.numpy().T
    return F.normalize(torch.from_numpy(mapped), dim=-1).numpy()


def _quality(maps: Maps, documents: np.ndarray, development: LabelledQueries) -> np.ndarray:
    """Return nDCG@10 of each development query, `(n,)`."""
    index = FlatIndex(documents.shape[1])
    index.add(maps.map_documents(documents))
    _, rows = index.search(maps.map_queries(development.embeddings), 10)
    known = KnownPositives(development.positives, len(documents))
    relevant = known.contains(np.arange(len(rows))[:, None], rows)
    return ndcg_per_query(relevant, development.num_relevant)
