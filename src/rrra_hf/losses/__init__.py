"""Contrastive losses in which each hard negative has a weight."""

from .cached_rrra import CachedRRRALoss
from .rrra import RRRALoss

__all__ = ["CachedRRRALoss", "RRRALoss"]
