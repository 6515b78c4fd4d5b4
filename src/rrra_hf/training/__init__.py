"""Fitting adapters and training encoders."""

from .arguments import FitArguments
from .cross_fit import cross_fit
from .examples import LabelledQueries
from .fit import fit_adapter
from .fit_model import fit_model
from .train import train
from .train_arguments import TrainArguments
from .train_data import resampled_dataset

__all__ = [
    "FitArguments",
    "LabelledQueries",
    "TrainArguments",
    "cross_fit",
    "fit_adapter",
    "fit_model",
    "resampled_dataset",
    "train",
]
