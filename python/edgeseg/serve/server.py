"""Sockets and connections: uvicorn with time limits on what it waits for without any."""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import json
import logging
import math
import socket
from collections.abc import Callable
from typing import Any

import h11
import uvicorn
from starlette.applications import Starlette
from uvicorn.protocols.http.h11_impl import H11Protocol

from edgeseg.arguments import check_integer
from edgeseg.errors import InputError
from edgeseg.runtime import Runtime
from edgeseg.serve.app import Limits, make_app
from edgeseg.serve.guard import is_loopback
from edgeseg.serve.live import Live

logger = logging.getLogger("edgeseg")

_IDLE = 10.0  # seconds for a request's head, and between two requests
_DRAIN = 60.0  # seconds for the rest of a body that was refused: many clients read no answer before
_STALL = 10.0  # seconds that a client may take nothing of what is sent
_CONNECTIONS = 256
_SEND_BUFFER = 256 * 1024  # in the kernel, a connection: a slow watcher is not to see the past


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens.

    Raises:
        InputError: the address is none of this machine, or the port is taken.
    """
    check_integer("port", port, 0, 65535)
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except (OSError, UnicodeError) as error:
        raise InputError(
            f"host {host!r} is no address; use 127.0.0.1, 0.0.0.0 or an address of this machine"
        ) from error
    listener = socket.socket(family, kind)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)
        listener.bind(address)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise InputError(
                f"port {port} of {host} is taken by another program; choose one with --port"
            ) from error
        raise InputError(
            f"cannot listen at {host} port {port}: {error.strerror}; use 127.0.0.1, 0.0.0.0 or an "
            "address of this machine, and a port from 1024"
        ) from error
    return listener


def url(listener: socket.socket) -> str:
    """Where a listening socket is reached, for a browser on this machine."""
    host, port = listener.getsockname()[:2]
    if ipaddress.ip_address(host).is_unspecified:
        host = "localhost"
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class Connection(H11Protocol):
    """An HTTP connection that is closed when its client keeps it waiting.

    uvicorn waits for ever for a request's first bytes and for a client that does not read.
    """

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the clock, or refuse a connection too many."""
        super().connection_made(transport)
        self._waiting: asyncio.TimerHandle | None = None
        self._stalled: asyncio.TimerHandle | None = None
        if len(self.connections) > _CONNECTIONS:
            self._refuse(503, f"{_CONNECTIONS} connections are open; try again later")
            return
        self._expect_request()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the clocks."""
        for timer in (self._waiting, self._stalled):
            if timer is not None:
                timer.cancel()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """The client does not take what is sent: give it a while."""
        super().pause_writing()
        self._stalled = self.loop.call_later(_STALL, self.transport.abort)

    def resume_writing(self) -> None:
        """It does."""
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None
        super().resume_writing()

    def send_400_response(self, msg: str) -> None:
        """What is no HTTP is answered as all errors are."""
        self._refuse(400, "this is no HTTP/1.1 request that can be understood")

    def leave(self) -> None:
        """Hang up, at the server's end, on a client that sends or takes too slowly."""
        sends = self.cycle is not None and self.cycle.more_body and not self.cycle.response_started
        if sends or self._stalled is not None:
            self.transport.abort()

    def _expect_request(self) -> None:
        self._since = self.loop.time()
        self._waiting = self.loop.call_later(_IDLE, self._expire, self.cycle)

    def _expire(self, cycle: Any) -> None:
        """No new request since the clock was started, and none in work."""
        in_work = self.cycle is not None and not self.cycle.response_complete
        if in_work or self.cycle is not cycle:
            self._expect_request()
        elif self.cycle is None:
            self._refuse(408, f"no whole request head came within {_IDLE:g} s; send it at once")
        elif self.conn.their_state is h11.SEND_BODY and self.loop.time() - self._since < _DRAIN:
            self._waiting = self.loop.call_later(_IDLE, self._expire, cycle)
        else:
            self.transport.abort()

    def _refuse(self, status: int, sentence: str) -> None:
        if self.conn.our_state is not h11.IDLE and self.conn.our_state is not h11.SEND_RESPONSE:
            self.transport.abort()
            return
        body = json.dumps({"error": sentence}).encode()
        headers = [
            ("Content-Type", "application/json"),
            ("Content-Length", str(len(body))),
            ("Connection", "close"),
        ]
        for event in (
            h11.Response(status_code=status, headers=headers),
            h11.Data(data=body),
            h11.EndOfMessage(),
        ):
            self.transport.write(self.conn.send(event) or b"")
        self.transport.close()


class Server(uvicorn.Server):
    """Serves an app of `make_app` until Ctrl-C, SIGTERM, or `should_exit` is set."""

    def __init__(self, app: Starlette) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                http=Connection,
                ws="none",
                lifespan="off",
                loop="asyncio",
                log_config=None,
                log_level="error",
                access_log=False,
                server_header=False,
                proxy_headers=False,
                timeout_keep_alive=math.ceil(_IDLE),
                timeout_graceful_shutdown=2,
            )
        )
        self._app = app

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Send watchers home first: their streams have no end of their own."""
        self._app.state.service.stop()
        for connection in list(self.server_state.connections):
            if isinstance(connection, Connection):
                connection.leave()
        await super().shutdown(sockets)


def serve_until_interrupted(
    load: Callable[[], Runtime],
    source: str | int | None,
    *,
    host: str,
    port: int,
    limits: Limits,
    say: Callable[[str], None],
) -> None:
    """What `edgeseg serve` does.

    Args:
        load: makes the Runtime; called once the port is ours.
        source: what to show live; None lets pictures be dropped into the page.
        host: address to listen at.
        port: 0 takes a free one.
        limits: of one request.
        say: prints a line.

    Raises:
        InputError: the address or the source cannot be used.
        EngineError: from `load`.
        KeyboardInterrupt: Ctrl-C, once the watchers were sent home.
    """
    with listen(host, port) as listener:
        runtime = load()
        live = None if source is None else Live(runtime, source)
        say(repr(runtime))
        if not is_loopback(listener.getsockname()[0]):
            logger.warning(
                "whoever reaches port %d of this machine sees the source and uses its time: there "
                "is no password and no encryption; without --host only this machine can",
                listener.getsockname()[1],
            )
        listener.listen(128)  # before anybody reads where
        shown = "drop pictures into" if live is None else f"{live.name} is shown at"
        say(f"{shown} {url(listener)} (Ctrl-C ends)")
        Server(make_app(runtime, live, host=host, limits=limits)).run(sockets=[listener])
