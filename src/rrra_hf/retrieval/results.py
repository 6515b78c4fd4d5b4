"""Results of searching and ranking: dictionaries with the keys of sentence-transformers."""

from __future__ import annotations

from typing import TypedDict

from typing_extensions import NotRequired


class Hit(TypedDict):
    """A document that a search found, in the format of `sentence_transformers.util.semantic_search`.

    Args:
        corpus_id: Id of the document.
        score: Its reranking score. If it was not reranked, its cosine, or the fused score of a hybrid search.
        probability: The probability that it is relevant to the query; only with `probabilities=True`.
    """

    corpus_id: str
    score: float
    probability: NotRequired[float]


class RankedDocument(TypedDict):
    """A document that was ranked, in the format of `CrossEncoder.rank`.

    Args:
        corpus_id: Position of the document in the given list.
        score: Its reranking score, or its cosine if there is no adapter.
        probability: The probability that it is relevant to the query; only with `probabilities=True`.
        text: Its text; only with `return_documents=True`.
    """

    corpus_id: int
    score: float
    probability: NotRequired[float]
    text: NotRequired[str]
