"""Adapters that read features: the one that comes trained, and those fitted on labels."""

from __future__ import annotations

from dataclasses import replace

from ...fitting import FitArguments
from ...fitting.features import fit_features
from ...fitting.gathered import gather_both
from ...models.adapter_rrra import RetrieverAdapter
from ...models.features_rrra import OF_LABELS, RANKING
from ..ranking import Rank, adapter_searcher, system
from ..trial import Trial
from .maps import data_of, maps_of

SETTINGS = ("features_fit",)


@system("pretrained", "the adapter that comes trained, without any label", seeded=False)
def pretrained(trial: Trial) -> Rank:
    """Rerank with the adapter that comes with the package."""
    return adapter_searcher(trial, RetrieverAdapter.pretrained())


@system(
    "features", "adapter fitted on the labels, with maps of both sides where they help", settings=SETTINGS
)
def features(trial: Trial) -> Rank:
    """Fit an adapter as `fit_adapter` does by default."""
    return by_features(trial, trial.arguments.features_fit)


@system(
    "features-as-labelled",
    "the same, fitted to the labels as they are: without even odds",
    settings=SETTINGS,
)
def features_as_labelled(trial: Trial) -> Rank:
    """Rerank by heads that may learn to rank documents labelled for other training queries last."""
    return by_features(trial, replace(trial.arguments.features_fit, even_odds=False))


@system(
    "query-map+features",
    "the same, with maps of queries only: no new index",
    settings=SETTINGS,
)
def query_map_features(trial: Trial) -> Rank:
    """Fit an adapter for indexed documents that stay as they are."""
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
        maps: Maps to choose among: `"none"`, `"query"` or `"both"`.
    """
    arguments = replace(arguments, maps=maps, seed=trial.seed)
    data, everything = data_of(trial), replace(arguments, features=(*RANKING, *OF_LABELS))
    chosen = maps_of(trial, maps)
    gathered = trial.once(("features", maps), lambda: gather_both(data, everything, chosen))
    return adapter_searcher(trial, fit_features(data, arguments, chosen, gathered))
