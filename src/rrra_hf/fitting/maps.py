"""Linear maps of a frozen encoder's embeddings, trained with in-batch negatives."""

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
from ..candidates.retrieved import RetrievedCandidates
from ..evaluation import ndcg_per_query
from ..models.adapter_rrra import RetrieverAdapter
from .arguments import AnyFitArguments
from .data import FitData
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
    """How maps are trained, chosen on the development queries.

    Args:
        corpus_negatives: Documents drawn from the corpus for each step, in addition to those of the batch.
        steps: Steps trained, of `STEPS` that the learning rate is laid out for.
        strength: How far the identity is moved towards the maps.
    """

    corpus_negatives: int
    steps: int
    strength: float


NO_MAPS = MapRecipe(0, 0, 0.0)


@dataclass(frozen=True)
class Maps:
    """Matrices `M`; `x @ M.T`, normalised, replaces `x`.

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


def choose_maps(data: FitData, arguments: AnyFitArguments) -> tuple[Maps | None, MapRecipe]:
    """Fit residual linear maps with in-batch negatives, and choose how strongly to apply them.

    The recipe is chosen by development nDCG@10. Whether to draw further negatives from the corpus is decided
    at the first of `STOPS`; training then goes on until a stop ranks the development queries no better than
    the one before. With few queries, maps at full strength can rank unseen queries worse than no maps. So the
    strength is chosen too, and if the gain over no maps is within one standard error, the maps are the
    identity.

    Args:
        data: What to fit on.
        arguments: `maps` says which sides are mapped; `tau` and `seed` are used too.

    Returns:
        The maps, None with `maps="none"`, and the recipe.
    """
    if arguments.maps == "none":
        return None, NO_MAPS
    none = _Fitted(None, NO_MAPS, quality_with_maps(None, data))
    best = none
    rivals = {
        count: _trained(data.training, data.documents, arguments, count, STEPS) for count in CORPUS_NEGATIVES
    }
    for _ in STOPS:
        found = [_strongest(next(snapshots), data) for snapshots in rivals.values()]
        leader = max(found, key=lambda fitted: fitted.quality.mean())
        rivals = {leader.recipe.corpus_negatives: rivals[leader.recipe.corpus_negatives]}
        if leader.quality.mean() <= best.quality.mean():
            break
        best = leader
    if not smallest_within_one_standard_error((0.0, 1.0), np.stack([none.quality, best.quality])):
        best = none
    logger.info(
        "Maps: %s, development nDCG@10 %.4f (%.4f without)",
        best.recipe,
        best.quality.mean(),
        none.quality.mean(),
    )
    return best.maps or _identity(data.documents.shape[1], arguments), best.recipe


class _Fitted(NamedTuple):
    """Maps, None for none, how they were trained, and nDCG@10 of each development query."""

    maps: Maps | None
    recipe: MapRecipe
    quality: np.ndarray


def _strongest(trained: tuple[MapRecipe, Maps], data: FitData) -> _Fitted:
    """Return maps at the strength that is best on the development queries."""
    recipe, maps = trained
    fitted = []
    for strength in STRENGTHS:
        shrunk = maps.shrunk(strength)
        fitted.append(_Fitted(shrunk, recipe._replace(strength=strength), quality_with_maps(shrunk, data)))
    return max(fitted, key=lambda one: one.quality.mean())


def refit_maps(
    training: LabelledQueries, documents: np.ndarray, arguments: AnyFitArguments, recipe: MapRecipe
) -> Maps | None:
    """Fit maps by a recipe that was chosen before.

    Args:
        training: Training queries.
        documents: Document embeddings, `(m, dim)`.
        arguments: As in `choose_maps`.
        recipe: The recipe.
    """
    if arguments.maps == "none":
        return None
    if not recipe.steps:
        return _identity(documents.shape[1], arguments)
    *_, (_, maps) = _trained(training, documents, arguments, recipe.corpus_negatives, recipe.steps)
    return maps.shrunk(recipe.strength)


def _trained(
    training: LabelledQueries,
    documents: np.ndarray,
    arguments: AnyFitArguments,
    corpus_negatives: int,
    last: int,
) -> Iterator[tuple[MapRecipe, Maps]]:
    """Yield the maps after each of the steps `STOPS` up to the last, at full strength."""
    rng = np.random.default_rng(arguments.seed)
    dim = documents.shape[1]
    sides = ["query"] if arguments.maps == "query" else ["query", "document"]
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


def _identity(dim: int, arguments: AnyFitArguments) -> Maps:
    return Maps(torch.eye(dim), None if arguments.maps == "query" else torch.eye(dim))


def _apply(matrix: Tensor, embeddings: np.ndarray) -> np.ndarray:
    mapped = np.asarray(embeddings, dtype=np.float32) @ matrix.numpy().T
    return F.normalize(torch.from_numpy(mapped), dim=-1).numpy()


def quality_with_maps(maps: Maps | None, data: FitData) -> np.ndarray:
    """Return nDCG@10 of each development query, `(n,)`, with maps, or without if they are None."""
    documents, development = data.documents, data.development
    if maps is not None:
        documents = maps.map_documents(documents)
        development = development._replace(embeddings=maps.map_queries(development.embeddings))
    retrieved = RetrievedCandidates.retrieve(development, documents, 10)
    return ndcg_per_query(retrieved.relevant, retrieved.num_relevant)
