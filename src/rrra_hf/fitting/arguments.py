"""Settings of adapter fitting, one class per kind of adapter."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any, ClassVar

from ..candidates.hybrid import DEPTH
from ..models.features_rrra import OF_LABELS, RANKING
from ..models.residual_rrra import SCORINGS

MAPS = ("none", "query", "both")
OBJECTIVES = ("listwise", "bce", "four_class")


@dataclass(frozen=True)
class _Arguments:
    """What the fits of both kinds use."""

    maps: str = "both"
    tau: float = 0.05
    depth: int = DEPTH
    seed: int = 0

    kind: ClassVar[str]

    def __new__(cls, *args: Any, **settings: Any) -> Any:
        check_fields(cls, settings)
        return super().__new__(cls)

    def __post_init__(self) -> None:
        _check_choice("maps", self.maps, MAPS)
        _check_least("depth", self.depth, 1)
        _check_positive("tau", self.tau)

    def to_dict(self) -> dict[str, Any]:
        """Return the kind and the settings as a JSON object."""
        settings = {name: list(v) if isinstance(v, tuple) else v for name, v in asdict(self).items()}
        return {"kind": self.kind, **settings}


@dataclass(frozen=True)
class FitArguments(_Arguments):
    """How `fit_adapter` fits an adapter by default: linear maps, then heads that start from the trained ones.

    Args:
        maps: Linear maps to choose among: `"none"`, on the `"query"` side (the index stays as it is), or on
            `"both"` sides (documents have to be indexed again).
        tau: Temperature of the retriever's cosines.
        depth: Number of candidates to find and rerank per query.
        seed: Random seed.
        features: Names of the features that the ranking head reads, see `rrra_hf.models.features_rrra`.
        even_odds: Give unlabelled candidates that are labelled for other training queries less weight. Where
            most documents are labelled for one query, such a candidate almost never has the label of another
            query, and the heads would learn to rank it last. Without it, they learn from the labels as they
            are.

    Raises:
        ValueError: If a value is out of range, or a setting is one of `ResidualFitArguments`.

    Example:
        >>> FitArguments(maps="query").depth
        150
    """

    features: tuple[str, ...] = (*RANKING, *OF_LABELS)
    even_odds: bool = True

    kind = "features"

    def __post_init__(self) -> None:
        super().__post_init__()
        # JSON has lists only.
        object.__setattr__(self, "features", tuple(self.features))
        legal = [*RANKING, *OF_LABELS]
        unknown = sorted(set(self.features) - set(legal))
        if unknown or not self.features:
            got = ", ".join(unknown) or None
            raise ValueError(f"features must be among {', '.join(legal)}; got {got}.")


@dataclass(frozen=True)
class ResidualFitArguments(_Arguments):
    """How `fit_adapter` fits the paper's kind of adapter: a residual network over the two embeddings.

    Args:
        maps: Linear maps to fit before the network: `"none"`, `"query"` or `"both"`.
        tau: Temperature of the retriever's cosines.
        depth: Number of candidates to mine and rerank per query.
        seed: Random seed.
        development_fraction: Share of the training queries to hold out if no development queries are given.
        objective: `"listwise"` (softmax of the positive against the candidates), `"bce"` (binary
            cross-entropy with balanced classes) or `"four_class"` (the outcomes TP / FN / FP / TN).
        scoring: Form of the reranking score, `"log_odds"` or `"product"`, see `ResidualReader`.
        segment_weight: Weight of the paper's segment constraint.
        hidden_size: Hidden units of the network.
        mined_negatives: Number of mined candidates to draw per query and step. The positives of the step's
            other queries are candidates too.
        max_steps: Maximum number of steps.
        eval_steps: Number of steps between evaluations on the development queries.
        patience: Stop after this many evaluations without a better development nDCG@10.
        batch_size: Number of queries per step.
        learning_rate: Peak learning rate of AdamW; it decays linearly over `max_steps`.
        weight_decay: Weight decay of AdamW.

    Raises:
        ValueError: If a value is out of range, or a setting is one of `FitArguments`.

    Source:
        RRRA, arXiv 2508.11670; `fit_arguments("paper")` gives the published settings.

    Example:
        >>> ResidualFitArguments(objective="bce").maps
        'none'
    """

    maps: str = "none"
    depth: int = 100
    development_fraction: float = 0.15
    objective: str = "listwise"
    scoring: str = "log_odds"
    segment_weight: float = 0.0
    hidden_size: int = 384
    mined_negatives: int = 16
    max_steps: int = 1250
    eval_steps: int = 125
    patience: int = 3
    batch_size: int = 32
    learning_rate: float = 1e-3
    weight_decay: float = 0.01

    kind = "residual"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.development_fraction < 1:
            raise ValueError(
                f"development_fraction must lie between 0 and 1, got {self.development_fraction}."
            )
        _check_choice("objective", self.objective, OBJECTIVES)
        _check_choice("scoring", self.scoring, SCORINGS)
        for name in ("hidden_size", "max_steps", "eval_steps", "patience", "batch_size"):
            _check_least(name, getattr(self, name), 1)
        for name in ("mined_negatives", "segment_weight", "weight_decay"):
            _check_least(name, getattr(self, name), 0)
        _check_positive("learning_rate", self.learning_rate)


KINDS: tuple[type[FitArguments] | type[ResidualFitArguments], ...] = (FitArguments, ResidualFitArguments)
AnyFitArguments = FitArguments | ResidualFitArguments
"""Settings of either kind."""

PRESETS: dict[str, tuple[type[FitArguments] | type[ResidualFitArguments], dict[str, Any]]] = {
    "default": (FitArguments, {}),
    "residual": (ResidualFitArguments, {}),
    "paper": (
        ResidualFitArguments,
        {"objective": "four_class", "scoring": "product", "segment_weight": 1.0},
    ),
}


def fit_arguments(preset: str = "default", **settings: Any) -> AnyFitArguments:
    """Return the settings of a preset, with changes.

    Args:
        preset: `"default"`: maps, features and two heads; `"residual"`: a residual network over the two
            embeddings; `"paper"`: the same with the published objective, constraint and score.
        settings: Fields to change.

    Raises:
        ValueError: If the preset is unknown, or a field isn't one of the preset's kind.

    Example:
        >>> fit_arguments("paper", seed=1).scoring
        'product'
        >>> fit_arguments(max_steps=100)
        Traceback (most recent call last):
        ValueError: max_steps is a setting of ResidualFitArguments (presets residual, paper), not of ...
    """
    if preset not in PRESETS:
        raise ValueError(f"preset must be one of {', '.join(PRESETS)}, got {preset!r}.")
    kind, defaults = PRESETS[preset]
    return kind(**{**defaults, **settings})


def check_fields(kind: type, settings: dict[str, Any]) -> None:
    """Raise a ValueError if a setting is one of the other kind, naming the kind and its presets."""
    names = {field.name for field in fields(kind)}
    for name in settings.keys() - names:
        for other in KINDS:
            if name in {field.name for field in fields(other)}:
                presets = [preset for preset, (of, _) in PRESETS.items() if of is other]
                raise ValueError(
                    f"{name} is a setting of {other.__name__} (presets {', '.join(presets)}), "
                    f"not of {kind.__name__}."
                )


def _check_choice(name: str, value: str, legal: tuple[str, ...]) -> None:
    if value not in legal:
        raise ValueError(f"{name} must be one of {', '.join(legal)}, got {value!r}.")


def _check_least(name: str, value: float, least: float) -> None:
    if value < least:
        what = "must not be negative" if least == 0 else f"must be at least {least}"
        raise ValueError(f"{name} {what}, got {value}.")


def _check_positive(name: str, value: float) -> None:
    if not value > 0:
        raise ValueError(f"{name} must be positive, got {value}.")
