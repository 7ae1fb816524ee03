"""Cameras and streams that break off, hang, come back, or do not."""

from __future__ import annotations

import gc
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from tests import rtsp_server
from tests.mjpeg_server import MjpegCamera, Visit

from edgeseg.errors import InputError, SourceLostError
from edgeseg.outputs import Outputs
from edgeseg.predict import predict_source
from edgeseg.runtime import Runtime
from edgeseg.video import LiveSource, SourceFrame, VideoSource, live, open_source, opening

SILENT = cv2.utils.logging.LOG_LEVEL_SILENT


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "_PAUSES_S", (0.05, 0.1))
    monkeypatch.setattr(live, "_RELEASE_S", 0.05)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Opening may take no longer than a frame."""
    monkeypatch.setattr(live, "OPEN_S", 0.1)
    monkeypatch.setattr(opening, "OPEN_S", 0.1)


def look(source: LiveSource, frames: int) -> list[SourceFrame]:
    """The first frames of a source."""
    seen = []
    for frame in source:
        seen.append(frame)
        if len(seen) == frames:
            break
    return seen


def levels(frames: list[SourceFrame]) -> list[int]:
    """Which visits the frames came from: runs of the same grey level, tens rounded."""
    rounded = [round(float(frame.pixels.mean()), -1) for frame in frames]
    return [int(level) for index, level in enumerate(rounded) if rounded[:index][-1:] != [level]]


# ------------------------------------------------------------------------------------- streams


def test_a_stream_that_breaks_off_is_opened_anew(caplog: pytest.LogCaptureFixture) -> None:
    with (
        MjpegCamera(Visit(frames=20, level=50), Visit(level=200)) as camera,
        open_source(camera.url) as source,
    ):
        assert isinstance(source, LiveSource)
        assert (source.length, source.size) == (None, (48, 64))
        frames = look(source, 40)
    assert levels(frames) == [50, 200]
    assert [frame.index for frame in frames] == list(range(40))
    assert frames[7].name == f"{camera.url} #7"
    times = [frame.time_s for frame in frames]
    assert times == sorted(times)  # type: ignore[type-var]
    lost, back = caplog.messages
    assert f"{camera.url} is lost after 20 frames: it broke off; " in lost
    assert "trying to reconnect for 60 s" in lost
    assert f"{camera.url} is back after " in back


def test_a_stream_that_hangs_is_opened_anew(caplog: pytest.LogCaptureFixture) -> None:
    larger = (96, 128)
    with (
        MjpegCamera(Visit(frames=20, then="hang"), Visit(level=200, size=larger)) as camera,
        open_source(camera.url, timeout=0.5) as source,
    ):
        frames = look(source, 30)
    assert levels(frames) == [100, 200]
    assert {frame.pixels.shape for frame in frames[20:]} == {(*larger, 3)}
    gap = frames[20].time_s - frames[19].time_s  # type: ignore[operator]
    assert gap > 0.4
    lost, back = caplog.messages
    assert "no frame came for 0.5 s" in lost
    assert back.endswith("now 128×96")


def test_attempts_that_fail_are_not_told_one_by_one(caplog: pytest.LogCaptureFixture) -> None:
    down = Visit(status=503)
    with (
        MjpegCamera(Visit(frames=5, level=50), down, down, Visit(level=200)) as camera,
        open_source(camera.url) as source,
    ):
        frames = look(source, 10)
        assert len(camera.requests) == 4
    assert levels(frames) == [50, 200]
    assert len(caplog.messages) == 2


def test_a_server_that_restarts(caplog: pytest.LogCaptureFixture) -> None:
    first = MjpegCamera(Visit(level=50))
    with open_source(first.url) as source:
        frames = []
        second = None
        for frame in source:
            frames.append(frame)
            if frame.index == 10:
                first.close()
                second = MjpegCamera(Visit(level=200), port=first.port)
            if frame.pixels.mean() > 150:
                break
    assert second is not None
    second.close()
    assert levels(frames) == [50, 200]
    assert len(caplog.messages) == 2


def test_giving_up(caplog: pytest.LogCaptureFixture) -> None:
    with MjpegCamera(Visit(frames=20)) as camera, open_source(camera.url, reconnect=0.5) as source:
        frames = iter(source)
        next(frames)
        camera.close()
        started = time.monotonic()
        with pytest.raises(SourceLostError, match=r"after \d+ frames .* back in 0\.5 s") as error:
            list(frames)
    assert "Connection refused; check the address" in str(error.value)
    assert time.monotonic() - started > 0.4
    assert len(caplog.messages) == 1


@pytest.mark.usefixtures("impatient")
def test_giving_up_on_one_that_hangs_while_it_is_opened() -> None:
    with (
        MjpegCamera(Visit(frames=5), Visit(answers=False)) as camera,
        open_source(camera.url, reconnect=0.5) as source,
    ):
        started = time.monotonic()
        with pytest.raises(SourceLostError, match=r"back in 0\.5 s: it was still being opened"):
            look(source, 10)
    assert time.monotonic() - started < 30


def test_no_reconnecting() -> None:
    with (
        MjpegCamera(Visit(frames=20)) as camera,
        open_source(camera.url, reconnect=0) as source,
        pytest.raises(SourceLostError, match="stopped after 20 frames: it broke off"),
    ):
        look(source, 100)
    assert len(camera.requests) == 1


@pytest.mark.usefixtures("impatient")
def test_the_first_attempt_is_the_only_one() -> None:
    with (
        MjpegCamera(Visit(status=404)) as camera,
        pytest.raises(InputError, match="answers, but not with a video; check path"),
    ):
        open_source(camera.url)
    with pytest.raises(InputError, match="Connection refused; check the address"):
        open_source(camera.url)
    with MjpegCamera(Visit(answers=False)) as camera:
        started = time.monotonic()
        with pytest.raises(InputError, match=r"cannot be opened: it did not open within 0\.2 s"):
            open_source(camera.url, timeout=0.2)
        assert time.monotonic() - started < 30
    with pytest.raises(InputError, match=r"cannot be opened: .*within 0\.2 s"):
        open_source(f"udp://127.0.0.1:{camera.port}", timeout=0.2)
    with pytest.raises(InputError, match=r"the host no-such-host\.invalid is not known"):
        open_source("rtsp://no-such-host.invalid/street")


def test_stopping_a_stream_that_hangs() -> None:
    with (
        MjpegCamera(Visit(frames=20, then="hang")) as camera,
        open_source(camera.url, timeout=100) as source,
    ):
        threading.Timer(0.3, source.stop).start()
        started = time.monotonic()
        assert len(list(source)) <= 20
        assert time.monotonic() - started < 30


def test_stopping_one_that_is_lost() -> None:
    with MjpegCamera(Visit(frames=5)) as camera, open_source(camera.url) as source:
        camera.close()
        threading.Timer(0.3, source.stop).start()
        started = time.monotonic()
        assert len(list(source)) <= 5
        assert time.monotonic() - started < 30


def test_arguments() -> None:
    for wrong in (-1, float("nan"), "60"):
        with pytest.raises(InputError, match="reconnect is"):
            open_source("rtsp://127.0.0.1:1/", reconnect=wrong)  # type: ignore[arg-type]
    for wrong in (0, 3601, float("inf")):
        with pytest.raises(InputError, match="timeout is"):
            open_source("rtsp://127.0.0.1:1/", timeout=wrong)


@pytest.mark.parametrize(
    ("url", "public"),
    [
        ("rtsp://cam/street", "rtsp://cam/street"),
        ("rtsp://admin:secret@cam:554/street", "rtsp://cam:554/street"),
        ("rtsp://admin:secret@[fe80::1%eth0]:554/1", "rtsp://[fe80::1%eth0]:554/1"),
        ("rtsp://admin:sec@ret@cam/street", "rtsp://cam/street"),
        ("rtsp://admin:sec/ret@cam/street", "rtsp://…"),
        ("rtsp://admin:secret/@cam", "rtsp://…"),
        ("http://cam/video.cgi?user=admin&pwd=secret", "http://cam/video.cgi?…"),
        ("http://cam/video#secret", "http://cam/video?…"),
        ("http://cam?token=secret", "http://cam?…"),
        ("rtsp://cam/user=admin&password=secret&channel=1", "rtsp://cam/user=…"),
        ("rtsp://cam/street@2x", "rtsp://cam/street@2x"),
        ("udp://@239.0.0.1:5000", "udp://239.0.0.1:5000"),
    ],
)
def test_public_names(url: str, public: str) -> None:
    assert opening.public_name(url) == public


def test_secrets_stay_out_of_logs_and_messages(
    caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    with MjpegCamera(Visit(frames=5), Visit(status=401)) as camera:
        url = camera.url.replace("//", "//admin:pass0@") + "?key=pass0"
        with (
            open_source(url, reconnect=0.5) as source,
            pytest.raises(SourceLostError) as lost,
        ):
            assert "pass0" not in look(source, 10)[0].name
        with pytest.raises(InputError) as refused:
            open_source(url)
    told = [caplog.text, str(lost.value), str(refused.value), source.name, *capfd.readouterr()]
    assert "pass0" not in " ".join(told)
    assert "key=pass0" in camera.requests[0]


@pytest.mark.rtsp_server
def test_an_rtsp_server_that_is_killed_and_started_again(caplog: pytest.LogCaptureFixture) -> None:
    port = rtsp_server.free_port()
    server = rtsp_server.start(port, 320, 240)
    try:
        with open_source(f"rtsp://127.0.0.1:{port}/street", timeout=20) as source:
            frames = iter(source)
            shapes = [next(frames).pixels.shape for _ in range(20)]
            server.kill()
            server.wait()
            server = rtsp_server.start(port, 160, 120)
            while shapes[-1] == (240, 320, 3):  # some of the first server's may still be on the way
                shapes.append(next(frames).pixels.shape)
            shapes += [next(frames).pixels.shape for _ in range(20)]
    finally:
        server.kill()
        server.wait()
    assert shapes[-21:] == [(120, 160, 3)] * 21
    lost, back = caplog.messages
    assert "/street is lost after " in lost
    assert back.endswith("now 160×120")


# ------------------------------------------------------------------------------------- cameras


class Camera:
    """Stands in for a cv2.VideoCapture of a device: no machine of the tests has one."""

    def __init__(
        self, frames: int = 1_000_000, *, level: int = 9, hang: float = 0, fps: float = 30
    ) -> None:
        self.left = frames
        self.level = level
        self.hang = hang
        self.fps = fps
        self.returns = threading.Event()
        self.released = False

    def isOpened(self) -> bool:  # noqa: N802 - as OpenCV names it
        return self.left > 0

    def get(self, prop: int) -> float:
        return {cv2.CAP_PROP_FPS: self.fps, cv2.CAP_PROP_FRAME_COUNT: -1.0}.get(prop, 0.0)

    def read(self) -> tuple[bool, NDArray[np.uint8] | None]:
        time.sleep(0.001)
        self.left -= 1
        if self.left >= 0:
            return True, np.full((48, 64, 3), self.level, np.uint8)
        self.returns.wait(self.hang)
        return False, None

    def release(self) -> None:
        self.released = True


@pytest.fixture
def devices(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What cv2.VideoCapture gives, one after the other."""
    given: list[Any] = []

    def capture(device: Any) -> Any:
        assert cv2.utils.logging.getLogLevel() == SILENT
        return given.pop(0) if given else Camera(0)

    monkeypatch.setattr(cv2, "VideoCapture", capture)
    return given


