"""LoRA: making, merging, and saving its weights without those of the base model."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from .configuration_rrra import RRRAConfig
from .download_rrra import checked_downloads
from .encoder_rrra import encoder_settings, load_encoder
from .hub_files_rrra import commit_of, folder_of
from .loaded_rrra import some

DEFAULT_LORA = {"r": 16, "lora_alpha": 32, "target_modules": "all-linear"}
# Arguments of `peft.LoraConfig` that a saved model keeps.
KEPT = (
    *("r", "lora_alpha", "lora_dropout", "rank_pattern", "alpha_pattern", "use_rslora", "use_dora"),
    *("target_modules", "exclude_modules", "layers_to_transform", "layers_pattern", "fan_in_fan_out"),
    *("bias", "lora_bias", "init_lora_weights"),
)
# Those that change no weight.
NEUTRAL = (
    *("task_type", "peft_type", "peft_version", "auto_mapping", "base_model_name_or_path", "revision"),
    *("inference_mode", "megatron_core", "runtime_config", "qalora_group_size"),
)
# Other ones change the weights of the base model.
INITIAL = (True, False, "gaussian", "orthogonal")


# -------------------------------------------------------------------- the layers


def lora_settings(encoder: PreTrainedModel, lora: bool | dict[str, Any]) -> dict[str, Any]:
    """Return the arguments of `peft.LoraConfig` for an encoder.

    Args:
        encoder: The encoder.
        lora: True for LoRA on all linear layers, or arguments that replace defaults.
    """
    settings: dict[str, Any] = {**DEFAULT_LORA, **(lora if isinstance(lora, dict) else {})}
    if settings["target_modules"] == "all-linear" and any("pooler" in n for n, _ in encoder.named_modules()):
        # The pooler's output is not used, so its LoRA weights would never be trained.
        settings.setdefault("exclude_modules", r".*pooler.*")
    return settings


def inject_lora(encoder: PreTrainedModel, settings: dict[str, Any]) -> None:
    """Add LoRA layers to an encoder, in place.

    Raises:
        ImportError: If peft isn't installed.
        ValueError: If a setting is unknown, or one that a saved model wouldn't keep.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        raise ImportError("The model holds LoRA weights: install peft.") from error
    try:
        config = LoraConfig(**settings)
    except TypeError as error:
        raise ValueError(f"lora has an unknown setting: {error}") from error
    check_kept(vars(config), lora_defaults())
    inject_adapter_in_model(config, encoder)
    for _, layer in lora_layers(encoder):
        # What peft calls to add another adapter to a layer.
        layer.update_layer = refuse_second


def lora_defaults() -> dict[str, Any]:
    """Return the attributes of a `peft.LoraConfig` without arguments.

    Raises:
        ImportError: If peft isn't installed.
    """
    try:
        from peft import LoraConfig
    except ImportError as error:
        raise ImportError("The model holds LoRA weights: install peft.") from error
    return vars(LoraConfig())


def check_kept(settings: Mapping[str, Any], defaults: Mapping[str, Any]) -> None:
    """Refuse settings of LoRA that a saved model wouldn't keep.

    Args:
        settings: Attributes of a `peft.LoraConfig`, or the contents of an `adapter_config.json`.
        defaults: Attributes of one without arguments.

    Raises:
        ValueError: If there is one; the message names it.
    """
    others = settings.keys() - {*KEPT, *NEUTRAL}
    dropped = sorted(name for name in others if settings[name] and settings[name] != defaults.get(name))
    if settings.get("init_lora_weights", True) not in INITIAL:
        dropped.append(f"init_lora_weights={settings['init_lora_weights']!r}")
    if dropped:
        raise ValueError(
            f"lora can't have {', '.join(dropped)}, which a saved model wouldn't keep; legal are "
            f"{', '.join(KEPT)}, with init_lora_weights among {', '.join(map(repr, INITIAL))}."
        )


def lora_layers(encoder: nn.Module) -> list[tuple[str, Any]]:
    """Return the LoRA layers of an encoder by name."""
    return [
        (name, layer)
        for name, layer in encoder.named_modules()
        if hasattr(layer, "get_base_layer") and hasattr(layer, "merge")
    ]


def refuse_second(*args: Any, **kwargs: Any) -> None:
    """Refuse another adapter of peft on a layer that has LoRA: it would take the place of the trained one.

    Raises:
        ValueError: Always.
    """
    raise ValueError(
        "This encoder has LoRA already, and a second one would take its place. Call merge_lora() first."
    )


def is_trained(name: str, lora: Mapping[str, Any] | None) -> bool:
    """Return whether a weight of an encoder is trained: all are without LoRA.

    Args:
        name: Name of the weight.
        lora: Settings of LoRA.

    Example:
        >>> is_trained("query.lora_A.default.weight", {}), is_trained("query.base_layer.bias", {"r": 2})
        (True, False)
    """
    if not lora or "lora_" in name:
        return True
    end = {"all": "bias", "lora_only": ".base_layer.bias"}.get(lora.get("bias", "none"))
    return end is not None and name.endswith(end)


@torch.no_grad()
def merge_lora_layers(encoder: PreTrainedModel) -> None:
    """Add an encoder's LoRA weights to its own and remove the LoRA layers, in place."""
    for name, layer in lora_layers(encoder):
        layer.merge()
        encoder.set_submodule(name, layer.get_base_layer())
    if hasattr(encoder, "peft_config"):
        del encoder.peft_config


