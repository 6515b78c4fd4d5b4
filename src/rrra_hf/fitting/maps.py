"""Linear maps of a frozen encoder's embeddings, trained with in-batch negatives."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm.auto import tqdm

from ..candidates import LabelledQueries
from ..candidates.labelled import gather, labelled_among, pair_rows, shuffled_batches
from ..candidates.retrieved import RetrievedCandidates
from ..evaluation import ndcg_per_query
from ..models.adapter_rrra import RetrieverAdapter
from .arguments import AnyFitArguments
from .data import PRIOR_QUERIES, FitData, deal
from .strength import smallest_within_one_standard_error

logger = logging.getLogger(__name__)

BATCH_SIZE = 2048
LEARNING_RATE = 2e-3
# A budget in steps: passes over a few hundred pairs would end long before the maps have moved.
STEPS = 160
# What is chosen among on unseen queries. Documents drawn from the whole corpus as further negatives
# help where few documents are labelled and hurt where many are.
CORPUS_NEGATIVES = (0, 2000)
STOPS = (20, 40, 80, 120, 160)
STRENGTHS = (0.25, 0.5, 0.75, 1.0)
# Unseen queries of each fold that recipes are compared on at most.
RANKED = 700


class MapRecipe(NamedTuple):
    """How maps are trained, chosen on queries that they were not fitted on.

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


class ChosenMaps(NamedTuple):
    """What `choose_maps` returns.

    Args:
        recipe: How the maps were trained.
        maps: Maps fitted on all training queries; None for none.
        by_fold: For each fold, maps fitted on the other folds.
        quality: Mean nDCG@10 of unseen training and development queries, of the `"encoder"` and with
            `"maps"`.
    """

    recipe: MapRecipe
    maps: Maps | None
    by_fold: list[Maps | None]
    quality: dict[str, float]


def choose_maps(data: FitData, arguments: AnyFitArguments) -> ChosenMaps:
    """Fit residual linear maps with in-batch negatives, and choose how strongly to apply them.

    The recipe is chosen by nDCG@10 of the training queries, each ranked with maps that were fitted on the
    other folds, and of development queries if there are any. Whether to draw further negatives from the
    corpus is decided at the first of `STOPS`; training then goes on until a stop is no better than the one
    before. Maps at full strength can rank unseen queries worse than no maps, so the strength is chosen too.
    If the gain over no maps is within one standard error, there are none.

    Args:
        data: What to fit on.
        arguments: `maps` says which sides are mapped; `tau` and `seed` are used too.
    """
    folds = deal(len(data.training.positives), arguments.seed)
    nothing: list[Maps | None] = [None] * len(folds)
    without = _quality(nothing, folds, data, arguments.seed)
    mean = float(without.mean())
    none = ChosenMaps(NO_MAPS, None, nothing, {"encoder": mean, "maps": mean})
    if arguments.maps == "none":
        return none
    best = _best_recipe(folds, data, arguments, without)
    if not smallest_within_one_standard_error((0.0, 1.0), np.stack([without, best.quality]), PRIOR_QUERIES):
        best = best._replace(recipe=NO_MAPS)
    quality = {"encoder": mean, "maps": float(best.quality.mean())}
    logger.info("Maps: %s, nDCG@10 of unseen queries %s", best.recipe, quality)
    if not best.recipe.steps:
        return none
    *_, (_, maps) = _trained(
        data.training, data.documents, arguments, best.recipe.corpus_negatives, best.recipe.steps
    )
    return ChosenMaps(best.recipe, maps.shrunk(best.recipe.strength), best.maps, quality)


class _Fitted(NamedTuple):
    """Maps of each fold, how they were trained, and nDCG@10 of each query that they were not fitted on."""

    maps: list[Maps | None]
    recipe: MapRecipe
    quality: np.ndarray


def _best_recipe(
    folds: list[np.ndarray], data: FitData, arguments: AnyFitArguments, without: np.ndarray
) -> _Fitted:
    """Return the maps that rank unseen queries best; those of `NO_MAPS` if all are worse than none."""
    everything = np.arange(len(data.training.positives))
    others = [data.training.select(np.setdiff1d(everything, fold)) for fold in folds]
    rivals = {
        count: [_trained(part, data.documents, arguments, count, STEPS) for part in others]
        for count in CORPUS_NEGATIVES
    }
    best = _Fitted([None] * len(folds), NO_MAPS, without)
    for _ in STOPS:
        found = []
        for snapshots in rivals.values():
            recipes, maps = zip(*(next(snapshot) for snapshot in snapshots), strict=True)
            found.append(_strongest(recipes[0], list(maps), folds, data, arguments.seed))
        leader = max(found, key=lambda fitted: fitted.quality.mean())
        rivals = {leader.recipe.corpus_negatives: rivals[leader.recipe.corpus_negatives]}
        if leader.quality.mean() <= best.quality.mean():
            break
        best = leader
    return best


def _strongest(
    recipe: MapRecipe, maps: list[Maps], folds: list[np.ndarray], data: FitData, seed: int
) -> _Fitted:
    """Return maps at the strength that is best on unseen queries."""
    fitted = []
    for strength in STRENGTHS:
        shrunk: list[Maps | None] = [of_fold.shrunk(strength) for of_fold in maps]
        quality = _quality(shrunk, folds, data, seed)
        fitted.append(_Fitted(shrunk, recipe._replace(strength=strength), quality))
    return max(fitted, key=lambda one: one.quality.mean())


def _quality(maps: list[Maps | None], folds: list[np.ndarray], data: FitData, seed: int) -> np.ndarray:
    """Return nDCG@10 of the queries of each fold, with its maps, and of the development queries.

    Folds of more than `RANKED` queries are represented by so many. The development queries are ranked with
    the maps of the first fold.
    """
    parts = []
    for row, (of_fold, fold) in enumerate(zip(maps, folds, strict=True)):
        if len(fold) > RANKED:
            fold = np.random.default_rng(seed).choice(fold, RANKED, replace=False)
        unseen = [data.training.select(fold)]
        if row == 0 and data.development is not None:
            unseen.append(data.development)
        documents = data.documents if of_fold is None else of_fold.map_documents(data.documents)
        for queries in unseen:
            if of_fold is not None:
                queries = queries._replace(embeddings=of_fold.map_queries(queries.embeddings))
            found = RetrievedCandidates.retrieve(queries._replace(words=None), documents, 10)
            parts.append(ndcg_per_query(found.relevant, found.num_relevant))
    return np.concatenate(parts)


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
    pairs, no_negatives = pair_rows(training.positives), training.no_negatives
    optimizer = torch.optim.AdamW(residuals.parameters(), lr=LEARNING_RATE, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.02, STEPS)
    batches = shuffled_batches(len(pairs), BATCH_SIZE, rng)
    for step in tqdm(range(1, last + 1), desc="Fitting maps", leave=False, disable=None):
        batch = pairs[next(batches)]
        drawn = rng.integers(0, len(documents), corpus_negatives)
        embeddings = training.embeddings, documents
        loss = _contrastive_loss(residuals, batch, drawn, *embeddings, no_negatives, arguments.tau)
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
    no_negatives: Sequence[np.ndarray],
    tau: float,
) -> Tensor:
    """Return the cross-entropy of each pair's document among the distinct ones of the batch and drawn."""
    rows = np.unique(np.concatenate([batch[:, 1], drawn]))
    labels = np.searchsorted(rows, batch[:, 1])
    others = labelled_among(no_negatives, batch[:, 0], rows)
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
