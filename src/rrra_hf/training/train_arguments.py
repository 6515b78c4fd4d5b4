"""Settings of the three stages."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from ..fitting import FitArguments
from ..labels.weights import MODES as SAMPLING

TRAINING_MODES = ("lora", "full")
LEARNING_RATES = {"lora": 2e-4, "full": 2e-5}


@dataclass(frozen=True)
class TrainArguments:
    """How `train` trains.

    Stage 1 and stage 3 train the encoder, with the temperature `fit.tau`; stage 2 and the final refit
    fit adapters by `fit`.

    Args:
        mode: `"lora"` trains LoRA weights, `"full"` the whole encoder.
        lora: Arguments of `peft.LoraConfig`; None for r=16 on all linear layers.
        max_seq_length: Texts are cut to so many tokens; None for what the encoder says.
        stage1_epochs: Passes over the (query, positive) pairs in stage 1.
        stage1_max_steps: Steps of stage 1, whatever `stage1_epochs` says.
        stage3_epochs: Passes over the pairs in stage 3, each with newly drawn negatives.
        stage3_max_steps: Steps of stage 3, whatever `stage3_epochs` says.
        batch_size: Pairs a step, of all processes together.
        learning_rate: Peak learning rate, reached after a tenth of the steps and decaying linearly;
            None for 2e-4 with LoRA and 2e-5 without.
        stage3_learning_rate: The same for stage 3; None for that of stage 1.
        weight_decay: Weight decay of AdamW.
        num_negatives: Mined negatives for each pair in stage 3.
        sampling: `"uniform"` draws, weighted in the loss, or `"sample"`: draws by weight.
        gamma: How much a probable false negative loses, see `rrra_weights`.
        hardness: How much a high-ranking candidate gains, see `rrra_weights`.
        drop_above_positive: Set aside, too, candidates that the encoder scores above the query's best labelled
            document, see `drop_above_positive`; needs `gamma` above 0. With `sampling="sample"` they
            are not drawn for the query, but count where another query of the batch has drawn them.
        folds: Folds of the cross-fitted false-negative probabilities.
        refresh_steps: Mine anew after every so many steps of stage 3, see `Refresh`; None for never. The
            probabilities are then those of a head fitted on the development queries.
        refresh_epochs: The same, counted in epochs; give one of the two.
        save_steps: Steps between checkpoints: what an interrupted run loses at most.
        encode_batch_size: Texts a forward pass when encoding.
        bf16: Train in bfloat16 mixed precision.
        fp16: Train in float16 mixed precision.
        gradient_checkpointing: Compute activations twice to save memory.
        fall_back: Keep the encoder of stage 1 where that of stage 3 ranks the development queries worse:
            hard negatives don't pay on every collection.
        seed: Seed of everything random, but for that of `fit`.
        fit: Settings of adapter fitting; `fit.depth` is the depth of the pool, and
            `fit.development_fraction` is held out where the collection has no split `dev`.

    Raises:
        ValueError: If a value is outside its legal range.

    Example:
        >>> TrainArguments(mode="full").peak_learning_rate(stage=3)
        2e-05
    """

    mode: str = "lora"
    lora: dict[str, Any] | None = None
    max_seq_length: int | None = None
    stage1_epochs: int = 1
    stage1_max_steps: int | None = None
    stage3_epochs: int = 1
    stage3_max_steps: int | None = None
    batch_size: int = 32
    learning_rate: float | None = None
    stage3_learning_rate: float | None = None
    weight_decay: float = 0.0
    num_negatives: int = 4
    sampling: str = "uniform"
    gamma: float = 1.0
    hardness: float = 0.0
    drop_above_positive: bool = False
    folds: int = 5
    refresh_steps: int | None = None
    refresh_epochs: int | None = None
    save_steps: int = 500
    encode_batch_size: int = 64
    bf16: bool = False
    fp16: bool = False
    gradient_checkpointing: bool = False
    fall_back: bool = True
    seed: int = 0
    fit: FitArguments = field(default_factory=FitArguments)

    def __post_init__(self) -> None:
        for name, legal in (("mode", TRAINING_MODES), ("sampling", SAMPLING)):
            if getattr(self, name) not in legal:
                raise ValueError(f"{name} must be one of {', '.join(legal)}, got {getattr(self, name)!r}.")
        if self.lora is not None and self.mode != "lora":
            raise ValueError(f"lora needs mode='lora', got mode={self.mode!r}.")
        for name, least in (
            ("stage1_epochs", 1),
            ("stage1_max_steps", 1),
            ("stage3_epochs", 1),
            ("stage3_max_steps", 1),
            ("batch_size", 2),
            ("num_negatives", 1),
            ("folds", 2),
            ("refresh_steps", 1),
            ("refresh_epochs", 1),
            ("save_steps", 1),
            ("encode_batch_size", 1),
            ("max_seq_length", 1),
        ):
            value = getattr(self, name)
            if value is not None and value < least:
                raise ValueError(f"{name} must be at least {least}, got {value}.")
        for name in ("weight_decay", "gamma", "hardness"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)}.")
        for name in ("learning_rate", "stage3_learning_rate"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"{name} must be positive, got {value}.")
        if self.drop_above_positive and not self.gamma:
            raise ValueError(
                "drop_above_positive needs gamma above 0, got 0: probabilities would weigh nothing."
            )
        if self.refresh_steps is not None and self.refresh_epochs is not None:
            raise ValueError("refresh_steps and refresh_epochs exclude each other.")
        if self.bf16 and self.fp16:
            raise ValueError("bf16 and fp16 exclude each other.")

    def peak_learning_rate(self, stage: int) -> float:
        """Return the peak learning rate of stage 1 or 3."""
        stage1 = self.learning_rate or LEARNING_RATES[self.mode]
        return (self.stage3_learning_rate or stage1) if stage == 3 else stage1

    def to_dict(self) -> dict[str, Any]:
        """Return the arguments as a JSON object."""
        return asdict(self)
