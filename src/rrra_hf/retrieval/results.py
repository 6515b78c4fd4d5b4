"""What a search returns: plain dictionaries with the keys of sentence-transformers."""

from __future__ import annotations

from typing import TypedDict

from typing_extensions import NotRequired


class Hit(TypedDict):
    """A document that a search found, as `sentence_transformers.util.semantic_search` returns it.

    Args:
        corpus_id: Id of the document.
        score: Its reranking score, or its cosine where it was not reranked.
        probability: The probability that it is relevant to the query, if that was asked for.
    """

    corpus_id: str
    score: float
    probability: NotRequired[float]


class RankedDocument(TypedDict):
    """One of the documents that were ranked, as `CrossEncoder.rank` returns it.

    Args:
        corpus_id: Position of the document in the list given.
        score: Its reranking score, or its cosine where there is no adapter.
        text: Its text, if that was asked for.
    """

    corpus_id: int
    score: float
    text: NotRequired[str]
