"""A collection made from this machine's Python documentation."""

from .collect import python_docs

__all__ = ["python_docs"]
