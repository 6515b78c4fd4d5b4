"""The files of sentence-transformers in a model's folder: reading, writing and checking them."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from .adapter_rrra import RetrieverAdapter
from .configuration_rrra import RRRAConfig
from .dense_files_rrra import module_kind, read_after_pooling, read_weights, write_module
from .files_rrra import write_json
from .hub_files_rrra import check_inside, find_file, read_model_json
from .pooling_rrra import POOLING_MODES, pooling_modes

MODULES_NAME = "modules.json"
SETTINGS_NAME = "config_sentence_transformers.json"
TRANSFORMER_NAME = "sentence_bert_config.json"
# As early releases named it, by the kind of encoder.
TRANSFORMER_NAMES = (
    TRANSFORMER_NAME,
    *(
        f"sentence_{kind}_config.json"
        for kind in ("roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
    ),
)
TEXT_MODALITY = {"method": "forward", "method_output_name": "last_hidden_state"}
TRANSFORMER_DEFAULTS = {"transformer_task": "feature-extraction", "module_output_name": "token_embeddings"}
# How sentence-transformers computes is not what it computes: `unpad_inputs`.
TRANSFORMER_SETTINGS = {
    "max_seq_length",
    "do_lower_case",
    "modality_config",
    "unpad_inputs",
    *TRANSFORMER_DEFAULTS,
}
ROUTER_NAME = "router_config.json"
POOLING_FOLDER = "1_Pooling"

# Names that every release of sentence-transformers knows, and other software that reads its folders.
MODULE_PREFIX = "sentence_transformers.models."
# In the order in which sentence-transformers concatenates the vectors of several.
LEGACY_POOLING_KEYS = {
    "cls": "pooling_mode_cls_token",
    "max": "pooling_mode_max_tokens",
    "mean": "pooling_mode_mean_tokens",
    "mean_sqrt_len_tokens": "pooling_mode_mean_sqrt_len_tokens",
    "weightedmean": "pooling_mode_weightedmean_tokens",
    "lasttoken": "pooling_mode_lasttoken",
}
AFTER_POOLING = ("Dense", "LayerNorm", "Normalize")
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
        `pooling`, `after_pooling`, `normalize`, `maps`, what `read_prompts` returns, `max_seq_length`,
        `do_lower_case`, `subfolder`, where the encoder itself is, and `folders`, those of the modules after
        pooling.

    Raises:
        ValueError: If the encoder does something that an `RRRAConfig` can't express.
    """
    modules = read_modules(name_or_path, hub)
    if modules is None:
        return {}
    names = [module_kind(module) for module in modules]
    maps = {}
    if names[-1:] == ["Router"]:
        maps = read_maps(name_or_path, modules.pop()["path"], hub)
        names.pop()
    check_kinds(name_or_path, names)
    normalize = names[-1] == "Normalize"
    after = modules[2:-1] if normalize else modules[2:]
    prefix = f"{modules[0]['path']}/" if modules[0]["path"] else ""
    transformer = read_transformer(name_or_path, prefix, hub)
    prompts = read_model_json(name_or_path, SETTINGS_NAME, hub) or {}
    return {
        "pooling": read_pooling(name_or_path, modules[1]["path"], hub),
        "after_pooling": read_after_pooling(name_or_path, after, hub) or None,
        "normalize": normalize,
        "maps": maps,
        **read_prompts(prompts, name_or_path),
        **transformer,
        "subfolder": modules[0]["path"],
        "folders": [module["path"] for module in after],
    }


def read_transformer(name_or_path: str, prefix: str, hub: dict[str, Any]) -> dict[str, Any]:
    """Return `max_seq_length` and `do_lower_case` of a `Transformer` module.

    Args:
        name_or_path: Folder or Hub repository.
        prefix: Folder of the module, with a slash behind it, or nothing.
        hub: Options of `cached_file`.

    Raises:
        ValueError: If they are not legal, or the module does more than embed tokens of texts.
    """
    contents = (read_model_json(name_or_path, prefix + name, hub) for name in TRANSFORMER_NAMES)
    found: dict[str, Any] = next((content for content in contents if content is not None), {})
    length, lower_case = found.get("max_seq_length"), found.get("do_lower_case", False)
    if length is not None and (type(length) is not int or length < 1):
        raise ValueError(
            f"{TRANSFORMER_NAME} of {name_or_path}: max_seq_length must be at least 1, got {length!r}."
        )
    modalities = found.get("modality_config")
    texts = modalities.get("text", TEXT_MODALITY) if isinstance(modalities, dict) else modalities
    unknown = {name: found[name] for name in found.keys() - TRANSFORMER_SETTINGS if found[name]}
    expected = {name: found.get(name, value) == value for name, value in TRANSFORMER_DEFAULTS.items()}
    if unknown or texts not in (None, TEXT_MODALITY) or not all(expected.values()):
        odd = unknown or found
        raise ValueError(
            f"{TRANSFORMER_NAME} of {name_or_path} has settings that are not supported, {odd!r:.200}; legal "
            f"are max_seq_length, do_lower_case, and the last hidden state of a text's tokens."
        )
    return {"max_seq_length": length, "do_lower_case": bool(lower_case)}


