"""Configurations of the adapter and of the model that bundles it with an encoder."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from numbers import Real
from typing import Any

from transformers import AutoConfig, PreTrainedConfig
from transformers.configuration_utils import SubConfigSpec

from .after_pooling_rrra import check_after_pooling
from .pooling_rrra import pooling_modes

# Adapters and indexes compare cosines.
SIMILARITIES = ("cosine", "dot")

# Version of a saved adapter's settings. Version 1 had the reader's settings side by side with the others;
# version 2 had another reader of the kind "features".
FORMAT_VERSION = 3
VERSION_1_READER = ("hidden_size", "dropout", "linear_skip", "num_classes", "scoring", "evidence")


def _default_reader() -> dict[str, Any]:
    return {"kind": "features"}


# Of the settings that are numbers.
LARGEST = 1e9


@dataclass
class AdapterConfig:
    """Configuration of a `RetrieverAdapter`, saved as JSON with its weights.

    Args:
        embedding_dim: Dimension of the query and document embeddings that the adapter reads; None for any.
        reader: What reads the candidates: `"kind"`, `"features"` or `"residual"`, and the sizes of that kind,
            the arguments of `FeatureReader` or `ResidualReader`. `"features_v2"` is the kind of
            `Version2Reader`.
        query_map: Whether the adapter holds a linear map for query embeddings, applied before search.
        document_map: Whether the adapter holds a linear map for document embeddings, applied before indexing.
        tau: Temperature of the retriever's cosines, as in its contrastive loss; positive.
        lambda_: Weight of the adapter in the reranking score; 0 keeps the retriever's ranking.
        temperature: Divides the log-odds of relevance so that `probability` is calibrated; positive.
        fit: What was recorded when the adapter was fitted: settings, sizes of the data, development figures,
            and the stages of a model made by `train`.

    Raises:
        ValueError: If a value is out of range.

    Example:
        >>> AdapterConfig(embedding_dim=384).reader
        {'kind': 'features'}
    """

    embedding_dim: int | None = None
    reader: dict[str, Any] = field(default_factory=_default_reader)
    query_map: bool = False
    document_map: bool = False
    tau: float = 0.05
    lambda_: float = 0.0
    temperature: float = 1.0
    fit: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        dim = self.embedding_dim
        if dim is not None and (not isinstance(dim, int) or dim < 1):
            raise ValueError(f"embedding_dim must be at least 1, got {dim!r}.")
        for name in ("query_map", "document_map"):
            if not isinstance(getattr(self, name), bool):
                raise ValueError(f"{name} must be true or false, got {getattr(self, name)!r}.")
        for name in ("tau", "temperature"):
            if not _is_number(getattr(self, name)) or not getattr(self, name) > 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)!r}.")
        if not _is_number(self.lambda_) or self.lambda_ < 0:
            raise ValueError(f"lambda_ must not be negative, got {self.lambda_!r}.")
        if dim is None and (self.query_map or self.document_map):
            raise ValueError("embedding_dim must be given with query_map or document_map.")
        if not isinstance(self.reader, dict) or "kind" not in self.reader:
            raise ValueError(f"reader must be a dictionary with a kind, got {self.reader!r}.")
        if not isinstance(self.fit, dict):
            raise ValueError(f"fit must be a dictionary, got {self.fit!r}.")

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> AdapterConfig:
        """Make a configuration from a JSON object, also from one of format version 1.

        Raises:
            ValueError: If a key is unknown, or the format is newer than this package.
        """
        if not isinstance(values, dict):
            raise ValueError(f"adapter must be a dictionary, got {values!r}.")
        values = dict(values)
        version = values.pop("format_version", FORMAT_VERSION)
        if not isinstance(version, int):
            raise ValueError(f"format_version must be a number, got {version!r:.80}.")
        if version > FORMAT_VERSION:
            raise ValueError(
                f"The adapter was saved in format version {version}; this package reads versions up to "
                f"{FORMAT_VERSION}. Install a newer rrra-hf."
            )
        if values.keys() & set(VERSION_1_READER):
            values, version = _from_version_1(values), 1
        reader = values.get("reader")
        if version < FORMAT_VERSION and isinstance(reader, dict) and reader.get("kind") == "features":
            values["reader"] = {**reader, "kind": "features_v2"}
        unknown = sorted(set(values) - {f.name for f in fields(cls)})
        if unknown:
            raise ValueError(
                f"Unknown adapter settings {unknown}; legal are {sorted(f.name for f in fields(cls))}."
            )
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """Return the configuration as a JSON object."""
        return {"format_version": FORMAT_VERSION, **asdict(self)}


def _is_number(value: object) -> bool:
    # Not NaN, and no integer that is too large for a float.
    return isinstance(value, Real) and -LARGEST <= value <= LARGEST  # type: ignore[operator]


def _from_version_1(values: dict[str, Any]) -> dict[str, Any]:
    """Return settings of format version 1 as this version names them."""
    old = {name: values.pop(name) for name in VERSION_1_READER if name in values}
    if old.get("linear_skip"):
        raise ValueError(
            "The adapter was fitted with linear_skip, which is not supported any more; fit it again."
        )
    if isinstance(old.get("evidence"), dict):
        return {**values, "reader": {"kind": "features", **old["evidence"]}}
    kept = {name: old[name] for name in ("hidden_size", "num_classes", "scoring") if name in old}
    return {**values, "reader": {"kind": "residual", **kept}}


class RRRAConfig(PreTrainedConfig):
    """Configuration of an `RRRAModel`: its encoder, and how embeddings are made from it.

    Args:
        text_config: Configuration of the encoder, of any text model that `AutoModel` knows.
        pooling: How token vectors become one vector, see `pool_tokens`: `"mean"`, `"cls"`, `"lasttoken"`,
            `"max"`, `"mean_sqrt_len_tokens"`, `"weightedmean"`, or a list of several.
        after_pooling: Modules between pooling and the embedding, see `check_after_pooling`.
        normalize: Divide embeddings by their length, after these modules.
        truncate_dim: Keep only the first so many dimensions of embeddings; None for all.
        lora: Arguments of `peft.LoraConfig`; None for an encoder without LoRA.
        adapter: Values of `AdapterConfig`; `embedding_dim` may be left out.
        query_prompt: Text put before each query.
        document_prompt: Text put before each document.
        prompts: Other prompts by name, kept for `SentenceTransformer.encode(..., prompt_name=...)`.
        default_prompt_name: Name of the prompt that `SentenceTransformer.encode` puts before texts if it is
            told none. `encode_query` and `encode_document` don't use it, so neither queries nor documents
            get it.
        similarity_fn_name: `"cosine"`, or `"dot"` if embeddings are of length 1, so that it is the same.
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
    pooling: str | list = "mean"
    after_pooling: list | None = None
    normalize: bool = True
    truncate_dim: int | None = None
    lora: dict | None = None
    adapter: dict | None = None
    query_prompt: str = ""
    document_prompt: str = ""
    prompts: dict | None = None
    default_prompt_name: str | None = None
    similarity_fn_name: str = "cosine"
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
        if not isinstance(self.normalize, bool):
            raise ValueError(f"normalize must be true or false, got {self.normalize!r}.")
        for name in ("max_seq_length", "truncate_dim"):
            size = getattr(self, name)
            if size is not None and (type(size) is not int or size < 1):
                raise ValueError(f"{name} must be at least 1 or None, got {size!r}.")
        self._check_prompts()
        self.check_similarity()
        if self.lora is not None and not isinstance(self.lora, dict):
            raise ValueError(
                f"lora must be a dictionary of peft.LoraConfig's arguments or None, got {self.lora!r}."
            )
        self.set_adapter(
            AdapterConfig.from_dict({"embedding_dim": self.embedding_dim, **(self.adapter or {})})
        )

    def set_adapter(self, adapter: AdapterConfig) -> None:
        """Take an adapter's configuration over.

        Raises:
            ValueError: If the adapter reads embeddings of another dimension, or maps truncated ones.
        """
        if adapter.embedding_dim != self.embedding_dim:
            raise ValueError(
                f"adapter embedding_dim must be the encoder's, {self.embedding_dim}, "
                f"got {adapter.embedding_dim}."
            )
        if self.truncate_dim is not None and (adapter.query_map or adapter.document_map):
            raise ValueError(
                f"truncate_dim must be None with linear maps, got {self.truncate_dim}: sentence-transformers "
                "truncates what a map returns, not what it gets."
            )
        self.adapter = adapter.to_dict()

    def _check_prompts(self) -> None:
        for name in ("query_prompt", "document_prompt"):
            if not isinstance(getattr(self, name), str):
                raise ValueError(f"{name} must be a text, got {getattr(self, name)!r}.")
        texts = isinstance(self.prompts, dict) and all(
            isinstance(text, str) for pair in self.prompts.items() for text in pair
        )
        if self.prompts is not None and not texts:
            raise ValueError(f"prompts must be texts by name or None, got {self.prompts!r:.80}.")
        if self.default_prompt_name is not None and self.default_prompt_name not in list(self.all_prompts):
            raise ValueError(
                f"default_prompt_name must be one of {', '.join(self.all_prompts)}, "
                f"got {self.default_prompt_name!r:.80}."
            )

    def check_similarity(self) -> None:
        """Refuse a similarity that isn't the cosine.

        Raises:
            ValueError: If it isn't.
        """
        if self.similarity_fn_name not in list(SIMILARITIES):
            raise ValueError(
                f"similarity_fn_name must be one of {', '.join(SIMILARITIES)}, "
                f"got {self.similarity_fn_name!r:.80}."
            )
        if self.similarity_fn_name == "dot" and not (self.normalize and self.truncate_dim is None):
            raise ValueError(
                "similarity_fn_name must be 'cosine' where embeddings are not of length 1, got 'dot': "
                "adapters and indexes compare cosines. To use this encoder with cosines, give normalize=True "
                "and have no truncate_dim."
            )

    @property
    def hidden_size(self) -> int:
        """Dimension of the vectors of tokens."""
        assert isinstance(self.text_config, PreTrainedConfig)
        return self.text_config.hidden_size

    @property
    def num_hidden_layers(self) -> int:
        """Number of layers of the encoder."""
        assert isinstance(self.text_config, PreTrainedConfig)
        return self.text_config.num_hidden_layers

    @property
    def embedding_dim(self) -> int:
        """Dimension of the embeddings.

        Raises:
            ValueError: If pooling or the modules after it are not legal.
        """
        pooled = self.hidden_size * len(pooling_modes(self.pooling))
        dim = check_after_pooling(self.after_pooling, pooled)
        return dim if self.truncate_dim is None else min(dim, self.truncate_dim)

    @property
    def all_prompts(self) -> dict[str, str]:
        """All prompts by name, also those of queries and documents."""
        return {"query": self.query_prompt, "document": self.document_prompt, **(self.prompts or {})}
