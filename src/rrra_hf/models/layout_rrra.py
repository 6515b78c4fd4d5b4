"""The files of sentence-transformers in a model's folder: reading, writing and checking them."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from .adapter_rrra import RetrieverAdapter
from .configuration_rrra import POOLING_MODES, RRRAConfig
from .files_rrra import write_json
from .hub_files_rrra import check_inside, find_file, read_model_json

MODULES_NAME = "modules.json"
SETTINGS_NAME = "config_sentence_transformers.json"
TRANSFORMER_NAME = "sentence_bert_config.json"
ROUTER_NAME = "router_config.json"
POOLING_FOLDER = "1_Pooling"

# Names that every release of sentence-transformers knows, and other software that reads its folders.
MODULE_PREFIX = "sentence_transformers.models."
LEGACY_POOLING_KEYS = {
    "mean": "pooling_mode_mean_tokens",
    "cls": "pooling_mode_cls_token",
    "lasttoken": "pooling_mode_lasttoken",
}
TASKS = ("query", "document")
IDENTITY = "torch.nn.modules.linear.Identity"
DOCUMENT_PROMPT_NAMES = ("document", "passage", "corpus")
# Attempts to read a file that another process may be writing.
ATTEMPTS = 20


# -------------------------------------------------------------------- reading


def read_modules(name_or_path: str, hub: dict[str, Any]) -> list[dict[str, str]] | None:
    """Return the modules of a model of sentence-transformers, None if it isn't one.

    Args:
        name_or_path: Folder or Hub repository.
        hub: Options of `cached_file`: `revision`, `token`, ...

    Raises:
        ValueError: If the list is damaged, or a module is to be outside of the folder.
    """
    modules = read_model_json(name_or_path, MODULES_NAME, hub, kind=list)
    for module in modules or ():
        if not isinstance(module, dict) or not isinstance(module.get("type"), str) or "path" not in module:
            raise ValueError(
                f"{MODULES_NAME} of {name_or_path} must list modules with type and path, got {module!r}."
            )
        if module["path"] != "":
            check_inside(module["path"], f"{MODULES_NAME} of {name_or_path}")
    return modules


def read_settings(name_or_path: str, hub: dict[str, Any]) -> dict[str, Any]:
    """Return what the sentence-transformers files of an encoder say, an empty dictionary if it has none.

    Args:
        name_or_path: Folder or Hub repository of the encoder.
        hub: Options of `cached_file`: `revision`, `token`, ...

    Returns:
        `pooling`, `normalize`, `maps`, `query_prompt`, `document_prompt`, `max_seq_length`, `do_lower_case`,
        and `subfolder`, where the encoder itself is.

    Raises:
        ValueError: If the encoder does something that an `RRRAConfig` can't express.
    """
    modules = read_modules(name_or_path, hub)
    if modules is None:
        return {}
    names = [module["type"].rpartition(".")[2] for module in modules]
    maps = {}
    if names[-1:] == ["Router"]:
        maps = read_maps(name_or_path, modules[-1]["path"], hub)
        names.pop()
    if names not in (["Transformer", "Pooling"], ["Transformer", "Pooling", "Normalize"]):
        raise ValueError(
            f"{name_or_path} has the modules {', '.join(names)}; "
            "legal are Transformer, Pooling and, optionally, Normalize and a Router of linear maps."
        )
    prefix = f"{modules[0]['path']}/" if modules[0]["path"] else ""
    transformer = read_model_json(name_or_path, prefix + TRANSFORMER_NAME, hub) or {}
    length = transformer.get("max_seq_length")
    if length is not None and (not isinstance(length, int) or length < 1):
        raise ValueError(
            f"{TRANSFORMER_NAME} of {name_or_path}: max_seq_length must be at least 1, got {length!r}."
        )
    prompts = read_model_json(name_or_path, SETTINGS_NAME, hub) or {}
    return {
        "pooling": read_pooling(name_or_path, modules[1]["path"], hub),
        "normalize": "Normalize" in names,
        "maps": maps,
        **_read_prompts(prompts, name_or_path),
        "max_seq_length": length,
        "do_lower_case": transformer.get("do_lower_case", False),
        "subfolder": modules[0]["path"],
    }


def read_pooling(name_or_path: str, folder: str, hub: dict[str, Any]) -> str:
    """Return the pooling mode of a `Pooling` module's folder, in the format of any release.

    Raises:
        ValueError: If it isn't one of `POOLING_MODES`.
    """
    config = read_model_json(name_or_path, f"{folder}/config.json".lstrip("/"), hub) or {}
    mode = config.get("pooling_mode")
    if mode is None:
        modes = [key for key, on in config.items() if key.startswith("pooling_mode_") and on]
        known = {key: mode for mode, key in LEGACY_POOLING_KEYS.items()}
        mode = known.get(modes[0], modes[0]) if len(modes) == 1 else modes or "mean"
    if mode not in POOLING_MODES or not config.get("include_prompt", True):
        raise ValueError(
            f"{name_or_path} pools with {mode!r} (include_prompt={config.get('include_prompt', True)}); "
            f"legal are {', '.join(POOLING_MODES)}, with the prompt included."
        )
    return mode


def read_maps(name_or_path: str, folder: str, hub: dict[str, Any]) -> dict[str, Tensor]:
    """Return the weights of a `Router`'s linear maps, by task: `"query"`, `"document"`.

    Args:
        name_or_path: Folder or Hub repository of the model.
        folder: Folder of the router within it.
        hub: Options of `cached_file`.

    Raises:
        ValueError: If a file is damaged, or a route is anything but a linear map and `Normalize`.
    """
    maps = {}
    for task, parts in read_routes(name_or_path, folder, hub).items():
        kinds = [part.rpartition("_")[2] for part in parts]
        if task not in TASKS or kinds not in (["Dense", "Normalize"], ["Normalize"]):
            raise ValueError(
                f"{ROUTER_NAME} of {name_or_path} has the route {task!r} of {', '.join(kinds)}; "
                f"legal are {' and '.join(TASKS)}, of Normalize or of Dense and Normalize."
            )
        if kinds[0] == "Dense":
            maps[task] = _read_map(name_or_path, f"{folder}/{parts[0]}", hub)
    return maps


def _read_map(name_or_path: str, folder: str, hub: dict[str, Any]) -> Tensor:
    config = read_model_json(name_or_path, f"{folder}/config.json", hub) or {}
    wanted = {"bias": False, "activation_function": IDENTITY}
    found = {name: config.get(name) for name in wanted}
    if found != wanted or config.get("in_features") != config.get("out_features"):
        raise ValueError(
            f"{folder} of {name_or_path} is no linear map: it must have as many inputs as outputs, no bias "
            f"and no activation, got {config!r:.200}."
        )
    path = find_file(name_or_path, f"{folder}/model.safetensors", hub)
    if path is None:
        raise ValueError(f"{name_or_path} has no {folder}/model.safetensors.")
    try:
        weight = load_file(path)["linear.weight"]
    except (SafetensorError, KeyError) as error:
        raise ValueError(f"{path} is damaged: {error}") from error
    if weight.shape != (config["out_features"], config["in_features"]):
        raise ValueError(f"{path} is damaged: it has a weight {tuple(weight.shape)}.")
    if not weight.isfinite().all():
        raise ValueError(f"{path} is damaged: linear.weight must be finite.")
    return weight


def read_routes(name_or_path: str, folder: str, hub: dict[str, Any]) -> dict[str, list[str]]:
    """Return the names of the modules on each route of a `Router`.

    Args:
        name_or_path: Folder or Hub repository of the model.
        folder: Folder of the router within it.
        hub: Options of `cached_file`.

    Raises:
        ValueError: If the router's file is damaged, or a module is to be outside of its folder.
    """
    source = f"{folder}/{ROUTER_NAME}" if folder else ROUTER_NAME
    structure = (read_model_json(name_or_path, source, hub) or {}).get("structure", {})
    lists = isinstance(structure, dict) and all(
        isinstance(names, list) and names for names in structure.values()
    )
    if not lists:
        raise ValueError(
            f"{source} of {name_or_path} must list the modules of each route, got {structure!r}."
        )
    for names in structure.values():
        for module in names:
            check_inside(module, f"{source} of {name_or_path}")
    return structure


def _read_prompts(settings: dict[str, Any], name_or_path: str) -> dict[str, str]:
    prompts = settings.get("prompts") or {}
    named = settings.get("default_prompt_name")
    if not isinstance(prompts, dict) or not isinstance(named, str | None):
        raise ValueError(f"{SETTINGS_NAME} of {name_or_path} must have prompts by name, got {prompts!r}.")
    default = prompts.get(named) or ""
    document = next((prompts[name] for name in DOCUMENT_PROMPT_NAMES if prompts.get(name)), default)
    found = {"query_prompt": prompts.get("query") or default, "document_prompt": document}
    for name, prompt in found.items():
        if not isinstance(prompt, str):
            raise ValueError(
                f"{SETTINGS_NAME} of {name_or_path} must have texts as prompts: {name} is {prompt!r}."
            )
    return found


def adopt_prompts(config: RRRAConfig, folder: Path) -> None:
    """Set a model's prompts to those that sentence-transformers wrote into a folder."""
    for name, prompt in _read_prompts(_read_settings_file(folder), str(folder)).items():
        setattr(config, name, prompt)


