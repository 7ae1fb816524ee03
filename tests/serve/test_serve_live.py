"""One source for all watchers: shared, dropped for the slow, lost, back, and over with Ctrl-C."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from tests.mjpeg_server import MjpegCamera, Visit
from tests.serve.conftest import Served, encoded, eventually, serving
from typer.testing import CliRunner

from edgeseg import cli
from edgeseg.errors import EdgesegError, InputError
from edgeseg.images import write_image
from edgeseg.runtime import Runtime
from edgeseg.serve import Limits, Live, app, live, server
from edgeseg.video import write_video

_HALF_MINUTE = 30


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three pictures of one colour each, shown for a moment each."""
    monkeypatch.setattr(live, "_SLIDE", 0.05)
    path = tmp_path / "secret-place" / "drive"
    path.mkdir(parents=True)
    for index in range(3):
        pixels = np.zeros((40, 60, 3), np.uint8)
        pixels[..., index] = 200
        write_image(path / f"{index}.png", pixels)
    return path


class Watcher:
    """Reads an answer that does not end."""

    def __init__(self, served: Served, path: str) -> None:
        self.connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=10)
        self.connection.request("GET", path)
        self.answer = self.connection.getresponse()

    def __enter__(self) -> Watcher:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.answer.close()
        self.connection.close()

    def events(self) -> Iterator[dict[str, Any]]:
        for line in self.answer:
            if line.startswith(b"data: "):
                yield json.loads(line[6:])

    def pictures(self) -> Iterator[bytes]:
        data = b""
        while part := self.answer.read1(65536):
            data += part
            *whole, data = data.split(b"\r\n--edgeseg-frame\r\n")
            for piece in whole:
                if piece:
                    head, _, jpeg = piece.partition(b"\r\n\r\n")
                    assert head == b"Content-Type: image/jpeg"
                    yield jpeg


def test_what_is_shown_is_what_the_runtime_gives(runtime: Runtime, folder: Path) -> None:
    results = [runtime.predict(folder / f"{index}.png") for index in range(3)]
    quality = (cv2.IMWRITE_JPEG_QUALITY, 80)
    expected = [cv2.imencode(".jpg", r.overlay(), quality)[1].tobytes() for r in results]
    with serving(runtime, str(folder)) as served:
        with Watcher(served, "/live.mjpg") as watcher:
            assert watcher.answer.getheader("Content-Type", "").startswith(
                "multipart/x-mixed-replace; boundary="
            )
            pictures = watcher.pictures()
            shown = [next(pictures) for _ in range(7)]
        assert set(shown) == set(expected)
        with Watcher(served, "/live") as watcher:
            events = watcher.events()
            facts = [next(events) for _ in range(4)]
    assert {fact["state"] for fact in facts} == {"live"}
    areas = [list(result.areas().values()) for result in results]
    assert all(fact["areas"] in areas for fact in facts)
    assert facts[-1]["timings_ms"]["total"] > 0
    assert 2 < facts[-1]["fps"] < 25  # twenty a second, on a busy machine fewer


def test_a_large_picture_is_sent_smaller(runtime: Runtime, tmp_path: Path) -> None:
    write_image(tmp_path / "large.png", np.zeros((100, 2560, 3), np.uint8))
    with serving(runtime, str(tmp_path)) as served, Watcher(served, "/live.mjpg") as watcher:
        picture = np.frombuffer(next(watcher.pictures()), np.uint8)
    decoded = cv2.imdecode(picture, cv2.IMREAD_COLOR)
    assert decoded is not None
    assert decoded.shape == (50, 1280, 3)


