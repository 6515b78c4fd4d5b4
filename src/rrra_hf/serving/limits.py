"""How much a request may ask for, and how long it may take."""

from __future__ import annotations

from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Limits:
    """What the service refuses, so that its memory and its answers' time are bounded.

    Args:
        body_bytes: Bytes of a request's body; beyond, the status is 413.
        queries: Queries a request; beyond, as for the next four, the status is 422.
        documents: Documents a request to rank.
        text_length: Characters of a query or of a document to rank.
        top_k: Documents returned a query.
        depth: Documents reranked a query.
        waiting: Requests that wait to be worked on; beyond, the status is 503.
        connections: Connections that are open; beyond, the status is 503.
        batch: Queries of several requests that are searched together.
        threads: Threads that search by embeddings; texts are encoded by one more.
        body_seconds: Time for a request's body to arrive; beyond, the status is 408.
        work_seconds: Time to wait and to be worked on; beyond, the status is 504.
        idle_seconds: Time that a connection is kept open for its next request. Longer than clients keep
            theirs, or else one sends a request on a connection that is just being closed.

    Raises:
        ValueError: If a number is not greater than 0, or one that is counted not a whole number.

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
    waiting: int = 256
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
