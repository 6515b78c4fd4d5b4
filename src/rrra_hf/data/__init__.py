"""Collections of documents, queries and relevance judgements, validated on load."""

from .collection import Collection, Qrels
from .loading import load_collection
from .trec import Run, read_run, write_qrels, write_run

__all__ = ["Collection", "Qrels", "Run", "load_collection", "read_run", "write_qrels", "write_run"]