def test_a_camera_that_is_plugged_in_again(
    devices: list[Any], caplog: pytest.LogCaptureFixture
) -> None:
    first, gone, second = Camera(30), Camera(0), Camera(level=90)
    devices += [first, gone, second]
    before = cv2.utils.logging.getLogLevel()
    with open_source(3) as source:
        assert (source.length, source.fps, source.size) == (None, 30, (48, 64))
        assert levels(look(source, 50)) == [10, 90]  # type: ignore[arg-type]
    assert first.released
    assert second.released
    assert cv2.utils.logging.getLogLevel() == before
    assert [message.split(";")[0].split(" after")[0] for message in caplog.messages] == [
        "camera 3 is lost",
        "camera 3 is back",
    ]


def test_a_camera_whose_driver_hangs(devices: list[Any]) -> None:
    """No second device is opened while the first one's call has not returned."""
    hanging, second = Camera(30, hang=0.6), Camera(level=90)
    devices += [hanging, second]
    with open_source(0, timeout=0.3) as source:
        frames = look(source, 50)  # type: ignore[arg-type]
    assert levels(frames) == [10, 90]
    gap = frames[30].time_s - frames[29].time_s  # type: ignore[operator]
    assert gap > 0.55
    assert hanging.released


@pytest.mark.usefixtures("impatient")
def test_a_camera_whose_driver_hangs_for_ever(devices: list[Any]) -> None:
    hanging, second = Camera(30, hang=60), Camera()
    devices += [hanging, second]
    with open_source(0, timeout=0.2, reconnect=0.4) as source:
        started = time.monotonic()
        with pytest.raises(SourceLostError, match="camera 0 was lost after 30 frames"):
            look(source, 50)  # type: ignore[arg-type]
    assert time.monotonic() - started < 30
    assert devices == [second], "it was never opened"
    hanging.returns.set()


