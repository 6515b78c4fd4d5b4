"""The files of a model, in a folder or in a Hub repository."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import constants
from safetensors import SafetensorError, safe_open
from transformers.utils import cached_file
from transformers.utils.hub import extract_commit_hash

from .files_rrra import read_json

# Plain names, none of them hidden, with slashes between them.
INSIDE = re.compile(r"\w[\w .-]*(/\w[\w .-]*)*")
HUB_OPTIONS = ("revision", "token", "cache_dir", "local_files_only", "force_download")


def check_inside(path: object, source: str) -> str:
    """Return a path that a model's file names, after checking that it doesn't lead out of the folder.

    Args:
        path: The path.
        source: The file that names it, for the message.

    Raises:
        ValueError: If it isn't a path of plain names, none of them hidden.

    Example:
        >>> check_inside("1_Pooling", "modules.json")
        '1_Pooling'
        >>> check_inside("../other", "modules.json")
        Traceback (most recent call last):
        ValueError: modules.json must name files and folders inside of its folder, got '../other'.
    """
    if not isinstance(path, str) or not INSIDE.fullmatch(path):
        raise ValueError(f"{source} must name files and folders inside of its folder, got {path!r}.")
    return path


def find_file(name_or_path: str, filename: str, hub: dict[str, Any]) -> Path | None:
    """Return the path of a model's file, downloaded if it is on the Hub; None if the model has no such file.

    Args:
        name_or_path: Folder or Hub repository.
        filename: Name of the file.
        hub: Options of `cached_file`: `revision`, `token`, `subfolder`, ...

    Raises:
        OSError: If there is no such model. Also if none of its files is in the cache and the Hub can't be
            reached: to ask for further files, each of them tried several times, would take minutes.
    """
    if Path(name_or_path).is_dir():
        path = Path(name_or_path) / hub.get("subfolder", "") / filename
        return path if path.is_file() else None
    found = cached_file(
        name_or_path,
        filename,
        _raise_exceptions_for_missing_entries=False,
        # What is in the cache opens without a token, too.
        _raise_exceptions_for_gated_repo=not _has_cache(name_or_path, hub),
        _raise_exceptions_for_connection_errors=False,
        **hub,
    )
    if found is None and not _has_cache(name_or_path, hub):
        raise OSError(
            f"There is no folder {name_or_path}, the cache has no model of this name, and the Hub can't be "
            "reached or must not be asked (HF_HUB_OFFLINE, local_files_only)."
        )
    return None if found is None else Path(found)


def _has_cache(name: str, hub: dict[str, Any]) -> bool:
    """Return whether anything of a model was downloaded, even if only that a file of it doesn't exist."""
    cache = Path(hub.get("cache_dir") or constants.HF_HUB_CACHE)
    # As the Hub's client names it, whose own function refuses a name that isn't legal.
    return (cache / f"models--{name.replace('/', '--')}").is_dir()


def read_model_json(name_or_path: str, filename: str, hub: dict[str, Any], kind: type = dict) -> Any:
    """Return the contents of a JSON file of a model, None if the model has no such file.

    Args:
        name_or_path: Folder or Hub repository.
        filename: Name of the file.
        hub: Options of `cached_file`: `revision`, `token`, `subfolder`, ...
        kind: Type that the contents must have.

    Raises:
        ValueError: If the file is damaged, or its contents are of another type.
    """
    path = find_file(name_or_path, filename, hub)
    return None if path is None else read_json(path, kind)


def shard_names(name_or_path: str, filename: str, hub: dict[str, Any]) -> dict[str, str]:
    """Return the file of each weight that the index of a model's shards lists, empty if it has no such index.

    Args:
        name_or_path: Folder or Hub repository.
        filename: Name of the index.
        hub: Options of `cached_file`.

    Raises:
        ValueError: If the index is damaged, or names a file outside of the model's folder.
    """
    index = read_model_json(name_or_path, filename, hub)
    if index is None:
        return {}
    shards = index.get("weight_map")
    if not isinstance(shards, dict):
        raise ValueError(f"{filename} of {name_or_path} must have a weight_map, got {type(shards).__name__}.")
    return {weight: check_inside(file, f"{filename} of {name_or_path}") for weight, file in shards.items()}


@contextmanager
def named_errors(name: str) -> Iterator[None]:
    """Turn the errors that libraries raise for damaged or forged files of a model into one that names it.

    Raises:
        ValueError: Instead of a TypeError, an IndexError, and so on, and of one that doesn't name the model.
    """
    try:
        yield
    except (OSError, ImportError, MemoryError, SafetensorError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # of any kind: no library checks each value of a file
        if isinstance(error, ValueError) and name in str(error):
            raise
        kind = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
        raise ValueError(f"{name} can't be loaded: {kind}{error}") from error


def folder_of(name: str, hub: dict[str, Any]) -> Path:
    """Return the folder of a model's files: the folder itself, or a snapshot in the Hub's cache."""
    if Path(name).is_dir():
        return Path(name) / hub.get("subfolder", "")
    return Path(str(cached_file(name, "config.json", **hub))).parent


def commit_of(name: str, hub: dict[str, Any]) -> str | None:
    """Return the commit of a model on the Hub, None for a folder."""
    return extract_commit_hash(str(folder_of(name, hub) / "config.json"), None)


def damaged_file(name: str, hub: dict[str, Any]) -> Path | str:
    """Return the first weights file of a model that can't be opened."""
    for path in sorted(folder_of(name, hub).glob("*.safetensors")):
        try:
            with safe_open(path, framework="pt"):
                pass
        except SafetensorError:
            return path
    return f"A weights file of {name}"
