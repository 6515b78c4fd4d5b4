"""Search results of the encoder alone and of the adapter, for the same query."""

from __future__ import annotations

from typing import NamedTuple

from ..candidates import DEPTH
from ..embeddings import encode
from ..retrieval import Retriever

# Maximum number of characters of a query. Encoders read a few hundred tokens, and the page may be public.
MAX_QUERY_LENGTH = 2000


class PlacedHit(NamedTuple):
    """A document in a ranking.

    Args:
        place: Rank of the document, from 1.
        place_before: Rank in the encoder's ranking, None if only a search by words finds it.
        title: Title of the document; may be empty.
        text: Text of the document.
        probability: Probability that the document is relevant, None without an adapter.
    """

    place: int
    place_before: int | None
    title: str
    text: str
    probability: float | None


class Comparison(NamedTuple):
    """The rankings for a query.

    Args:
        encoder: Ranking by the encoder, from a search by embeddings.
        reranked: Ranking by the adapter, None if the retriever has no adapter.
        mapped: Whether the adapter has linear maps. They then apply to both rankings.
    """

    encoder: list[PlacedHit]
    reranked: list[PlacedHit] | None
    mapped: bool = False


def compare(retriever: Retriever, query: str, top_k: int = 10, depth: int = DEPTH) -> Comparison:
    """Search with and without the adapter.

    Args:
        retriever: A retriever with an index.
        query: The query.
        top_k: Number of documents per ranking.
        depth: Number of documents to rerank, at least `top_k`.

    Raises:
        ValueError: If the query is empty or too long, a number is less than 1, or there is no index.

    Example:
        >>> from sentence_transformers import SentenceTransformer
        >>> from sentence_transformers.sentence_transformer.modules import BoW
        >>> encoder = SentenceTransformer(modules=[BoW(vocab=["copy", "file", "sort", "list"])])
        >>> retriever = Retriever(encoder).index({"cp": "copy a file", "sorted": "sort a list"})
        >>> found = compare(retriever, "how do I sort a list")
        >>> [(hit.place, hit.text) for hit in found.encoder]
        [(1, 'sort a list'), (2, 'copy a file')]
        >>> [(hit.place, hit.place_before) for hit in found.reranked]
        [(1, 1), (2, 2)]
    """
    _check_query(query)
    if top_k < 1:
        raise ValueError(f"top_k must be at least 1, got {top_k}.")
    depth = max(top_k, depth)
    embedding = encode(retriever.encoder, [query], task="query", show_progress_bar=False)

    def ranking(rerank: bool) -> dict[str, float | None]:
        hits = retriever.search_embeddings(
            embedding,
            depth,
            rerank,
            depth,
            mode=None if rerank else "dense",
            probabilities=retriever.adapter is not None,
            query_texts=[query],
        )[0]
        return {hit["corpus_id"]: hit.get("probability") for hit in hits}

    found = ranking(rerank=False)
    places = {corpus_id: place for place, corpus_id in enumerate(found, start=1)}

    def placed(ranked: dict[str, float | None]) -> list[PlacedHit]:
        hits = []
        for place, (corpus_id, probability) in enumerate(list(ranked.items())[:top_k], start=1):
            document = retriever.document(corpus_id)
            before = places.get(corpus_id)
            hits.append(PlacedHit(place, before, document["title"], document["text"], probability))
        return hits

    adapter = retriever.adapter
    if adapter is None:
        return Comparison(placed(found), None)
    reranked = ranking(rerank=True)
    # A probability depends on the candidates beside a document. Both sides have that of the reranked search.
    found = {corpus_id: reranked.get(corpus_id, probability) for corpus_id, probability in found.items()}
    return Comparison(placed(found), placed(reranked), adapter.has_maps)


def _check_query(query: str) -> None:
    if not query.strip():
        raise ValueError("The query is empty. Type what you are looking for.")
    if len(query) > MAX_QUERY_LENGTH:
        raise ValueError(f"The query must have at most {MAX_QUERY_LENGTH:,} characters, got {len(query):,}.")
