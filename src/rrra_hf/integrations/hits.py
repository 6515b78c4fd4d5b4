"""What the modules of the frameworks share: hits with their texts, and texts in ranked order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from ..retrieval import Retriever


class Found(NamedTuple):
    """A document that was found, with its text.

    Args:
        id: Its id.
        text: Its text, without the title.
        score: Its reranking score, or its cosine where there is no adapter.
        metadata: `title`, if it has one, and `probability`, if there is an adapter.
    """

    id: str
    text: str
    score: float
    metadata: dict[str, Any]


def find(retriever: Retriever, query: str, top_k: int, depth: int) -> list[Found]:
    """Return the best documents for a query, with their texts.

    All of them are reranked, also where `top_k` is greater than `depth`: their scores are of one kind.

    Args:
        retriever: A retriever with an index.
        query: The query.
        top_k: Documents to return.
        depth: Documents to rerank.

    Raises:
        ValueError: As `Retriever.search`.
    """
    hits = retriever.search(
        query, top_k=top_k, depth=max(top_k, depth), probabilities=retriever.adapter is not None
    )[0]
    found = []
    for hit in hits:
        document = retriever.document(hit["corpus_id"])
        metadata: dict[str, Any] = {"title": document["title"]} if document["title"] else {}
        if "probability" in hit:
            metadata["probability"] = hit["probability"]
        found.append(Found(document["id"], document["text"], hit["score"], metadata))
    return found


def rank_texts(
    retriever: Retriever, query: str, texts: Sequence[str | None], top_k: int | None = None
) -> list[tuple[int, float]]:
    """Return positions and scores of texts, best first; those that are None or blank are left out.

    Args:
        retriever: The retriever; its index is not used.
        query: The query.
        texts: The texts.
        top_k: Texts to return, None for all.

    Raises:
        ValueError: As `Retriever.rank`.

    Example:
        >>> from sentence_transformers import SentenceTransformer
        >>> from sentence_transformers.sentence_transformer.modules import BoW
        >>> retriever = Retriever(SentenceTransformer(modules=[BoW(vocab=["copy", "sort"])]))
        >>> [position for position, _ in rank_texts(retriever, "sort", ["copy", None, "sort"])]
        [2, 0]
    """
    written = {position: text for position, text in enumerate(texts) if text is not None and text.strip()}
    positions = list(written)
    ranked = retriever.rank(query, list(written.values()), top_k=top_k)
    return [(positions[document["corpus_id"]], document["score"]) for document in ranked]
