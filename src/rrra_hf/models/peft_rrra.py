"""Folders of peft: LoRA weights and the name of the base model, as any library writes them."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from transformers import PreTrainedModel

from .hub_files_rrra import find_file, read_model_json
from .loaded_rrra import check_loaded
from .lora_rrra import KEPT, check_kept, lora_defaults

CONFIG_NAME = "adapter_config.json"
WEIGHTS_NAME = "adapter_model.safetensors"
PREFIX = "base_model.model."


class PeftFolder(NamedTuple):
    """What a folder of peft says: its base model, the revision of that, and the settings of LoRA."""

    base: str
    revision: str | None
    lora: dict[str, Any]


def read_peft(name: str, hub: dict[str, Any]) -> PeftFolder | None:
    """Return what a folder of peft says, None if it is a folder of another kind.

    Args:
        name: Folder or Hub repository.
        hub: Options of `cached_file`.

    Raises:
        ValueError: If it isn't LoRA, names no base model, or has settings that a saved model wouldn't keep.
    """
    if read_model_json(name, "config.json", hub) is not None:
        return None
    config = read_model_json(name, CONFIG_NAME, hub)
    if config is None:
        return None
    source = f"{CONFIG_NAME} of {name}"
    if config.get("peft_type") != "LORA":
        raise ValueError(f"peft_type in {source} must be LORA, got {config.get('peft_type')!r:.80}.")
    base, revision = config.get("base_model_name_or_path"), config.get("revision")
    if not isinstance(base, str) or not base or not isinstance(revision, str | None):
        raise ValueError(
            f"{source} must name its base model and revision, got {base!r:.80}, {revision!r:.80}."
        )
    defaults = lora_defaults()
    check_kept(config, defaults)
    lora = {key: config[key] for key in KEPT if key in config and config[key] != defaults[key]}
    return PeftFolder(base, revision, {"r": defaults["r"], "lora_alpha": defaults["lora_alpha"], **lora})


@torch.no_grad()
def load_peft_weights(name: str, hub: dict[str, Any], encoder: PreTrainedModel) -> None:
    """Load the weights of a folder of peft into the LoRA layers of an encoder.

    Args:
        name: Folder or Hub repository.
        hub: Options of `cached_file`.
        encoder: The encoder, with LoRA layers.

    Raises:
        ValueError: If the file is missing or damaged, or has other weights than its settings say.
    """
    path = find_file(name, WEIGHTS_NAME, hub)
    if path is None:
        raise ValueError(f"{name} has no {WEIGHTS_NAME}.")
    try:
        saved = load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged: {error}") from error
    ours = {_name_in_peft(key): value for key, value in encoder.state_dict().items() if "lora_" in key}
    theirs = {_without_head(key, ours, encoder): value for key, value in saved.items()}
    shared = ours.keys() & theirs.keys()
    info = {
        "missing_keys": ours.keys() - theirs.keys(),
        "unexpected_keys": theirs.keys() - ours.keys(),
        "mismatched_keys": [(key,) for key in shared if ours[key].shape != theirs[key].shape],
    }
    check_loaded(name, info, lora=False, config=CONFIG_NAME)
    for key in shared:
        ours[key].copy_(theirs[key])


def _name_in_peft(name: str) -> str:
    """Return the name of a LoRA weight without the name of the adapter.

    Example:
        >>> _name_in_peft("query.lora_A.default.weight")
        'query.lora_A.weight'
    """
    name = name.replace(".default", "")
    return name.removesuffix(".weight") if "magnitude" in name else name


def _without_head(name: str, known: dict[str, Tensor], encoder: PreTrainedModel) -> str:
    """Return the name of a weight in the encoder alone, if it was saved of a model with a head."""
    name = name.removeprefix(PREFIX)
    inner = name.removeprefix(f"{encoder.base_model_prefix}.")
    return name if name in known else inner
