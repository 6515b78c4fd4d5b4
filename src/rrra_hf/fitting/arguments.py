"""Settings of adapter fitting."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

from ..models.features_rrra import FEATURES, OF_WORDS

OBJECTIVES = ("listwise", "bce", "four_class")
STAGE1 = ("none", "query", "both")


@dataclass(frozen=True)
class FitArguments:
    """How `fit_adapter` fits.

    Args:
        objective: `"listwise"` (softmax of the positive against the candidates), `"bce"` (weighted
            binary cross-entropy) or `"four_class"` (the retriever's outcomes TP / FN / FP / TN).
        stage1: Linear maps fitted before the adapter: `"none"`, on the `"query"` side (the index stays
            as it is) or on `"both"` sides (documents are to be indexed again).
        features: Pieces of features for a head that reads features instead of a residual one, of
            `FEATURES`; `"words"` and `"expansion"` are left out where no words are given. Of the other
            settings it uses `stage1`, `tau`, `depth`, `development_fraction` and `seed`.
        even_odds: A document that another training query is labelled with shall not be less probable for
            that: where such documents are labelled more seldom than others, as they are if most documents
            have one query, they count less as negatives of an features head. Without, it learns from the
            labels as they are, and will rank last what past queries asked for.
        hidden_size: Hidden units of the adapter.
        linear_skip: Add a linear path beside the MLP.
        dropout: Dropout after the hidden layer.
        scoring: Form of the reranking score, `"log_odds"` or `"product"`.
        tau: Temperature of the retriever's cosines.
        depth: Candidates mined for each query; also the depth that is reranked on development queries.
        mined_negatives: Candidates drawn for each query and step from its mined ones.
        random_negatives: Documents drawn uniformly for each step, shared by its queries; the positives
            of the step's other queries always serve as candidates too.
        segment_weight: Weight of the segment constraint.
        class_balance: Let the classes of `"bce"` and `"four_class"` weigh the same, however rare they are.
        class_prior: Share of relevant documents among the candidates, for the positive-unlabelled
            correction of `"bce"`; `None` takes unlabelled candidates for negatives.
        max_steps: At most this many steps; a budget in steps costs the same time on every collection.
        eval_steps: Measure the development queries after this many steps.
        patience: Stop after this many measurements without a better development nDCG@10.
        batch_size: Queries a step.
        learning_rate: Peak learning rate of AdamW, decaying linearly over `max_steps`.
        weight_decay: Weight decay of AdamW.
        development_fraction: Share of the training queries held out where no development queries
            are given.
        seed: Seed of everything random.

    Raises:
        ValueError: If a value is outside its legal range.

    Example:
        >>> FitArguments(stage1="query").objective
        'listwise'
    """

    objective: str = "listwise"
    stage1: str = "none"
    features: tuple[str, ...] = ()
    even_odds: bool = True
    hidden_size: int = 384
    linear_skip: bool = False
    dropout: float = 0.0
    scoring: str = "log_odds"
    tau: float = 0.05
    depth: int = 100
    mined_negatives: int = 16
    random_negatives: int = 0
    segment_weight: float = 0.0
    class_balance: bool = True
    class_prior: float | None = None
    max_steps: int = 1250
    eval_steps: int = 125
    patience: int = 3
    batch_size: int = 32
    learning_rate: float = 1e-3
    weight_decay: float = 0.01
    development_fraction: float = 0.15
    seed: int = 0

    def __post_init__(self) -> None:
        for name, legal in (
            ("objective", OBJECTIVES),
            ("stage1", STAGE1),
            ("scoring", ("log_odds", "product")),
        ):
            if getattr(self, name) not in legal:
                raise ValueError(f"{name} must be one of {', '.join(legal)}, got {getattr(self, name)!r}.")
        for name in ("hidden_size", "depth", "max_steps", "eval_steps", "patience", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}.")
        for name in ("mined_negatives", "random_negatives", "segment_weight", "weight_decay"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)}.")
        for name in ("tau", "learning_rate"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}.")
        for name in ("development_fraction", "class_prior"):
            if getattr(self, name) is not None and not 0 < getattr(self, name) < 1:
                raise ValueError(f"{name} must lie between 0 and 1, got {getattr(self, name)}.")
        if self.class_prior is not None and self.objective != "bce":
            raise ValueError(f"class_prior needs objective='bce', got objective={self.objective!r}.")
        # JSON has lists only.
        object.__setattr__(self, "features", tuple(self.features))
        unknown = sorted(set(self.features) - set(FEATURES))
        if unknown:
            raise ValueError(f"features must be among {', '.join(FEATURES)}; got {', '.join(unknown)}.")
        if self.features and (self.objective, self.scoring) != ("listwise", "log_odds"):
            raise ValueError(
                "features needs objective='listwise' and scoring='log_odds', "
                f"got {self.objective!r} and {self.scoring!r}."
            )

    @property
    def reads_words(self) -> bool:
        """Whether words are among the features, if they are given."""
        return any(name in OF_WORDS for name in self.features)

    @classmethod
    def preset(cls, name: str = "default", **changes: Any) -> FitArguments:
        """Return a named set of arguments, with changes.

        Args:
            name: `"default"`; `"features"`: two-sided maps and a head that reads all features; or
                `"paper"`: the published form (four classes, segment constraint, product score).
            **changes: Fields to set otherwise.

        Raises:
            ValueError: If the preset is unknown.

        Example:
            >>> FitArguments.preset("paper").scoring
            'product'
        """
        presets = {
            "default": cls(),
            "features": cls(stage1="both", features=FEATURES),
            "paper": cls(objective="four_class", scoring="product", segment_weight=1.0),
        }
        if name not in presets:
            raise ValueError(f"preset must be one of {', '.join(presets)}, got {name!r}.")
        return replace(presets[name], **changes)

    def to_dict(self) -> dict[str, Any]:
        """Return the arguments as a JSON object."""
        return {**asdict(self), "features": list(self.features)}
