"""Gradio pages: one compares search with and without the adapter, one reviews suspects."""

from .blocks import THEME, create_demo
from .comparison import Comparison, PlacedHit, compare
from .review import create_review
from .reviewing import Progress, Review

__all__ = [
    "THEME",
    "Comparison",
    "PlacedHit",
    "Progress",
    "Review",
    "compare",
    "create_demo",
    "create_review",
]
