"""Candidates of queries, and what is read of them."""

from .document_features import DocumentFeatures
from .labelled import LabelledQueries
from .mining import mine, mine_collection, mine_embeddings
from .pool import CandidatePool
from .reading import candidate_probabilities, read_candidates
from .retrieved import RetrievedCandidates
from .words import SharedWords, count_words, weigh_words

__all__ = [
    "CandidatePool",
    "DocumentFeatures",
    "LabelledQueries",
    "RetrievedCandidates",
    "SharedWords",
    "candidate_probabilities",
    "count_words",
    "mine",
    "mine_collection",
    "mine_embeddings",
    "read_candidates",
    "weigh_words",
]
