"""`POST /predict`: what Runtime.predict gives, or a status and one sentence."""

from __future__ import annotations

import json
import socket
import struct
import threading
import time
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from tests.serve.conftest import Served, decoded, encoded, eventually, serving

from edgeseg.runtime import Result, Runtime
from edgeseg.serve import Limits, labelling


@pytest.mark.parametrize(
    ("suffix", "kind"),
    [
        (".png", "image/png"),
        (".jpg", "image/jpeg"),
        (".webp", "image/webp; charset=binary"),
        (".bmp", "image/bmp"),
        (".jpg", "application/octet-stream"),
    ],
)
def test_labels_are_those_of_the_runtime(
    served: Served, runtime: Runtime, picture: NDArray[np.uint8], suffix: str, kind: str
) -> None:
    data = encoded(picture, suffix)
    response = served.predict(data, "?output=labels", kind)
    assert response.status == 200
    assert response.headers["content-type"] == "image/png"
    expected = runtime.predict(data).labels
    assert len(np.unique(expected)) == 3
    np.testing.assert_array_equal(decoded(response.body), expected)


def test_a_progressive_jpeg(served: Served) -> None:
    assert served.predict(PROGRESSIVE, kind="image/jpeg").status == 200


def test_a_picture_is_turned_upright(
    served: Served, runtime: Runtime, picture: NDArray[np.uint8]
) -> None:
    file = BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held upright
    Image.fromarray(picture[..., ::-1]).save(file, "JPEG", exif=exif)
    labels = decoded(served.predict(file.getvalue(), "?output=labels", "image/jpeg").body)
    assert labels.shape == (120, 90)
    np.testing.assert_array_equal(labels, runtime.predict(file.getvalue()).labels)


def test_every_output(served: Served, runtime: Runtime, picture: NDArray[np.uint8]) -> None:
    data = encoded(picture)
    result = runtime.predict(picture)

    facts = served.predict(data, "?output=json")
    assert facts.headers["content-type"] == "application/json"
    assert {key: facts.json[key] for key in ("width", "height", "classes")} == {
        "width": 120,
        "height": 90,
        "classes": ["red", "green", "blue"],
    }
    assert facts.json["areas"] == pytest.approx(result.areas(), abs=1e-5)
    times = facts.json["timings_ms"]
    assert list(times) == ["preprocess", "inference", "upsample_argmax", "total"]
    assert times["total"] > 0

    overlay = served.predict(data, "?output=overlay", Accept="image/png")
    np.testing.assert_array_equal(decoded(overlay.body), result.overlay())
    jpeg = served.predict(data, "?output=overlay")
    assert jpeg.headers["content-type"] == "image/jpeg"
    assert jpeg.body == encoded(result.overlay(), ".jpg")

    shapes = served.predict(data, "?output=geojson")
    assert shapes.headers["content-type"] == "application/geo+json"
    assert shapes.json == json.loads(json.dumps(result.geojson()))

    for response in (facts, overlay, shapes):
        assert "inference;dur=" in response.headers["server-timing"]


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ("*/*", "application/json"),
        ("application/json", "application/json"),
        ("image/png", "image/png"),
        ("image/jpeg, */*;q=0.1", "image/jpeg"),
        ("text/html, application/geo+json", "application/geo+json"),
    ],
)
def test_the_accept_header_chooses(
    served: Served, picture: NDArray[np.uint8], accept: str, kind: str
) -> None:
    response = served.predict(encoded(picture), Accept=accept)
    assert (response.status, response.headers["content-type"]) == (200, kind)
    assert response.headers["vary"] == "Accept"


# ------------------------------------------------------------------------------------- refusals


def png_of(width: int, height: int) -> bytes:
    """A small file that declares a large picture."""
    head = b"IHDR" + struct.pack(">2I5B", width, height, 8, 2, 0, 0, 0)
    data = b"IDAT" + zlib.compress(b"\0" * 1000)
    chunks = (head, data, b"IEND")
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
        for chunk in chunks
    )


def webp_of(width: int, height: int) -> bytes:
    canvas = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    extended = b"VP8X" + struct.pack("<I", 10) + b"\0\0\0\0" + canvas
    return b"RIFF" + struct.pack("<I", 4 + len(extended)) + b"WEBP" + extended


