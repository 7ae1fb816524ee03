"""Clients of `edgeseg serve`, good ones and bad ones at once: does everybody get a clean answer?"""

from __future__ import annotations

import http.client
import json
import random
import re
import resource
import signal
import socket
import statistics
import struct
import subprocess
import sys
import threading
import time
import zlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from tests.stress.engines import frames

from edgeseg.runtime import Runtime

TIMEOUT = 4.0  # of the server, so that slow clients are many
_SIZES = ((480, 640), (720, 1280), (101, 333), (64, 96))
_PATIENCE = 60.0  # a client that waits so long calls the server hung
_BUSY = {429, 503}


@dataclass
class Load:
    """What came of a run.

    Attributes:
        answers: for each kind of client, how often each status or ending came.
        unclean: answers that a client of its kind must not get, and exceptions.
        wrong: labels that differ from Runtime.predict's.
        course: resident bytes in each eighth of the time, medians.
        peak: the most that were ever resident.
        left: what /health says afterwards of pictures in work and of watchers.
        code: the server's exit code after Ctrl-C.
        stopping: seconds that Ctrl-C took, with a watcher connected.
        output: what the server printed.
    """

    seconds: float = 0.0
    answers: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    unclean: list[str] = field(default_factory=list)
    wrong: int = 0
    course: tuple[int, ...] = ()
    peak: int = 0
    left: int = 0
    code: int | None = None
    stopping: float = 0.0
    output: str = ""

    @property
    def growth(self) -> float:
        """From the third eighth, when everything has happened once, to the last."""
        return self.course[-1] / self.course[2] - 1

    @property
    def clean(self) -> bool:
        """All but the memory."""
        whole = self.code == 130 and self.left == 0 and "Traceback" not in self.output
        return whole and not self.unclean and self.wrong == 0

    def __str__(self) -> str:
        lines = [
            f"{kind}: " + ", ".join(f"{count} × {ending}" for ending, count in sorted(of.items()))
            for kind, of in sorted(self.answers.items())
        ]
        course = ", ".join(f"{size / 1e6:.1f}" for size in self.course)
        requests = sum(of.total() for of in self.answers.values())
        lines += [
            f"{requests} requests in {self.seconds:.0f} s, {self.wrong} with wrong labels, "
            f"{len(self.unclean)} unclean {self.unclean[:5]}",
            f"resident in each eighth of the time: {course} MB, {self.growth:+.2%} from the third "
            f"to the last; at most {self.peak / 1e6:.1f} MB",
            f"left in work: {self.left}; Ctrl-C: code {self.code} after {self.stopping:.1f} s",
        ]
        return "\n".join(lines)


def load(engine: Path, clients: int, seconds: float, folder: Path) -> Load:
    """Serve a folder of pictures to so many clients at once, for so long."""
    runtime = Runtime(engine, device="cpu", threads=2)
    pictures = [_encoded(frame) for frame in frames(6, _SIZES)]
    expected = [runtime.predict(data).labels for data in pictures]
    shown = folder / "shown"
    shown.mkdir()
    for index, data in enumerate(pictures):
        (shown / f"{index}.png").write_bytes(data)
    command = "from edgeseg.cli import main; main()"
    options = ("--engine", engine, "--port", "0", "--timeout", str(TIMEOUT), "--threads", "2")
    log = folder / "serve.log"
    with (
        log.open("w") as output,
        subprocess.Popen(
            [sys.executable, "-u", "-c", command, "serve", shown, "--device", "cpu", *options],
            stdout=output,
            stderr=subprocess.STDOUT,
        ) as process,
    ):
        try:
            made = Load()
            _drive(process, _port(process, log), pictures, expected, made, clients, seconds)
        finally:
            process.kill()
    made.output = log.read_text()
    return made


def _port(process: subprocess.Popen[bytes], log: Path) -> int:
    until = time.monotonic() + 120
    while time.monotonic() < until and process.poll() is None:
        if found := re.search(r"http://127\.0\.0\.1:(\d+)", log.read_text()):
            return int(found[1])
        time.sleep(0.05)
    raise RuntimeError(f"the server did not start: {log.read_text()}")


