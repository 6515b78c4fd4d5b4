"""Configurations of the adapter and of the model that bundles it with an encoder."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from typing import Any


@dataclass
class AdapterConfig:
    """Everything about a `RetrieverAdapter` that is not a weight; saved as JSON beside the weights.

    Args:
        embedding_dim: Dimension of the query and document embeddings the adapter reads.
        hidden_size: Hidden units of the residual MLP.
        dropout: Dropout after the hidden layer, in training only.
        linear_skip: Add a linear path beside the MLP.
        num_classes: 1 for a relevance logit, 4 for the paper's classes TP / FN / FP / TN.
        query_map: Hold a linear map applied to query embeddings before search (frozen stage 1).
        document_map: Hold a linear map applied to document embeddings before indexing.
        scoring: `"log_odds"`: `cos / tau + lambda * logit`; `"product"` (the paper's form):
            `(cos + 1) / 2 * probability ** lambda`.
        tau: Temperature of the retriever's cosines, as in its contrastive loss; positive.
        lambda_: Weight of the adapter in the reranking score; 0 leaves the retriever's ranking alone.
        temperature: Divides the logits so that `probability` is calibrated; positive.
        fit: What `fit_adapter` recorded about the fitting (settings and development figures).

    Raises:
        ValueError: If a value is outside its legal range.

    Example:
        >>> AdapterConfig(embedding_dim=384).hidden_size
        384
    """

    embedding_dim: int
    hidden_size: int = 384
    dropout: float = 0.0
    linear_skip: bool = False
    num_classes: int = 1
    query_map: bool = False
    document_map: bool = False
    scoring: str = "log_odds"
    tau: float = 0.05
    lambda_: float = 0.0
    temperature: float = 1.0
    fit: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("embedding_dim", "hidden_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}.")
        for name in ("tau", "temperature"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}.")
        if self.lambda_ < 0:
            raise ValueError(f"lambda_ must not be negative, got {self.lambda_}.")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must be in [0, 1), got {self.dropout}.")
        if self.num_classes not in (1, 4):
            raise ValueError(f"num_classes must be 1 or 4, got {self.num_classes}.")
        if self.scoring not in ("log_odds", "product"):
            raise ValueError(f"scoring must be 'log_odds' or 'product', got {self.scoring!r}.")

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> AdapterConfig:
        """Make a config from a JSON object; unknown keys are an error that names them."""
        unknown = sorted(set(values) - {f.name for f in fields(cls)})
        if unknown:
            raise ValueError(
                f"Unknown adapter settings {unknown}; legal are {sorted(f.name for f in fields(cls))}."
            )
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """Return the config as a JSON object."""
        return asdict(self)
