"""Training of the encoder: drawn negatives, callbacks, and the three stages."""

from .batches import ShuffleByEpoch
from .non_finite import StopOnNonFiniteLoss
from .pair_dataset import PairDataset
from .refresh import Refresh
from .resampler import Resampler
from .train import train
from .train_arguments import TrainArguments

__all__ = [
    "PairDataset",
    "Refresh",
    "Resampler",
    "ShuffleByEpoch",
    "StopOnNonFiniteLoss",
    "TrainArguments",
    "train",
]
