"""Modules of sentence-transformers between pooling and the embedding: Dense, LayerNorm and Normalize."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

# By the name in a Dense's settings, without the module. None of them has weights or needs arguments.
ACTIVATIONS = {
    activation.__name__: activation
    for activation in (
        nn.ELU,
        nn.GELU,
        nn.Identity,
        nn.LeakyReLU,
        nn.Mish,
        nn.ReLU,
        nn.Sigmoid,
        nn.SiLU,
        nn.Tanh,
    )
}
SIZES = {"Dense": ("in_features", "out_features"), "LayerNorm": ("dimension",), "Normalize": ()}
LEGAL = {
    "Dense": {"type", "in_features", "out_features", "bias", "activation_function"},
    "LayerNorm": {"type", "dimension"},
    "Normalize": {"type"},
}


class Dense(nn.Module):
    """A linear layer and an activation.

    Args:
        settings: The settings, see `check_after_pooling`.
    """

    def __init__(self, settings: dict[str, Any]):
        super().__init__()
        sizes = settings["in_features"], settings["out_features"]
        self.linear = nn.Linear(*sizes, bias=settings["bias"])
        self.activation = ACTIVATIONS[settings["activation_function"]]()

    def forward(self, embeddings: Tensor) -> Tensor:
        """Map embeddings, `(batch, in_features)`, to `(batch, out_features)`."""
        return self.activation(self.linear(embeddings))


class LayerNorm(nn.Module):
    """A layer norm.

    Args:
        settings: The settings, see `check_after_pooling`.
    """

    def __init__(self, settings: dict[str, Any]):
        super().__init__()
        self.norm = nn.LayerNorm(settings["dimension"])

    def forward(self, embeddings: Tensor) -> Tensor:
        """Map embeddings, `(batch, dimension)`, to the same shape."""
        return self.norm(embeddings)


class Normalize(nn.Module):
    """Division by the length.

    Args:
        settings: The settings, see `check_after_pooling`.
    """

    def __init__(self, settings: dict[str, Any]):
        super().__init__()

    def forward(self, embeddings: Tensor) -> Tensor:
        """Map embeddings, `(batch, dim)`, to the same shape."""
        return F.normalize(embeddings, dim=-1)


LAYERS: dict[str, type[nn.Module]] = {"Dense": Dense, "LayerNorm": LayerNorm, "Normalize": Normalize}


def make_after_pooling(modules: list[dict[str, Any]] | None) -> nn.Sequential:
    """Return the layers of checked settings, with initial weights.

    Example:
        >>> make_after_pooling([{"type": "LayerNorm", "dimension": 2}])[0].norm.weight.shape
        torch.Size([2])
    """
    return nn.Sequential(*(LAYERS[settings["type"]](settings) for settings in modules or []))


def check_after_pooling(modules: object, dim: int) -> int:
    """Check settings of modules after pooling.

    Args:
        modules: One dictionary for each module: its `"type"`, and `"in_features"`, `"out_features"`, `"bias"`
            and `"activation_function"` of a `"Dense"`, `"dimension"` of a `"LayerNorm"`. None for no modules.
        dim: Dimension of what pooling returns.

    Returns:
        Dimension of what the last of them returns.

    Raises:
        ValueError: If a setting is not legal, or a module doesn't take what the one before it returns.

    Example:
        >>> check_after_pooling([{"type": "LayerNorm", "dimension": 4}], 3)
        Traceback (most recent call last):
        ValueError: after_pooling[0] must take embeddings of dimension 3, got LayerNorm of dimension 4.
    """
    if not isinstance(modules, list | None):
        raise ValueError(f"after_pooling must be a list of modules or None, got {modules!r:.80}.")
    for position, settings in enumerate(modules or []):
        kind = _check_settings(settings, f"after_pooling[{position}]")
        sizes = [settings[size] for size in SIZES[kind]] or [dim]
        if sizes[0] != dim:
            raise ValueError(
                f"after_pooling[{position}] must take embeddings of dimension {dim}, got {kind} of dimension "
                f"{sizes[0]}."
            )
        dim = sizes[-1]
    return dim


def _check_settings(settings: Any, name: str) -> str:
    if not isinstance(settings, dict) or settings.get("type") not in list(LEGAL):
        raise ValueError(f"{name} must have a type, {', '.join(LEGAL)}, got {settings!r:.80}.")
    kind = str(settings["type"])
    if settings.keys() != LEGAL[kind]:
        raise ValueError(f"{name} must have the settings {sorted(LEGAL[kind])}, got {sorted(settings)}.")
    for size in SIZES[kind]:
        if type(settings[size]) is not int or settings[size] < 1:
            raise ValueError(f"{name}: {size} must be at least 1, got {settings[size]!r:.80}.")
    if kind == "Dense":
        if not isinstance(settings["bias"], bool):
            raise ValueError(f"{name}: bias must be true or false, got {settings['bias']!r:.80}.")
        if settings["activation_function"] not in list(ACTIVATIONS):
            raise ValueError(
                f"{name}: activation_function must be one of {', '.join(ACTIVATIONS)}, "
                f"got {settings['activation_function']!r:.80}."
            )
    return kind
