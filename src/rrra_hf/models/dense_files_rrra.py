"""The files of modules after pooling in a folder of sentence-transformers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from .after_pooling_rrra import ACTIVATIONS, SIZES, make_after_pooling
from .files_rrra import write_json
from .hub_files_rrra import find_file, read_model_json

WEIGHTS_NAME = "model.safetensors"
EMBEDDING = "sentence_embedding"
# Where sentence-transformers finds an activation by its name.
ACTIVATION_MODULES = ("torch.nn.modules.activation", "torch.nn.modules.linear")


def read_after_pooling(
    name_or_path: str, modules: list[dict[str, str]], hub: dict[str, Any]
) -> list[dict[str, Any]]:
    """Return the settings of modules after pooling, as `check_after_pooling` wants them.

    Args:
        name_or_path: Folder or Hub repository of the model.
        modules: Entries of its `modules.json`: Dense, LayerNorm and Normalize.
        hub: Options of `cached_file`.

    Raises:
        ValueError: If a module does what the settings can't express.
    """
    return [_read_module(name_or_path, module, hub) for module in modules]


def _read_module(name_or_path: str, module: dict[str, str], hub: dict[str, Any]) -> dict[str, Any]:
    kind, folder = module_kind(module), module["path"]
    config = read_model_json(name_or_path, f"{folder}/config.json", hub)
    if config is None and kind != "Normalize":
        raise ValueError(f"{name_or_path} has no {folder}/config.json.")
    config = config or {}
    names = {config.get(f"module_{end}_name") or EMBEDDING for end in ("input", "output")}
    if names != {EMBEDDING} or config.get("use_residual"):
        raise ValueError(
            f"{folder} of {name_or_path} must map {EMBEDDING} to itself, without a residual, "
            f"got {config!r:.200}."
        )
    settings = {"type": kind, **{size: config.get(size) for size in SIZES[kind]}}
    if kind == "Dense":
        place, _, activation = str(
            config.get("activation_function", f"{ACTIVATION_MODULES[0]}.Tanh")
        ).rpartition(".")
        if place not in ACTIVATION_MODULES or activation not in ACTIVATIONS:
            raise ValueError(
                f"{folder} of {name_or_path} has the activation {place}.{activation}; "
                f"legal are {', '.join(ACTIVATIONS)} of torch.nn."
            )
        settings |= {"bias": config.get("bias", True), "activation_function": activation}
    return settings


def module_kind(module: dict[str, str]) -> str:
    """Return the class of a module of `modules.json`, without its package."""
    return module["type"].rpartition(".")[2]


def load_after_pooling(
    name_or_path: str, settings: list[dict[str, Any]], folders: list[str], hub: dict[str, Any]
) -> nn.Sequential:
    """Return the modules after pooling of an encoder, with their weights.

    Args:
        name_or_path: Folder or Hub repository of the model.
        settings: Their settings, checked.
        folders: Their folders.
        hub: Options of `cached_file`.

    Raises:
        ValueError: If weights are missing, damaged, or not of the sizes that the settings say.
    """
    with torch.device("meta"):
        layers = make_after_pooling(settings)
    for layer, folder in zip(layers, folders, strict=True):
        if layer.state_dict():
            weights = read_weights(name_or_path, folder, hub)
            shapes = {name: weight.shape for name, weight in layer.state_dict().items()}
            if {name: weight.shape for name, weight in weights.items()} != shapes:
                raise ValueError(
                    f"{folder}/{WEIGHTS_NAME} of {name_or_path} must have the weights "
                    f"{ {name: tuple(shape) for name, shape in shapes.items()} }, "
                    f"got { {name: tuple(weight.shape) for name, weight in weights.items()} }."
                )
            layer.load_state_dict(weights, assign=True)
    return layers


def read_weights(name_or_path: str, folder: str, hub: dict[str, Any]) -> dict[str, Tensor]:
    """Return the weights in a module's folder.

    Raises:
        ValueError: If there are none, or the file is damaged.
    """
    path = find_file(name_or_path, f"{folder}/{WEIGHTS_NAME}", hub)
    if path is None:
        raise ValueError(
            f"{name_or_path} has no {folder}/{WEIGHTS_NAME}. If it has a pickle instead, open it with "
            "SentenceTransformer, which reads it, and save it: that writes safetensors."
        )
    try:
        return load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged: {error}") from error


def write_module(folder: Path, settings: dict[str, Any], layer: nn.Module) -> None:
    """Write the folder with which sentence-transformers makes a module after pooling."""
    config = {name: value for name, value in settings.items() if name != "type"}
    if "activation_function" in config:
        config["activation_function"] = full_name(ACTIVATIONS[config["activation_function"]])
    write_json(folder / "config.json", config)
    # safetensors refuses shared memory, and a SentenceTransformer may share the weights.
    weights = {name: weight.detach().cpu().clone() for name, weight in layer.state_dict().items()}
    if weights:
        save_file(weights, folder / WEIGHTS_NAME)


def full_name(kind: type) -> str:
    """Return the name of a class with its module, as sentence-transformers writes it."""
    return f"{kind.__module__}.{kind.__name__}"