@pytest.mark.parametrize("size", [(1000, 501), (60_000, 60_000), (2**31 - 1, 2**31 - 1)])
def test_too_many_pixels_are_refused_before_they_are_decoded(
    served: Served, size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(labelling, "decode_image", None)  # would end in 500
    response = served.predict(png_of(*size))
    assert response.status == 413
    assert "megapixels" in response.error


JPEG = encoded(np.full((40, 60, 3), 90, np.uint8), ".jpg")
PNG = encoded(np.full((40, 60, 3), 90, np.uint8))
PROGRESSIVE = cv2.imencode(
    ".jpg", np.full((40, 60, 3), 90, np.uint8), (cv2.IMWRITE_JPEG_PROGRESSIVE, 1)
)[1].tobytes()
LAST_SCAN = PROGRESSIVE[PROGRESSIVE.rindex(b"\xff\xda") : -2]
BAD: dict[str, tuple[bytes, int, str]] = {
    "empty": (b"", 400, "empty"),
    "noise": (bytes(range(256)) * 4, 422, "no picture"),
    "text": (b"not a picture", 422, "no picture"),
    "a cut JPEG": (JPEG[:-20], 422, "truncated"),
    "a cut PNG": (PNG[: len(PNG) // 2], 422, "cannot be decoded"),
    "half a header": (PNG[:20], 422, "damaged"),
    "a PNG of one chunk": (PNG[:33], 422, "no picture"),
    "a small PNG without pixels": (png_of(300, 300), 422, "cannot be decoded"),
    "a WebP without pixels": (webp_of(300, 300), 422, ""),
    "a GIF": (b"GIF89a" + b"\1\0\1\0\0\0\0;", 422, "no picture"),
    "a TIFF": (encoded(np.zeros((4, 4, 3), np.uint8), ".tiff"), 422, "no picture"),
    "a JPEG of many scans": (PROGRESSIVE[:-2] + LAST_SCAN * 100 + PROGRESSIVE[-2:], 422, "scans"),
    "too large": (b"\xff" * 300_001, 413, "--max-body"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_body_ends_in_a_sentence(served: Served, name: str) -> None:
    body, status, part = BAD[name]
    response = served.predict(body)
    assert response.status == status
    assert part in response.error
    assert "OpenCV(" not in response.error
    assert "/" not in response.error.replace("JPEG/PNG", ""), "no path"


def test_a_body_of_unknown_length_is_limited(served: Served) -> None:
    def chunks() -> Iterator[bytes]:
        for _ in range(40):
            yield b"\xff" * 10_000

    response = served.predict(chunks())  # http.client sends an iterator in chunks
    assert response.status == 413
    assert "0.3 MB" in response.error


@pytest.mark.parametrize(
    "kind",
    ["", "text/plain", "multipart/form-data; boundary=x", "application/x-www-form-urlencoded"],
)
def test_what_a_form_of_another_page_can_send_is_refused(served: Served, kind: str) -> None:
    response = served.predict(PNG, kind=kind)
    assert response.status == 415
    assert "image/jpeg" in response.error


def test_a_compressed_body_is_refused(served: Served) -> None:
    response = served.predict(PNG, **{"Content-Encoding": "gzip"})
    assert response.status == 415
    assert "Content-Encoding" in response.error


@pytest.mark.parametrize("output", ["mask", "overlay.png", "", "json%00"])
def test_an_unknown_output_is_refused(served: Served, output: str) -> None:
    response = served.predict(PNG, f"?output={output}")
    assert response.status == 400
    assert "json, labels, overlay or geojson" in response.error


def test_nothing_acceptable(served: Served) -> None:
    response = served.predict(PNG, Accept="text/html")
    assert response.status == 406
    assert "application/json" in response.error


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nothing", 404),
        ("GET", "/../../etc/passwd", 404),
        ("GET", "/page/index.html", 404),
        ("GET", "/live", 404),
        ("GET", "/live.mjpg", 404),
        ("GET", "/predict", 405),
        ("PUT", "/predict", 405),
        ("POST", "/health", 405),
        ("DELETE", "/", 405),
    ],
)
def test_other_addresses_and_methods(served: Served, method: str, path: str, status: int) -> None:
    response = served.request(method, path)
    assert response.status == status
    assert response.error


def test_a_slow_body_is_given_up(runtime: Runtime) -> None:
    with (
        serving(runtime, limits=Limits(timeout=0.3)) as server,
        socket.create_connection(("127.0.0.1", server.port), timeout=10) as client,
    ):
        client.sendall(
            b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\n"
            b"Content-Length: 1000\r\n\r\nabc"
        )
        answer = client.recv(65536)
        while not answer.endswith(b"}"):
            answer += client.recv(65536)
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"did not come within 0.3 s" in answer


# ------------------------------------------------------------------------------------- under load


class GatedRuntime(Runtime):
    """Labels nothing before its gate opens; counts."""

    def __init__(self, engine: Path) -> None:
        super().__init__(engine, device="cpu", threads=1)
        self.gate = threading.Event()
        self.begun = 0

    def predict(self, *arguments: Any, **options: Any) -> Result:
        self.begun += 1
        assert self.gate.wait(20)
        return super().predict(*arguments, **options)


@pytest.fixture
def gated(tiny_engine: Path) -> Iterator[GatedRuntime]:
    runtime = GatedRuntime(tiny_engine)
    yield runtime
    runtime.gate.set()


def test_labels_that_take_too_long(gated: GatedRuntime) -> None:
    with serving(gated, limits=Limits(timeout=0.3)) as server:
        response = server.predict(PNG)
        assert response.status == 503
        assert "not labelled within 0.3 s" in response.error
        assert int(response.headers["retry-after"]) >= 1
        gated.gate.set()
        eventually(lambda: server.get("/health").json["pending"] == 0)
        assert server.predict(PNG).status == 200


def test_a_full_queue_says_when_to_come_again(
    gated: GatedRuntime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(labelling, "_WAITING", 3)
    with serving(gated) as server, ThreadPoolExecutor(8) as clients:
        waiting = [clients.submit(server.predict, PNG) for _ in range(5)]
        eventually(lambda: server.get("/health").json["pending"] == 5)
        refused = server.predict(PNG)
        assert refused.status == 429
        assert refused.headers["retry-after"] == "1"
        assert "try again" in refused.error
        gated.gate.set()
        assert [client.result().status for client in waiting] == [200] * 5


def test_bodies_on_their_way_are_limited_together(runtime: Runtime) -> None:
    limits = Limits(max_body=0.1, timeout=20)
    head = (
        b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\n"
        b"Content-Length: 100000\r\n\r\n"
    )
    with serving(runtime, limits=limits) as server:
        clients = [socket.create_connection(("127.0.0.1", server.port), 10) for _ in range(4)]
        try:
            for client in clients:
                client.sendall(head + b"x" * 99_000)
            eventually(lambda: server.predict(b"x" * 90_000).status == 429)
        finally:
            for client in clients:
                client.close()
        eventually(lambda: server.predict(PNG).status == 200)


def test_who_hangs_up_leaves_the_queue(gated: GatedRuntime) -> None:
    with serving(gated) as server:
        request = (
            b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\n"
            b"Content-Length: %d\r\n\r\n" % len(PNG)
        )
        clients = [socket.create_connection(("127.0.0.1", server.port), 10) for _ in range(6)]
        for client in clients:
            client.sendall(request + PNG)
        eventually(lambda: server.get("/health").json["pending"] == 6)
        for client in clients:
            client.close()
        eventually(lambda: server.get("/health").json["pending"] == 2)  # those in work
        gated.gate.set()
        eventually(lambda: server.get("/health").json["pending"] == 0)
        assert gated.begun == 2


def test_at_the_end_nobody_waits(gated: GatedRuntime, caplog: pytest.LogCaptureFixture) -> None:
    with ThreadPoolExecutor(4) as clients:
        with serving(gated) as server:
            waiting = [clients.submit(server.predict, PNG) for _ in range(4)]
            eventually(lambda: server.get("/health").json["pending"] == 4)
            started = time.monotonic()
        assert time.monotonic() - started < 2
        for client in waiting:
            assert client.result().status == 503
            assert "the server is ending" in client.result().error
    assert caplog.text == ""


def test_what_breaks_is_told_to_the_terminal_alone(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("in /home/somebody")

    monkeypatch.setattr(labelling, "decode_image", fail)
    with serving(runtime) as server:
        response = server.predict(PNG)
        assert response.status == 500
        assert "somebody" not in response.error
        eventually(lambda: "somebody" in caplog.text)
        assert server.get("/health").status == 200


def test_health_and_engine(served: Served, runtime: Runtime) -> None:
    assert served.get("/health").json == {
        "status": "ok",
        "pending": 0,
        "source": None,
        "watchers": 0,
    }
    engine = served.get("/engine").json
    assert engine["classes"] == ["red", "green", "blue"]
    assert engine["palette"] == [[255, 0, 0], [0, 255, 0], [0, 0, 255]]
    assert engine["input"] == {"width": 96, "height": 64, "resize": "stretch"}
    assert engine["backend"] == runtime.backend
    assert engine["source"] is None
    assert engine["limits"] == {"max_body": 300_000, "max_pixels": 500_000, "timeout_s": 10}
    assert "edgeseg" not in json.dumps(engine), "no path"


def test_the_server_ends_while_a_body_is_on_its_way(runtime: Runtime) -> None:
    with serving(runtime) as server:
        client = socket.create_connection(("127.0.0.1", server.port), 10)
        client.sendall(
            b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\n"
            b"Content-Length: 1000\r\n\r\nabc"
        )
        time.sleep(0.1)
        started = time.monotonic()
    assert time.monotonic() - started < 3
    client.close()
