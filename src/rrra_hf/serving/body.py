"""Middleware that limits the size, the arrival time and the memory of request bodies."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .limits import Limits
from .problems import busy, problem

# Bytes beyond the limit that are read and discarded. A client that is still sending when its connection is
# closed may never read the answer.
DISCARDED_BYTES = 16 * 2**20
# Requests with larger bodies take turns from the first byte to the answer, so many don't fill the memory.
SMALL_BYTES = 64 * 2**10
LARGE_AT_ONCE = 16


# After a refusal, the client may still be sending, so its connection can't be reused.
CLOSE = {"Connection": "close"}


class TooLarge(Exception):
    """The body exceeds the size limit."""


class BodyLimit:
    """Middleware that rejects bodies that are too large (413) or arrive too slowly (408).

    Status 503 if too many large bodies are waiting for their turn.

    Args:
        app: The application.
        limits: Limits of the service; `body_bytes`, `body_seconds` and `work_seconds` are used.
    """

    def __init__(self, app: ASGIApp, limits: Limits):
        self.app = app
        self.limits = limits
        self.turns = asyncio.Semaphore(LARGE_AT_ONCE)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Read the whole body, then call the application."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        async with AsyncExitStack() as turn:
            try:
                if _is_large(scope):
                    await asyncio.wait_for(turn.enter_async_context(self.turns), self.limits.work_seconds)
            except asyncio.TimeoutError:
                await busy("Too many large requests are waiting.", CLOSE)(scope, receive, send)
                return
            await self._call(scope, receive, send)

    async def _call(self, scope: Scope, receive: Receive, send: Send) -> None:
        most, seconds = self.limits.body_bytes, self.limits.body_seconds
        try:
            body = await asyncio.wait_for(_read(scope, receive, most), seconds)
        except TooLarge:
            answer = problem(413, f"The body must be at most {most} bytes.", headers=CLOSE)
            await answer(scope, receive, send)
        except asyncio.TimeoutError:
            answer = problem(408, f"The body did not arrive within {seconds:g} seconds.", headers=CLOSE)
            await answer(scope, receive, send)
        except ClientDisconnect:
            return
        else:
            await self.app(scope, _replay(body, receive), send)


def _is_large(scope: Scope) -> bool:
    # The length of a body in chunks isn't known before its end.
    return b"transfer-encoding" in dict(scope["headers"]) or _declared(scope) > SMALL_BYTES


def _declared(scope: Scope) -> int:
    return int(dict(scope["headers"]).get(b"content-length", 0))


async def _read(scope: Scope, receive: Receive, most: int) -> bytes:
    if _declared(scope) > most + DISCARDED_BYTES:
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
