"""Fitting an adapter that reads features: what is fitted is chosen by how unseen queries are ranked."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from torch import Tensor

from ..candidates.labelled import LabelledQueries
from ..candidates.reading import Judged, judge_candidates
from ..evaluation import ndcg_per_query, reorder
from ..indexes import WordIndex
from ..models.adapter_rrra import RetrieverAdapter
from ..models.features_rrra import OF_LABELS
from ..models.heads_rrra import Head
from ..models.reader_rrra import FeatureReader
from .arguments import FitArguments
from .calibration import calibrate_relevance
from .data import PRIOR_QUERIES, FitData, deal
from .fold_state import fold_state
from .gathered import GatheredFeatures, gather_both
from .heads import candidate_weights, fit_ranking_head, own_head, started_head
from .maps import ChosenMaps, choose_maps
from .strength import smallest_within_one_standard_error

logger = logging.getLogger(__name__)

PRETRAINED, STARTED, OWN = "pretrained", "started", "own"


@dataclass(frozen=True, eq=False)
class Option:
    """A way to read candidates, and how it ranks queries that it wasn't fitted on.

    Args:
        head: How the ranking head is made: `"pretrained"`, `"started"` from it, or its `"own"`.
        mapped: Whether embeddings are mapped.
        strength: Weight of the head in the score.
        quality: nDCG@10 of each unseen query, `(n,)`.
    """

    head: str
    mapped: bool
    strength: float
    quality: np.ndarray


def fit_features(
    data: FitData,
    arguments: FitArguments,
    chosen: ChosenMaps | None = None,
    gathered: dict[bool, GatheredFeatures] | None = None,
) -> RetrieverAdapter:
    """Fit maps, memory and heads, and keep of them what ranks unseen queries clearly better.

    Every option is judged by nDCG@10 of all training queries, each ranked by what was fitted on the other
    folds, and of the development queries if there are any. From the adapter that comes trained to one that
    has all its own, the first option is taken that is within one standard error of the best. So a few labels
    change nothing, and many change all.

    Args:
        data: What to fit on.
        arguments: Settings.
        chosen: What `choose_maps` returned for these arguments; None to call it.
        gathered: What `gather_features` returned without maps and, if there are any, with maps, for these
            features or more; None to call it.
    """
    chosen = chosen or choose_maps(data, arguments)
    if gathered is None:
        gathered = gather_both(data, arguments, chosen)
    trained = data.start
    options = [
        option for mapped, found in gathered.items() for option in _options(found, mapped, arguments, trained)
    ]
    best = options[_first_within_one_standard_error(options)]
    adapter = _final(data, arguments, chosen, gathered[best.mapped], best, trained)
    adapter.config.fit.update(_record(options, best, chosen))
    logger.info("Chosen: %s head, maps %s, lambda %.2f", best.head, best.mapped, best.strength)
    return adapter


def _options(
    gathered: GatheredFeatures, mapped: bool, arguments: FitArguments, trained: FeatureReader
) -> list[Option]:
    """Return the options without maps, or those with maps, the closest to the trained adapter first."""
    with torch.no_grad():
        ranking = fitted_head(gathered, PRETRAINED, arguments, trained)(gathered.of(arguments.features))
    quality = partial(_quality, gathered, trained.score, arguments.tau)
    options = [
        Option(PRETRAINED, mapped, strength, quality(ranking, strength))
        for strength in reversed(trained.strengths)
    ]
    for head in (STARTED, OWN):
        scores = _unseen(gathered, head, arguments, trained)
        options.append(Option(head, mapped, 1.0, quality(scores, 1.0)))
    return options


def _unseen(gathered: GatheredFeatures, kind: str, arguments: FitArguments, trained: FeatureReader) -> Tensor:
    """Return the score of each candidate by a head that was fitted on other folds, `(n, depth)`."""
    features = gathered.of(arguments.features)
    scores = torch.zeros(gathered.cosines.shape)
    for fold in range(gathered.fold.max() + 1):
        head = fitted_head(gathered, kind, arguments, trained, without=fold)
        mine = gathered.fold == fold
        if fold == 0:
            mine |= gathered.fold == -1
        with torch.no_grad():
            scores[mine] = head(features[mine])
    return scores


def fitted_head(
    gathered: GatheredFeatures,
    kind: str,
    arguments: FitArguments,
    trained: FeatureReader,
    without: int | None = None,
) -> Head:
    """Return a ranking head that was fitted on the training queries.

    Args:
        gathered: The features.
        kind: `"pretrained"`, `"started"` or `"own"`.
        arguments: Settings.
        trained: The reader that the fit starts from.
        without: A fold to leave out; None for none.
    """
    taught = (gathered.fold >= 0) & (gathered.fold != without)
    features, present = gathered.of(arguments.features)[taught], gathered.present[taught]
    relevant, remembered = gathered.relevant[taught], gathered.remembered[taught]
    if kind == OWN:
        head = own_head(features, present, arguments)
    else:
        head = started_head(trained.ranking_head, trained.ranking, arguments.features, features, present)
    if kind == PRETRAINED:
        return head
    judged = relevant | gathered.irrelevant[taught]
    weights = candidate_weights(relevant.numpy(), remembered.numpy(), judged.numpy(), arguments)
    return fit_ranking_head(head, features, present, relevant, weights, arguments, started=kind == STARTED)


def _quality(
    gathered: GatheredFeatures,
    score: Callable[[Tensor, Tensor, float, float], Tensor],
    tau: float,
    ranking: Tensor,
    strength: float,
) -> np.ndarray:
    """Return nDCG@10 of each query, `(n,)`."""
    scores = score(gathered.cosines, ranking, tau, strength)
    ranked = reorder(gathered.relevant.numpy(), scores.numpy())
    return ndcg_per_query(ranked, gathered.num_relevant)


def _first_within_one_standard_error(options: list[Option]) -> int:
    quality = np.stack([option.quality for option in options])
    return smallest_within_one_standard_error(range(len(options)), quality, PRIOR_QUERIES)


def _final(
    data: FitData,
    arguments: FitArguments,
    chosen: ChosenMaps,
    gathered: GatheredFeatures,
    best: Option,
    trained: FeatureReader,
) -> RetrieverAdapter:
    """Return the adapter of an option, fitted on all training queries."""
    if best.head == PRETRAINED:
        # It reads no features of labels: nothing is remembered.
        ranking = tuple(name for name in arguments.features if name not in OF_LABELS)
        arguments = replace(arguments, features=ranking or arguments.features)
    maps = chosen.maps if best.mapped else None
    state = fold_state(data.training, data.documents, maps, arguments, data.document_words)
    state.reader.ranking_head = fitted_head(gathered, best.head, arguments, trained)
    state.reader.relevance_head = copy.deepcopy(trained.relevance_head)
    adapter = state.adapter.eval()
    adapter.config.lambda_ = best.strength
    calibrate_relevance(adapter, gathered)
    return adapter


def _record(options: list[Option], best: Option, chosen: ChosenMaps) -> dict[str, object]:
    """Return what was measured, for the configuration."""
    means = [
        {
            "head": option.head,
            "maps": option.mapped,
            "lambda": option.strength,
            "nDCG@10": float(option.quality.mean()),
        }
        for option in options
    ]
    return {
        "maps": chosen.recipe._asdict(),
        "unseen": {
            "queries": len(best.quality),
            "nDCG@10": {**chosen.quality, "adapter": float(best.quality.mean())},
            "chosen": means[options.index(best)],
            "options": means,
        },
    }


def cross_fit_features(
    training: LabelledQueries,
    candidates: np.ndarray,
    documents: np.ndarray,
    words: WordIndex | None,
    development: LabelledQueries | None,
    arguments: FitArguments,
    folds: int,
    adapter: RetrieverAdapter | None,
) -> Judged:
    """Return the probability of each candidate, at a level that labels of other folds tell, and its score.

    The relevance head comes trained, and reads one labelled document of each query with its candidates.
    Labels say which documents are labelled, not which are relevant: heads that were fitted to them found
    fewer of the hidden relevant documents on 8 of 9 collections. So all that they tell is the level.

    Args:
        training: The queries.
        candidates: Rows of each query's candidates, `(n, depth)`, -1 where there are none left.
        documents: Embeddings of the documents, `(m, dim)`.
        words: The documents' words; None to read no words.
        development: Not used.
        arguments: Settings; `seed` is used.
        folds: Number of folds.
        adapter: Judges; None for the adapter that comes trained.
    """
    return judge_candidates(
        adapter or RetrieverAdapter.pretrained(documents.shape[1]),
        training.embeddings,
        candidates,
        documents,
        training.words,
        words,
        training.positives,
        training.negatives,
        deal(len(training.positives), arguments.seed, folds),
    )
