"""Bodies of requests: read whole before any work, within a size and a time."""

from __future__ import annotations

import asyncio

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .limits import Limits
from .problems import problem

# Bytes beyond the limit that are read and forgotten: a client that is still sending when its connection
# is closed may not get to read the answer.
FORGOTTEN_BYTES = 16 * 2**20


class TooLarge(Exception):
    """A body is larger than it may be."""


class BodyLimit:
    """Middleware that answers for bodies that are too large (413) or come too slowly (408).

    Args:
        app: The application.
        limits: `body_bytes` and `body_seconds` count.
    """

    def __init__(self, app: ASGIApp, limits: Limits):
        self.app = app
        self.limits = limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Read the body, and hand it on in one piece."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        most, seconds = self.limits.body_bytes, self.limits.body_seconds
        # The rest of the body is still to come, so the connection can't go on.
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
    if declared > most + FORGOTTEN_BYTES:
        raise TooLarge
    body, size, more = bytearray(), 0, True
    while more and size <= most + FORGOTTEN_BYTES:
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
    """Return what gives the body first, and then what the server has to tell."""
    messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replay() -> Message:
        return messages.pop() if messages else await receive()

    return replay
