"""What is kept of each document and query beside its embedding, for an adapter that reads evidence."""

from .documents import DocumentEvidence
from .words import count_words, overlap, weigh_words

__all__ = ["DocumentEvidence", "count_words", "overlap", "weigh_words"]
