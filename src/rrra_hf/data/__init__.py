"""Collections: documents, queries and relevance judgements, checked on load."""

from .collection import Collection, Qrels
from .loading import load_collection
from .python_docs import python_docs

__all__ = ["Collection", "Qrels", "load_collection", "python_docs"]