def test_all_watchers_share_one_stream(
    runtime: Runtime, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    labelled = 0
    label = Runtime._label

    def counted(*arguments: Any) -> Any:
        nonlocal labelled
        labelled += 1
        return label(*arguments)

    monkeypatch.setattr(Runtime, "_label", counted)
    numbers: list[int] = []

    def watch(served: Served) -> None:
        with Watcher(served, "/live") as watcher:
            events = watcher.events()
            numbers.append(sum(1 for _ in zip(range(10), events, strict=False)))

    with serving(runtime, str(folder)) as served:
        threads = [threading.Thread(target=watch, args=(served,)) for _ in range(12)]
        for thread in threads:
            thread.start()
        eventually(lambda: served.get("/health").json["watchers"] == 12)
        for thread in threads:
            thread.join(20)
        assert numbers == [10] * 12
        assert labelled < 60  # not 120
        eventually(lambda: served.get("/health").json["watchers"] == 0)


def test_a_watcher_who_takes_nothing_holds_nobody_up(runtime: Runtime, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (400, 600, 3), np.uint8)
    with write_video(tmp_path / "noise.mp4", 50) as video:
        for _ in range(25):
            video.write(noise)
    with serving(runtime, str(tmp_path / "noise.mp4")) as served:
        with closing(socket.socket()) as stalled:
            stalled.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            stalled.connect(("127.0.0.1", served.port))
            stalled.sendall(b"GET /live.mjpg HTTP/1.1\r\nHost: localhost\r\n\r\n")
            with Watcher(served, "/live.mjpg") as watcher:
                pictures = watcher.pictures()
                for _ in range(60):  # round again: the file plays more than once
                    assert len(next(pictures)) > 20_000
        with Watcher(served, "/live.mjpg") as late:
            next(late.pictures())  # the newest, at once


def test_a_file_plays_at_its_own_pace(runtime: Runtime, tmp_path: Path) -> None:
    with write_video(tmp_path / "clip.mp4", 10) as video:
        for index in range(20):
            video.write(np.full((40, 60, 3), index * 10, np.uint8))
    with (
        serving(runtime, str(tmp_path / "clip.mp4")) as served,
        Watcher(served, "/live") as watcher,
    ):
        events = watcher.events()
        next(events)
        started = time.monotonic()
        for _ in range(10):
            next(events)
        assert time.monotonic() - started > 0.8


def test_a_lost_source_is_told_and_comes_back(
    runtime: Runtime,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(live, "_RETRY", (0.05,))
    with serving(runtime, str(folder)) as served, Watcher(served, "/live") as watcher:
        events = watcher.events()
        assert next(events)["state"] == "live"
        away = folder.with_name("away")
        folder.rename(away)
        lost = next(event for event in events if event["state"] == "lost")
        assert lost["message"] == "drive is lost; trying to open it again"
        assert served.get("/health").json["source"] == "lost"
        time.sleep(0.5)
        away.rename(folder)
        assert next(event for event in events if event["state"] == "live")
        # The loss is told once, however often the source is tried; so is each picture before it.
        *losses, back = (record.message for record in caplog.records)
        assert 1 <= len(losses) <= 4
        assert all("does not exist" in loss for loss in losses)
        assert back == "drive is back"
        assert "secret-place" not in served.get("/engine").body.decode()


def test_a_camera_that_breaks_off_comes_back(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(live, "_RETRY", (0.5,))
    first, second = Visit(frames=20), Visit(frames=20, then="hang")
    with MjpegCamera(first, first, second) as camera:
        url = camera.url.replace("http://", "http://user:secret@")
        with serving(runtime, url) as served, Watcher(served, "/live") as watcher:
            events = watcher.events()
            states = [next(events)["state"]]  # of the second visit; the first was a look
            while states[-2:] != ["lost", "live"]:
                event = next(events)
                assert "secret" not in json.dumps(event)
                states.append(event["state"])
            assert "secret" not in served.get("/engine").body.decode()
            time.sleep(0.6)  # now it hangs
            started = time.monotonic()
        assert time.monotonic() - started < 3


def test_a_damaged_picture_is_passed_over(runtime: Runtime, folder: Path) -> None:
    (folder / "1.png").write_bytes(b"no picture")
    with serving(runtime, str(folder)) as served, Watcher(served, "/live") as watcher:
        events = watcher.events()
        seen = [next(events) for _ in range(6)]
    assert {event["state"] for event in seen} == {"live"}


def test_nothing_is_labelled_while_nobody_watches(
    runtime: Runtime, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "_LINGER", 0.1)
    with serving(runtime, str(folder)) as served:

        def state() -> str:
            return served.get("/health").json["source"]

        assert state() == "idle"
        for _ in range(2):
            with Watcher(served, "/live") as watcher:
                next(watcher.events())
                assert state() == "live"
            eventually(lambda: state() == "idle")


def test_watchers_are_counted(
    runtime: Runtime, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app, "_MAX_WATCHERS", 1)
    with serving(runtime, str(folder)) as served:
        with Watcher(served, "/live") as watcher:
            next(watcher.events())
            refused = served.get("/live.mjpg")
            assert refused.status == 503
            assert "watching already" in refused.error
        eventually(lambda: served.get("/health").json["watchers"] == 0)


def test_the_head_of_a_stream_has_an_end(runtime: Runtime, folder: Path) -> None:
    with serving(runtime, str(folder)) as served:
        for path in ("/live", "/live.mjpg"):
            assert served.request("HEAD", path).status == 200
        assert served.get("/health").json["source"] == "idle"


def test_pictures_are_labelled_beside_the_source(runtime: Runtime, folder: Path) -> None:
    data = encoded(np.full((40, 60, 3), 90, np.uint8))
    with serving(runtime, str(folder), Limits()) as served, Watcher(served, "/live") as watcher:
        next(watcher.events())
        assert served.predict(data).status == 200


def test_a_wrong_source_is_told_before_anything_is_served(runtime: Runtime, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        Live(runtime, str(tmp_path / "nothing.mp4"))


# ------------------------------------------------------------------------------ the command line


@contextmanager
def command(*options: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """`edgeseg serve`, and the address that it prints."""
    code = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler);"  # see nohup
        "from edgeseg.cli import main; main()"
    )
    with subprocess.Popen(
        [sys.executable, "-u", "-c", code, "serve", "--port", "0", *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | {"COLUMNS": "300"},
    ) as process:
        assert process.stdout is not None
        lines = []
        for line in process.stdout:
            lines.append(line)
            if found := re.search(r"http://\S+", line):
                break
        else:
            raise AssertionError("".join(lines))
        try:
            yield process, "".join(lines)
        finally:
            process.kill()
        assert found


def test_ctrl_c_ends_it_with_watchers_connected(tiny_engine: Path, folder: Path) -> None:
    with command(str(folder), "--engine", str(tiny_engine)) as (process, printed):
        port = int(re.findall(r"http://127\.0\.0\.1:(\d+)", printed)[0])
        assert "drive is shown at" in printed
        served = Served("", port, None)
        with Watcher(served, "/live") as events, Watcher(served, "/live.mjpg") as pictures:
            next(events.events())
            next(pictures.pictures())
            started = time.monotonic()
            process.send_signal(signal.SIGINT)
            assert process.wait(_HALF_MINUTE) == 130
            took = time.monotonic() - started
            for _ in events.events():  # the stream has an end
                pass
        assert process.stdout is not None
        assert "Traceback" not in process.stdout.read()
    assert took < 5


def test_other_machines_are_warned_of(
    tiny_engine: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(server.Server, "run", lambda self, sockets: None)
    options = ["serve", "--engine", str(tiny_engine), "--port", "0"]
    local = CliRunner().invoke(cli.app, options)
    assert local.exit_code == 0
    assert caplog.text == ""
    seen = CliRunner().invoke(cli.app, [*options, "--host", "0.0.0.0"])
    assert "there is no password and no encryption" in caplog.text
    assert "drop pictures into http://localhost:" in seen.output


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("nothing.mp4",), "nothing.mp4 does not exist"),
        (("--host", "192.0.2.1"), "cannot listen at 192.0.2.1"),
        (("--port", "70000"), "port is 70000"),
        (("--engine", "nothing.edgeseg"), "nothing.edgeseg"),
    ],
)
def test_wrong_options_end_in_a_sentence(
    options: tuple[str, ...], sentence: str, tiny_engine: Path
) -> None:
    engine = () if "--engine" in options else ("--engine", str(tiny_engine))
    port = () if "--port" in options else ("--port", "0")
    error = CliRunner().invoke(cli.app, ["serve", *engine, *port, *options]).exception
    assert isinstance(error, EdgesegError)
    assert sentence in str(error)
