"""Candidates of queries, and what is read of them."""

from .document_features import DocumentFeatures, Words
from .hybrid import DEPTH, add_words
from .labelled import LabelledQueries
from .mining import mine, mine_collection, mine_embeddings
from .pool import CandidatePool
from .reading import judge_candidates, read_candidates
from .retrieved import RetrievedCandidates
from .word_pieces import WordPieces, count_pieces

__all__ = [
    "DEPTH",
    "CandidatePool",
    "DocumentFeatures",
    "LabelledQueries",
    "RetrievedCandidates",
    "WordPieces",
    "Words",
    "add_words",
    "count_pieces",
    "judge_candidates",
    "mine",
    "mine_collection",
    "mine_embeddings",
    "read_candidates",
]
