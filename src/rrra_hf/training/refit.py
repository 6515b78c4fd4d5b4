"""Replacing the weights of a model's adapter by those of a fitted one, in place."""

from __future__ import annotations

from sentence_transformers import SentenceTransformer

from ..fitting import ResidualFitArguments
from ..models.adapter_rrra import RetrieverAdapter
from ..models.modeling_rrra import RRRAModel

# What is fitted besides the weights.
FITTED = ("tau", "lambda_", "temperature", "fit")


def check_adapter(encoder: SentenceTransformer, arguments: ResidualFitArguments) -> None:
    """Raise a ValueError unless the model has an adapter of the sizes that are fitted, without maps.

    Args:
        encoder: The model.
        arguments: Settings of the fit.
    """
    if not isinstance(getattr(encoder[0], "model", None), RRRAModel):
        raise ValueError("refit_adapter needs a model with an adapter, this one has none: set it to False.")
    adapter = RRRAModel.from_sentence_transformer(encoder).adapter
    config = adapter.config
    has = {**config.reader, **adapter.reader.settings(), "maps": adapter.has_maps}
    fitted = {
        "kind": arguments.kind,
        "hidden_size": arguments.hidden_size,
        "num_classes": 4 if arguments.objective == "four_class" else 1,
        "scoring": arguments.scoring,
        "maps": False,
    }
    for name, value in fitted.items():
        if has.get(name) != value:
            raise ValueError(
                f"refit_adapter needs an adapter with {name}={value!r}, as these arguments fit it; the "
                f"model's has {name}={has.get(name)!r}. Make them equal, or set refit_adapter to False."
            )


def take_over(adapter: RetrieverAdapter, fitted: RetrieverAdapter, *, weights: bool) -> None:
    """Copy what was fitted into an adapter, whose parameters stay the same tensors.

    Args:
        adapter: The adapter of the model; an optimizer may hold its parameters.
        fitted: The adapter that was fitted.
        weights: Copy the weights too, and not only the settings.
    """
    if weights:
        adapter.load_state_dict(fitted.state_dict())
    for name in FITTED:
        setattr(adapter.config, name, getattr(fitted.config, name))
