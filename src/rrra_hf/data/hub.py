"""Read datasets of the Hub: retrieval datasets with several configurations, or tables of pairs."""

from __future__ import annotations

import os
from typing import Any

from datasets import get_dataset_config_names, load_dataset


def load_parts(name: str, cache_dir: str | os.PathLike[str] | None = None) -> Any:
    """Return a dataset of the Hub, or of a local folder, as one of the mappings that are sources.

    Args:
        name: Name or folder. A retrieval dataset has the configurations `corpus`, `queries`, and `qrels` or
            `default`, perhaps with a prefix: `en-corpus`. Another must have one configuration.
        cache_dir: Cache folder.

    Returns:
        `{"corpus": ..., "queries": ..., "qrels": {split: ...}}`, or tables by split.

    Raises:
        FileNotFoundError: If it can't be loaded.
        ValueError: If it has several configurations that are no single retrieval dataset.
    """
    names = _loaded(name, get_dataset_config_names, name)
    parts = _parts(name, names)
    if parts is None:
        return dict(_loaded(name, load_dataset, name, cache_dir=cache_dir))
    loaded = {
        part: _loaded(name, load_dataset, name, configuration, cache_dir=cache_dir)
        for part, configuration in parts.items()
    }
    return {
        part: dict(found) if part == "qrels" else next(iter(found.values())) for part, found in loaded.items()
    }


def _parts(name: str, names: list[str]) -> dict[str, str] | None:
    """Return the configuration of each part of a retrieval dataset; None if there is only one."""
    prefixes = [
        found.removesuffix("corpus") for found in names if found in ("corpus",) or found.endswith("-corpus")
    ]
    if not prefixes and len(names) == 1:
        return None
    if len(prefixes) != 1:
        raise ValueError(
            f"{name!r} has the configurations {names}. Load those you want with datasets.load_dataset, and "
            "pass {'corpus': ..., 'queries': ..., 'qrels': ...}, or one of them."
        )
    (prefix,) = prefixes
    parts = {"corpus": f"{prefix}corpus", "queries": f"{prefix}queries"}
    qrels = next((found for found in (f"{prefix}qrels", "qrels", "default") if found in names), None)
    return {part: found for part, found in {**parts, "qrels": qrels}.items() if found in names}


def _loaded(name: str, load: Any, *arguments: Any, **options: Any) -> Any:
    try:
        return load(*arguments, **options)
    except Exception as error:
        call = f"datasets.{load.__name__}({', '.join(map(repr, arguments))})"
        raise FileNotFoundError(
            f"There is no collection {name!r}: it isn't a BEIR folder, a file or 'python-docs', and "
            f"{call} raised {type(error).__name__}: {error}"
        ) from error
