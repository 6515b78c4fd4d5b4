"""Middleware that limits the size, the arrival time and the memory of request bodies."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import anyio
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .limits import Limits
from .problems import busy, problem

# Bytes beyond the limit that are read and discarded. A client that is still sending when its connection is
# closed may never read the answer.
DISCARDED_BYTES = 16 * 2**20
# Pause after each part that is discarded, so that reading it takes no time from others.
DISCARD_SECONDS = 0.02
# Requests whose bodies turn out to be larger take turns until their answer, so many don't fill the memory.
SMALL_BYTES = 64 * 2**10
LARGE_AT_ONCE = 16


# After a refusal, the client may still be sending, so its connection can't be reused.
CLOSE = {"Connection": "close"}


class TooLarge(Exception):
    """The body exceeds the size limit."""


class Refused(Exception):
    """The body isn't read.

    Args:
        answer: The error response.
    """

    def __init__(self, answer: ASGIApp):
        self.answer = answer


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
                body = await self._read(scope, receive, turn)
            except ClientDisconnect:
                return
            except Refused as refused:
                await refused.answer(scope, receive, send)
            else:
                await self.app(scope, _replay(body, receive), send)

    async def _read(self, scope: Scope, receive: Receive, turn: AsyncExitStack) -> bytes:
        limits = self.limits
        declared = int(dict(scope["headers"]).get(b"content-length", 0))
        body = Body(receive, limits.body_bytes, declared)
        try:
            if declared > limits.body_bytes + DISCARDED_BYTES:
                raise TooLarge
            with anyio.fail_after(limits.body_seconds):
                await body.read(SMALL_BYTES)
            if body.more:
                await self._take(turn)
                with anyio.fail_after(limits.body_seconds):
                    await body.read(limits.body_bytes + DISCARDED_BYTES)
            return body.whole()
        except TooLarge:
            raise Refused(
                problem(413, f"The body must be at most {limits.body_bytes} bytes.", headers=CLOSE)
            ) from None
        except TimeoutError:
            message = f"The body did not arrive within {limits.body_seconds:g} seconds."
            raise Refused(problem(408, message, headers=CLOSE)) from None

    async def _take(self, turn: AsyncExitStack) -> None:
        try:
            with anyio.fail_after(self.limits.work_seconds):
                await turn.enter_async_context(self.turns)
        except TimeoutError:
            raise Refused(busy("Too many large requests are waiting.", CLOSE)) from None


class Body:
    """A body as far as it has arrived.

    Args:
        receive: The `receive` of the request.
        most: Bytes to keep. A body with more is discarded.
        declared: Length of the body by its head, 0 if it's unknown.
    """

    def __init__(self, receive: Receive, most: int, declared: int):
        self.more = True
        self._receive, self._most = receive, most
        self._bytes, self._size, self._declared = bytearray(), 0, declared

    async def read(self, enough: int) -> None:
        """Read until the end of the body, or until more bytes have arrived."""
        while self.more and self._size <= enough:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise ClientDisconnect
            part = message.get("body", b"")
            self._size += len(part)
            if max(self._size, self._declared) <= self._most:
                self._bytes += part
            else:
                await asyncio.sleep(DISCARD_SECONDS)
            self.more = message.get("more_body", False)

    def whole(self) -> bytes:
        """Return the body, or raise `TooLarge` if there is more than was kept."""
        if self._size > self._most:
            raise TooLarge
        return bytes(self._bytes)


def _replay(body: bytes, receive: Receive) -> Receive:
    """Return a `receive` that gives the body first, then the messages of the server."""
    messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replay() -> Message:
        return messages.pop() if messages else await receive()

    return replay
