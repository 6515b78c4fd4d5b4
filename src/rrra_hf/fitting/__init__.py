"""Fitting an adapter on frozen embeddings."""

from .arguments import AnyFitArguments, FitArguments, ResidualFitArguments, fit_arguments
from .cross_fit import cross_fit
from .fit import fit_adapter
from .fit_model import fit_model
from .pretrain import Lesson, lesson, pretrain

__all__ = [
    "AnyFitArguments",
    "FitArguments",
    "Lesson",
    "ResidualFitArguments",
    "cross_fit",
    "fit_adapter",
    "fit_arguments",
    "fit_model",
    "lesson",
    "pretrain",
]