def _read_settings_file(folder: Path) -> dict[str, Any]:
    # In a run of several processes, each of them writes the same content into this file. For a moment it may
    # be cut off.
    for _ in range(ATTEMPTS):
        try:
            return read_model_json(str(folder), SETTINGS_NAME, {})
        except ValueError:
            time.sleep(0.05)
    return read_model_json(str(folder), SETTINGS_NAME, {})


# -------------------------------------------------------------------- writing


def write_side_files(folder: Path, config: RRRAConfig, adapter: RetrieverAdapter) -> None:
    """Write the files with which `SentenceTransformer(folder)` makes the same embeddings as the model.

    Linear maps become a `Router` with a route for queries and one for documents.
    """
    modules = [("", "Transformer"), (POOLING_FOLDER, "Pooling")]
    if config.normalize:
        modules.append(("2_Normalize", "Normalize"))
    maps = adapter_maps(adapter)
    if maps:
        modules.append((f"{len(modules)}_Router", "Router"))
        _write_router(folder / modules[-1][0], maps)
    pooling = {key: mode == config.pooling for mode, key in LEGACY_POOLING_KEYS.items()}
    write_json(
        folder / POOLING_FOLDER / "config.json", {"word_embedding_dimension": config.hidden_size, **pooling}
    )
    write_json(folder / TRANSFORMER_NAME, {"max_seq_length": config.max_seq_length, "do_lower_case": False})
    write_json(
        folder / SETTINGS_NAME,
        {
            "model_type": "SentenceTransformer",
            "prompts": {"query": config.query_prompt, "document": config.document_prompt},
            "default_prompt_name": None,
            "similarity_fn_name": "cosine",
        },
    )
    write_json(
        folder / MODULES_NAME,
        [
            {"idx": index, "name": str(index), "path": path, "type": MODULE_PREFIX + name}
            for index, (path, name) in enumerate(modules)
        ],
    )


