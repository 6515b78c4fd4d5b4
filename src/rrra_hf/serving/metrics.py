"""Request counts and latencies for Prometheus."""

from __future__ import annotations

import time
from collections.abc import Collection

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
SIZES = (1, 2, 4, 8, 16, 32, 64, 128)
# Status that proxies log if the client closed the connection before the answer.
CLIENT_CLOSED = 499


class Metrics:
    """The metrics of one application.

    Example:
        >>> metrics = Metrics()
        >>> metrics.requests.labels("/search", 200).inc()
        >>> 'rrra_requests_total{path="/search",status="200"} 1.0' in metrics.text().decode()
        True
    """

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        self.requests = Counter("rrra_requests", "Requests answered.", ["path", "status"], registry=registry)
        self.seconds = Histogram(
            "rrra_request_seconds", "Time to answer a request.", ["path"], registry=registry, buckets=SECONDS
        )
        self.in_flight = Gauge("rrra_requests_in_flight", "Requests being processed.", registry=registry)
        self.batches = Histogram("rrra_batch_size", "Queries per batch.", registry=registry, buckets=SIZES)

    def text(self) -> bytes:
        """Return all metrics in the text format of Prometheus."""
        return generate_latest(self._registry)


class Measure:
    """Middleware that counts and times requests.

    Args:
        app: The application.
        metrics: Metrics to update.
        paths: Paths to count separately. All others are counted as "other".
    """

    def __init__(self, app: ASGIApp, metrics: Metrics, paths: Collection[str]):
        self.app = app
        self.metrics = metrics
        self.paths = paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Call the application and record status and time."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        status = CLIENT_CLOSED

        async def record_status(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        path = scope["path"] if scope["path"] in self.paths else "other"
        start = time.perf_counter()
        with self.metrics.in_flight.track_inprogress():
            try:
                await self.app(scope, receive, record_status)
            except Exception:
                status = 500
                raise
            finally:
                self.metrics.seconds.labels(path).observe(time.perf_counter() - start)
                self.metrics.requests.labels(path, status).inc()
