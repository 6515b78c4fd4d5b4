"""Limits of the service."""

from __future__ import annotations

from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Limits:
    """Limits that bound memory and response time.

    Args:
        body_bytes: Maximum size of a request body in bytes. Status 413 if exceeded.
        queries: Maximum number of queries per request. Status 422 if exceeded, as for the next five.
        documents: Maximum number of documents per ranking request, or of texts to encode.
        text_length: Maximum number of characters of a query, or of a text to rank or to encode.
        top_k: Maximum number of documents to return per query.
        depth: Maximum number of documents to rerank per query.
        returned_documents: Maximum number of documents to return with their texts, per request.
        waiting: Maximum number of waiting requests. Status 503 if exceeded.
        client_requests: Maximum number of requests of one client address at the same time. Status 429 if
            exceeded. Behind a proxy, all clients have its address.
        connections: Number of open connections. Beyond it, the service soon closes as many connections
            that wait for their clients.
        batch: Maximum number of queries to search in one batch.
        threads: Number of threads that search by embedding. One more thread encodes texts.
        body_seconds: Timeout for receiving the head of a request, and again for its body. Status 408 if the
            body exceeds it.
        work_seconds: Timeout for waiting and processing. Status 504 if exceeded. Also the time that a client
            may take to read an answer.
        idle_seconds: Time to keep an idle connection open. It should exceed the idle timeout of clients,
            otherwise a client may send a request on a connection that is being closed.

    Raises:
        ValueError: If a limit isn't greater than 0, or a limit other than a timeout isn't a whole number.

    Example:
        >>> Limits(top_k=0)
        Traceback (most recent call last):
        ValueError: top_k must be a whole number of at least 1, got 0.
    """

    body_bytes: int = 4 * 2**20
    queries: int = 64
    documents: int = 1000
    text_length: int = 20_000
    top_k: int = 1000
    depth: int = 1000
    returned_documents: int = 5000
    waiting: int = 256
    client_requests: int = 128
    connections: int = 512
    batch: int = 64
    threads: int = 2
    body_seconds: float = 10.0
    work_seconds: float = 30.0
    idle_seconds: float = 75.0

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if name.endswith("_seconds"):
                if not value > 0:
                    raise ValueError(f"{name} must be greater than 0, got {value}.")
            elif not isinstance(value, int) or value < 1:
                raise ValueError(f"{name} must be a whole number of at least 1, got {value}.")
