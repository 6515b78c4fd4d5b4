"""Collections of documents, queries and relevance judgements, validated on load."""

from .collection import Collection, Qrels
from .loading import load_collection

__all__ = ["Collection", "Qrels", "load_collection"]
