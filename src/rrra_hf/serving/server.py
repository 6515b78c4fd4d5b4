"""Running the application with uvicorn until a signal stops it."""

from __future__ import annotations

import asyncio
import math
import signal
import socket

import uvicorn
from fastapi import FastAPI

from .connections import Connection, make_room
from .limits import Limits

# Times that uvicorn calls `on_tick` per second.
TICKS = 10
# Seconds that clients have, once the service stops, to send the rest of a request or to read an answer.
GRACE_SECONDS = 0.5


class Server(uvicorn.Server):
    """A server that makes room for connections, and that finishes whole requests when it stops.

    Args:
        config: Configuration for uvicorn.
        connections: Maximum number of connections.
    """

    def __init__(self, config: uvicorn.Config, connections: int):
        super().__init__(config)
        self._most = connections

    async def on_tick(self, counter: int) -> bool:
        """Make room once a second."""
        connections = self.server_state.connections
        if counter % TICKS == 0 and len(connections) > self._most:
            make_room(connections, self._most)  # type: ignore[arg-type]
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Shut down, and meanwhile close the connections whose clients owe something."""
        closing = asyncio.create_task(self._close_owed())
        await super().shutdown(sockets)
        closing.cancel()

    async def _close_owed(self) -> None:
        loop = asyncio.get_running_loop()
        begun = loop.time()
        while True:
            for connection in list(self.server_state.connections):
                assert isinstance(connection, Connection)
                since = connection.owed_since
                if since is not None and loop.time() - max(since, begun) > GRACE_SECONDS:
                    connection.transport.abort()
            await asyncio.sleep(0.1)


def listen(host: str, port: int) -> socket.socket:
    """Open a listening socket.

    Args:
        host: Address of the network interface, for example `127.0.0.1`.
        port: Port. Pass 0 to choose a free one.

    Raises:
        OSError: If the address isn't available, for example because the port is in use.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.create_server((host, port), family=family)
    # Connections inherit this option. Without it, the second packet of an answer waits up to 40 ms for the
    # acknowledgement of the first.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


def run(app: FastAPI, listener: socket.socket, limits: Limits | None = None) -> None:
    """Serve until SIGTERM or SIGINT, then finish running requests and return.

    Args:
        app: Application, see `create_app`.
        listener: Listening socket, see `listen`. It is closed at the end.
        limits: Limits of the application. Here they bound connections, and the time for shutdown.

    Example:
        ::

            run(create_app(Retriever.from_pretrained("retrievers/mine")), listen("127.0.0.1", 8000))
    """
    limits = limits or Limits()
    server = Server(
        uvicorn.Config(
            app,
            http=type("LimitedConnection", (Connection,), {"limits": limits}),
            # uvloop raises errors when an answer is written to a connection that was closed to make room.
            loop="asyncio",
            ws="none",
            lifespan="on",
            log_config=None,
            # Clients that send garbage would fill the log with warnings.
            log_level="error",
            access_log=False,
            server_header=False,
            timeout_keep_alive=math.ceil(limits.idle_seconds),
            timeout_graceful_shutdown=math.ceil(limits.work_seconds + GRACE_SECONDS),
        ),
        limits.connections,
    )

    def stop(*_: object) -> None:
        server.should_exit = True

    # After shutdown, uvicorn raises the signal again for the previous handlers. The default handler would end
    # the process by signal; this one lets it exit with status 0.
    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        server.run(sockets=[listener])
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
