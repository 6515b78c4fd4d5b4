"""Validates requests and runs them on a retriever."""

from __future__ import annotations

import asyncio
from base64 import b64encode
from collections.abc import Callable, Hashable, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any, Literal, NamedTuple

import numpy as np
import orjson
from scipy.special import expit
from sklearn.preprocessing import normalize

from ..embeddings import check_embeddings, encode
from ..retrieval import Hit, RankedDocument, Retriever
from ..retrieval.documents import document_table, document_texts
from ..retrieval.filters import parse_filter
from ..retrieval.indexing import reads_word_pieces
from .batching import Batcher
from .limits import Limits
from .problems import FieldError
from .schemas import EmbeddingsRequest, RankRequest, RerankRequest, SearchRequest

# Texts of one request that are encoded at a time. Then other requests have their turn, and one that nobody
# waits for ends.
TEXTS_AT_ONCE = 16


class SearchOptions(NamedTuple):
    """Options of a search. Queries with equal options are searched in one batch."""

    top_k: int
    rerank: bool
    depth: int
    mode: str | None
    probabilities: bool
    return_documents: bool
    # As JSON text: of Python's values, 1 and true are equal.
    filter: bytes | None

    def of_search(self) -> dict[str, Any]:
        """Return the arguments of `Retriever.search` and `search_embeddings`."""
        given = self._asdict()
        return {**given, "filter": None if self.filter is None else orjson.loads(self.filter)}


class EncodingOptions(NamedTuple):
    """Options of encoding. Texts with equal options are encoded in one batch."""

    task: Literal["query", "document"]
    as_base64: bool
    dimensions: int


class Encoded(NamedTuple):
    """An embedding as it is written in JSON, and the number of tokens of its text."""

    embedding: str | orjson.Fragment
    tokens: int


class Query(NamedTuple):
    """A query embedding and, if given, its text."""

    embedding: np.ndarray
    text: str | None


