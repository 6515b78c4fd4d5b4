"""Losses that know which negatives are probably relevant, and others' to compare them with."""

from .cached_rrra import CachedRRRALoss
from .ccr import CCRLoss
from .debiased import DebiasedContrastiveLoss
from .rrra import RRRALoss

__all__ = ["CCRLoss", "CachedRRRALoss", "DebiasedContrastiveLoss", "RRRALoss"]
