"""The base model's weights, which a folder of LoRA weights leaves where they are."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

# The first of them in a message.
SHOWN = 5


def without_base(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the part of an `RRRAModel`'s state that its base model doesn't have: LoRA and adapter.

    Example:
        >>> state = {"encoder.q.base_layer.weight": 0, "encoder.q.lora_A.default.weight": 1, "adapter.b": 2}
        >>> sorted(without_base(state))
        ['adapter.b', 'encoder.q.lora_A.default.weight']
    """
    return {
        name: value for name, value in state.items() if not name.startswith("encoder.") or "lora_" in name
    }


def weights_fingerprint(encoder: nn.Module) -> str:
    """Return a fingerprint of an encoder's weights, 16 hexadecimal digits.

    A pooler, which takes no part in embeddings and may have random weights, isn't counted.
    """
    digest: Any = hashlib.sha256()
    for name, value in sorted(_of_base(encoder).items()):
        if "pooler" not in name:
            digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
            digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()[:16]


def check_same_base(encoder: nn.Module, base: nn.Module, name: str) -> None:
    """Refuse a base model whose weights are not those under an encoder's LoRA.

    Raises:
        ValueError: If a weight differs, or only one of them has it.
    """
    ours, theirs = _of_base(encoder), _of_base(base)
    _check_names(ours, theirs, name)
    differing = [key for key in ours if "pooler" not in key and not _same(ours[key], theirs[key])]
    if differing:
        raise ValueError(
            f"The weights under the LoRA are not those of {name}: {len(differing)} differ "
            f"({', '.join(differing[:SHOWN])}). Use form='full' or 'merged'."
        )


@torch.no_grad()
def fill_base(encoder: nn.Module, base: nn.Module, name: str) -> None:
    """Copy a base model's weights under an encoder's LoRA.

    Raises:
        ValueError: If a weight is missing or of another shape.
    """
    ours, theirs = _of_base(encoder), _of_base(base)
    _check_names(ours, theirs, name)
    for key in ours.keys() & theirs.keys():
        ours[key].copy_(theirs[key])


def _of_base(encoder: nn.Module) -> dict[str, Tensor]:
    """Return an encoder's weights but for LoRA's, by their names in the base model."""
    state = encoder.state_dict()
    return {key.replace(".base_layer", ""): value for key, value in state.items() if "lora_" not in key}


def _check_names(ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor], name: str) -> None:
    shapes = [
        {key: value.shape for key, value in state.items() if "pooler" not in key} for state in (ours, theirs)
    ]
    odd = sorted(
        key for key in shapes[0].keys() | shapes[1].keys() if shapes[0].get(key) != shapes[1].get(key)
    )
    if odd:
        raise ValueError(
            f"{name} is not the base model of the LoRA weights: {len(odd)} weights are missing or of another "
            f"shape ({', '.join(odd[:SHOWN])})."
        )


def _same(ours: Tensor, theirs: Tensor) -> bool:
    return torch.equal(ours.cpu(), theirs.to(ours.dtype).cpu())
