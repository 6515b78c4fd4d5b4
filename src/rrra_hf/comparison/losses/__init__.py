"""Losses of others, to compare with."""

from .ccr import CCRLoss
from .correct_and_weight import CorrectAndWeightLoss
from .debiased import DebiasedContrastiveLoss

__all__ = ["CCRLoss", "CorrectAndWeightLoss", "DebiasedContrastiveLoss"]
