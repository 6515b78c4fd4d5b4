"""Checks of a loaded model: it is complete, or it is refused."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .configuration_rrra import RRRAConfig
from .hub_files_rrra import read_model_json
from .sizes_rrra import check_counts

# Names that a message lists.
SHOWN = 5


def check_model_type(name: str, hub: dict[str, Any]) -> None:
    """Refuse a folder or repository that holds another kind of model.

    Raises:
        OSError: If there is no such folder or repository.
        ValueError: If its config is not an `RRRAConfig`, or is damaged.
    """
    values = read_model_json(name, "config.json", hub)
    if values is None:
        raise FileNotFoundError(f"{name} has no config.json.")
    check_counts(name, values)
    if values.get("model_type") != RRRAConfig.model_type:
        raise ValueError(
            f"{name} holds a model of type {values.get('model_type')!r:.80}, not an RRRAModel; "
            "make one with RRRAModel.from_encoder."
        )


def check_loaded(
    name: str, info: dict[str, Any], lora: bool, anew: bool = False, config: str = "config"
) -> None:
    """Refuse a checkpoint that doesn't hold exactly the weights of its config.

    Args:
        name: Folder or repository.
        info: The loading info of transformers.
        lora: Whether the config says LoRA.
        anew: Whether weights of another shape may be made anew.
        config: What the weights must fit, for the message.

    Raises:
        ValueError: If weights are missing, unexpected or of another shape.
    """
    # An unused pooler may be missing: no embedding depends on it.
    missing = sorted(key for key in info["missing_keys"] if not key.startswith("encoder.pooler."))
    unexpected = sorted(info["unexpected_keys"])
    mismatched = [] if anew else sorted(key for key, *_ in info["mismatched_keys"])
    found = {"missing": missing, "unexpected": unexpected, "of another shape": mismatched}
    problems = [f"{len(keys)} {what} ({some(keys)})" for what, keys in found.items() if keys]
    if problems:
        hint = ""
        if lora and any("lora_" in key for key in missing):
            hint = " The config says LoRA, but the checkpoint lacks LoRA weights."
        raise ValueError(f"{name} doesn't fit its {config}: weights {', '.join(problems)}.{hint}")


def some(names: Sequence[str]) -> str:
    """Return the first names of a list, for a message.

    Example:
        >>> some(["a", "b"]), some(list("abcdef"))
        ('a, b', 'a, b, c, d, e, ...')
    """
    return ", ".join(names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")
