"""Middleware that lets only short JSON into the page: Gradio also takes files, which nobody would delete."""

from __future__ import annotations

from typing import Any

from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

# A query has at most 2,000 characters, of at most 12 bytes each in JSON.
MAX_BYTES = 64 * 2**10


class ShortJsonOnly:
    """Middleware that rejects uploads (403), bodies of unknown length (411) and large ones (413).

    Args:
        app: The application.
    """

    def __init__(self, app: ASGIApp):
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Call the application, or refuse."""
        refusal = _refusal(Headers(scope=scope)) if scope["type"] == "http" else None
        await (refusal or self.app)(scope, receive, send)


def _refusal(headers: Headers) -> PlainTextResponse | None:
    close: dict[str, Any] = {"headers": {"Connection": "close"}}
    length = headers.get("content-length", "0")
    if headers.get("content-type", "").lower().startswith("multipart/"):
        return PlainTextResponse("This page takes no files.", 403, **close)
    if "transfer-encoding" in headers:
        return PlainTextResponse("A request needs a Content-Length.", 411, **close)
    if len(length) > len(str(MAX_BYTES)) or int(length) > MAX_BYTES:
        return PlainTextResponse(f"A request must have at most {MAX_BYTES} bytes.", 413, **close)
    return None
