"""Published losses against false negatives, as baselines for `RRRALoss`."""

from .ccr import CCRLoss
from .debiased import DebiasedContrastiveLoss

__all__ = ["CCRLoss", "DebiasedContrastiveLoss"]
