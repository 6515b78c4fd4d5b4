"""The weights of an adapter, read from its own files or from those of a whole model."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from .hub_files_rrra import find_file, shard_names

WEIGHTS_NAME = "model.safetensors"
WEIGHTS_INDEX_NAME = "model.safetensors.index.json"
# Names of weights in format version 1, as regular expressions, and what they are called now.
OLD_NAMES = (
    (r"^evidence\.memory_", "reader.memory."),
    (r"^evidence\.ranker\.", "reader.ranking_head."),
    (r"^evidence\.judge\.", "reader.relevance_head."),
    (r"^evidence\.", "reader.memory."),
    (r"^(query_layer|document_layer|product_layer|output_layer|readout)\.", r"reader.\1."),
)


def read_weights(name_or_path: str, prefix: str, hub: dict[str, Any]) -> dict[str, Tensor]:
    """Read the adapter's tensors, and only those, from one weights file or from shards.

    Args:
        name_or_path: Folder or Hub repository.
        prefix: What the names of the adapter's weights start with.
        hub: Options of `cached_file`.

    Returns:
        The tensors by the names that they have now, without the prefix.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If a file is damaged.
    """
    shards = shard_names(name_or_path, WEIGHTS_INDEX_NAME, hub)
    filenames = {file for name, file in shards.items() if name.startswith(prefix)} or {WEIGHTS_NAME}
    weights: dict[str, Tensor] = {}
    for filename in sorted(filenames):
        path = find_file(name_or_path, filename, hub)
        if path is None:
            raise FileNotFoundError(f"{name_or_path} has no {filename}.")
        weights.update(_read_file(path, prefix))
    return weights


def _read_file(path: Path, prefix: str) -> dict[str, Tensor]:
    try:
        with safe_open(path, framework="pt") as file:
            names = [name for name in file.keys() if name.startswith(prefix)]  # noqa: SIM118
            return {_current_name(name[len(prefix) :]): file.get_tensor(name) for name in names}
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged: {error}") from error


def _current_name(name: str) -> str:
    for old, new in OLD_NAMES:
        if re.search(old, name):
            return re.sub(old, new, name)
    return name
