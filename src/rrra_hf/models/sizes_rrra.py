"""Sizes that a configuration declares, compared with the files of the weights before memory is taken."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from transformers import AutoConfig

from .backbone_rrra import auto_class
from .hub_files_rrra import find_file, named_errors, read_model_json, shard_names

Model = TypeVar("Model", bound=nn.Module)

WEIGHTS_NAMES = ("model.safetensors", "pytorch_model.bin")
# Weights of four bits are the smallest.
WEIGHTS_PER_BYTE = 2
# So many parts are made one by one, even of a model that takes no memory. The largest have some hundred.
MOST_PARTS = 2000
PARTS = ("layer", "expert")
MOST_LABELS = 100_000


def check_counts(name: str, config: dict[str, Any]) -> None:
    """Refuse a configuration with so many layers, experts or labels that it would take for ever to make them.

    Args:
        name: Folder or Hub repository, for the message.
        config: Contents of its `config.json`.

    Raises:
        ValueError: If a number is too high.
    """
    for setting, value in config.items():
        if isinstance(value, dict):
            check_counts(name, value)
        most = MOST_LABELS if setting == "num_labels" else MOST_PARTS
        counts = setting == "num_labels" or any(part in setting for part in PARTS)
        if counts and isinstance(value, int) and value > most:
            raise ValueError(
                f"config.json of {name} is damaged: {setting} must be at most {most}, got {value}."
            )


def without_memory(name: str, make: Callable[[], Model]) -> Model:
    """Return a model whose weights have shapes, but take no memory.

    Args:
        name: Folder or Hub repository, for the message.
        make: Makes the model.

    Raises:
        ValueError: If it can't be made.
    """
    with named_errors(name), torch.device("meta"):
        return make()


def check_size(name: str, hub: dict[str, Any], weights: Mapping[str, Tensor]) -> None:
    """Refuse a model whose configuration declares more weights than its files can hold.

    Args:
        name: Folder or Hub repository.
        hub: Options of `cached_file`.
        weights: The weights by name, of a model without memory. A pooler may be missing in the files.

    Raises:
        ValueError: If it declares more; the message says how many.
    """
    declared = sum(weight.numel() for key, weight in weights.items() if "pooler" not in key)
    stored = _weights_size(name, hub)
    if stored is not None and declared > WEIGHTS_PER_BYTE * stored:
        raise ValueError(
            f"config.json of {name} is damaged: it declares {declared:,} weights, and the files of the "
            f"weights have {stored:,} bytes."
        )


def check_encoder_size(name: str, hub: dict[str, Any], **options: Any) -> None:
    """Refuse an encoder whose configuration declares more weights than its files can hold.

    Args:
        name: Folder or Hub repository.
        hub: Options of `cached_file`.
        options: Arguments of `AutoModel.from_config`.

    Raises:
        OSError: If there is no such encoder.
        ValueError: As `check_counts` and `check_size`.
    """
    check_counts(name, read_model_json(name, "config.json", hub) or {})
    with named_errors(name):
        # False instead of nothing, which would ask on the terminal.
        config = AutoConfig.from_pretrained(name, **{"trust_remote_code": False, **hub, **options})
        auto = auto_class(config)
    encoder = without_memory(name, lambda: auto.from_config(config, **options))
    check_size(name, hub, encoder.state_dict())


def _weights_size(name: str, hub: dict[str, Any]) -> int | None:
    """Return the bytes of a model's weights files, None if there are none."""
    for filename in WEIGHTS_NAMES:
        names = {filename} if find_file(name, filename, hub) else None
        names = names or set(shard_names(name, f"{filename}.index.json", hub).values())
        paths = [path for shard in sorted(names) if (path := find_file(name, shard, hub))]
        if paths:
            return sum(map(_file_size, paths))
    return None


def _file_size(path: Path) -> int:
    if path.suffix == ".safetensors":
        try:
            # Its header is compared with the size of the file.
            with safe_open(path, framework="pt"):
                pass
        except SafetensorError as error:
            raise ValueError(f"{path} is damaged: {error}") from error
    return path.stat().st_size
