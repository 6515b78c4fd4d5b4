"""Retriever adapters: find the false negatives among hard negatives, train without them, rerank."""

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

# This registers the models with transformers, which loads torch. The command does so when it opens a model:
# its help and its errors in options would have to wait.
if "rrra_command" not in sys.modules:
    from . import models as models

if TYPE_CHECKING:
    from .candidates import CandidatePool, mine, mine_embeddings
    from .data import Collection, load_collection
    from .fitting import (
        FitArguments,
        ResidualFitArguments,
        cross_fit,
        fit_adapter,
        fit_arguments,
        fit_model,
    )
    from .labels import audit, mine_hard_negatives, relabel
    from .losses import CachedRRRALoss, RRRALoss
    from .models import AdapterConfig, RetrieverAdapter, RRRAConfig, RRRAModel
    from .retrieval import Retriever
    from .training import Resampler, TrainArguments, train

__all__ = [
    "AdapterConfig",
    "CachedRRRALoss",
    "CandidatePool",
    "Collection",
    "FitArguments",
    "RRRAConfig",
    "RRRALoss",
    "RRRAModel",
    "Resampler",
    "ResidualFitArguments",
    "Retriever",
    "RetrieverAdapter",
    "TrainArguments",
    "audit",
    "cross_fit",
    "fit_adapter",
    "fit_arguments",
    "fit_model",
    "load_collection",
    "mine",
    "mine_embeddings",
    "mine_hard_negatives",
    "relabel",
    "train",
]


def __getattr__(name: str) -> Any:
    # Imported when first asked for: who only opens a model needs neither datasets nor faiss.
    for room in ("models", "data", "candidates", "retrieval", "fitting", "labels", "losses", "training"):
        if name in __all__ and name in (module := import_module(f".{room}", __name__)).__all__:
            return getattr(module, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
