"""The files of a model, in a folder or in a Hub repository."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from transformers.utils import cached_file
from transformers.utils.hub import extract_commit_hash

from .files_rrra import read_json

HUB_OPTIONS = ("revision", "token", "cache_dir", "local_files_only", "force_download")


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
    folder = Path(name_or_path)
    if folder.is_dir() and not (folder / hub.get("subfolder", "") / filename).exists():
        return None
    path = cached_file(
        name_or_path,
        filename,
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_gated_repo=False,
        _raise_exceptions_for_connection_errors=False,
        **hub,
    )
    if path is None:
        return None
    return read_json(path, kind)


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