def _drive(
    process: subprocess.Popen[bytes],
    port: int,
    pictures: list[bytes],
    expected: list[NDArray[np.uint8]],
    made: Load,
    clients: int,
    seconds: float,
) -> None:
    started = time.monotonic()
    until = started + seconds
    lock = threading.Lock()

    def client(seed: int) -> None:
        choice = random.Random(seed)
        kinds = list(_KINDS)
        weights = [weight for _, weight, _ in _KINDS.values()]
        while time.monotonic() < until:
            kind = choice.choices(kinds, weights)[0]
            visit, _, allowed = _KINDS[kind]
            index = choice.randrange(len(pictures))
            try:
                ending, labels = visit(port, pictures[index], choice)
            except Exception as error:  # whatever it is, it is no clean answer
                ending, labels = f"{type(error).__name__}: {error}", None
            if ending in _BUSY and choice.random() < 0.5:
                time.sleep(1)  # as Retry-After asks for; the others do not listen
            with lock:
                made.answers[kind][str(ending)] += 1
                if ending not in allowed:
                    made.unclean.append(f"{kind}: {ending}")
                if labels is not None and not np.array_equal(labels, expected[index]):
                    made.wrong += 1

    threads = [
        threading.Thread(target=client, args=(seed,), daemon=True) for seed in range(clients)
    ]
    for thread in threads:
        thread.start()
    samples = []
    while time.monotonic() < until:
        samples.append((time.monotonic() - started, _resident(process.pid)))
        time.sleep(0.25)
    for thread in threads:
        thread.join(_PATIENCE)
        if thread.is_alive():
            made.unclean.append("a client hangs")
    made.seconds = time.monotonic() - started
    eighths: list[list[int]] = [[] for _ in range(8)]
    for when, size in samples:
        eighths[min(int(8 * when / seconds), 7)].append(size)
    made.course = tuple(int(statistics.median(sizes)) for sizes in eighths)
    made.peak = max(size for _, size in samples)
    time.sleep(TIMEOUT)  # for what was abandoned
    health = json.loads(_request(port, "GET", "/health")[1])
    made.left = health["pending"] + health["watchers"]
    _interrupt(process, port, made)


def _interrupt(process: subprocess.Popen[bytes], port: int, made: Load) -> None:
    watcher = socket.create_connection(("127.0.0.1", port), _PATIENCE)
    watcher.sendall(b"GET /live.mjpg HTTP/1.1\r\nHost: localhost\r\n\r\n")
    watcher.recv(1)
    before = time.monotonic()
    process.send_signal(signal.SIGINT)
    try:
        made.code = process.wait(30)
    except subprocess.TimeoutExpired:
        made.unclean.append("Ctrl-C does not end it")
    made.stopping = time.monotonic() - before
    watcher.close()


# --------------------------------------------------------------------------------------- clients

Visit = Callable[[int, bytes, random.Random], tuple[int | str, NDArray[np.uint8] | None]]


def _request(
    port: int, method: str, path: str, body: object = None, headers: dict[str, str] | None = None
) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_PATIENCE)
    try:
        connection.request(method, path, body, headers or {})  # type: ignore[arg-type]
        answer = connection.getresponse()
        content = answer.read()
    finally:
        connection.close()
    if answer.status >= 400:
        error = json.loads(content)
        assert list(error) == ["error"], error
        assert answer.status not in _BUSY or answer.getheader("Retry-After"), answer.status
    return answer.status, content


def _post(port: int, body: object, query: str = "", **headers: str) -> tuple[int, bytes]:
    return _request(port, "POST", f"/predict{query}", body, {"Content-Type": "image/png"} | headers)


def _labels(port: int, picture: bytes, _: random.Random) -> tuple[int, NDArray[np.uint8] | None]:
    status, content = _post(port, picture, "?output=labels")
    if status != 200:
        return status, None
    return status, cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)


def _other_outputs(port: int, picture: bytes, choice: random.Random) -> tuple[int, None]:
    return _post(port, picture, f"?output={choice.choice(('json', 'overlay', 'geojson'))}")[0], None


def _oversized(port: int, picture: bytes, choice: random.Random) -> tuple[int, None]:
    def chunks() -> Iterator[bytes]:
        for _ in range(170):
            yield bytes(100_000)

    return _post(port, chunks() if choice.random() < 0.3 else bytes(17_000_000))[0], None


def _bomb(port: int, picture: bytes, _: random.Random) -> tuple[int, None]:
    chunks = (
        b"IHDR" + struct.pack(">2I5B", 50_000, 50_000, 8, 2, 0, 0, 0),
        b"IDAT" + zlib.compress(bytes(1_000_000)),
        b"IEND",
    )
    packed = (
        struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
        for chunk in chunks
    )
    return _post(port, b"\x89PNG\r\n\x1a\n" + b"".join(packed))[0], None


def _broken(port: int, picture: bytes, choice: random.Random) -> tuple[int, None]:
    cut = picture[: choice.randrange(len(picture) - 20)]
    return _post(port, choice.choice((cut, choice.randbytes(5000), b"")))[0], None


