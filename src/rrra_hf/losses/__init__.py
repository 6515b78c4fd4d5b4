"""Losses that know which negatives are probably relevant."""

from .rrra import RRRALoss

__all__ = ["RRRALoss"]
