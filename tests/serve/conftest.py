"""A server in a thread, and requests to it."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from edgeseg.runtime import Runtime
from edgeseg.serve import Limits, Live, Server, listen, make_app, url


@dataclass(frozen=True)
class Response:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> str:
        """The sentence of an error, which is all that its body holds."""
        assert self.headers["content-type"] == "application/json"
        assert list(self.json) == ["error"]
        sentence = self.json["error"]
        assert isinstance(sentence, str)
        assert "Traceback" not in sentence
        return sentence


@dataclass(frozen=True)
class Served:
    url: str
    port: int
    live: Live | None

    def request(
        self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
    ) -> Response:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            connection.request(method, path, body, headers or {})
            answer = connection.getresponse()
            fields = {name.lower(): value for name, value in answer.getheaders()}
            return Response(answer.status, fields, answer.read())
        finally:
            connection.close()

    def get(self, path: str, **headers: str) -> Response:
        return self.request("GET", path, headers=headers)

    def predict(
        self, body: Any, query: str = "", kind: str = "image/png", **headers: str
    ) -> Response:
        return self.request("POST", f"/predict{query}", body, {"Content-Type": kind} | headers)


@contextmanager
def serving(
    runtime: Runtime, source: str | None = None, limits: Limits | None = None
) -> Iterator[Served]:
    """Serve on a free port of loopback; it must end when told to."""
    with listen("127.0.0.1", 0) as listener:
        live = None if source is None else Live(runtime, source)
        server = Server(make_app(runtime, live, limits=limits or Limits()))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            eventually(lambda: server.started)
            yield Served(url(listener), listener.getsockname()[1], live)
        finally:
            server.should_exit = True
            thread.join(10)
        assert not thread.is_alive(), "the server does not end"


def eventually(condition: Callable[[], object], seconds: float = 10) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it does not happen"
        time.sleep(0.01)


@pytest.fixture(scope="session")
def runtime(tiny_engine: Path) -> Runtime:
    return Runtime(tiny_engine, device="cpu", threads=1)


@pytest.fixture(scope="module")
def served(runtime: Runtime) -> Iterator[Served]:
    """A server without a source, with small limits."""
    limits = Limits(max_megapixels=0.5, max_body=0.3, timeout=10)
    with serving(runtime, limits=limits) as server:
        yield server


@pytest.fixture(scope="session")
def picture() -> NDArray[np.uint8]:
    """Patches of all three classes, 90×120, BGR."""
    patches = np.random.default_rng(3).integers(0, 256, (9, 12, 3), dtype=np.uint8)
    return patches.repeat(10, 0).repeat(10, 1)


def encoded(pixels: NDArray[np.uint8], suffix: str = ".png") -> bytes:
    done, data = cv2.imencode(suffix, pixels)
    assert done
    return data.tobytes()


def decoded(data: bytes) -> NDArray[np.uint8]:
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    assert pixels is not None
    return pixels.astype(np.uint8, copy=False)
