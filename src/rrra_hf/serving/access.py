"""Middleware that asks for an API key."""

from __future__ import annotations

from hmac import compare_digest

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from .problems import problem


class ApiKey:
    """Middleware that rejects requests without the key (401), before their bodies are read.

    Clients send it as `Authorization: Bearer KEY`.

    Args:
        app: The application.
        key: The key.
        exempt: Paths that need no key.
    """

    def __init__(self, app: ASGIApp, key: str, exempt: tuple[str, ...]):
        self.app = app
        self.key = key.encode()
        self.exempt = exempt

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Call the application if the request has the key."""
        if scope["type"] != "http" or scope["path"] in self.exempt or self._has_key(scope):
            await self.app(scope, receive, send)
            return
        headers = {"WWW-Authenticate": "Bearer", "Connection": "close"}
        await problem(401, "The API key is missing or wrong.", headers=headers)(scope, receive, send)

    def _has_key(self, scope: Scope) -> bool:
        scheme, _, given = Headers(scope=scope).get("authorization", "").partition(" ")
        # The time that the comparison takes doesn't tell how much of a key is right.
        return scheme.lower() == "bearer" and compare_digest(given.encode("latin-1"), self.key)
