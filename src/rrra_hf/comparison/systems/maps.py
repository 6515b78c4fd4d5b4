"""The frozen encoder, and linear maps of its embeddings."""

from __future__ import annotations

from dataclasses import replace

from ...candidates import CandidatePool, mine_embeddings
from ...fitting.data import FitData
from ...fitting.maps import ChosenMaps, choose_maps
from ..ranking import Rank, searcher, system
from ..trial import Trial


@system("encoder", "cosine of the frozen encoder's embeddings", seeded=False)
def encoder(trial: Trial) -> Rank:
    """Search with the embeddings as they are."""
    return searcher(trial.task.documents, trial.arguments.fit.depth)


@system("query-map", "residual linear map of the query embeddings")
def query_map(trial: Trial) -> Rank:
    """Search with mapped queries."""
    return _mapped(trial, "query")


@system("two-sided-map", "residual linear maps of query and document embeddings")
def two_sided_map(trial: Trial) -> Rank:
    """Search with mapped queries among mapped documents."""
    return _mapped(trial, "both")


def _mapped(trial: Trial, sides: str) -> Rank:
    maps = maps_of(trial, sides).maps
    if maps is None:
        return encoder(trial)
    documents = maps.map_documents(trial.task.documents)
    return searcher(documents, trial.arguments.fit.depth, maps.map_queries)


def maps_of(trial: Trial, sides: str) -> ChosenMaps:
    """Return the maps of a trial and how they were chosen. They are fitted once.

    Args:
        trial: The trial.
        sides: `"none"`, `"query"` or `"both"`.
    """
    arguments = replace(trial.arguments.features_fit, maps=sides, seed=trial.seed)
    return trial.once(("maps", sides), lambda: choose_maps(data_of(trial), arguments))


def data_of(trial: Trial) -> FitData:
    """Return what adapters are fitted on, with candidates mined by the frozen encoder."""
    words, documents = trial.task.words, trial.task.documents
    training, development = (part.labelled(words) for part in (trial.training, trial.development))
    return FitData(training, pool_of(trial).candidates, documents, development, words)


def pool_of(trial: Trial) -> CandidatePool:
    """Return the candidates of the training queries, mined once by the frozen encoder."""
    training = trial.training

    def mined() -> CandidatePool:
        return mine_embeddings(
            training.embeddings,
            trial.task.documents,
            training.positives,
            depth=trial.arguments.fit.depth,
            negatives=training.negatives,
            excluded=training.excluded,
        )

    return trial.once("pool", mined)
