"""Nearest-neighbour indexes over document embeddings."""

from .base import Index
from .flat import FlatIndex

__all__ = ["FlatIndex", "Index"]
