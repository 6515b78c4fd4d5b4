"""Middleware that limits the size and the arrival time of request bodies."""

from __future__ import annotations

import asyncio

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .limits import Limits
from .problems import problem

# Bytes beyond the limit that are read and discarded. A client that is still sending when its connection is
# closed may never read the answer.
DISCARDED_BYTES = 16 * 2**20


class TooLarge(Exception):
    """The body exceeds the size limit."""


class BodyLimit:
    """Middleware that rejects bodies that are too large (413) or arrive too slowly (408).

    Args:
        app: The application.
        limits: Limits of the service; `body_bytes` and `body_seconds` are used.
    """

    def __init__(self, app: ASGIApp, limits: Limits):
        self.app = app
        self.limits = limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Read the whole body, then call the application."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        most, seconds = self.limits.body_bytes, self.limits.body_seconds
        # The client may still be sending, so the connection can't be reused.
        close = {"Connection": "close"}
        try:
            body = await asyncio.wait_for(_read(scope, receive, most), seconds)
        except TooLarge:
            answer = problem(413, f"The body must be at most {most} bytes.", headers=close)
            await answer(scope, receive, send)
        except asyncio.TimeoutError:
            answer = problem(408, f"The body did not arrive within {seconds:g} seconds.", headers=close)
            await answer(scope, receive, send)
        except ClientDisconnect:
            return
        else:
            await self.app(scope, _replay(body, receive), send)


async def _read(scope: Scope, receive: Receive, most: int) -> bytes:
    declared = int(dict(scope["headers"]).get(b"content-length", 0))
    if declared > most + DISCARDED_BYTES:
        raise TooLarge
    body, size, more = bytearray(), 0, True
    while more and size <= most + DISCARDED_BYTES:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        size += len(message.get("body", b""))
        if size <= most:
            body += message.get("body", b"")
        more = message.get("more_body", False)
    if size > most:
        raise TooLarge
    return bytes(body)


def _replay(body: bytes, receive: Receive) -> Receive:
    """Return a `receive` that gives the body first, then the messages of the server."""
    messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replay() -> Message:
        return messages.pop() if messages else await receive()

    return replay
