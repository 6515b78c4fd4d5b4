"""Loading an encoder of transformers or sentence-transformers, with its tokenizer and settings."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from safetensors import SafetensorError
from torch import nn
from transformers import AutoConfig, AutoTokenizer, PreTrainedModel

from .backbone_rrra import auto_class
from .configuration_rrra import RRRAConfig
from .hub_files_rrra import HUB_OPTIONS, damaged_file, named_errors, read_model_json
from .layout_rrra import read_settings
from .loaded_rrra import some
from .sizes_rrra import check_counts, check_encoder_size

# The limit of a tokenizer without one is a huge number.
NO_LIMIT = 10**6


def encoder_settings(name: str, hub: dict[str, Any], trust: bool = False) -> dict[str, Any]:
    """Return what the sentence-transformers files of an encoder say, see `read_settings`.

    Args:
        name: Folder or Hub repository.
        hub: Options of `cached_file`.
        trust: Whether code that comes with the encoder may run.

    Raises:
        OSError: If there is no such encoder.
        ValueError: If it is an `RRRAModel` already, or does something that an `RRRAConfig` can't express.
    """
    with opening(name):
        if (read_model_json(name, "config.json", hub) or {}).get("model_type") == RRRAConfig.model_type:
            raise ValueError(f"{name} is an RRRAModel already; use RRRAModel.from_pretrained.")
        settings = read_settings(name, hub)
        place = {**hub, "subfolder": settings.get("subfolder", "")}
        check_counts(name, read_model_json(name, "config.json", place) or {})
        with named_errors(name):
            # False instead of nothing, which would ask on the terminal.
            AutoConfig.from_pretrained(name, trust_remote_code=trust, **place)
    return settings


@contextmanager
def opening(name: str) -> Iterator[None]:
    """Say in errors which encoder was being opened.

    Raises:
        OSError: Instead of one.
        ValueError: Instead of one.
    """
    try:
        yield
    except OSError as error:
        raise OSError(f"Can't load an encoder named {name!r}: {error}") from error
    except ValueError as error:
        raise ValueError(f"Can't load an encoder named {name!r}: {error}") from error


def load_encoder(name: str, **options: Any) -> PreTrainedModel:
    """Load an encoder with all of its weights.

    Args:
        name: Folder or Hub repository.
        options: Passed to `AutoModel.from_pretrained`.

    Raises:
        ValueError: If a weights file is damaged, a weight is missing, or the configuration declares more
            weights than the files hold.
    """
    hub = {key: options[key] for key in (*HUB_OPTIONS, "subfolder") if key in options}
    trusted = {key: options[key] for key in ("trust_remote_code",) if key in options}
    check_encoder_size(name, hub, **trusted)
    try:
        with named_errors(name):
            config = AutoConfig.from_pretrained(name, **{"trust_remote_code": False, **hub, **trusted})
            encoder, info = auto_class(config).from_pretrained(name, output_loading_info=True, **options)
    except SafetensorError as error:
        raise ValueError(f"{damaged_file(name, hub)} is damaged: {error}") from error
    missing = sorted(key for key in info["missing_keys"] if "pooler" not in key)
    if missing:
        raise ValueError(f"{name} lacks {len(missing)} weights of the encoder: {some(missing)}.")
    return encoder


def load_tokenizer(name: str, **options: Any) -> Any:
    """Load a model's tokenizer, None if it has none.

    Args:
        name: Folder or Hub repository.
        options: Passed to `AutoTokenizer.from_pretrained`.

    Raises:
        ValueError: If a file of it is damaged.
    """
    hub = {key: options[key] for key in (*HUB_OPTIONS, "subfolder") if key in options}
    if read_model_json(name, "tokenizer_config.json", hub) is None:
        return None
    trust = bool(options.pop("trust_remote_code", False))
    try:
        tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=trust, **options)
    except (OSError, ImportError):
        raise
    except Exception as error:  # tokenizers raises nothing more specific for a damaged file
        raise ValueError(f"The tokenizer of {name} can't be loaded: {error}") from error
    limit = tokenizer.model_max_length
    if not isinstance(limit, (int, float)):
        raise ValueError(
            f"The tokenizer of {name} must have a number as model_max_length, got {limit!r:.80}."
        )
    return tokenizer


def lower_case(tokenizer: Any) -> None:
    """Make a tokenizer lower-case its texts.

    Raises:
        ImportError: If tokenizers isn't installed.
    """
    try:
        from tokenizers.normalizers import Lowercase, Sequence
    except ImportError as error:
        raise ImportError("The encoder's texts are lower-cased: install tokenizers.") from error
    backend = tokenizer.backend_tokenizer
    backend.normalizer = Sequence([Lowercase(), *([backend.normalizer] if backend.normalizer else [])])


def max_length(encoder: PreTrainedModel, tokenizer: Any) -> int | None:
    """Return the number of tokens that encoder and tokenizer take, None if neither has a limit."""
    limits = [getattr(encoder.config, "max_position_embeddings", None)]
    for name, module in encoder.named_modules():
        if name.endswith("position_embeddings") and isinstance(module, nn.Embedding):
            # XLM-R, MPNet and similar encoders count positions from the padding index on.
            offset = 0 if module.padding_idx is None else module.padding_idx + 1
            limits.append(module.num_embeddings - offset)
    if tokenizer is not None:
        limits.append(tokenizer.model_max_length)
    return min((int(n) for n in limits if isinstance(n, int | float) and 0 < n < NO_LIMIT), default=None)