# -------------------------------------------------------------------- the base model


def without_base(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights of an `RRRAModel` that its base model doesn't have: LoRA and adapter.

    Example:
        >>> state = {"encoder.q.base_layer.weight": 0, "encoder.q.lora_A.default.weight": 1, "adapter.b": 2}
        >>> sorted(without_base(state))
        ['adapter.b', 'encoder.q.lora_A.default.weight']
    """
    return {
        name: value for name, value in state.items() if not name.startswith("encoder.") or "lora_" in name
    }


def record_base(encoder: PreTrainedModel, config: RRRAConfig) -> None:
    """Write the base model's commit and the fingerprint of its weights into a config.

    Raises:
        OSError: If the base model can't be loaded.
        ValueError: If its weights are not those under the encoder's LoRA.
    """
    try:
        base = _load_base(config, {})
    except OSError as error:
        raise OSError(
            "form='lora' needs the base model; set config.base_model_name to its name on the Hub. "
            f"It can't be loaded: {error}"
        ) from error
    name = str(config.base_model_name)
    check_same_base(encoder, base, name)
    config.base_model_revision = commit_of(name, {"revision": config.base_model_revision})
    config.base_weights = weights_fingerprint(base)


def load_base(config: RRRAConfig, name: str, hub: dict[str, Any]) -> PreTrainedModel:
    """Load the base model of LoRA weights that were saved alone.

    Args:
        config: The model's config.
        name: Folder or repository of the LoRA weights.
        hub: Options of `cached_file`.

    Raises:
        OSError: If the base model can't be loaded.
        ValueError: If it has other weights than the LoRA was trained on.
    """
    source = base_name(config)
    try:
        base = _load_base(config, {key: value for key, value in hub.items() if key != "subfolder"})
    except OSError as error:
        raise OSError(
            f"{name} holds LoRA weights alone, and its base model {source} can't be loaded; "
            f"if it is elsewhere, give base_model_name=... : {error}"
        ) from error
    found = weights_fingerprint(base)
    if found != config.base_weights:
        raise ValueError(
            f"{source} is not the base model of {name}: its weights have the fingerprint {found}, "
            f"the LoRA weights were trained on {config.base_weights}."
        )
    return base


def base_name(config: RRRAConfig) -> str:
    """Return the name of a base model, for messages."""
    return f"{config.base_model_name} (revision {config.base_model_revision})"


def _load_base(config: RRRAConfig, hub: dict[str, Any]) -> PreTrainedModel:
    """Load the base model of a config in the dtype that its own files say."""
    name = str(config.base_model_name)
    hub = {**hub, "revision": config.base_model_revision}
    hub["subfolder"] = encoder_settings(name, hub).get("subfolder", "")
    with checked_downloads(folder_of(name, hub), name):
        return load_encoder(name, dtype="auto", **hub)


def weights_fingerprint(encoder: nn.Module) -> str:
    """Return a fingerprint of an encoder's weights, 16 hexadecimal digits.

    A pooler isn't counted: no embedding depends on it, and its weights may be random.
    """
    digest: Any = hashlib.sha256()
    for name, value in sorted(_of_base(encoder).items()):
        if "pooler" not in name:
            digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
            digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()[:16]


def check_same_base(encoder: nn.Module, base: nn.Module, name: str) -> None:
    """Refuse a base model whose weights are not those under an encoder's LoRA.

    Raises:
        ValueError: If a weight differs, or only one of the two has it.
    """
    ours, theirs = _of_base(encoder), _of_base(base)
    _check_names(ours, theirs, name)
    differing = [key for key in ours if "pooler" not in key and not _same(ours[key], theirs[key])]
    if differing:
        raise ValueError(
            f"The weights under the LoRA are not those of {name}: {len(differing)} differ "
            f"({some(differing)}). Use form='full' or 'merged'."
        )


def check_fits_base(encoder: nn.Module, base: nn.Module, name: str) -> None:
    """Refuse a base model that has other weights than an encoder with LoRA.

    Args:
        encoder: The encoder; it may be one that takes no memory.
        base: The base model.
        name: Its name, for the message.

    Raises:
        ValueError: If a weight is missing or of another shape.
    """
    _check_names(_of_base(encoder), _of_base(base), name)


@torch.no_grad()
def fill_base(encoder: nn.Module, base: nn.Module) -> None:
    """Copy a base model's weights under an encoder's LoRA."""
    ours, theirs = _of_base(encoder), _of_base(base)
    for key in ours.keys() & theirs.keys():
        ours[key].copy_(theirs[key])


def _of_base(encoder: nn.Module) -> dict[str, Tensor]:
    """Return an encoder's weights without LoRA's, by their names in the base model."""
    state = encoder.state_dict()
    return {key.replace(".base_layer", ""): value for key, value in state.items() if "lora_" not in key}


def _check_names(ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor], name: str) -> None:
    shapes = [
        {key: value.shape for key, value in state.items() if "pooler" not in key} for state in (ours, theirs)
    ]
    odd = sorted(
        key for key in shapes[0].keys() | shapes[1].keys() if shapes[0].get(key) != shapes[1].get(key)
    )
    if odd:
        raise ValueError(
            f"{name} is not the base model of the LoRA weights: {len(odd)} weights are missing or of another "
            f"shape ({some(odd)})."
        )


def _same(ours: Tensor, theirs: Tensor) -> bool:
    return torch.equal(ours.cpu(), theirs.to(ours.dtype).cpu())
