"""Training of the encoder: drawn negatives, callbacks, and the three stages."""

from .batches import ShuffleByEpoch
from .choice import Choice, choose_encoder
from .non_finite import StopOnNonFiniteLoss
from .pair_dataset import PairDataset
from .refresh import Refresh
from .resampler import Resampler
from .train import train
from .train_arguments import TrainArguments

__all__ = [
    "Choice",
    "PairDataset",
    "Refresh",
    "Resampler",
    "ShuffleByEpoch",
    "StopOnNonFiniteLoss",
    "TrainArguments",
    "choose_encoder",
    "train",
]
