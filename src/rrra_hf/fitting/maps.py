"""Frozen stage 1: linear maps on cached embeddings, trained with in-batch negatives."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm.auto import tqdm

from ..candidates import LabelledQueries
from ..candidates.labelled import KnownPositives, gather, pair_rows, shuffled_batches
from ..evaluation import ndcg_per_query
from ..indexes import FlatIndex
from ..models.adapter_rrra import RetrieverAdapter
from .arguments import FitArguments
from .strength import smallest_within_one_standard_error

logger = logging.getLogger(__name__)

BATCH_SIZE = 2048
LEARNING_RATE = 2e-3
# A budget in steps: passes over a few hundred pairs would end long before the maps have moved.
STEPS = 160
# What is chosen among on development queries. Documents drawn from the whole corpus as further negatives
# help where few documents are labelled and hurt where many are.
CORPUS_NEGATIVES = (0, 2000)
STOPS = (20, 40, 80, 120, 160)
STRENGTHS = (0.25, 0.5, 0.75, 1.0)


class MapRecipe(NamedTuple):
    """How maps are trained, as chosen on development queries.

    Args:
        corpus_negatives: Documents drawn from the corpus for each step, beside the batch's own.
        steps: Steps trained, of `STEPS` that the learning rate is laid out for.
        strength: How far the identity is moved towards the maps.
    """

    corpus_negatives: int
    steps: int
    strength: float


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

    @torch.no_grad()
    def install(self, adapter: RetrieverAdapter) -> None:
        """Give an adapter that was made without maps these."""
        adapter.config.query_map = True
        adapter.config.document_map = self.document is not None
        for name, matrix in (("query_map", self.query), ("document_map", self.document)):
            if matrix is not None:
                layer = nn.utils.skip_init(nn.Linear, len(matrix), len(matrix), bias=False)
                layer.weight.copy_(matrix)
                setattr(adapter, name, layer)


def choose_maps(
    training: LabelledQueries,
    documents: np.ndarray,
    development: LabelledQueries,
    arguments: FitArguments,
) -> tuple[Maps, MapRecipe]:
    """Fit residual linear maps by contrast with in-batch documents; the identity if that doesn't help.

    How many documents are drawn from the corpus is settled at the first of `STOPS`; from there on training
    goes on until a stop ranks the development queries no better than the one before.

    The recipe is chosen by development nDCG@10. Where queries are few, maps at full strength can rank
    unseen queries worse than none: the strength is among what is chosen, and maps whose gain over none
    is within one standard error are given up for the identity.

    Args:
        training: Training queries.
        documents: Document embeddings, `(m, dim)`.
        development: Development queries.
        arguments: `stage1` says which sides are mapped, `tau` and `seed` are used too.
    """
    none = _Fitted(None, MapRecipe(0, 0, 0.0), _quality(None, documents, development))
    best = none
    rivals = {count: _trained(training, documents, arguments, count, STEPS) for count in CORPUS_NEGATIVES}
    for _ in STOPS:
        found = [_strongest(next(snapshots), documents, development) for snapshots in rivals.values()]
        leader = max(found, key=lambda fitted: fitted.quality.mean())
        rivals = {leader.recipe.corpus_negatives: rivals[leader.recipe.corpus_negatives]}
        if leader.quality.mean() <= best.quality.mean():
            break
        best = leader
    if not smallest_within_one_standard_error((0.0, 1.0), np.stack([none.quality, best.quality])):
        best = none
    logger.info(
        "Stage 1: %s, development nDCG@10 %.4f (%.4f without)",
        best.recipe,
        best.quality.mean(),
        none.quality.mean(),
    )
    return best.maps or _identity(documents.shape[1], arguments), best.recipe


class _Fitted(NamedTuple):
    """Maps, None for none, how they were trained, and nDCG@10 of each development query."""

    maps: Maps | None
    recipe: MapRecipe
    quality: np.ndarray


def _strongest(
    trained: tuple[MapRecipe, Maps], documents: np.ndarray, development: LabelledQueries
) -> _Fitted:
    """Return maps at the strength that is best on the development queries."""
    recipe, maps = trained
    fitted = []
    for strength in STRENGTHS:
        shrunk = maps.shrunk(strength)
        quality = _quality(shrunk, documents, development)
        fitted.append(_Fitted(shrunk, recipe._replace(strength=strength), quality))
    return max(fitted, key=lambda one: one.quality.mean())


def refit_maps(
    training: LabelledQueries, documents: np.ndarray, arguments: FitArguments, recipe: MapRecipe
) -> Maps:
    """Fit maps by a recipe that was chosen before.

    Args:
        training: Training queries.
        documents: Document embeddings, `(m, dim)`.
        arguments: As in `choose_maps`.
        recipe: The recipe.
    """
    if not recipe.steps:
        return _identity(documents.shape[1], arguments)
    *_, (_, maps) = _trained(training, documents, arguments, recipe.corpus_negatives, recipe.steps)
    return maps.shrunk(recipe.strength)


def _trained(
    training: LabelledQueries,
    documents: np.ndarray,
    arguments: FitArguments,
    corpus_negatives: int,
    last: int,
) -> Iterator[tuple[MapRecipe, Maps]]:
    """Yield the maps after each of the steps `STOPS` up to the last, at full strength."""
    rng = np.random.default_rng(arguments.seed)
    dim = documents.shape[1]
    sides = ["query"] if arguments.stage1 == "query" else ["query", "document"]
    residuals = nn.ParameterDict({side: torch.zeros(dim, dim) for side in sides})
    pairs = pair_rows(training.positives)
    known = KnownPositives(training.positives, len(documents))
    optimizer = torch.optim.AdamW(residuals.parameters(), lr=LEARNING_RATE, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.02, STEPS)
    batches = shuffled_batches(len(pairs), BATCH_SIZE, rng)
    for step in tqdm(range(1, last + 1), desc="Fitting maps", leave=False, disable=None):
        batch = pairs[next(batches)]
        drawn = rng.integers(0, len(documents), corpus_negatives)
        loss = _contrastive_loss(
            residuals, batch, drawn, training.embeddings, documents, known, arguments.tau
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step in STOPS:
            yield MapRecipe(corpus_negatives, step, 1.0), _as_maps(residuals)


def _contrastive_loss(
    residuals: nn.ParameterDict,
    batch: np.ndarray,
    drawn: np.ndarray,
    queries: np.ndarray,
    documents: np.ndarray,
    known: KnownPositives,
    tau: float,
) -> Tensor:
    """Return the cross-entropy of each pair's document among the distinct ones of the batch and drawn."""
    rows = np.unique(np.concatenate([batch[:, 1], drawn]))
    labels = np.searchsorted(rows, batch[:, 1])
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


def _identity(dim: int, arguments: FitArguments) -> Maps:
    return Maps(torch.eye(dim), None if arguments.stage1 == "query" else torch.eye(dim))


def _apply(matrix: Tensor, embeddings: np.ndarray) -> np.ndarray:
    mapped = np.asarray(embeddings, dtype=np.float32) @ matrix.numpy().T
    return F.normalize(torch.from_numpy(mapped), dim=-1).numpy()


def _quality(maps: Maps | None, documents: np.ndarray, development: LabelledQueries) -> np.ndarray:
    """Return nDCG@10 of each development query, `(n,)`, with maps or without."""
    queries = development.embeddings
    if maps is not None:
        queries, documents = maps.map_queries(queries), maps.map_documents(documents)
    index = FlatIndex(documents.shape[1])
    index.add(documents)
    _, rows = index.search(queries, 10)
    known = KnownPositives(development.positives, len(documents))
    relevant = known.contains(np.arange(len(rows))[:, None], rows)
    return ndcg_per_query(relevant, development.num_relevant)
