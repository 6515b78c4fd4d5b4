"""Settings of a comparison."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, is_dataclass
from pathlib import Path
from typing import Any, TypeVar

from ..fitting import FitArguments, ResidualFitArguments
from ..models.adapter_weights_rrra import WEIGHTS_NAME

TRAINING_MODES = ("none", "lora", "full")
LEARNING_RATES = {"none": 2e-4, "lora": 2e-4, "full": 2e-5}
# Settings that both kinds of fit have.
SHARED_BY_FITS = ("tau", "depth")

Kind = TypeVar("Kind", FitArguments, ResidualFitArguments)


@dataclass(frozen=True)
class CompareArguments:
    """Settings of a comparison. All methods get the same candidate pool, budget and seeds.

    Args:
        seeds: Number of seeds per method.
        seed: First seed. The others count up from it.
        fit: Settings for fitting adapters of one kind. Adapters of the other kind are fitted with their
            defaults and with the `tau` and `depth` given here. `fit.depth` is also the number of mined
            candidates per query, and the number of documents to rerank.
        train: What the strategies train: `"none"` for linear maps on the frozen embeddings, `"lora"` or
            `"full"` for the encoder.
        steps: Number of training steps per strategy. Where the encoder is trained, they may be fewer, see
            `EarlyStopping`.
        batch_size: Number of pairs per training step.
        num_negatives: Number of mined negatives per pair.
        learning_rate: Peak learning rate of the strategies. By default 2e-4 for maps and LoRA, and 2e-5 for
            full training.
        bf16: Train the encoder in bfloat16 mixed precision.
        gamma: Exponent of the resampling weights, see `rrra_weights`.
        folds: Number of folds for cross-fitting.
        injected_rate: Share of the labelled documents that get an unlabelled near-duplicate. Used only if the
            queries have too few positives to hide some of them. With 0, they are trained on as labelled.
        cross_encoder: Folder or Hub name of a cross-encoder. Without it, methods that need one are left out.
        guide: Folder or Hub name of a second encoder for detecting false negatives. Without it, the detector
            `guide` is left out.
        judge: Folder of the adapter that judges candidates. By default, it is the one that comes trained.

    Raises:
        ValueError: If a value is outside its legal range.

    Example:
        >>> CompareArguments(seeds=2, seed=5).all_seeds
        [5, 6]
    """

    seeds: int = 3
    seed: int = 0
    fit: FitArguments | ResidualFitArguments = field(default_factory=FitArguments)
    train: str = "none"
    steps: int = 250
    batch_size: int = 64
    num_negatives: int = 4
    learning_rate: float | None = None
    bf16: bool = False
    gamma: float = 1.0
    folds: int = 5
    injected_rate: float = 0.3
    cross_encoder: str | None = None
    guide: str | None = None
    judge: str | None = None

    def __post_init__(self) -> None:
        if self.train not in TRAINING_MODES:
            raise ValueError(f"train must be one of {', '.join(TRAINING_MODES)}, got {self.train!r}.")
        for name, least in (
            ("seeds", 1),
            ("seed", 0),
            ("steps", 1),
            ("batch_size", 2),
            ("num_negatives", 1),
            ("folds", 2),
        ):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, got {getattr(self, name)}.")
        if self.learning_rate is not None and not self.learning_rate > 0:
            raise ValueError(f"learning_rate must be positive, got {self.learning_rate}.")
        if not self.gamma >= 0:
            raise ValueError(f"gamma must not be negative, got {self.gamma}.")
        if self.judge is not None and not _weights(self.judge).is_file():
            raise ValueError(f"judge must be the folder of a saved adapter, got {self.judge!r}.")
        if not 0 <= self.injected_rate <= 1:
            raise ValueError(f"injected_rate must be in [0, 1], got {self.injected_rate}.")

    @property
    def all_seeds(self) -> list[int]:
        """The seeds to run each method with."""
        return list(range(self.seed, self.seed + self.seeds))

    @property
    def peak_learning_rate(self) -> float:
        """Peak learning rate of the strategies."""
        return self.learning_rate or LEARNING_RATES[self.train]

    @property
    def features_fit(self) -> FitArguments:
        """Settings for fitting adapters that read features, the default kind."""
        return self._fit_of(FitArguments)

    @property
    def residual_fit(self) -> ResidualFitArguments:
        """Settings for fitting residual adapters."""
        return self._fit_of(ResidualFitArguments)

    def _fit_of(self, kind: type[Kind]) -> Kind:
        if isinstance(self.fit, kind):
            return self.fit
        return kind(**{name: getattr(self.fit, name) for name in SHARED_BY_FITS})

    def settings(self, names: Iterable[str]) -> dict[str, Any]:
        """Return some of the settings as a JSON object, without the seed of a fit: each cell has its own.

        Args:
            names: Names of fields, or `features_fit` or `residual_fit`.
        """
        values = {name: _without_seed(getattr(self, name)) for name in names}
        if values.get("judge") is not None:
            # Wherever it lies.
            values["judge"] = _weights_digest(values["judge"])
        return values


def _weights(folder: str) -> Path:
    return Path(folder) / WEIGHTS_NAME


def _weights_digest(folder: str) -> str:
    return hashlib.sha256(_weights(folder).read_bytes()).hexdigest()[:16]


def _without_seed(value: Any) -> Any:
    if not is_dataclass(value) or isinstance(value, type):
        return value
    return {name: setting for name, setting in asdict(value).items() if name != "seed"}
