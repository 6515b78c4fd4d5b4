"""Losses that know which negatives are probably relevant, and others' to compare them with."""

from .cached_rrra import CachedRRRALoss
from .ccr import CCRLoss
from .correct_and_weight import CorrectAndWeightLoss
from .debiased import DebiasedContrastiveLoss
from .rrra import RRRALoss

__all__ = ["CCRLoss", "CachedRRRALoss", "CorrectAndWeightLoss", "DebiasedContrastiveLoss", "RRRALoss"]
