"""Checks of a model of sentence-transformers before its modules are loaded."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ..models.configuration_rrra import RRRAConfig
from ..models.hub_files_rrra import find_file, read_model_json
from ..models.layout_rrra import read_modules, read_routes
from ..models.sizes_rrra import WEIGHTS_NAMES, check_counts, check_encoder_size


def check_modules(name: str, hub: dict[str, Any], **options: Any) -> None:
    """Refuse a model whose files lead out of its folder, or declare more than they hold.

    Args:
        name: Folder or Hub repository, of any model that `SentenceTransformer` loads.
        hub: Options of `cached_file`: `revision`, `token`, ...
        options: Arguments of `AutoModel.from_config`.

    Raises:
        OSError: If there is no such model.
        ValueError: If a file is damaged; the message names it.
    """
    for kind, folder in _modules(name, hub):
        place = {**hub, "subfolder": folder}
        if kind == "Dense":
            _check_dense(name, place)
        elif kind == "Transformer":
            config = read_model_json(name, "config.json", place) or {}
            # An RRRAModel checks its own sizes, and may have its weights elsewhere.
            if config.get("model_type") == RRRAConfig.model_type:
                check_counts(name, config)
            else:
                check_encoder_size(name, place, **options)


def _modules(name: str, hub: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield class and folder of each module, also of those on the routes of a router."""
    for module in read_modules(name, hub) or [{"type": "Transformer", "path": ""}]:
        kind = module["type"].rpartition(".")[2]
        yield kind, module["path"]
        if kind == "Router":
            for route in read_routes(name, module["path"], hub).values():
                # `query_0_Dense` is a Dense.
                yield from ((part.rpartition("_")[2], f"{module['path']}/{part}") for part in route)


def _check_dense(name: str, hub: dict[str, Any]) -> None:
    config = read_model_json(name, "config.json", hub) or {}
    inputs, outputs = (config.get(setting, 0) for setting in ("in_features", "out_features"))
    source = f"{hub['subfolder']}/config.json of {name}"
    for size in (inputs, outputs):
        if not isinstance(size, int) or size < 1:
            raise ValueError(f"{source} must have in_features and out_features of at least 1, got {size!r}.")
    paths = [path for filename in WEIGHTS_NAMES if (path := find_file(name, filename, hub))]
    if paths and inputs * outputs > paths[0].stat().st_size:
        raise ValueError(f"{source} declares {inputs} x {outputs} weights, and its file is smaller.")
