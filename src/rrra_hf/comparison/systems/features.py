"""Adapters that read features, the default kind, on the candidates of maps."""

from __future__ import annotations

from dataclasses import replace

from ...fitting import FitArguments
from ...fitting.features import fit_features, gather_features
from ...models.features_rrra import FEATURES, OF_WORDS
from ..ranking import Rank, adapter_searcher, system
from ..trial import Trial
from .maps import data_of, maps_of

SETTINGS = ("features_fit",)


@system("features", "adapter that reads features, on the two-sided map's candidates", settings=SETTINGS)
def features(trial: Trial) -> Rank:
    """Rerank the candidates of the two-sided map."""
    return by_features(trial, trial.arguments.features_fit)


@system("features-no-words", "the same without words: from embeddings alone", settings=SETTINGS)
def features_no_words(trial: Trial) -> Rank:
    """Rerank by the features that need no words."""
    return by_features(trial, without_features(trial, *OF_WORDS))


@system(
    "features-as-labelled",
    "adapter that reads features, fitted to the labels as they are: without even odds",
    settings=SETTINGS,
)
def features_as_labelled(trial: Trial) -> Rank:
    """Rerank by heads that may learn to rank documents labelled for other training queries last."""
    return by_features(trial, replace(trial.arguments.features_fit, even_odds=False))


@system(
    "query-map+features",
    "adapter that reads features, on the query-side map's candidates: no new index",
    settings=SETTINGS,
)
def query_map_features(trial: Trial) -> Rank:
    """Rerank the candidates of the query-side map. The indexed documents stay as they are."""
    return by_features(trial, trial.arguments.features_fit, maps="query")


def without_features(trial: Trial, *names: str) -> FitArguments:
    """Return the trial's settings for fitting features, without some of them."""
    arguments = trial.arguments.features_fit
    return replace(arguments, features=tuple(name for name in arguments.features if name not in names))


def by_features(trial: Trial, arguments: FitArguments, maps: str = "both") -> Rank:
    """Return a search that is reranked by an adapter that reads features.

    Args:
        trial: The trial.
        arguments: Settings of the fit. `maps` and `seed` are replaced.
        maps: Maps before the adapter: `"none"`, `"query"` or `"both"`.
    """
    arguments = replace(arguments, maps=maps, seed=trial.seed)
    data, everything = data_of(trial), replace(arguments, features=tuple(FEATURES))
    gathered = trial.once(("features", maps), lambda: gather_features(data, everything, maps_of(trial, maps)))
    return adapter_searcher(trial, fit_features(data, arguments, gathered))
