"""The FastAPI application: endpoints, error responses and middleware."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from ..retrieval import Retriever
from .limits import Limits

try:
    from fastapi import FastAPI
    from fastapi.responses import JSONResponse, Response
    from prometheus_client import CONTENT_TYPE_LATEST

    from .body import BodyLimit
    from .metrics import Measure, Metrics
    from .problems import handle_problems
    from .schemas import Health, Problems, RankRequest, RankResponse, SearchRequest, SearchResponse
    from .service import SearchService
except ImportError as error:
    raise ImportError("This module needs FastAPI: pip install 'rrra-hf[serve]'") from error

PATHS = ("/search", "/rank", "/healthz", "/metrics")
REFUSALS: dict[int | str, dict[str, Any]] = {
    400: {"model": Problems, "description": "The body isn't valid JSON."},
    408: {"model": Problems, "description": "The body didn't arrive in time."},
    413: {"model": Problems, "description": "The body is too large."},
    422: {"model": Problems, "description": "A field is missing, unknown or invalid."},
    503: {
        "model": Problems,
        "description": "Too many requests are waiting. `Retry-After` gives the seconds to wait.",
    },
    504: {"model": Problems, "description": "The request timed out."},
}


def create_app(retriever: Retriever, limits: Limits | None = None) -> FastAPI:
    """Create an application that serves a retriever. Run it with an ASGI server in one process.

    Args:
        retriever: A retriever with an index.
        limits: Limits of the service, by default `Limits()`.

    Raises:
        ValueError: If the retriever has no index.

    Example:
        >>> from fastapi.testclient import TestClient
        >>> from sentence_transformers import SentenceTransformer
        >>> from sentence_transformers.sentence_transformer.modules import BoW
        >>> encoder = SentenceTransformer(modules=[BoW(vocab=["copy", "file", "sort", "list"])])
        >>> app = create_app(Retriever(encoder).index({"cp": "copy a file", "sorted": "sort a list"}))
        >>> with TestClient(app) as client:
        ...     answer = client.post("/search", json={"queries": "sort it", "top_k": 1})
        >>> answer.json()["results"][0][0]["corpus_id"]
        'sorted'
    """
    limits = limits or Limits()
    metrics = Metrics()
    service = SearchService(retriever, limits, metrics.batches.observe)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        service.close()

    app = FastAPI(
        title="rrra",
        summary="Searches a corpus and reranks the results.",
        version="1",
        lifespan=lifespan,
    )
    handle_problems(app, limits.work_seconds)
    app.add_middleware(BodyLimit, limits=limits)
    app.add_middleware(Measure, metrics=metrics, paths=PATHS)

    # Endpoints return a JSONResponse, so FastAPI doesn't validate the answers a second time.
    @app.post("/search", response_model=SearchResponse, responses=REFUSALS)
    async def search(request: SearchRequest) -> JSONResponse:
        """Find the best documents for each query."""
        return JSONResponse({"results": await service.search(request)})

    @app.post("/rank", response_model=RankResponse, responses=REFUSALS)
    async def rank(request: RankRequest) -> JSONResponse:
        """Rank given documents for a query, without the index."""
        return JSONResponse({"results": await service.rank(request)})

    @app.get("/healthz", response_model=Health)
    async def healthz() -> JSONResponse:
        """Return the status of the service and information about the index."""
        return JSONResponse(service.health())

    @app.get("/metrics", response_class=Response)
    async def get_metrics() -> Response:
        """Return request counts and latencies in the text format of Prometheus."""
        return Response(metrics.text(), headers={"Content-Type": CONTENT_TYPE_LATEST})

    return app
