"""A collection of the Python documentation on this machine."""

from .collect import python_docs

__all__ = ["python_docs"]