class SearchService:
    """Runs concurrent requests on one retriever.

    Waiting searches are batched. The results equal those of `Retriever.search` up to rounding. Tokenizers are
    not thread-safe, so a single thread handles all texts. Other threads search by embedding.

    Args:
        retriever: A retriever with an index.
        limits: Limits of the service.
        observe: Called with the number of queries of each batch.

    Raises:
        ValueError: If the retriever has no index.
    """

    def __init__(self, retriever: Retriever, limits: Limits, observe: Callable[[int], None]):
        self.retriever = retriever
        self.limits = limits
        self.dim = retriever.corpus.dim
        self.needs_texts = reads_word_pieces(retriever.adapter)
        # One search fills lazy caches, and raises now if the retriever can't search.
        hits = retriever.search(
            "warm up", probabilities=retriever.adapter is not None, show_progress_bar=False
        )
        retriever.document(hits[0][0]["corpus_id"])
        retriever.search("warm up", filter={}, show_progress_bar=False)
        self._texts = Batcher("texts", 1, limits.batch, limits.waiting, observe)
        self._embeddings = Batcher("embeddings", limits.threads, limits.batch, limits.waiting, observe)

    def health(self) -> dict[str, Any]:
        """Return the status, information about the index, and the limits."""
        return {
            "status": "ok",
            "documents": len(self.retriever.corpus),
            "dim": self.dim,
            "adapter": self.retriever.adapter is not None,
            "needs_texts": self.needs_texts,
            "limits": asdict(self.limits),
        }

    async def search(self, request: SearchRequest) -> list[list[dict[str, Any]]]:
        """Return the hits for each query of a request.

        Raises:
            FieldError: If the request exceeds a limit, or the retriever doesn't support it.
            Busy: If too many requests are waiting.
            TimeoutError: If the request times out.
        """
        options = self._search_options(request)
        texts = request.queries
        if request.query_embeddings is None:
            assert texts is not None
            work = partial(self._search_texts, options)
            return await self._take_turns(work, texts, key=("texts", options))
        rows = self._rows(request.query_embeddings)
        queries = [Query(row, texts[i] if texts else None) for i, row in enumerate(rows)]
        batcher = self._texts if self.needs_texts else self._embeddings
        work = partial(self._search_embeddings, options)
        key = ("embeddings", texts is None, options)
        return await batcher.run(work, queries, self.limits.work_seconds, key)

    async def rank(self, request: RankRequest) -> list[RankedDocument]:
        """Return the documents of a request, best first. Raises the other errors of `search`."""
        texts = document_texts(document_table(request.documents))
        embeddings = await self._take_turns(self._encode, texts)
        work = partial(self._rank, np.stack(embeddings))
        return (await self._texts.run(work, [request], self.limits.work_seconds))[0]

    async def rerank(self, request: RerankRequest) -> list[dict[str, Any]]:
        """Return the documents of a request, best first, with scores between 0 and 1. Raises as `search`."""
        ranked = await self.rank(
            RankRequest(
                query=request.query,
                documents=request.documents,
                top_k=request.top_n,
                return_documents=request.return_documents,
            )
        )
        return [
            {
                "index": hit["corpus_id"],
                "relevance_score": self._relevance(hit["score"]),
                **({"document": {"text": hit["text"]}} if request.return_documents else {}),
            }
            for hit in ranked
        ]

    async def embed(self, request: EmbeddingsRequest) -> list[Encoded]:
        """Return the embedding of each text of a request, as the encoder makes it. Raises as `search`."""
        dimensions = self.dim if request.dimensions is None else request.dimensions
        if dimensions > self.dim:
            raise FieldError("dimensions", f"must be at most {self.dim}, got {dimensions}")
        options = EncodingOptions(request.input_type, request.encoding_format == "base64", dimensions)
        return await self._take_turns(partial(self._embed, options), request.input, key=options)

    def close(self) -> None:
        """Wait for running work and stop the threads."""
        self._texts.close()
        self._embeddings.close()

    async def _take_turns(
        self, work: Callable[[list[str]], Sequence[Any]], texts: list[str], key: Hashable = None
    ) -> list[Any]:
        """Process texts, some at a time, so that a request with many doesn't keep others waiting."""
        loop = asyncio.get_running_loop()
        end = loop.time() + self.limits.work_seconds
        results: list[Any] = []
        for start in range(0, len(texts), TEXTS_AT_ONCE):
            some = texts[start : start + TEXTS_AT_ONCE]
            results += await self._texts.run(work, some, end - loop.time(), key)
        return results

    # ---------------------------------------------------------------- in the threads

    def _search_texts(self, options: SearchOptions, texts: list[str]) -> list[list[dict[str, Any]]]:
        return _as_found(self.retriever.search(texts, **options.of_search(), show_progress_bar=False))

    def _search_embeddings(self, options: SearchOptions, queries: list[Query]) -> list[list[dict[str, Any]]]:
        # Queries with and without texts are in different batches.
        texts = [query.text for query in queries if query.text is not None]
        embeddings = np.stack([query.embedding for query in queries])
        return _as_found(
            self.retriever.search_embeddings(embeddings, **options.of_search(), query_texts=texts or None)
        )

    def _encode(self, documents: list[str]) -> list[np.ndarray]:
        return list(encode(self.retriever.encoder, documents, task="document", show_progress_bar=False))

    def _embed(self, options: EncodingOptions, texts: list[str]) -> list[Encoded]:
        encoder = self.retriever.encoder
        embeddings = encode(encoder, texts, task=options.task, show_progress_bar=False)
        if options.dimensions < self.dim:
            embeddings = normalize(embeddings[:, : options.dimensions])
        write = _as_base64 if options.as_base64 else _as_numbers
        # Alone, a text isn't padded to the length of others.
        features = (encoder.preprocess([text], task=options.task) for text in texts)
        return [
            Encoded(write(row), _count_tokens(one)) for row, one in zip(embeddings, features, strict=True)
        ]

    def _rank(self, embeddings: np.ndarray, requests: list[RankRequest]) -> list[list[RankedDocument]]:
        return [
            self.retriever.rank(
                request.query,
                request.documents,
                request.top_k,
                request.return_documents,
                document_embeddings=embeddings,
            )
            for request in requests
        ]

    def _relevance(self, score: float) -> float:
        # A reranking score has no bounds. Without an adapter, the score is a cosine.
        return (1 + score) / 2 if self.retriever.adapter is None else float(expit(score))

    # ---------------------------------------------------------------- checks

    def _search_options(self, request: SearchRequest) -> SearchOptions:
        limits = self.limits
        if request.probabilities and self.retriever.adapter is None:
            raise FieldError("probabilities", "needs an adapter, the retriever has none")
        if self.needs_texts and request.queries is None:
            raise FieldError("queries", "must be given with the embeddings because the adapter reads words")
        try:
            self.retriever.is_hybrid(request.mode, request.rerank, request.queries is not None)
        except ValueError as error:
            raise FieldError("mode", str(error).removeprefix("mode").lstrip()) from error
        try:
            parse_filter(request.filter or {})
        except ValueError as error:
            raise FieldError("filter", str(error).removeprefix("filter").lstrip()) from error
        top_k = _at_most(request, "top_k", limits.top_k)
        count = len(request.queries or request.query_embeddings or ())
        if request.return_documents and count * top_k > limits.returned_documents:
            raise FieldError(
                "return_documents",
                f"allows at most {limits.returned_documents} documents, got {count} times {top_k}",
            )
        return SearchOptions(
            top_k,
            request.rerank,
            _at_most(request, "depth", limits.depth),
            request.mode,
            request.probabilities,
            request.return_documents,
            None if request.filter is None else orjson.dumps(request.filter),
        )

    def _rows(self, embeddings: list[list[float]]) -> np.ndarray:
        try:
            return check_embeddings(np.array(embeddings), "query_embeddings", self.dim)
        except ValueError as error:
            raise FieldError("query_embeddings", str(error).removeprefix("query_embeddings ")) from error


def _as_found(results: list[list[Hit]]) -> list[list[dict[str, Any]]]:
    """Return hits as the response has them: the document is an object of its own."""

    def found(hit: dict[str, Any]) -> dict[str, Any]:
        document = {name: hit.pop(name) for name in ("title", "text", "metadata") if name in hit}
        return {**hit, "document": document} if document else hit

    return [[found(dict(hit)) for hit in hits] for hits in results]


def _count_tokens(features: dict[str, Any]) -> int:
    """Return the number of tokens of a text; 0 if the encoder has none."""
    return np.asarray(features.get("input_ids", ())).size


def _as_numbers(embedding: np.ndarray) -> orjson.Fragment:
    return orjson.Fragment(orjson.dumps(embedding, option=orjson.OPT_SERIALIZE_NUMPY))


def _as_base64(embedding: np.ndarray) -> str:
    return b64encode(embedding.astype("<f4").tobytes()).decode()


def _at_most(request: SearchRequest, field: str, most: int) -> int:
    """Return a number of the request, or its default capped at the limit if the request doesn't set it."""
    number: int = getattr(request, field)
    if number > most and field in request.model_fields_set:
        raise FieldError(field, f"must be at most {most}, got {number}")
    return min(number, most)