def check_kinds(name_or_path: str, names: list[str]) -> None:
    """Refuse modules that an `RRRAConfig` can't express.

    Args:
        name_or_path: Folder or Hub repository, for the message.
        names: Their classes, without a router of linear maps.

    Raises:
        ValueError: If there is another than Transformer, Pooling, Dense, LayerNorm and Normalize, or they are
            in another order.
    """
    if names[:2] != ["Transformer", "Pooling"] or not set(names[2:]) <= set(AFTER_POOLING):
        raise ValueError(
            f"{name_or_path} has the modules {', '.join(names)}; legal are Transformer, Pooling, any number "
            f"of {', '.join(AFTER_POOLING)} and, at the end, a Router of linear maps. Retriever takes any "
            "other SentenceTransformer as it is."
        )


def read_pooling(name_or_path: str, folder: str, hub: dict[str, Any]) -> str | list[str]:
    """Return the pooling of a `Pooling` module's folder, in the format of any release.

    Raises:
        ValueError: If there is no such folder, or it isn't a pooling of `POOLING_MODES`.
    """
    source = f"{folder}/config.json".lstrip("/")
    config = read_model_json(name_or_path, source, hub)
    if config is None:
        raise ValueError(f"{name_or_path} has no {source}, though {MODULES_NAME} names it.")
    modes = config.get("pooling_mode")
    if modes is None:
        known = {key: mode for mode, key in LEGACY_POOLING_KEYS.items()}
        keys = [
            *known,
            *sorted(key for key in config if key.startswith("pooling_mode_") and key not in known),
        ]
        modes = [known.get(key, key) for key in keys if config.get(key)] or "mean"
    modes = list(modes) if isinstance(modes, list) else [modes]
    if (
        not modes
        or any(mode not in POOLING_MODES for mode in modes)
        or not config.get("include_prompt", True)
    ):
        raise ValueError(
            f"{name_or_path} pools with {modes!r} (include_prompt={config.get('include_prompt', True)}); "
            f"legal are {', '.join(POOLING_MODES)}, with the prompt included."
        )
    return modes[0] if len(modes) == 1 else modes


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


def read_prompts(settings: dict[str, Any], name_or_path: str) -> dict[str, Any]:
    """Return the settings of an `RRRAConfig` among those of a `SentenceTransformer`.

    Args:
        settings: Contents of `config_sentence_transformers.json`.
        name_or_path: Folder or Hub repository, for messages.

    Returns:
        `query_prompt`, `document_prompt`, the prompt of the first of the names `document`, `passage` and
        `corpus`, `prompts`, `default_prompt_name`, `similarity_fn_name` and `truncate_dim`.

    Raises:
        ValueError: If there are no texts by name.
    """
    prompts = settings.get("prompts") or {}
    if not isinstance(prompts, dict) or not all(isinstance(text, str) for text in prompts.values()):
        raise ValueError(
            f"{SETTINGS_NAME} of {name_or_path} must have texts as prompts by name, got {prompts!r:.200}."
        )
    return {
        "query_prompt": prompts.get("query", ""),
        "document_prompt": next((prompts[name] for name in DOCUMENT_PROMPT_NAMES if name in prompts), ""),
        "prompts": {name: text for name, text in prompts.items() if name not in TASKS} or None,
        "default_prompt_name": settings.get("default_prompt_name"),
        "similarity_fn_name": settings.get("similarity_fn_name") or "cosine",
        "truncate_dim": settings.get("truncate_dim"),
    }


def adopt_settings(config: RRRAConfig, folder: Path) -> None:
    """Set a model's prompts and so on to those that sentence-transformers wrote into a folder."""
    for name, value in read_prompts(_read_settings_file(folder), str(folder)).items():
        setattr(config, name, value)
    config.check_similarity()


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


