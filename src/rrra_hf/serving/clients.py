"""Middleware that treats clients fairly: none has all of the service, and none that has left any of it."""

from __future__ import annotations

import asyncio
from collections import Counter

import anyio
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .problems import RETRY_AFTER, problem

# Seconds until the work for a client starts that has left before: it may leave right after its request.
TIME_TO_LEAVE = 0.002
# Clients that have left, of which so many are remembered.
REMEMBERED = 1024


class ClientLimit:
    """Middleware that rejects requests of a client address that has too many at the same time (429).

    Args:
        app: The application.
        most: Maximum number of requests per client address.
        exempt: Paths that are always answered, as those that a monitor asks for.
    """

    def __init__(self, app: ASGIApp, most: int, exempt: tuple[str, ...]):
        self.app = app
        self.most = most
        self.exempt = exempt
        self.running: Counter[str] = Counter()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Call the application, or refuse."""
        if scope["type"] != "http" or scope["path"] in self.exempt:
            await self.app(scope, receive, send)
            return
        client = (scope.get("client") or ("",))[0]
        if self.running[client] >= self.most:
            message = f"{self.most} requests of this client are running or waiting already."
            headers = {"Connection": "close", "Retry-After": str(RETRY_AFTER)}
            await problem(429, message, headers=headers)(scope, receive, send)
            return
        self.running[client] += 1
        try:
            await self.app(scope, receive, send)
        finally:
            self.running[client] -= 1
            if not self.running[client]:
                del self.running[client]


class DropDeparted:
    """Middleware that cancels the work for a client that has left.

    Args:
        app: The application. It gets the whole body in one message.
    """

    def __init__(self, app: ASGIApp):
        self.app = app
        self.left: dict[str, None] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Call the application until it has answered or the client has left."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        messages = [await receive()]

        async def give_body() -> Message:
            return messages.pop() if messages else await asyncio.shield(departure)

        client = (scope.get("client") or ("",))[0]
        # After the body, the server's next message is that the client has left.
        departure = asyncio.ensure_future(receive())
        try:
            if client in self.left and (await asyncio.wait({departure}, timeout=TIME_TO_LEAVE))[0]:
                return
            with anyio.CancelScope() as work:
                departure.add_done_callback(lambda _: work.cancel())
                await self.app(scope, give_body, send)
        finally:
            departure.cancel()
        if work.cancelled_caught:
            self._remember(client)

    def _remember(self, client: str) -> None:
        self.left[client] = None
        if len(self.left) > REMEMBERED:
            del self.left[next(iter(self.left))]
