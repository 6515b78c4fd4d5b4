"""Settings of the three stages."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from ..fitting import AnyFitArguments, FitArguments, ResidualFitArguments
from ..losses.targets import TARGETS
from .reporting import check_report_to

MODES = ("lora", "full")
LEARNING_RATES = {"lora": 2e-4, "full": 2e-5}
LEAST = {
    "stage1_epochs": 1,
    "stage1_max_steps": 1,
    "stage3_epochs": 1,
    "stage3_max_steps": 1,
    "batch_size": 2,
    "num_negatives": 1,
    "folds": 2,
    "refresh_steps": 1,
    "refresh_epochs": 1,
    "save_steps": 1,
    "save_total_limit": 1,
    "eval_steps": 1,
    "encode_batch_size": 1,
    "max_seq_length": 1,
}


@dataclass(frozen=True)
class TrainArguments:
    """How `train` trains.

    Stages 1 and 3 train the encoder, with the temperature `fit.tau`. Stage 2 and the final fit use `fit`.

    Args:
        mode: `"lora"` trains LoRA weights, `"full"` trains all weights of the encoder.
        lora: Arguments of `peft.LoraConfig`; by default r=16 on all linear layers.
        max_seq_length: Texts are cut to this many tokens; by default the encoder's own limit.
        stage1_epochs: Number of passes over the (query, positive) pairs in stage 1.
        stage1_max_steps: Number of steps of stage 1; overrides `stage1_epochs`.
        stage3_epochs: Number of passes over the pairs in stage 3, each with newly drawn negatives.
        stage3_max_steps: Number of steps of stage 3; overrides `stage3_epochs`.
        batch_size: Pairs per step, of all processes together.
        learning_rate: Peak learning rate. It is reached after a tenth of the steps and decays linearly; by
            default 2e-4 with LoRA and 2e-5 without.
        num_negatives: Mined negatives per pair in stage 3.
        targets: What the probability of a mined negative does in the loss of stage 3: `"drop"`, `"weights"`,
            `"soft"`, `"relabel"` or `"distill"`, as in `RRRALoss`.
        gamma: With `"weights"`, their exponent: the greater it is, the less a probable false negative
            counts. See `rrra_weights`.
        drop_above_positive: Give no weight to candidates that the encoder scores above the query's best
            labelled document, see `drop_above_positive`; `gamma` must be above 0.
        folds: Number of folds to cross-fit the false-negative probabilities.
        refresh_steps: Mine again and recompute the probabilities every this many steps of stage 3, see
            `Refresh`; never by default. The probabilities then come from an adapter that is fitted on the
            development queries, so that these have a small part in stage 3 before they compare it with the
            others.
        refresh_epochs: The same, counted in epochs; give one of the two.
        save_steps: Number of steps between checkpoints.
        save_total_limit: Number of checkpoints to keep of a stage that isn't finished.
        eval_steps: Evaluate the encoder every this many steps of stages 1 and 3, by sentence-transformers'
            `InformationRetrievalEvaluator`; never by default. It is evaluated on at most 200 development
            queries, and on the documents that are labelled for them or hard for the encoder as it came. This
            changes nothing in the training.
        report_to: Where the trainer sends its logs, by the names of transformers: `"tensorboard"`,
            `"wandb"`, ..., several of them, or `"none"`.
        encode_batch_size: Encoder batch size.
        bf16: Train in bfloat16 mixed precision.
        fp16: Train in float16 mixed precision.
        gradient_checkpointing: Save memory by computing activations twice.
        development_fraction: Share of the training queries to hold out if the collection has no split `dev`.
        seed: Random seed of the training; `fit` has its own.
        fit: Settings of adapter fitting, `FitArguments` or `ResidualFitArguments`. `fit.depth` is the depth
            of the pool.

    Raises:
        ValueError: If a value is out of range.
        ImportError: If `report_to` names a package that isn't installed.

    Example:
        >>> TrainArguments(mode="full").peak_learning_rate
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
    num_negatives: int = 4
    targets: str = "drop"
    gamma: float = 1.0
    drop_above_positive: bool = False
    folds: int = 5
    refresh_steps: int | None = None
    refresh_epochs: int | None = None
    save_steps: int = 500
    save_total_limit: int = 2
    eval_steps: int | None = None
    report_to: str | list[str] = "none"
    encode_batch_size: int = 64
    bf16: bool = False
    fp16: bool = False
    gradient_checkpointing: bool = False
    development_fraction: float = 0.15
    seed: int = 0
    fit: AnyFitArguments = field(default_factory=FitArguments)

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise ValueError(f"mode must be one of {', '.join(MODES)}, got {self.mode!r}.")
        if self.lora is not None and self.mode != "lora":
            raise ValueError(f"lora needs mode='lora', got mode={self.mode!r}.")
        for name, least in LEAST.items():
            value = getattr(self, name)
            if value is not None and value < least:
                raise ValueError(f"{name} must be at least {least}, got {value}.")
        if self.targets not in TARGETS:
            raise ValueError(f"targets must be one of {', '.join(TARGETS)}, got {self.targets!r}.")
        if not self.gamma >= 0:
            raise ValueError(f"gamma must not be negative, got {self.gamma}.")
        if self.gamma != 1.0 and self.targets != "weights":
            raise ValueError(f"gamma needs targets='weights', got {self.gamma} with {self.targets!r}.")
        if self.targets == "distill" and isinstance(self.fit, ResidualFitArguments):
            raise ValueError("targets='distill' needs an adapter that ranks candidates, not a residual one.")
        if not 0 < self.development_fraction < 1:
            raise ValueError(
                f"development_fraction must lie between 0 and 1, got {self.development_fraction}."
            )
        if self.learning_rate is not None and not self.learning_rate > 0:
            raise ValueError(f"learning_rate must be positive, got {self.learning_rate}.")
        if self.drop_above_positive and not self.gamma:
            raise ValueError(
                "drop_above_positive needs gamma above 0, got 0: all candidates would weigh the same."
            )
        if self.refresh_steps is not None and self.refresh_epochs is not None:
            raise ValueError("refresh_steps and refresh_epochs exclude each other.")
        if self.bf16 and self.fp16:
            raise ValueError("bf16 and fp16 exclude each other.")
        check_report_to(self.report_to)

    @property
    def peak_learning_rate(self) -> float:
        """The peak learning rate, given or by default."""
        return self.learning_rate or LEARNING_RATES[self.mode]

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as a JSON object."""
        return {**asdict(self), "fit": self.fit.to_dict()}
