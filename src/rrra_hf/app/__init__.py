"""A page that searches with and without the adapter, side by side."""

from .blocks import THEME, create_demo
from .comparison import Comparison, PlacedHit, compare

__all__ = ["THEME", "Comparison", "PlacedHit", "compare", "create_demo"]
