"""Searching a corpus, and reranking what was found."""

from .evaluate import RetrieverEvaluation, evaluate
from .results import Hit, RankedDocument
from .retriever import Retriever
from .vectors import rerank_vectors

__all__ = ["Hit", "RankedDocument", "Retriever", "RetrieverEvaluation", "evaluate", "rerank_vectors"]
