"""The plain form of a model: its encoder as a model of its own, and the adapter in a folder beside it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from .adapter_rrra import ADAPTER_FOLDER, CONFIG_NAME, MODEL_TYPE, RetrieverAdapter, find_beside
from .configuration_rrra import RRRAConfig
from .files_rrra import read_json, write_json
from .hub_files_rrra import read_model_json

# Settings that the encoder's own config.json has no names for.
BASE_MODEL = ("base_model_name", "base_model_revision")


def write_plain(
    folder: Path, encoder: PreTrainedModel, config: RRRAConfig, adapter: RetrieverAdapter, **options: Any
) -> None:
    """Write an encoder as transformers does, and an adapter beside it.

    The adapter is written without its linear maps, which sentence-transformers' own modules hold: see
    `write_side_files`.

    Args:
        folder: The folder.
        encoder: The encoder, without LoRA.
        config: The model's configuration.
        adapter: The model's adapter.
        options: Arguments of `PreTrainedModel.save_pretrained`.
    """
    encoder.save_pretrained(folder, **options)
    if not options.get("is_main_process", True):
        return
    path = folder / CONFIG_NAME
    base = {name: getattr(config, name) for name in BASE_MODEL if getattr(config, name)}
    write_json(path, {**read_json(path, dict), **base})
    without_maps(adapter).save_pretrained(folder / ADAPTER_FOLDER)


def rename_tokenizer(folder: Path) -> None:
    """Give a tokenizer of no particular class the name that transformers 4 knows too."""
    path = folder / "tokenizer_config.json"
    config = read_json(path, dict)
    if config.get("tokenizer_class") == "TokenizersBackend":
        write_json(path, {**config, "tokenizer_class": "PreTrainedTokenizerFast"})


def adapter_beside(name: str, hub: dict[str, Any]) -> Path | None:
    """Return the folder of the adapter beside an encoder, None if there is none, or no encoder.

    Args:
        name: Folder or Hub repository.
        hub: Options of `cached_file`: `revision`, `token`, ...

    Raises:
        ValueError: If the configuration is damaged, or a download isn't what the Hub declares.
    """
    config = read_model_json(name, CONFIG_NAME, hub) or {}
    if config.get("model_type") in (RRRAConfig.model_type, MODEL_TYPE):
        return None
    return find_beside(name, hub)


def open_adapter(name: str, folder: Path, dim: int) -> RetrieverAdapter:
    """Open the adapter beside an encoder.

    Args:
        name: Folder or Hub repository, for messages.
        folder: What `adapter_beside` returns.
        dim: Dimension of the embeddings.

    Raises:
        OSError: If there are no weights.
        ValueError: If a file is damaged, or the adapter has another dimension.
    """
    adapter = RetrieverAdapter.from_pretrained(folder)
    if adapter.config.embedding_dim not in (None, dim):
        raise ValueError(
            f"The adapter of {name} must be of dimension {dim} as the encoder is, "
            f"got {adapter.config.embedding_dim}."
        )
    adapter.config = replace(adapter.config, embedding_dim=dim)
    return adapter


# -------------------------------------------------------------------- maps


def without_maps(adapter: RetrieverAdapter) -> RetrieverAdapter:
    """Return an adapter for embeddings that are mapped already, with the reader of another one."""
    return RetrieverAdapter(replace(adapter.config, query_map=False, document_map=False), adapter.reader)


@torch.no_grad()
def set_maps(adapter: RetrieverAdapter, maps: Mapping[str, Tensor]) -> None:
    """Give an adapter linear maps, in place.

    Args:
        adapter: The adapter.
        maps: Weights `(dim, dim)` by task: `"query"`, `"document"`.
    """
    for task, weight in maps.items():
        layer = nn.utils.skip_init(nn.Linear, *weight.shape, bias=False)
        layer.weight.copy_(weight)
        setattr(adapter, f"{task}_map", layer)
        setattr(adapter.config, f"{task}_map", True)
