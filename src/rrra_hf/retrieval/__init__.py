"""Search a corpus, rerank the results, and evaluate both."""

from .evaluate import RetrieverEvaluation, evaluate, evaluate_embeddings
from .results import Hit, RankedDocument
from .retriever import Retriever
from .saved import evaluate_saved
from .vectors import rerank_vectors

__all__ = [
    "Hit",
    "RankedDocument",
    "Retriever",
    "RetrieverEvaluation",
    "evaluate",
    "evaluate_embeddings",
    "evaluate_saved",
    "rerank_vectors",
]