def _wrong_type(port: int, picture: bytes, _: random.Random) -> tuple[int, None]:
    return _post(port, picture, **{"Content-Type": "text/plain"})[0], None


def _other_page(port: int, picture: bytes, _: random.Random) -> tuple[int, None]:
    return _post(port, picture, Origin="http://elsewhere.example")[0], None


def _no_http(port: int, picture: bytes, choice: random.Random) -> tuple[int | str, None]:
    with socket.create_connection(("127.0.0.1", port), _PATIENCE) as client:
        client.sendall(choice.randbytes(100) + b"\r\n\r\n")
        return _first_status(client), None


def _slow_head(port: int, picture: bytes, _: random.Random) -> tuple[int | str, None]:
    with socket.create_connection(("127.0.0.1", port), _PATIENCE) as client:
        return _drip(client, b"GET /health HTTP/1.1\r\nHost: localhost\r\nX: " + bytes(100)), None


def _slow_body(port: int, picture: bytes, _: random.Random) -> tuple[int | str, None]:
    with socket.create_connection(("127.0.0.1", port), _PATIENCE) as client:
        client.sendall(_head(len(picture)))
        return _drip(client, picture), None


def _abandoned(port: int, picture: bytes, choice: random.Random) -> tuple[str, None]:
    with socket.create_connection(("127.0.0.1", port), _PATIENCE) as client:
        whole = _head(len(picture)) + picture
        client.sendall(whole[: choice.choice((len(whole), len(whole) // 2, 20, 0))])
        time.sleep(choice.choice((0, 0.01, 0.1)))
    return "hung up", None


def _watcher(port: int, picture: bytes, choice: random.Random) -> tuple[int | str, None]:
    with socket.create_connection(("127.0.0.1", port), _PATIENCE) as client:
        path = choice.choice((b"/live", b"/live.mjpg"))
        client.sendall(b"GET " + path + b" HTTP/1.1\r\nHost: localhost\r\n\r\n")
        status = _first_status(client)
        until = time.monotonic() + choice.uniform(0.5, 4)
        while status == 200 and time.monotonic() < until and client.recv(100_000):
            pass
    return status, None


def _stalled_watcher(port: int, picture: bytes, choice: random.Random) -> tuple[str, None]:
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.settimeout(_PATIENCE)
        client.connect(("127.0.0.1", port))
        client.sendall(b"GET /live.mjpg HTTP/1.1\r\nHost: localhost\r\n\r\n")
        time.sleep(choice.uniform(1, 8))
    return "hung up", None


_KINDS: dict[str, tuple[Visit, float, set[int | str]]] = {
    "labels": (_labels, 30, {200} | _BUSY),
    "json, overlay, geojson": (_other_outputs, 15, {200} | _BUSY),
    "too many bytes": (_oversized, 6, {408, 413, 429}),
    "too many pixels": (_bomb, 6, {413} | _BUSY),
    "broken picture": (_broken, 10, {400, 422} | _BUSY),
    "wrong type": (_wrong_type, 5, {415}),
    "from another page": (_other_page, 5, {403}),
    "no HTTP": (_no_http, 3, {400}),
    "head that drips": (_slow_head, 1, {400, 408}),
    "body that drips": (_slow_body, 2, {408}),
    "abandoned": (_abandoned, 12, {"hung up"}),
    "watcher": (_watcher, 5, {200}),
    "stalled watcher": (_stalled_watcher, 2, {"hung up"}),
}
"""Kind: what the client does, how often beside the others, and which endings are clean."""


def _head(length: int) -> bytes:
    return (
        b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\n"
        b"Content-Length: %d\r\n\r\n" % length
    )


def _drip(client: socket.socket, data: bytes) -> int | str:
    """Send byte by byte until the server answers."""
    client.settimeout(0.5)
    until = time.monotonic() + _PATIENCE
    position = 0
    while time.monotonic() < until:
        client.sendall(data[position : position + 1])
        position += 1
        try:
            return _first_status(client)
        except TimeoutError:
            continue
    return "hangs"


def _first_status(client: socket.socket) -> int | str:
    answer = client.recv(4096)
    return int(answer[9:12]) if answer.startswith(b"HTTP/1.1 ") else f"{answer[:40]!r}"


def _encoded(pixels: NDArray[np.uint8]) -> bytes:
    return cv2.imencode(".png", pixels)[1].tobytes()


def _resident(pid: int) -> int:
    """Bytes of a process in memory."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * resource.getpagesize()
