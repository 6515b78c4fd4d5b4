"""Results of searching and ranking: dictionaries with the keys of sentence-transformers."""

from __future__ import annotations

from typing import Any, TypedDict

from typing_extensions import NotRequired

from .corpus_index import CorpusIndex
from .documents import METADATA
from .passages import START
from .reranking import Reranked


class Hit(TypedDict):
    """A document that a search found, in the format of `sentence_transformers.util.semantic_search`.

    Args:
        corpus_id: Id of the document.
        score: Its reranking score. If it was not reranked, its cosine, or the fused score of a hybrid search.
        probability: The probability that it is relevant to the query; only with `probabilities=True`.
        document_id: Id of its document, if the hit is a passage.
        start: Position of its first character in the document's text, if the hit is a passage.
        title: Its title; this, the text and the metadata only with `return_documents=True`.
        text: Its text.
        metadata: Its metadata, if any documents have them.
    """

    corpus_id: str
    score: float
    probability: NotRequired[float]
    document_id: NotRequired[str]
    start: NotRequired[int]
    title: NotRequired[str]
    text: NotRequired[str]
    metadata: NotRequired[dict[str, Any]]


def hits_of(
    ranked: Reranked, corpus: CorpusIndex, probabilities: bool, return_documents: bool
) -> list[list[Hit]]:
    """Return what a search found as hits, best first, per query.

    Args:
        ranked: Rows, scores and probabilities.
        corpus: The documents.
        probabilities: Add the probabilities.
        return_documents: Add the documents.
    """
    rows, scores, relevant = (values.tolist() for values in ranked[:3])
    hits: list[list[Hit]] = [
        # An approximate index may find fewer documents, and ends with -1.
        [
            {"corpus_id": corpus.ids[row], "score": score}
            for row, score in zip(*found, strict=True)
            if row >= 0
        ]
        for found in zip(rows, scores, strict=True)
    ]
    for query_hits, query_rows, values in zip(hits, rows, relevant, strict=True):
        if corpus.split is not None:
            for hit, row in zip(query_hits, query_rows, strict=False):
                hit["document_id"] = corpus.document_ids[row]
                hit["start"] = corpus.documents[START][row].as_py()
        if probabilities:
            for hit, probability in zip(query_hits, values, strict=False):
                hit["probability"] = probability
        if return_documents:
            for hit, row in zip(query_hits, query_rows, strict=False):
                document = corpus.document_at(row)
                hit["title"], hit["text"] = document["title"], document["text"]
                if METADATA in document:
                    hit["metadata"] = document[METADATA]
    return hits


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
