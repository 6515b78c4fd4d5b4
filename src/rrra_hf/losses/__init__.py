"""Losses that know which negatives are probably relevant, and others' to compare them with."""

from .cached_rrra import CachedRRRALoss
from .rrra import RRRALoss

__all__ = ["CachedRRRALoss", "RRRALoss"]
