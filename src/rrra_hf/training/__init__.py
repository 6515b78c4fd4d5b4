"""Fitting adapters and training encoders."""

from .arguments import FitArguments
from .cross_fit import cross_fit
from .examples import LabelledQueries
from .fit import fit_adapter
from .fit_model import fit_model
from .non_finite import StopOnNonFiniteLoss
from .refresh import Refresh
from .resampler import Resampler
from .shares import ShuffleByEpoch
from .train import train
from .train_arguments import TrainArguments

__all__ = [
    "FitArguments",
    "LabelledQueries",
    "Refresh",
    "Resampler",
    "ShuffleByEpoch",
    "StopOnNonFiniteLoss",
    "TrainArguments",
    "cross_fit",
    "fit_adapter",
    "fit_model",
    "train",
]
