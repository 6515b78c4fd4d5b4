"""HTTP connections that can't block the service: they have timeouts, and make room for others."""

from __future__ import annotations

import asyncio
from collections import defaultdict, deque
from collections.abc import Iterable
from operator import itemgetter
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from .limits import Limits

# Share of connections beyond the limit for which room is made at once. For fewer, the server makes it once a
# second, because a client whose connection is closed opens the next one.
SPARE = 0.25
# Maximum number of bytes of a request beside its body: head, lengths of chunks, trailers.
HEAD_BYTES = 64 * 2**10


class Connection(HttpToolsProtocol):
    """A connection as uvicorn has it, with limits. `run` makes a subclass with the limits of the service.

    A connection is owed something by its client while the client hasn't sent a whole request, or doesn't read
    the answer. If it's owed the head of a request or the reading of an answer for too long, it is closed.
    `BodyLimit` refuses slow bodies, and uvicorn closes idle connections.
    """

    limits: Limits

    def __init__(self, *arguments: Any, **options: Any):
        super().__init__(*arguments, **options)
        self._timeout: asyncio.TimerHandle | None = None
        self._since = self.loop.time()
        self._head_bytes = 0
        self._unanswered: deque[RequestResponseCycle] = deque()
        self.address = ""

    @property
    def owed_since(self) -> float | None:
        """Time since when the client owes something, None if it doesn't."""
        owed = not self._in_request or self.cycle.more_body or self.flow.write_paused
        return self._since if owed else None

    @property
    def _in_request(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Wait for the head of the first request, and make room if there are far too many connections."""
        super().connection_made(transport)  # type: ignore[arg-type]
        self.address = self.client[0] if self.client else ""
        self._expect(self.limits.body_seconds)
        if len(self.connections) > (1 + SPARE) * self.limits.connections:
            others = [one for one in self.connections if one is not self]
            make_room(others, self.limits.connections - 1)  # type: ignore[arg-type]

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop waiting, and tell all requests that the client has left."""
        self._expect(None)
        # uvicorn tells the last one only, but of requests that are sent together, another one is running.
        for cycle in self._unanswered:
            cycle.disconnected = True
            cycle.message_event.set()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Wait for the rest of the head if it has begun, but not longer because more of it has come."""
        was_in_request = self._in_request
        self._head_bytes += len(data)
        super().data_received(data)
        if self._head_bytes > HEAD_BYTES and not self.transport.is_closing():
            self.send_400_response("The head of the request is too long.")
        if self._in_request and not was_in_request:
            # A client may send its next request while it doesn't read the last answer.
            self._expect(self.limits.work_seconds if self.flow.write_paused else None)
        elif not self._in_request and self._timeout is None:
            self._expect(self.limits.body_seconds)

    def on_message_begin(self) -> None:
        """Count the bytes of the head anew; what arrived together with its first one isn't counted."""
        super().on_message_begin()
        self._head_bytes = 0

    def on_body(self, body: bytes) -> None:
        """Add to the body."""
        super().on_body(body)
        self._head_bytes -= len(body)

    def on_headers_complete(self) -> None:
        """Begin the request."""
        super().on_headers_complete()
        while self._unanswered and self._unanswered[0].response_complete:
            self._unanswered.popleft()
        self._unanswered.append(self.cycle)

    def pause_writing(self) -> None:
        """Wait for the client to read."""
        super().pause_writing()
        self._expect(self.limits.work_seconds)

    def resume_writing(self) -> None:
        """Stop waiting."""
        super().resume_writing()
        self._expect(None)

    def _expect(self, seconds: float | None) -> None:
        """Close the connection unless something happens within some seconds."""
        self._since = self.loop.time()
        if self._timeout is not None:
            self._timeout.cancel()
        self._timeout = None if seconds is None else self.loop.call_later(seconds, self.transport.abort)


def make_room(connections: Iterable[Connection], most: int) -> None:
    """Close connections that are owed something until no more than `most` are open.

    Each time it's the oldest one of the client that has most of them.

    Args:
        connections: All connections. Those that are owed nothing stay open.
        most: Maximum number of connections.
    """
    connections = list(connections)
    owed = [(since, one) for one in connections if (since := one.owed_since) is not None]
    of_client: defaultdict[str, list[Connection]] = defaultdict(list)
    for _, one in sorted(owed, key=itemgetter(0), reverse=True):
        of_client[one.address].append(one)
    for _ in range(min(len(connections) - most, len(owed))):
        greediest = max(of_client.values(), key=len)
        greediest.pop().transport.abort()
