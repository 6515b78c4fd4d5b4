"""Fitting an adapter that reads features, and cross-fitting its probabilities."""

from __future__ import annotations

import logging
from typing import NamedTuple

import numpy as np
import torch
from scipy.sparse import csr_array
from scipy.special import expit
from torch import Tensor

from ..candidates.labelled import LabelledQueries
from ..candidates.retrieved import RetrievedCandidates
from ..models.adapter_rrra import RetrieverAdapter
from .arguments import FitArguments
from .calibration import calibrate
from .data import FitData, fit_data
from .fold_state import fold_state, out_of_fold
from .heads import candidate_weights, fit_ranking_head, fit_relevance_head
from .maps import MapRecipe, Maps, choose_maps
from .strength import choose_strength

logger = logging.getLogger(__name__)

# The training queries are dealt into this many folds. The features of each fold are computed with the maps
# and the memory of the others, as they will be for unseen queries.
FOLDS = 3


class GatheredFeatures(NamedTuple):
    """The features that heads are fitted on, and the maps that they were computed with.

    Args:
        maps: The maps fitted on all training queries; None if there are none.
        recipe: How the maps were trained.
        names: Names of the features.
        features: Features of what each training query retrieves with the maps and the memory of the other
            folds, `(n, depth, features)`.
        cosines: Cosines of what is retrieved, `(n, depth)`.
        relevant: Whether it is labelled, `(n, depth)`.
        remembered: Whether a query of the other folds is labelled with it, `(n, depth)`.
    """

    maps: Maps | None
    recipe: MapRecipe
    names: list[str]
    features: Tensor
    cosines: Tensor
    relevant: np.ndarray
    remembered: np.ndarray


def gather_features(
    data: FitData, arguments: FitArguments, chosen: tuple[Maps | None, MapRecipe] | None = None
) -> GatheredFeatures:
    """Fit the maps, and compute the features of what unseen training queries retrieve.

    Args:
        data: What to fit on.
        arguments: Settings.
        chosen: What `choose_maps` returned for these arguments; None to call it.
    """
    maps, recipe = chosen or choose_maps(data, arguments)
    features, cosines, relevant, remembered, names = [], [], [], [], []
    folds = out_of_fold(data.training, data.documents, recipe, arguments, data.document_words, FOLDS)
    for state, part in folds:
        queries = state.mapped(data.training.select(part))
        found = RetrievedCandidates.retrieve(queries, state.documents, arguments.depth)
        features.append(state.candidate_features(queries, found.rows))
        cosines.append(torch.from_numpy(found.cosines))
        relevant.append(found.relevant)
        remembered.append(np.isin(found.rows, state.remembered))
        names = state.reader.names
    labels = np.concatenate(relevant), np.concatenate(remembered)
    return GatheredFeatures(maps, recipe, names, torch.cat(features), torch.cat(cosines), *labels)


def fit_features(
    data: FitData, arguments: FitArguments, gathered: GatheredFeatures | None = None
) -> RetrieverAdapter:
    """Fit maps, memory and heads.

    Args:
        data: What to fit on.
        arguments: Settings.
        gathered: What `gather_features` returned for these arguments, or for more features.
    """
    if gathered is None:
        gathered = gather_features(data, arguments)
    state = fold_state(data.training, data.documents, gathered.maps, arguments, data.document_words)
    names = state.reader.names
    features = gathered.features[..., [gathered.names.index(name) for name in names]]
    weights = candidate_weights(gathered.relevant, gathered.remembered, arguments)
    of_candidates = features, gathered.relevant, weights
    state.reader.ranking_head = fit_ranking_head(*of_candidates, gathered.cosines, arguments)
    state.reader.relevance_head = fit_relevance_head(*of_candidates, names, arguments)

    adapter = state.adapter.eval()
    retrieved = RetrievedCandidates.retrieve(state.mapped(data.development), state.documents, arguments.depth)
    remembered = np.isin(retrieved.rows, state.remembered)
    weights = candidate_weights(retrieved.relevant, remembered, arguments)
    calibrate(adapter, retrieved, state.documents, state.features, weights.numpy())
    choose_strength(adapter, retrieved, state.documents, state.features)
    adapter.config.fit["maps"] = gathered.recipe._asdict()
    return adapter


def cross_fit_features(
    training: LabelledQueries,
    candidates: np.ndarray,
    documents: np.ndarray,
    words: csr_array | None,
    development: LabelledQueries | None,
    arguments: FitArguments,
    folds: int,
) -> np.ndarray:
    """Return the probability of each candidate, by a head that never saw the labels of its query.

    The features of a query are computed with the maps and the memory of the other folds, among its candidates
    and one of its labelled positives. The relevance head is then fitted on the features of the other folds.

    Args:
        training: The queries.
        candidates: Rows of each query's candidates, `(n, depth)`, -1 where there are none left.
        documents: Embeddings of the documents, `(m, dim)`.
        words: Counts of the documents' words, `(m, vocabulary)`; None to read no words.
        development: Queries to choose the maps' recipe with; None to hold out some of the queries for that.
        arguments: Settings.
        folds: Number of folds.

    Returns:
        `(n, depth)` float32; NaN where there is no candidate.
    """
    _, recipe = choose_maps(
        fit_data(training, candidates, documents, words, development, arguments), arguments
    )
    rng = np.random.default_rng(arguments.seed)
    positive = np.array([rng.choice(rows) for rows in training.positives])
    # An empty place repeats the first candidate; its probability is thrown away.
    first = np.where(candidates[:, :1] < 0, positive[:, None], candidates[:, :1])
    rows = np.column_stack([np.where(candidates < 0, first, candidates), positive])
    relevant = rows == positive[:, None]
    features, remembered, parts = [], [], []
    for state, part in out_of_fold(training, documents, recipe, arguments, words, folds):
        features.append(state.candidate_features(state.mapped(training.select(part)), rows[part]))
        remembered.append(np.isin(rows[part], state.remembered))
        parts.append(part)
    probabilities = np.empty(candidates.shape, dtype=np.float32)
    for fold, part in enumerate(parts):
        others = [other for other in range(len(parts)) if other != fold]
        labels = np.concatenate([relevant[parts[other]] for other in others])
        known = np.concatenate([remembered[other] for other in others])
        weights = candidate_weights(labels, known, arguments)
        taught = torch.cat([features[other] for other in others])
        head = fit_relevance_head(taught, labels, weights, state.reader.names, arguments)
        with torch.no_grad():
            probabilities[part] = expit(head(features[fold])[:, :-1].numpy())
        logger.info("Cross-fitted fold %d of %d", fold + 1, folds)
    return np.where(candidates >= 0, probabilities, np.float32(np.nan))