def test_a_camera_that_nobody_closes(devices: list[Any]) -> None:
    forgotten = Camera()
    devices.append(forgotten)
    for frame in open_source(0):
        if frame.index == 3:
            break
    gc.collect()
    deadline = time.monotonic() + 30
    while not forgotten.released:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_rate_that_cannot_be_one_is_unknown(devices: list[Any]) -> None:
    devices += [Camera(fps=fps) for fps in (0.0, float("nan"), 90_000.0, 1000.0)]
    rates = []
    for _ in range(4):
        with open_source(0) as source:
            rates.append(source.fps)
    assert rates == [None, None, None, 1000.0]


def test_a_camera_without_frames(devices: list[Any]) -> None:
    empty = Camera(1)
    empty.read = lambda: (False, None)  # type: ignore[method-assign]
    devices.append(empty)
    with pytest.raises(InputError, match="camera 0 opens, but delivers no frame: it broke off"):
        open_source(0)
    assert empty.released


def test_a_link_to_a_device_is_followed_each_time(devices: list[Any], tmp_path: Path) -> None:
    """A camera may get another number when it is plugged in again; its link by name stays."""
    link = tmp_path / "front-camera"
    link.symlink_to("/dev/video4")
    devices += [Camera(5), Camera(level=90)]
    asked = []
    with pytest.MonkeyPatch.context() as patch:
        make = cv2.VideoCapture
        patch.setattr(cv2, "VideoCapture", lambda device: (asked.append(device), make(device))[1])
        source = opening._open_camera(link, "front", 60, 5)
        with source:
            for frame in source:
                if frame.index == 3:
                    link.unlink()
                    link.symlink_to("/dev/video5")
                if frame.pixels[0, 0, 0] == 90:
                    break
    assert asked == [4, 5]


