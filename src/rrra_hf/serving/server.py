"""The process that serves an application until it is told to stop."""

from __future__ import annotations

import math
import signal
import socket

import uvicorn
from fastapi import FastAPI

from .limits import Limits

# Beyond the times that requests may take, for sending the answers.
GRACE_SECONDS = 5


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens.

    Args:
        host: Address of an interface, as `127.0.0.1`.
        port: Port; 0 for any that is free.

    Raises:
        OSError: If the address can't be had, for instance because the port is taken.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.create_server((host, port), family=family)
    # Connections inherit it. Otherwise an answer's second packet waits 40 ms until the first is acknowledged.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


def run(app: FastAPI, listener: socket.socket, limits: Limits | None = None) -> None:
    """Serve until SIGTERM or SIGINT: then take no more requests, finish those that are there, and return.

    Args:
        app: What `create_app` returned.
        listener: What `listen` returned; closed at the end.
        limits: Those of the application; they bound the time for finishing.
    """
    limits = limits or Limits()
    server = uvicorn.Server(
        uvicorn.Config(
            app,
            http="h11",
            ws="none",
            lifespan="on",
            log_config=None,
            access_log=False,
            server_header=False,
            limit_concurrency=limits.connections,
            timeout_keep_alive=math.ceil(limits.idle_seconds),
            timeout_graceful_shutdown=int(limits.body_seconds + limits.work_seconds) + GRACE_SECONDS,
        )
    )

    def stop(*_: object) -> None:
        server.should_exit = True

    # When it has shut down, uvicorn raises the signal again for the handlers it found: the default one would
    # end the process by the signal, not with status 0.
    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        server.run(sockets=[listener])
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
