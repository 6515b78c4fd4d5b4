"""Fitting adapters and training encoders."""

from .batches import ShuffleByEpoch
from .launch import check_launch
from .non_finite import StopOnNonFiniteLoss
from .processes import Processes, joined_processes
from .refresh import Refresh
from .resampler import Resampler
from .train import train
from .train_arguments import TrainArguments

__all__ = [
    "Processes",
    "Refresh",
    "Resampler",
    "ShuffleByEpoch",
    "StopOnNonFiniteLoss",
    "TrainArguments",
    "check_launch",
    "joined_processes",
    "train",
]
