"""Settings of both kinds of fits, and the presets."""

from __future__ import annotations

import json
import pickle
from dataclasses import replace
from typing import Any

import pytest

from rrra_hf.fitting import AnyFitArguments, FitArguments, ResidualFitArguments, fit_arguments
from rrra_hf.models.features_rrra import OF_LABELS, RANKING

ARGUMENTS = [
    FitArguments(),
    FitArguments(maps="query", features=("recalled", "bm25"), even_odds=False, seed=3),
    ResidualFitArguments(),
    ResidualFitArguments(objective="bce", scoring="product", max_steps=7, maps="both"),
]


@pytest.mark.parametrize("kind", [FitArguments, ResidualFitArguments])
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"maps": "document"}, "maps must be one of none, query, both, got 'document'"),
        ({"depth": 0}, "depth must be at least 1, got 0"),
        ({"tau": 0.0}, r"tau must be positive, got 0\.0"),
        ({"tau": float("nan")}, "tau must be positive, got nan"),
    ],
)
def test_settings_of_both_kinds_are_checked(
    kind: type[AnyFitArguments], changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        kind(**changes)
    with pytest.raises(ValueError, match=message):
        replace(kind(), **changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"development_fraction": 0.0}, r"development_fraction must lie between 0 and 1, got 0\.0"),
        ({"development_fraction": 1.0}, r"development_fraction must lie between 0 and 1, got 1\.0"),
        ({"objective": "hinge"}, "objective must be one of listwise, bce, four_class, got 'hinge'"),
        ({"scoring": "sum"}, "scoring must be one of log_odds, product, got 'sum'"),
        ({"hidden_size": 0}, "hidden_size must be at least 1, got 0"),
        ({"max_steps": 0}, "max_steps must be at least 1, got 0"),
        ({"eval_steps": 0}, "eval_steps must be at least 1, got 0"),
        ({"patience": 0}, "patience must be at least 1, got 0"),
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"mined_negatives": -1}, "mined_negatives must not be negative, got -1"),
        ({"segment_weight": -0.5}, r"segment_weight must not be negative, got -0\.5"),
        ({"weight_decay": -0.5}, r"weight_decay must not be negative, got -0\.5"),
        ({"learning_rate": 0.0}, r"learning_rate must be positive, got 0\.0"),
    ],
)
def test_settings_of_a_residual_fit_are_checked(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ResidualFitArguments(**changes)


@pytest.mark.parametrize(
    ("features", "message"),
    [
        (("recalled", "colour"), "features must be among cosine, cosine_gap, .*; got colour"),
        (("cosine", "has_labelled"), "features must be among cosine, .*; got has_labelled"),
        ((), "features must be among cosine, cosine_gap, .*; got None"),
    ],
)
def test_features_are_checked(features: tuple[str, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FitArguments(features=features)


@pytest.mark.parametrize("name", ["objective", "scoring", "hidden_size", "max_steps", "development_fraction"])
def test_a_residual_setting_of_the_default_kind_names_the_kind_that_has_it(name: str) -> None:
    value = getattr(ResidualFitArguments(), name)
    message = (
        rf"{name} is a setting of ResidualFitArguments \(presets residual, paper\), not of FitArguments\."
    )
    for make in (FitArguments, fit_arguments):
        with pytest.raises(ValueError, match=message):
            make(**{name: value})
    with pytest.raises(ValueError, match=message):
        fit_arguments("default", **{name: value})
    with pytest.raises(ValueError, match=message):
        replace(FitArguments(), **{name: value})


@pytest.mark.parametrize(("name", "value"), [("features", ("recalled",)), ("even_odds", False)])
def test_a_default_setting_of_a_residual_kind_names_the_kind_that_has_it(name: str, value: object) -> None:
    message = rf"{name} is a setting of FitArguments \(presets default\), not of ResidualFitArguments\."
    with pytest.raises(ValueError, match=message):
        ResidualFitArguments(**{name: value})
    for preset in ("residual", "paper"):
        with pytest.raises(ValueError, match=message):
            fit_arguments(preset, **{name: value})


@pytest.mark.parametrize("kind", [FitArguments, ResidualFitArguments])
@pytest.mark.parametrize("name", ["colour", "kind", "linear_skip", "dropout", "class_prior", "stage1"])
def test_an_unknown_setting_is_a_type_error(kind: type[AnyFitArguments], name: str) -> None:
    with pytest.raises(TypeError, match=name):
        kind(**{name: 1})


def test_presets() -> None:
    assert fit_arguments() == fit_arguments("default") == FitArguments()
    assert fit_arguments("residual") == ResidualFitArguments()
    assert fit_arguments("default", maps="none", seed=2) == FitArguments(maps="none", seed=2)
    with pytest.raises(ValueError, match="preset must be one of default, residual, paper, got 'papers'"):
        fit_arguments("papers")


def test_the_papers_preset() -> None:
    arguments = fit_arguments("paper", seed=3)
    published = {"objective": "four_class", "scoring": "product", "segment_weight": 1.0}
    assert arguments == ResidualFitArguments(seed=3, **published)
    assert fit_arguments("paper", segment_weight=0.5).segment_weight == 0.5


def test_the_default_fits_maps_on_both_sides_and_reads_everything() -> None:
    arguments = FitArguments()
    assert arguments.maps == "both"
    assert arguments.features == (*RANKING, *OF_LABELS)
    assert arguments.even_odds
    assert (arguments.depth, ResidualFitArguments().depth) == (150, 100)
    assert FitArguments(features=["recalled"]).features == ("recalled",)
    assert ResidualFitArguments().maps == "none"


@pytest.mark.parametrize("arguments", ARGUMENTS)
def test_settings_survive_json_and_pickle(arguments: AnyFitArguments) -> None:
    settings = arguments.to_dict()
    assert json.loads(json.dumps(settings)) == settings
    assert settings.pop("kind") == ("features" if isinstance(arguments, FitArguments) else "residual")
    assert type(arguments)(**settings) == arguments
    assert pickle.loads(pickle.dumps(arguments)) == arguments