def test_a_camera_that_is_not_there(capfd: pytest.CaptureFixture[str]) -> None:
    before = cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_WARNING)
    with pytest.raises(
        InputError, match="camera 97 cannot be opened: /dev/video97 does not exist; check that it"
    ):
        open_source(97)
    assert capfd.readouterr() == ("", "")
    assert cv2.utils.logging.setLogLevel(before) == cv2.utils.logging.LOG_LEVEL_WARNING


# ------------------------------------------------------------------------- through the runtime


def test_stream_goes_on_after_a_loss(tiny_engine: Path) -> None:
    with MjpegCamera(Visit(frames=20, level=50), Visit(level=200, size=(96, 128))) as camera:
        shapes = []
        for result in Runtime(tiny_engine, threads=1).stream(camera.url):
            shapes.append(result.labels.shape)
            if len(shapes) == 30:
                break
    assert shapes == [(48, 64)] * 20 + [(96, 128)] * 10


def test_stream_tells_when_a_source_is_lost_for_good(tiny_engine: Path) -> None:
    with MjpegCamera(Visit(frames=20), Visit(status=503)) as camera:
        stream = Runtime(tiny_engine, threads=1).stream(camera.url, reconnect=0.5)
        for _ in range(20):
            next(stream)
        with pytest.raises(SourceLostError, match="after 20 frames"):
            next(stream)


