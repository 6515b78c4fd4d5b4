"""Configurations of the adapter and of the model that bundles it with an encoder."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from typing import Any

from transformers import AutoConfig, PreTrainedConfig
from transformers.configuration_utils import SubConfigSpec

POOLING_MODES = ("mean", "cls", "lasttoken")


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
        features: Arguments of the `FeatureReader` that the adapter holds instead of the residual MLP, but for
            `dim` and `tau`; None for the MLP.
        fit: What was recorded about the fitting: settings, sizes of the data, development figures; of a
            model made by `train`, those of its stages too.

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
    features: dict[str, Any] | None = None
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
        if self.features is not None and self.scoring != "log_odds":
            raise ValueError(f"features needs scoring='log_odds', got {self.scoring!r}.")

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


class RRRAConfig(PreTrainedConfig):
    """Configuration of an `RRRAModel`: its encoder, and how embeddings are made from it.

    Args:
        text_config: Configuration of the encoder, of any text model that `AutoModel` knows.
        pooling: How token vectors become one vector: `"mean"`, `"cls"` or `"lasttoken"`.
        normalize: Divide embeddings by their length.
        lora: Arguments of `peft.LoraConfig`; None for an encoder without LoRA.
        adapter: Values of `AdapterConfig`; `embedding_dim` may be left out.
        query_prompt: Text put before each query.
        document_prompt: Text put before each document.
        max_seq_length: Texts are cut to so many tokens; None for the tokenizer's own limit.
        base_model_name: Name of the encoder the model was made from.
        base_model_revision: Commit of it, if it came from the Hub.
        base_weights: Fingerprint of its weights, in a folder that holds LoRA weights without them.

    Raises:
        ValueError: If a value is outside its legal range.

    Example:
        >>> RRRAConfig(text_config={"model_type": "bert", "hidden_size": 384}).adapter["embedding_dim"]
        384
    """

    model_type = "rrra"
    # "backbone_config" would be taken for a vision model's by transformers.
    sub_configs_defaults = {"text_config": SubConfigSpec(config_class=AutoConfig, model_type="bert")}  # noqa: RUF012

    text_config: dict | PreTrainedConfig | None = None
    pooling: str = "mean"
    normalize: bool = True
    lora: dict | None = None
    adapter: dict | None = None
    query_prompt: str = ""
    document_prompt: str = ""
    max_seq_length: int | None = None
    base_model_name: str | None = None
    base_model_revision: str | None = None
    base_weights: str | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        if not isinstance(self.text_config, (dict, PreTrainedConfig, type(None))):
            raise ValueError(
                f"text_config must be a dictionary or a PreTrainedConfig, got {self.text_config!r}."
            )
        super().__post_init__(**kwargs)
        if self.pooling not in POOLING_MODES:
            raise ValueError(f"pooling must be one of {', '.join(POOLING_MODES)}, got {self.pooling!r}.")
        if self.max_seq_length is not None and self.max_seq_length < 1:
            raise ValueError(f"max_seq_length must be at least 1 or None, got {self.max_seq_length}.")
        if self.lora is not None and not isinstance(self.lora, dict):
            raise ValueError(
                f"lora must be a dictionary of peft.LoraConfig's arguments or None, got {self.lora!r}."
            )
        adapter = AdapterConfig.from_dict({"embedding_dim": self.hidden_size, **(self.adapter or {})})
        if adapter.embedding_dim != self.hidden_size:
            raise ValueError(
                f"adapter embedding_dim must be the encoder's hidden size {self.hidden_size}, "
                f"got {adapter.embedding_dim}."
            )
        self.adapter = adapter.to_dict()

    @property
    def hidden_size(self) -> int:
        """Dimension of the embeddings."""
        assert isinstance(self.text_config, PreTrainedConfig)
        return self.text_config.hidden_size
