"""A request waits for the event loop a few times only: beside hostile clients, each time costs."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from rrra_hf.retrieval import Retriever
from rrra_hf.serving import create_app
from running import QUERIES

BODY = json.dumps({"queries": QUERIES[0]}).encode()
SCOPE = {
    "type": "http", "method": "POST", "path": "/search", "raw_path": b"/search", "query_string": b"",
    "root_path": "", "scheme": "http", "http_version": "1.1",
    "headers": [(b"host", b"localhost"), (b"content-type", b"application/json")],
    "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 2),
}  # fmt: skip


class CountingLoop(asyncio.SelectorEventLoop):
    """An event loop that counts what it's asked to call soon."""

    calls = 0

    def call_soon(self, *arguments: Any, **options: Any) -> asyncio.Handle:
        self.calls += 1
        return super().call_soon(*arguments, **options)

    def call_soon_threadsafe(self, *arguments: Any, **options: Any) -> asyncio.Handle:
        self.calls += 1
        return super().call_soon_threadsafe(*arguments, **options)


async def ask(app: Any) -> None:
    """Send one request, and stay until it is answered."""
    messages = [{"type": "http.request", "body": BODY, "more_body": False}]
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return messages.pop() if messages else await asyncio.get_running_loop().create_future()

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    await app(dict(SCOPE), receive, send)
    assert sent[0]["status"] == 200


def test_a_search_asks_the_event_loop_for_few_calls(retriever: Retriever) -> None:
    app, loop = create_app(retriever), CountingLoop()
    loop.run_until_complete(ask(app))
    loop.calls = 0
    loop.run_until_complete(ask(app))
    loop.close()
    # Its task, the thread that has finished, the result, and the task that waits for the client to leave.
    assert loop.calls <= 8