def write_side_files(
    folder: Path, config: RRRAConfig, adapter: RetrieverAdapter, after_pooling: nn.Sequential
) -> None:
    """Write the files with which `SentenceTransformer(folder)` makes the same embeddings as the model.

    Linear maps become a `Router` with a route for queries and one for documents.
    """
    modules = [("", "Transformer"), (POOLING_FOLDER, "Pooling")]
    for settings, layer in zip(config.after_pooling or [], after_pooling, strict=True):
        modules.append((f"{len(modules)}_{settings['type']}", settings["type"]))
        write_module(folder / modules[-1][0], settings, layer)
    if config.normalize:
        modules.append((f"{len(modules)}_Normalize", "Normalize"))
    maps = adapter_maps(adapter)
    if maps:
        modules.append((f"{len(modules)}_Router", "Router"))
        _write_router(folder / modules[-1][0], maps)
    modes = pooling_modes(config.pooling)
    pooling: dict[str, Any] = {key: mode in modes for mode, key in LEGACY_POOLING_KEYS.items()}
    if len(modes) > 1:
        # In the order that the model concatenates them in.
        pooling = {"pooling_mode": list(modes)}
    write_json(
        folder / POOLING_FOLDER / "config.json", {"word_embedding_dimension": config.hidden_size, **pooling}
    )
    write_json(folder / TRANSFORMER_NAME, {"max_seq_length": config.max_seq_length, "do_lower_case": False})
    write_json(
        folder / SETTINGS_NAME,
        {
            "model_type": "SentenceTransformer",
            "prompts": config.all_prompts,
            "default_prompt_name": config.default_prompt_name,
            "similarity_fn_name": config.similarity_fn_name,
            **({} if config.truncate_dim is None else {"truncate_dim": config.truncate_dim}),
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


def read_appended(name: str, hub: dict[str, Any], config: RRRAConfig) -> dict[str, Any] | None:
    """Return what the sentence-transformers files of a model say, if they have more modules than it has.

    So they do when modules were appended to a `SentenceTransformer` around the model, and it was saved.

    Args:
        name: Folder or Hub repository of the model.
        hub: Options of `cached_file`.
        config: The model's configuration.

    Raises:
        ValueError: If a module is not one that an `RRRAConfig` can express.
    """
    settings = read_settings(name, hub)
    theirs = _after_pooling(settings) if settings else []
    ours = _after_pooling({"after_pooling": config.after_pooling, "normalize": config.normalize})
    return settings if len(theirs) > len(ours) and theirs[: len(ours)] == ours else None


def _after_pooling(settings: dict[str, Any]) -> list[dict[str, Any]]:
    return [*(settings["after_pooling"] or []), *([{"type": "Normalize"}] if settings["normalize"] else [])]


def check_side_files(
    name: str,
    hub: dict[str, Any],
    config: RRRAConfig,
    adapter: RetrieverAdapter,
    after_pooling: nn.Sequential,
) -> None:
    """Refuse a model whose sentence-transformers files make other embeddings than it does.

    A `SentenceTransformer` loaded from the folder has a copy of the linear maps and of the modules after
    pooling. If the copy is trained and saved, it differs from the model's.

    Args:
        name: Folder or Hub repository of the model.
        hub: Options of `cached_file`.
        config: The model's configuration.
        adapter: Its adapter.
        after_pooling: Its modules after pooling.

    Raises:
        ValueError: If modules, pooling, normalisation or maps differ; the message says how to go on.
    """
    settings = read_settings(name, hub)
    if not settings:
        return
    differing = [
        key for key in ("pooling", "after_pooling", "normalize") if settings[key] != getattr(config, key)
    ]
    if "after_pooling" not in differing and not _same_modules(after_pooling, name, settings["folders"], hub):
        differing.append("the weights of after_pooling")
    maps, router = adapter_maps(adapter), settings["maps"]
    differing += [f"{task}_map" for task in TASKS if not _same_map(maps.get(task), router.get(task))]
    if differing:
        raise ValueError(
            f"{name}: {MODULES_NAME} and the model disagree about {', '.join(differing)}. To keep what the "
            f"model says, delete {MODULES_NAME}, load again and save. To keep what was trained in "
            "sentence-transformers, copy a Dense's linear.weight to the adapter's map, or the weights of a "
            "module to model.after_pooling, before you save; RRRAModel.to_sentence_transformer() makes a "
            "SentenceTransformer that shares both."
        )


def _same_modules(ours: nn.Sequential, name: str, folders: list[str], hub: dict[str, Any]) -> bool:
    for layer, folder in zip(ours, folders, strict=True):
        weights = layer.state_dict()
        theirs = read_weights(name, folder, hub) if weights else {}
        if theirs.keys() != weights.keys() or not all(_same_map(weights[key], theirs[key]) for key in theirs):
            return False
    return True


def _same_map(ours: Tensor | None, theirs: Tensor | None) -> bool:
    if ours is None or theirs is None:
        return ours is theirs
    return ours.shape == theirs.shape and torch.equal(ours.detach().cpu().to(theirs.dtype), theirs)