def adapter_maps(adapter: RetrieverAdapter) -> dict[str, Tensor]:
    """Return the weights of the adapter's linear maps, by task: `"query"`, `"document"`."""
    maps = {"query": adapter.query_map, "document": adapter.document_map}
    return {task: linear_map.weight for task, linear_map in maps.items() if linear_map is not None}


def _write_router(folder: Path, maps: dict[str, Tensor]) -> None:
    structure = {}
    for task in TASKS:
        names = ["Dense", "Normalize"] if task in maps else ["Normalize"]
        structure[task] = [f"{task}_{index}_{name}" for index, name in enumerate(names)]
    for task, weight in maps.items():
        dense = folder / f"{task}_0_Dense"
        write_json(
            dense / "config.json",
            {
                "in_features": weight.shape[1],
                "out_features": weight.shape[0],
                "bias": False,
                "activation_function": IDENTITY,
            },
        )
        # safetensors refuses shared memory, and a SentenceTransformer may share the map.
        save_file({"linear.weight": weight.detach().cpu().clone()}, dense / "model.safetensors")
    types = {name: MODULE_PREFIX + name.rpartition("_")[2] for route in structure.values() for name in route}
    parameters = {"default_route": "document", "allow_empty_key": True}
    write_json(folder / ROUTER_NAME, {"types": types, "structure": structure, "parameters": parameters})


# -------------------------------------------------------------------- checking


def check_side_files(folder: Path, config: RRRAConfig, adapter: RetrieverAdapter) -> None:
    """Refuse a folder whose sentence-transformers files make other embeddings than the model in it.

    A `SentenceTransformer` loaded from the folder has a copy of the linear maps. If the copy is trained and
    saved, it differs from the adapter's.

    Raises:
        ValueError: If pooling, normalisation or maps differ; the message says how to go on.
    """
    modules = read_modules(str(folder), {})
    if modules is None:
        return
    paths = {module["type"].rpartition(".")[2]: module["path"] for module in modules}
    differing = []
    if "Pooling" in paths and read_pooling(str(folder), paths["Pooling"], {}) != config.pooling:
        differing.append("pooling")
    if ("Normalize" in paths) != config.normalize:
        differing.append("normalize")
    router = read_maps(str(folder), paths["Router"], {}) if "Router" in paths else {}
    maps = adapter_maps(adapter)
    differing += [f"{task}_map" for task in TASKS if not _same_map(maps.get(task), router.get(task))]
    if differing:
        raise ValueError(
            f"{folder}: {MODULES_NAME} and the model disagree about {', '.join(differing)}. To keep what the "
            f"model says, delete {MODULES_NAME}, load again and save. To keep a map that was trained in "
            "sentence-transformers, copy the Dense's linear.weight to the adapter's map before you save; "
            "RRRAModel.to_sentence_transformer() makes a SentenceTransformer that shares its maps."
        )


def _same_map(ours: Tensor | None, theirs: Tensor | None) -> bool:
    if ours is None or theirs is None:
        return ours is theirs
    return torch.equal(ours.detach().cpu().to(theirs.dtype), theirs)
