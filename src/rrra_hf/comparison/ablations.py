"""Ablations: adapters with a part changed or left out. A method with the name of a system is that system."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from ..models.features_rrra import OF_LABELS
from ..models.residual_rrra import ResidualReader
from .methods import Method, methods_of, register
from .ranking import System, ranked_by
from .residual_variants import NoResidual, RandomStart, WithoutCosAC, WithoutCosQA, WithoutCosQC
from .systems.features import by_features, without_features
from .systems.residual import by_residual

# Features that are left out together, beside those of labels, which are left out one by one.
GROUPS: dict[str, tuple[str, ...]] = {
    **{name: (name,) for name in OF_LABELS},
    "words": ("bm25", "bm25_share", "bm25_rank", "bm25_rrf", "coverage", "length"),
    "neighbours": ("consensus", "feedback", "fused_consensus"),
    "query": (
        "best_cosine",
        "cosine_lead",
        "cosine_spread",
        "best_bm25",
        "bm25_lead",
        "overlap",
        "query_length",
    ),
}


def _add_system(name: str) -> None:
    register(replace(methods_of("systems")[name], table="ablations"))


def _add(name: str, about: str, fit: System, settings: str = "residual_fit") -> None:
    register(Method("ablations", name, about, ranked_by(fit), (settings,)))


def _fitted(**changes: Any) -> System:
    """Return a residual adapter with other settings of the fit."""
    return lambda trial: by_residual(trial, replace(trial.arguments.residual_fit, **changes))


def _built(make_reader: type[ResidualReader]) -> System:
    """Return a residual adapter with another network."""
    return lambda trial: by_residual(trial, trial.arguments.residual_fit, make_reader=make_reader)


def _without(names: Iterable[str]) -> System:
    """Return an adapter that doesn't read some of the features."""
    return lambda trial: by_features(trial, without_features(trial, *names))


_add_system("residual")
_add_system("encoder")
_add_system("two-sided-map")
_add_system("two-sided-map+residual")
_add("without-residual", "a = MLP(...) instead of c + MLP(...)", _built(NoResidual))
_add("random-start", "the last layer starts at random instead of zero", _built(RandomStart))
_add("without-cos-qa", "cos(q, a) isn't read", _built(WithoutCosQA))
_add("without-cos-ac", "cos(a, c) isn't read", _built(WithoutCosAC))
_add("without-cos-qc", "cos(q, c) isn't read", _built(WithoutCosQC))
_add("segment-constraint", "a kept close to the segment from c to q", _fitted(segment_weight=1.0))
_add("objective-bce", "class-balanced binary cross-entropy", _fitted(objective="bce"))
_add("objective-four-class", "the four outcomes of the retriever", _fitted(objective="four_class"))
_add("score-product", "the published product of score and probability", _fitted(scoring="product"))
_add_system("features")
for _name, _features in GROUPS.items():
    about = f"the same without {', '.join(_features)}"
    _add(f"features-without-{_name}", about, _without(_features), "features_fit")
