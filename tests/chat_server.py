"""An endpoint with OpenAI's chat completions on this machine, whose answers tests choose."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock, Thread
from typing import Any, NamedTuple


class Question(NamedTuple):
    """What the user message of a request holds."""

    query: str
    document: str
    check: str


class Reply(NamedTuple):
    """What the server sends."""

    body: bytes
    status: int = 200
    headers: tuple[tuple[str, str], ...] = ()
    seconds: float = 0.0


def completion(content: object, **message: object) -> Reply:
    """The JSON of a chat completion."""
    choice = {
        "index": 0,
        "finish_reason": "stop",
        "message": {"role": "assistant", "content": content, **message},
    }
    body = {"id": "c", "object": "chat.completion", "created": 0, "model": "small", "choices": [choice]}
    return Reply(json.dumps(body).encode())


def answer(question: Question, relevant: object) -> Reply:
    """An answer in the form that was asked for."""
    return completion(json.dumps({"check": question.check, "relevant": relevant}))


class ChatServer:
    """Replies to the requests about each pair one after the other, the last reply again and again.

    Args:
        replies: Returns the replies to the requests about one pair.
    """

    def __init__(self, *replies: Callable[[Question], Reply]):
        self.replies = replies
        self.requests: list[dict[str, Any]] = []
        self.questions: list[Question] = []
        self.keys: list[str | None] = []
        self.at_once = self.most_at_once = 0
        self._lock = Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"

    def __enter__(self) -> ChatServer:
        Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _reply(self, request: dict[str, Any], key: str | None) -> Reply:
        question = Question(**json.loads(request["messages"][-1]["content"]))
        with self._lock:
            before = sum(asked[:2] == question[:2] for asked in self.questions)
            self.requests.append(request)
            self.questions.append(question)
            self.keys.append(key)
        return self.replies[min(before, len(self.replies) - 1)](question)

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                with server._lock:
                    server.at_once += 1
                    server.most_at_once = max(server.at_once, server.most_at_once)
                body = self.rfile.read(int(self.headers["Content-Length"]))
                reply = server._reply(json.loads(body), self.headers["Authorization"])
                time.sleep(reply.seconds)
                with server._lock:
                    server.at_once -= 1
                self.send_response(reply.status)
                for name, value in (("Content-Type", "application/json"), *reply.headers):
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(reply.body)))
                self.end_headers()
                self.wfile.write(reply.body)

            def log_message(self, *_: object) -> None:
                pass

        return Handler
