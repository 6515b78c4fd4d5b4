"""The FastAPI application: endpoints, error responses and middleware."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from ..retrieval import Retriever
from .limits import Limits

try:
    import orjson
    from fastapi import FastAPI, Request
    from fastapi.responses import JSONResponse, Response
    from fastapi_offline import FastAPIOffline
    from prometheus_client import CONTENT_TYPE_LATEST
    from pydantic import BaseModel
    from starlette.middleware.trustedhost import TrustedHostMiddleware

    from .access import ApiKey
    from .body import BodyLimit
    from .clients import ClientLimit, DropDeparted
    from .metrics import Measure, Metrics
    from .problems import handle_problems
    from .reading import Reader
    from .schemas import (
        EmbeddingsRequest,
        EmbeddingsResponse,
        Health,
        Problems,
        RankRequest,
        RankResponse,
        RerankRequest,
        RerankResponse,
        SearchRequest,
        SearchResponse,
    )
    from .service import SearchService
except ImportError as error:
    raise ImportError("This module needs FastAPI: pip install 'rrra-hf[serve]'") from error

PATHS = ("/search", "/rank", "/v1/embeddings", "/v1/rerank", "/v2/rerank", "/healthz", "/metrics")
# What monitors ask for is answered to clients that are over their limit, too.
MONITORED = ("/healthz", "/metrics")
WITHOUT_KEY = ("/healthz",)
LOOPBACK = ("localhost", "127.0.0.1", "[::1]")
REFUSALS: dict[int | str, dict[str, Any]] = {
    400: {"model": Problems, "description": "The body isn't valid JSON, or the host isn't known."},
    401: {"model": Problems, "description": "The API key is missing or wrong."},
    408: {"model": Problems, "description": "The body didn't arrive in time."},
    413: {"model": Problems, "description": "The body is too large."},
    422: {"model": Problems, "description": "A field is missing, unknown or invalid."},
    429: {"model": Problems, "description": "The client has too many requests at the same time."},
    503: {
        "model": Problems,
        "description": "Too many requests are waiting. `Retry-After` gives the seconds to wait.",
    },
    504: {"model": Problems, "description": "The request timed out."},
}


def create_app(
    retriever: Retriever,
    limits: Limits | None = None,
    hosts: Sequence[str] = LOOPBACK,
    api_key: str | None = None,
) -> FastAPI:
    """Create an application that serves a retriever. Run it with an ASGI server in one process.

    Args:
        retriever: A retriever with an index.
        limits: Limits of the service, by default `Limits()`.
        hosts: Host names that requests may name, such as `example.com`, `*.example.com` or `*` for all. By
            default, this machine's own, so that no page in a browser reaches the service by another name.
        api_key: Key that requests must have, as `Authorization: Bearer KEY`. None for no key. `/healthz`
            needs none.

    Raises:
        ValueError: If the retriever has no index.

    Example:
        >>> from fastapi.testclient import TestClient
        >>> from sentence_transformers import SentenceTransformer
        >>> from sentence_transformers.sentence_transformer.modules import BoW
        >>> encoder = SentenceTransformer(modules=[BoW(vocab=["copy", "file", "sort", "list"])])
        >>> app = create_app(Retriever(encoder).index({"cp": "copy a file", "sorted": "sort a list"}))
        >>> with TestClient(app, "http://localhost") as client:
        ...     answer = client.post("/search", json={"queries": "sort it", "top_k": 1})
        >>> answer.json()["results"][0][0]["corpus_id"]
        'sorted'
    """
    limits = limits or Limits()
    metrics = Metrics()
    service = SearchService(retriever, limits, metrics.batches.observe)
    reader = Reader(limits, service.dim)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        service.close()

    app = FastAPIOffline(
        title="rrra",
        summary="Searches a corpus and reranks the results.",
        version="1",
        lifespan=lifespan,
    )
    handle_problems(app, limits.work_seconds)
    # The last one is the first that a request meets.
    app.add_middleware(DropDeparted)
    app.add_middleware(BodyLimit, limits=limits)
    app.add_middleware(ClientLimit, most=limits.client_requests, exempt=MONITORED)
    if api_key is not None:
        app.add_middleware(ApiKey, key=api_key, exempt=WITHOUT_KEY)
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=list(hosts), www_redirect=False)
    app.add_middleware(Measure, metrics=metrics, paths=PATHS)

    # Endpoints return a JSONResponse, so FastAPI doesn't validate the answers. It doesn't validate requests
    # either, because it would do so without limits.
    @app.post(
        "/search", response_model=SearchResponse, responses=REFUSALS, openapi_extra=_takes(SearchRequest)
    )
    async def search(request: Request) -> JSONResponse:
        """Find the best documents for each query."""
        asked = await reader.read(request, SearchRequest)
        return JSONResponse({"results": await service.search(asked)})

    @app.post("/rank", response_model=RankResponse, responses=REFUSALS, openapi_extra=_takes(RankRequest))
    async def rank(request: Request) -> JSONResponse:
        """Rank given documents for a query, without the index."""
        asked = await reader.read(request, RankRequest)
        return JSONResponse({"results": await service.rank(asked)})

    @app.post(
        "/v1/embeddings",
        response_model=EmbeddingsResponse,
        responses=REFUSALS,
        openapi_extra=_takes(EmbeddingsRequest),
    )
    async def embeddings(request: Request) -> Response:
        """Encode texts, as OpenAI does."""
        asked = await reader.read(request, EmbeddingsRequest)
        encoded = await service.embed(asked)
        tokens = sum(text.tokens for text in encoded)
        data = [
            {"object": "embedding", "index": index, "embedding": text.embedding}
            for index, text in enumerate(encoded)
        ]
        usage = {"prompt_tokens": tokens, "total_tokens": tokens}
        content = orjson.dumps({"object": "list", "data": data, "model": asked.model, "usage": usage})
        return Response(content, media_type="application/json")

    # Cohere's clients ask for both paths.
    @app.post(
        "/v1/rerank",
        response_model=RerankResponse,
        responses=REFUSALS,
        openapi_extra=_takes(RerankRequest),
    )
    @app.post("/v2/rerank", include_in_schema=False)
    async def rerank(request: Request) -> JSONResponse:
        """Rank given documents for a query, as Cohere, Jina and vLLM do."""
        asked = await reader.read(request, RerankRequest)
        return JSONResponse({"model": asked.model, "results": await service.rerank(asked)})

    @app.get("/healthz", response_model=Health)
    async def healthz() -> JSONResponse:
        """Return the status of the service and information about the index."""
        return JSONResponse(service.health())

    @app.get("/metrics", response_class=Response)
    async def get_metrics() -> Response:
        """Return request counts and latencies in the text format of Prometheus."""
        return Response(metrics.text(), headers={"Content-Type": CONTENT_TYPE_LATEST})

    return app


def _takes(schema: type[BaseModel]) -> dict[str, Any]:
    """Return the documentation of a request body."""
    content = {"application/json": {"schema": schema.model_json_schema()}}
    return {"requestBody": {"required": True, "content": content}}
