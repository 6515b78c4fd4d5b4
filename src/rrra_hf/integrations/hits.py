"""Search and ranking with texts, shared by the integrations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ..retrieval import Retriever

# What a hit has and its document's metadata don't.
ADDED = ("document_id", "start", "probability")


class Found(NamedTuple):
    """A hit with its document's text.

    Args:
        id: Id of the document.
        text: Text of the document, without the title.
        score: Reranking score, or the cosine if there is no adapter.
        metadata: Those of the document; `title`, if it has one; `document_id` and `start`, if the hit is a
            passage; and `probability`, if there is an adapter.
    """

    id: str
    text: str
    score: float
    metadata: dict[str, Any]


def find(
    retriever: Retriever, query: str, top_k: int, depth: int, filter: Mapping[str, Any] | None = None
) -> list[Found]:
    """Search and return the best documents with their texts.

    All returned documents are reranked, even if `top_k` is greater than `depth`, so their scores are
    comparable.

    Args:
        retriever: A retriever with an index.
        query: The query.
        top_k: Number of documents to return.
        depth: Number of documents to rerank.
        filter: Search only documents with these metadata.

    Raises:
        ValueError: In the same cases as `Retriever.search`.
    """
    hits = retriever.search(
        query,
        top_k=top_k,
        depth=max(top_k, depth),
        filter=filter,
        probabilities=retriever.adapter is not None,
        return_documents=True,
        show_progress_bar=False,
    )[0]
    found = []
    for hit in hits:
        metadata = dict(hit.get("metadata", {}))
        if hit["title"]:
            metadata["title"] = hit["title"]
        metadata.update((name, value) for name, value in hit.items() if name in ADDED)
        found.append(Found(hit["corpus_id"], hit["text"], hit["score"], metadata))
    return found


def rank_texts(
    retriever: Retriever, query: str, texts: Sequence[str | None], top_k: int | None = None
) -> list[tuple[int, float]]:
    """Rank texts for a query, leaving out None and blank texts.

    Args:
        retriever: A retriever. It needs no index.
        query: The query.
        texts: The texts.
        top_k: Number of texts to return, None for all.

    Returns:
        Positions in `texts` and scores, best first.

    Raises:
        ValueError: In the same cases as `Retriever.rank`.

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
