"""Settings of a comparison."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

from ..fitting import FitArguments

TRAINING_MODES = ("none", "lora", "full")
LEARNING_RATES = {"none": 2e-4, "lora": 2e-4, "full": 2e-5}


@dataclass(frozen=True)
class CompareArguments:
    """How methods are compared: all with the same pool, budget and seeds.

    Args:
        seeds: Number of seeds each method is run with.
        seed: The first of them; the others follow it.
        fit: Settings of every fit of maps and adapters; `fit.depth` is also the depth of the pool and
            of reranking.
        train: What the strategies of sampling train: `"none"`, linear maps on the frozen embeddings;
            `"lora"` or `"full"`, the encoder.
        steps: Training steps of each strategy.
        batch_size: Pairs a step.
        num_negatives: Mined negatives a pair.
        learning_rate: Peak learning rate of the strategies; None for 2e-4 (maps), 2e-4 (LoRA), 2e-5 (full).
        gamma: How much a probable false negative loses, see `rrra_weights`.
        folds: Folds of the cross-fitted false-negative probabilities.
        injected_rate: Share of the labelled documents that get an unlabelled near-duplicate, where a
            collection has too few positives a query to hide some.
        cross_encoder: Folder or Hub name of a cross-encoder; None leaves out the methods that need one.
        guide: Folder or Hub name of another encoder, to detect false negatives with; None leaves it out.

    Raises:
        ValueError: If a value is outside its legal range.

    Example:
        >>> CompareArguments(seeds=2, seed=5).all_seeds
        [5, 6]
    """

    seeds: int = 3
    seed: int = 0
    fit: FitArguments = field(default_factory=FitArguments)
    train: str = "none"
    steps: int = 250
    batch_size: int = 64
    num_negatives: int = 4
    learning_rate: float | None = None
    gamma: float = 1.0
    folds: int = 5
    injected_rate: float = 0.3
    cross_encoder: str | None = None
    guide: str | None = None

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
        if not 0 < self.injected_rate <= 1:
            raise ValueError(f"injected_rate must be in (0, 1], got {self.injected_rate}.")

    @property
    def all_seeds(self) -> list[int]:
        """The seeds."""
        return list(range(self.seed, self.seed + self.seeds))

    @property
    def peak_learning_rate(self) -> float:
        """Peak learning rate of the strategies."""
        return self.learning_rate or LEARNING_RATES[self.train]

    def settings(self, names: Iterable[str]) -> dict[str, Any]:
        """Return some of the settings as a JSON object, without seeds: each cell has its own."""
        values = asdict(self)
        del values["fit"]["seed"]
        return {name: values[name] for name in names}