def test_a_slow_consumer_is_no_loss(tiny_engine: Path, caplog: pytest.LogCaptureFixture) -> None:
    with MjpegCamera(Visit()) as camera:
        stream = Runtime(tiny_engine, threads=1).stream(camera.url, timeout=0.5)
        next(stream)
        time.sleep(0.8)
        next(stream)
        stream.close()  # type: ignore[attr-defined]
    assert caplog.messages == []


@pytest.mark.parametrize("latest", [False, True])
def test_ctrl_c_leaves_a_stream_that_hangs(tiny_engine: Path, latest: bool) -> None:
    with MjpegCamera(Visit(frames=20, then="hang")) as camera:
        stream = Runtime(tiny_engine, threads=1).stream(camera.url, latest=latest, timeout=100)
        next(stream)
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
        try:
            with pytest.raises(KeyboardInterrupt):
                list(stream)
        finally:
            signal.signal(signal.SIGINT, before)
        started = time.monotonic()
        while threads := [t for t in threading.enumerate() if t.name == "edgeseg-prefetch"]:
            assert time.monotonic() - started < 30, threads


def clip(path: Path) -> tuple[int, tuple[int, int]]:
    """How many frames can be decoded, and their size."""
    with open_source(path) as source:
        assert isinstance(source, VideoSource)
        return len(list(source)), source.size


def test_predict_keeps_what_it_made_of_a_source_that_is_lost(
    tiny_engine: Path, tmp_path: Path
) -> None:
    larger = Visit(frames=30, size=(96, 128))
    with (
        MjpegCamera(Visit(frames=20), larger, Visit(status=503)) as camera,
        pytest.raises(SourceLostError, match="after 50 frames"),
    ):
        predict_source(
            Runtime(tiny_engine, threads=1),
            camera.url,
            tmp_path,
            Outputs(("overlay", "labels")),
            reconnect=1,
        )
    assert clip(tmp_path / "video_overlay.mp4") == (20, (48, 64))
    assert clip(tmp_path / "video_overlay-2.mp4") == (30, (96, 128))
    assert len(list((tmp_path / "video_labels").iterdir())) == 50
    assert len(list(tmp_path.iterdir())) == 3


@pytest.mark.parametrize(
    ("number", "visits"),
    [
        (signal.SIGINT, [Visit(frames=20, then="hang")]),
        (signal.SIGTERM, [Visit(frames=20), Visit(answers=False)]),
    ],
)
def test_ctrl_c_finishes_the_clip_of_a_live_source(
    tiny_engine: Path, tmp_path: Path, number: signal.Signals, visits: list[Visit]
) -> None:
    command = [sys.executable, "-c", "from edgeseg.cli import main; main()", "predict"]
    with MjpegCamera(*visits) as camera:
        options = ["--engine", str(tiny_engine), "--out", str(tmp_path), "--timeout", "100"]
        process = subprocess.Popen(
            [*command, camera.url, *options, "--labels", "--json"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            # Where the tests run in the background, Ctrl-C is ignored.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )
        last = tmp_path / "video_labels" / "000019.png"
        deadline = time.monotonic() + 100
        while not last.exists() and time.monotonic() < deadline and process.poll() is None:
            time.sleep(0.05)
        process.send_signal(number)
        output, diagnostics = process.communicate(timeout=30)
    assert process.returncode == 0, diagnostics
    assert json.loads(output)["frames"] == 20
    assert "interrupted" not in diagnostics
    assert clip(tmp_path / "video_overlay.mp4") == (20, (48, 64))
    assert len(list(tmp_path.iterdir())) == 2


def test_a_missing_camera_is_one_sentence(tiny_engine: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-c", "from edgeseg.cli import main; main()", "predict"]
    processes = [
        subprocess.Popen(
            [*command, source, "--engine", str(tiny_engine), "--out", str(tmp_path)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for source in ("97", "rtsp://admin:secret@127.0.0.1:1/street")
    ]
    for process in processes:
        output, diagnostics = process.communicate(timeout=60)
        assert process.returncode == 1
        sentence = diagnostics.strip()
        assert sentence.startswith("error: ")
        assert sentence.count("\n") == 0, sentence
        assert "secret" not in sentence
        assert output == ""
    assert list(tmp_path.iterdir()) == []
