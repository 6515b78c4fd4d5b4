"""Residual adapters, the paper's kind, on the candidates of the encoder or of maps."""

from __future__ import annotations

from dataclasses import replace

from ...fitting import ResidualFitArguments, fit_arguments
from ...fitting.residual import fit_residual
from ...models.residual_rrra import ResidualReader
from ..ranking import Rank, adapter_searcher, system
from ..trial import Trial
from .maps import data_of, maps_of, pool_of

SETTINGS = ("residual_fit",)
# What makes a fit the paper's. Everything else is as in the other residual systems.
PUBLISHED = ("objective", "scoring", "segment_weight")


@system("residual", "residual adapter on the encoder's candidates", settings=SETTINGS)
def residual(trial: Trial) -> Rank:
    """Rerank the encoder's candidates."""
    return by_residual(trial, trial.arguments.residual_fit)


@system("query-map+residual", "residual adapter on the query-side map's candidates", settings=SETTINGS)
def query_map_residual(trial: Trial) -> Rank:
    """Rerank the candidates of the query-side map."""
    return by_residual(trial, trial.arguments.residual_fit, maps="query")


@system("two-sided-map+residual", "residual adapter on the two-sided map's candidates", settings=SETTINGS)
def two_sided_map_residual(trial: Trial) -> Rank:
    """Rerank the candidates of the two-sided map."""
    return by_residual(trial, trial.arguments.residual_fit, maps="both")


@system("paper", "residual adapter in its published form: objective, constraint and score", settings=SETTINGS)
def paper(trial: Trial) -> Rank:
    """Rerank the encoder's candidates with four classes, segment constraint and product score."""
    published = fit_arguments("paper")
    changes = {name: getattr(published, name) for name in PUBLISHED}
    return by_residual(trial, replace(trial.arguments.residual_fit, **changes))


def by_residual(
    trial: Trial,
    arguments: ResidualFitArguments,
    maps: str = "none",
    make_reader: type[ResidualReader] = ResidualReader,
) -> Rank:
    """Return a search that is reranked by a residual adapter.

    Args:
        trial: The trial.
        arguments: Settings of the fit. `maps` and `seed` are replaced.
        maps: Maps before the adapter: `"none"`, `"query"` or `"both"`.
        make_reader: Class of the network.
    """
    arguments = replace(arguments, maps=maps, seed=trial.seed)
    data = data_of(trial)
    # The fit draws from the pool's positives, which are sorted, as fit_adapter does.
    data = data._replace(training=data.training._replace(positives=pool_of(trial).positives))
    adapter = fit_residual(data, arguments, maps_of(trial, maps), make_reader)
    return adapter_searcher(trial, adapter)
