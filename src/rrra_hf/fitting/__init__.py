"""Fitting an adapter on frozen embeddings."""

from .arguments import FitArguments
from .cross_fit import cross_fit
from .fit import fit_adapter
from .fit_model import fit_model

__all__ = ["FitArguments", "cross_fit", "fit_adapter", "fit_model"]
