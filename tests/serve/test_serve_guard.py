"""Who may ask, and clients that keep a connection waiting."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import sys
import time

import numpy as np
import pytest
from tests.serve.conftest import Served, encoded, eventually, serving

from edgeseg.errors import InputError
from edgeseg.runtime import Runtime
from edgeseg.serve import Limits, listen, server, url
from edgeseg.serve.guard import SECURITY_HEADERS, Guard

PNG = encoded(np.full((40, 60, 3), 90, np.uint8))


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "rebound.example"},
        {"Host": "rebound.example:8000"},
        {"Host": "127.0.0.1.rebound.example"},
        {"Host": "localhost.rebound.example"},
        {"Host": "192.168.1.5"},
        {"Host": ""},
        {"Host": "[::1"},
        {"Origin": "http://elsewhere.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:1"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
    ids=str,
)
def test_other_pages_are_refused(served: Served, headers: dict[str, str]) -> None:
    for response in (
        served.predict(PNG, **headers),
        served.get("/engine", **headers),
        served.get("/live.mjpg", **headers),
    ):
        assert response.status == 403
        assert response.error


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Host": "localhost"},
        {"Host": "LOCALHOST:8000", "Origin": "http://localhost:8000"},
        {"Host": "127.0.0.1:8000", "Origin": "http://127.0.0.1:8000"},
        {"Host": "[::1]:8000", "Origin": "http://[::1]:8000"},
        {"Host": "localhost", "Origin": "https://localhost"},
        {"Sec-Fetch-Site": "same-origin"},
        {"Sec-Fetch-Site": "none"},
    ],
    ids=str,
)
def test_the_page_itself_and_programs_are_answered(served: Served, headers: dict[str, str]) -> None:
    assert served.predict(PNG, **headers).status == 200


def test_a_link_to_the_page_is_followed_but_it_is_not_shown_inside_another(
    served: Served,
) -> None:
    link = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}
    page = served.get("/", **link)
    assert page.status == 200
    assert "frame-ancestors 'none'" in page.headers["content-security-policy"]
    assert served.get("/engine", **link).status == 403


@pytest.mark.parametrize(
    ("host", "allowed", "refused"),
    [
        ("127.0.0.1", ["localhost", "127.0.0.1"], ["10.0.0.7", socket.gethostname()]),
        ("0.0.0.0", ["10.0.0.7:8000", "localhost", socket.gethostname()], ["a.example"]),
        ("::", ["[fe80::1]:8000", "10.0.0.7"], ["a.example:8000"]),
        ("robot.lan", ["robot.lan", "10.0.0.7"], ["robot.lan.example"]),
    ],
)
def test_names_that_are_ours(host: str, allowed: list[str], refused: list[str]) -> None:
    guard = Guard(None, host=host)  # type: ignore[arg-type]
    assert [name for name in allowed if not guard._is_ours(name)] == []
    assert [name for name in refused if guard._is_ours(name)] == []


@pytest.mark.parametrize("path", ["/", "/page.js", "/engine", "/nothing", "/predict"])
def test_every_answer_has_the_security_headers(served: Served, path: str) -> None:
    for extra in ({}, {"Host": "elsewhere.example"}):
        headers = served.get(path, **extra).headers
        for name, value in SECURITY_HEADERS.items():
            if name != "Cache-Control":
                assert headers[name.lower()] == value
        assert headers["cache-control"] in ("no-store", "no-cache")
        assert "server" not in headers
        assert "access-control-allow-origin" not in headers


def test_what_is_no_http_is_answered_in_json(served: Served) -> None:
    with socket.create_connection(("127.0.0.1", served.port), 10) as client:
        client.sendall(b"\x16\x03\x01 this is TLS, or noise\r\n\r\n")
        head, _, body = received(client).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 ")
    assert "no HTTP" in json.loads(body)["error"]


def test_a_request_head_without_end_is_refused(served: Served) -> None:
    with socket.create_connection(("127.0.0.1", served.port), 10) as client:
        client.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 200_000)
        assert b"400 " in received(client)[:20]


def received(client: socket.socket) -> bytes:
    """All that comes until the server hangs up."""
    data = b""
    while True:
        try:
            part = client.recv(65536)
        except ConnectionError:
            return data
        if not part:
            return data
        data += part


def test_a_request_that_does_not_begin_is_given_up(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "_IDLE", 0.3)
    with serving(runtime) as served:
        silent, dripping, idle = (
            socket.create_connection(("127.0.0.1", served.port), 10) for _ in range(3)
        )
        dripping.sendall(b"GET / HT")
        idle.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\nGET /he")
        for client in (silent, dripping):
            assert received(client).startswith(b"HTTP/1.1 408 ")
        assert received(idle).startswith(b"HTTP/1.1 200 ")  # and hangs up later
        for client in (silent, dripping, idle):
            client.close()


@pytest.mark.parametrize("drain", [0.0, 20.0])
def test_the_rest_of_a_refused_body_is_taken_for_a_while(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch, drain: float
) -> None:
    monkeypatch.setattr(server, "_IDLE", 0.2)
    monkeypatch.setattr(server, "_DRAIN", drain)
    with (
        serving(runtime, limits=Limits(max_body=0.1)) as served,
        socket.create_connection(("127.0.0.1", served.port), 10) as client,
    ):
        client.sendall(
            b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\n"
            b"Content-Length: 200000\r\n\r\n"
        )
        sent = 0
        with contextlib.suppress(ConnectionError):
            for _ in range(20):
                client.sendall(bytes(10_000))
                sent += 10_000
                time.sleep(0.05)
            assert client.recv(4096).startswith(b"HTTP/1.1 413 ")
    assert (sent == 200_000) == (drain > 0)


def test_a_client_that_takes_nothing_is_given_up(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "_STALL", 0.3)
    noise = np.random.default_rng(0).integers(0, 256, (1500, 1500, 3), np.uint8)
    body = encoded(noise)
    with serving(runtime, limits=Limits(max_body=50)) as served:
        client = socket.socket()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect(("127.0.0.1", served.port))
        client.settimeout(10)
        client.sendall(
            b"POST /predict?output=overlay HTTP/1.1\r\nHost: localhost\r\nAccept: image/png\r\n"
            b"Content-Type: image/png\r\nContent-Length: %d\r\n\r\n" % len(body)
        )
        client.sendall(body)
        time.sleep(1.5)  # it is labelled, and nothing is taken
        assert len(received(client)) < len(body) / 2
        client.close()


def test_connections_are_counted(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "_CONNECTIONS", 2)
    with serving(runtime) as served:
        clients = [socket.create_connection(("127.0.0.1", served.port), 10) for _ in range(2)]
        time.sleep(0.1)
        with socket.create_connection(("127.0.0.1", served.port), 10) as third:
            assert received(third).startswith(b"HTTP/1.1 503 ")
        for client in clients:
            client.close()
        eventually(lambda: served.get("/health").status == 200)


def test_serving_needs_no_torch() -> None:
    code = "import sys; sys.modules['torch'] = None; import edgeseg.serve"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_listening() -> None:
    with listen("127.0.0.1", 0) as first:
        host, port = first.getsockname()
        assert url(first) == f"http://{host}:{port}"
        first.listen()
        with pytest.raises(InputError, match="is taken by another program"):
            listen(host, port)
    with listen("0.0.0.0", 0) as every:
        assert url(every).startswith("http://localhost:")
    with pytest.raises(InputError, match="is no address"):
        listen("no such host", 0)
    with pytest.raises(InputError, match="cannot listen"):
        listen("192.0.2.1", 0)
    with pytest.raises(InputError, match="port is 70000"):
        listen("127.0.0.1", 70000)
