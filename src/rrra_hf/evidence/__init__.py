"""What is kept of each document and query beside its embedding, for an adapter that reads evidence."""

from .documents import DocumentEvidence
from .words import SharedWords, count_words, weigh_words

__all__ = ["DocumentEvidence", "SharedWords", "count_words", "weigh_words"]
