"""Gradio pages: one compares search with and without the adapter, one reviews suspects."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
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


def __getattr__(name: str) -> Any:
    # Imported when first asked for: rankings and their HTML need no Gradio.
    if name in __all__:
        for file in ("comparison", "reviewing", "blocks", "review"):
            module = import_module(f".{file}", __name__)
            if name in vars(module):
                return getattr(module, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
