"""Which class of transformers an encoder is, and what of it is guessed."""

from __future__ import annotations

from typing import Any

from transformers import (
    MODEL_FOR_TEXT_ENCODING_MAPPING,
    AutoModel,
    AutoModelForTextEncoding,
    PreTrainedConfig,
    PreTrainedModel,
)


def auto_class(config: PreTrainedConfig) -> Any:
    """Return the class that makes an encoder from its configuration: of an encoder-decoder, only its encoder.

    Args:
        config: The encoder's configuration.

    Returns:
        `AutoModel` or `AutoModelForTextEncoding`.

    Raises:
        ValueError: If it is an encoder-decoder whose encoder can't be had alone.

    Example:
        >>> from transformers import BertConfig, T5Config
        >>> auto_class(BertConfig()).__name__, auto_class(T5Config()).__name__
        ('AutoModel', 'AutoModelForTextEncoding')
    """
    if type(config) in encoder_decoders():
        return AutoModelForTextEncoding
    if getattr(config, "is_encoder_decoder", False):
        known = ", ".join(sorted(kind.model_type for kind in encoder_decoders()))
        raise ValueError(
            f"A model of type {config.model_type} is an encoder-decoder; legal are {known}, whose encoder "
            "can be loaded alone."
        )
    return AutoModel


def encoder_decoders() -> list[type[PreTrainedConfig]]:
    """Return the configurations of encoder-decoders whose encoder can be loaded alone."""
    known: Any = MODEL_FOR_TEXT_ENCODING_MAPPING.items()
    return [config for config, model in known if model.__name__.endswith("EncoderModel")]


def guess_pooling(config: PreTrainedConfig) -> str:
    """Return the pooling that sentence-transformers gives to an encoder without files of its own.

    That is the last token of a causal language model, and the mean of all others.

    Args:
        config: The encoder's configuration.
    """
    architecture = str((config.architectures or [""])[0])
    causal = architecture.endswith("ForCausalLM") and getattr(config, "is_causal", True)
    return "lasttoken" if causal else "mean"


def is_own_code(encoder: PreTrainedModel) -> bool:
    """Return whether an encoder's class is code that came with it, not one of transformers."""
    return type(encoder).__module__.startswith("transformers_modules.")
