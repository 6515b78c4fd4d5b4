"""A Gradio page that compares search with and without the adapter."""

from .blocks import THEME, create_demo
from .comparison import Comparison, PlacedHit, compare

__all__ = ["THEME", "Comparison", "PlacedHit", "compare", "create_demo"]
