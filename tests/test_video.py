from __future__ import annotations

import functools
import http.server
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from edgeseg.errors import InputError, OutputError
from edgeseg.images import write_image
from edgeseg.mp4 import picture_seconds
from edgeseg.video import ImageSource, VideoSource, open_source, prefetch, write_video

FPS = 25
FRAMES = 50


def grey(level: int, height: int = 48, width: int = 64) -> NDArray[np.uint8]:
    return np.full((height, width, 3), level, np.uint8)


def scene(index: int) -> NDArray[np.uint8]:
    """Another smooth picture for every index: each frame costs a codec about the same."""
    coarse = np.random.default_rng(index).integers(0, 256, (6, 8, 3), np.uint8)
    return cv2.resize(coarse, (64, 48), interpolation=cv2.INTER_LINEAR)


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The same 50 scenes in each container; "fast.mp4" has its index in front."""
    folder = tmp_path_factory.mktemp("videos")
    files = {}
    for name, codec in (
        ("a.mp4", "mp4v"),
        ("a.avi", "MJPG"),
        ("a.mkv", "mp4v"),
        ("a.webm", "VP80"),
    ):
        path = folder / name
        writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*codec), FPS, (64, 48))
        assert writer.isOpened()
        for index in range(FRAMES):
            writer.write(scene(index))
        writer.release()
        files[name] = path.read_bytes()
    files["fast.mp4"] = index_first(files["a.mp4"])
    return files


def index_first(mp4: bytes) -> bytes:
    """Move the moov box before mdat and correct the offsets in it."""
    boxes, start = {}, 0
    while start < len(mp4):
        size = int.from_bytes(mp4[start : start + 4], "big")
        boxes[mp4[start + 4 : start + 8]] = mp4[start : start + size]
        start += size
    moov = bytearray(boxes.pop(b"moov"))
    table = moov.index(b"stco") + 8
    for place in range(table + 4, table + 4 + 4 * number(moov, table), 4):
        put(moov, place, number(moov, place) + len(moov))
    first = boxes.pop(b"ftyp")
    return first + bytes(moov) + b"".join(boxes.values())


def number(data: bytes | bytearray, place: int) -> int:
    return int.from_bytes(data[place : place + 4], "big")


def put(data: bytearray, place: int, value: int) -> None:
    data[place : place + 4] = value.to_bytes(4, "big")


def deliver(source: str | Path) -> tuple[int, str]:
    """Number of frames, and the sentence that followed them."""
    frames = 0
    with open_source(source) as opened:
        try:
            for frame in opened:
                assert frame.index == frames
                frames += 1
        except InputError as error:
            return frames, str(error)
    return frames, ""


# -------------------------------------------------------------------------------------- images


def test_folder_in_natural_order(tmp_path: Path) -> None:
    names = ["frame10.png", "frame2.png", "Frame1.PNG", "b.jpg", "ünder.bmp", "2.png", "10.png"]
    for level, name in enumerate(names):
        write_image(tmp_path / name, grey(10 * level))
    (tmp_path / "notes.txt").write_text("no image")
    (tmp_path / "._frame2.png").write_bytes(b"what macOS leaves behind")
    (tmp_path / "sub").mkdir()
    with open_source(tmp_path) as source:
        assert isinstance(source, ImageSource)
        assert (source.length, source.skipped) == (7, 3)
        assert (source.fps, source.size) == (None, None)
        frames = list(source)
    order = ["2.png", "10.png", "b.jpg", "Frame1.PNG", "frame2.png", "frame10.png", "ünder.bmp"]
    assert [frame.name for frame in frames] == order
    assert [frame.index for frame in frames] == list(range(7))
    assert [frame.pixels[0, 0, 0] for frame in frames] == [10 * names.index(n) for n in order]


def test_image_file(tmp_path: Path) -> None:
    path = tmp_path / "Bild – 図.png"
    write_image(path, grey(7))
    for given in (path, str(path)):
        (frame,) = open_source(given)
        assert (frame.name, frame.index, frame.time_s) == (path.name, 0, None)
        np.testing.assert_array_equal(frame.pixels, grey(7))


def test_folder_with_a_damaged_image(tmp_path: Path) -> None:
    for index in range(4):
        write_image(tmp_path / f"{index}.png", grey(index))
    (tmp_path / "2.png").write_bytes(b"damaged")
    frames, sentence = deliver(tmp_path)
    assert frames == 2
    assert "2.png cannot be decoded" in sentence


def test_folder_without_images(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    (tmp_path / "train").mkdir()
    (tmp_path / "val").mkdir()
    with pytest.raises(InputError, match=r"no image \(1 other files, 2 folders, which.*\.png"):
        open_source(tmp_path)


# -------------------------------------------------------------------------------- video files


@pytest.mark.parametrize("name", ["a.mp4", "fast.mp4", "a.avi", "a.mkv", "a.webm"])
def test_video_file(tmp_path: Path, videos: dict[str, bytes], name: str) -> None:
    path = tmp_path / name
    path.write_bytes(videos[name])
    with open_source(path) as source:
        assert isinstance(source, VideoSource)
        assert (source.length, source.fps, source.size) == (FRAMES, FPS, (48, 64))
        frames = list(source)
        assert list(source) == [], "one pass only"
    assert len(frames) == FRAMES
    np.testing.assert_allclose([frame.time_s for frame in frames], np.arange(FRAMES) / FPS)
    assert frames[3].name == f"{name} #3"
    for frame in frames:
        assert np.abs(frame.pixels - scene(frame.index).astype(int)).mean() < 10


@pytest.mark.parametrize("name", ["10:30 Straße – 道.mp4", "frame%03d.mp4", "no suffix", "-i.mp4"])
def test_video_of_any_name(
    tmp_path: Path, videos: dict[str, bytes], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / name).write_bytes(videos["a.mp4"])
    monkeypatch.chdir(tmp_path)
    for path in (tmp_path / name, name):
        assert deliver(path) == (FRAMES, "")


@pytest.mark.parametrize("name", ["fast.mp4", "a.avi", "a.mkv", "a.webm"])
@pytest.mark.parametrize("tail", ["missing", "zero"])
@pytest.mark.parametrize("keep", [0.3, 0.6])
def test_video_that_ends_early(
    tmp_path: Path, videos: dict[str, bytes], name: str, tail: str, keep: float
) -> None:
    whole = videos[name]
    part = whole[: int(keep * len(whole))]
    path = tmp_path / name
    path.write_bytes(part if tail == "missing" else part.ljust(len(whole), b"\0"))
    frames, sentence = deliver(path)
    assert frames == pytest.approx(keep * FRAMES, abs=5)
    assert f"{name} ends early: {frames} of {FRAMES} frames could be decoded" in sentence
    assert "copy or record it again" in sentence


def test_a_frame_table_is_held_to_the_frame(tmp_path: Path, videos: dict[str, bytes]) -> None:
    """A tenth of a second is missing: too little to be told from sound in Matroska, not in MP4."""
    for name, complete in (("fast.mp4", False), ("a.avi", False), ("a.mkv", True)):
        path = tmp_path / name
        path.write_bytes(videos[name][: int(0.9 * len(videos[name]))])
        frames, sentence = deliver(path)
        assert FRAMES - 8 < frames < FRAMES - 2
        assert (sentence == "") == complete, name


def test_video_damaged_inside(tmp_path: Path, videos: dict[str, bytes]) -> None:
    path = tmp_path / "hole.avi"
    data = bytearray(videos["a.avi"])
    data[len(data) // 3 : len(data) // 2] = bytes(len(data) // 2 - len(data) // 3)
    path.write_bytes(data)
    frames, sentence = deliver(path)
    assert frames < 0.9 * FRAMES
    assert f"{frames} of {FRAMES} frames" in sentence


def test_trimmed_mp4_is_whole(tmp_path: Path, videos: dict[str, bytes]) -> None:
    """An edit list hides stored frames, as `ffmpeg -ss … -c copy` and phones do to trim a clip."""
    data = bytearray(videos["fast.mp4"])
    timescale = number(data, data.index(b"mvhd") + 16)
    shown = int(0.6 * FRAMES / FPS * timescale)
    put(data, data.index(b"tkhd") + 24, shown)
    put(data, data.index(b"elst") + 12, shown)
    path = tmp_path / "trimmed.mp4"
    path.write_bytes(data)
    assert picture_seconds(path) == pytest.approx(0.6 * FRAMES / FPS)
    assert deliver(path) == (pytest.approx(0.6 * FRAMES, abs=1), "")

    path.write_bytes(data[: int(0.4 * len(data))])
    frames, sentence = deliver(path)
    assert frames < 0.5 * FRAMES
    assert f"{frames} of {0.6 * FRAMES:.0f} frames" in sentence


def test_picture_seconds(tmp_path: Path, videos: dict[str, bytes]) -> None:
    path = tmp_path / "file"
    for name in ("a.mp4", "fast.mp4"):
        path.write_bytes(videos[name])
        assert picture_seconds(path) == pytest.approx(FRAMES / FPS)
    moov = videos["a.mp4"].index(b"moov")
    wide = (1).to_bytes(4, "big") + b"free" + (16 + 8).to_bytes(8, "big") + bytes(8)
    path.write_bytes(wide + videos["a.mp4"])
    assert picture_seconds(path) == pytest.approx(FRAMES / FPS)
    unknown = bytearray(videos["a.mp4"])
    place = unknown.index(b"tkhd") + 24
    unknown[place : place + 4] = b"\xff" * 4
    for other in (
        bytes(unknown),
        videos["a.mkv"],
        videos["a.avi"],
        videos["a.mp4"][: moov + 40],
        b"",
        b"\0" * 64,
        b"\xff" * 64,
        (1).to_bytes(4, "big") + b"mdat" + b"\xff" * 8,
    ):
        path.write_bytes(other)
        assert picture_seconds(path) is None


def test_video_cut_before_its_index(tmp_path: Path, videos: dict[str, bytes]) -> None:
    path = tmp_path / "cut.mp4"
    path.write_bytes(videos["a.mp4"][:-300])
    with pytest.raises(InputError, match=r"cut\.mp4 cannot be opened.*cut off before its index"):
        open_source(path)


def test_video_without_a_frame(tmp_path: Path, videos: dict[str, bytes]) -> None:
    whole = videos["fast.mp4"]
    path = tmp_path / "blank.mp4"
    path.write_bytes(whole[: whole.index(b"mdat") + 4].ljust(len(whole), b"\0"))
    with pytest.raises(InputError, match=r"blank\.mp4 opens, but not one frame.*re-encode"):
        open_source(path)


def test_what_is_no_video(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"gone\.mp4 does not exist"):
        open_source(tmp_path / "gone.mp4")
    (tmp_path / "empty.mp4").touch()
    with pytest.raises(InputError, match=r"empty \(0 bytes\)"):
        open_source(tmp_path / "empty.mp4")
    (tmp_path / "readme").write_text("FFmpeg would show this as a terminal does\n" * 20)
    (tmp_path / "readme").rename(tmp_path / "readme.txt")
    with pytest.raises(InputError, match="is a text file"):
        open_source(tmp_path / "readme.txt")
    (tmp_path / "zeros.mp4").write_bytes(bytes(1000))
    with pytest.raises(InputError, match="cannot be opened as a video"):
        open_source(tmp_path / "zeros.mp4")
    for path in ("a" * 5000, "a\0b", str(tmp_path / "empty.mp4" / "below")):
        with pytest.raises(InputError, match="cannot be read"):
            open_source(path)
    for wrong in (None, 1.5, True, b"a.mp4"):
        with pytest.raises(InputError, match=f"source is a {type(wrong).__name__}"):
            open_source(wrong)  # type: ignore[arg-type]


def test_leaving_closes_the_file(tmp_path: Path, videos: dict[str, bytes]) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(videos["a.mp4"])

    def is_open() -> bool:
        return any(link.resolve() == path for link in Path("/proc/self/fd").iterdir())

    with open_source(path) as source:
        for frame in source:
            assert is_open()
            if frame.index == 2:
                break
    assert not is_open()


# ---------------------------------------------------------------------------------------- URLs


@contextmanager
def served(folder: Path) -> Iterator[int]:
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args: Any) -> None:
            pass

    handler = functools.partial(Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield server.server_port
        finally:
            server.shutdown()


def test_url(tmp_path: Path, videos: dict[str, bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    (tmp_path / "fast.mp4").write_bytes(videos["fast.mp4"])
    (tmp_path / "cut.mp4").write_bytes(videos["fast.mp4"][: len(videos["fast.mp4"]) // 2])
    with served(tmp_path) as port:
        assert deliver(f"http://127.0.0.1:{port}/fast.mp4") == (FRAMES, "")
        frames, sentence = deliver(f"http://127.0.0.1:{port}/cut.mp4")
        assert f"ends early: {frames} of {FRAMES}" in sentence
        with pytest.raises(InputError) as raised:
            open_source(f"http://user:secret@127.0.0.1:{port}/gone.mp4")
    assert f"http://127.0.0.1:{port}/gone.mp4 cannot be opened" in str(raised.value)
    assert "secret" not in str(raised.value)


# ------------------------------------------------------------------------------------ prefetch


def prefetch_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "edgeseg-prefetch"]


@pytest.mark.parametrize("depth", [1, 2, 100])
def test_prefetch_keeps_order(depth: int) -> None:
    with prefetch(range(50), depth) as items:
        assert list(items) == list(range(50))
        assert list(items) == []
    assert prefetch_threads() == []


def test_prefetch_reads_ahead_but_not_further() -> None:
    read = []

    def items() -> Iterator[int]:
        for index in range(100):
            read.append(index)
            yield index

    with prefetch(items(), 3) as ahead:
        for taken in range(5):
            assert next(ahead) == taken
            deadline = time.monotonic() + 5
            while len(read) < taken + 4 and time.monotonic() < deadline:
                time.sleep(0.001)
            time.sleep(0.01)
            assert len(read) == taken + 4
    assert prefetch_threads() == []
    assert len(read) == 8, "leaving early reads nothing more"


def test_prefetch_carries_the_exception_over_after_the_items() -> None:
    def items() -> Iterator[int]:
        yield 1
        yield 2
        raise InputError("the third")

    taken = []
    with prefetch(items(), 5) as ahead:
        with pytest.raises(InputError, match="the third"):
            taken.extend(ahead)
        assert list(ahead) == []
    assert prefetch_threads() == []
    with pytest.raises(TypeError), prefetch(3, 1) as ahead:  # type: ignore[arg-type]
        next(ahead)


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_prefetch_stops_when_the_consumer_fails(error: type[BaseException]) -> None:
    finished = []

    def items() -> Iterator[int]:
        try:
            while True:
                yield 0
        finally:
            finished.append(True)

    def consume() -> None:
        with prefetch(items(), 2) as ahead:
            next(ahead)
            raise error

    with pytest.raises(error):
        consume()
    assert prefetch_threads() == []
    assert finished == [True]


def test_prefetch_works_while_the_consumer_does() -> None:
    reader = []

    def items() -> Iterator[int]:
        for index in range(5):
            reader.append(threading.current_thread())
            yield index

    with prefetch(items(), 2) as ahead:
        list(ahead)
    assert threading.current_thread() not in reader


def test_prefetch_of_the_newest_drops_what_waited_too_long() -> None:
    shown = threading.Event()

    def items() -> Iterator[int]:
        yield 0
        shown.wait(5)
        yield from range(1, 10)

    with prefetch(items(), 2, newest=True) as ahead:
        assert next(ahead) == 0
        shown.set()
        deadline = time.monotonic() + 5
        while prefetch_threads() and time.monotonic() < deadline:
            time.sleep(0.001)
        assert list(ahead) == [8, 9], "those before them came while nobody asked"


def test_prefetch_loses_patience_with_a_source_that_gives_nothing() -> None:
    never = threading.Event()

    def items() -> Iterator[int]:
        yield 0
        never.wait(30)

    started = time.monotonic()
    with prefetch(items(), 1, patience=0.1) as ahead:
        assert next(ahead) == 0
    assert time.monotonic() - started < 5
    never.set()
    for thread in prefetch_threads():
        thread.join(5)
    assert prefetch_threads() == []


def test_prefetch_depth() -> None:
    with pytest.raises(InputError, match="depth is 0"), prefetch([], 0):
        pass


# ------------------------------------------------------------------------------------- writing


def record(path: Path, frames: Iterable[NDArray[Any]], fps: float = FPS) -> None:
    with write_video(path, fps) as video:
        for frame in frames:
            video.write(frame)


def test_write_video(tmp_path: Path) -> None:
    path = tmp_path / "Fahrt – 道.mp4"
    with write_video(path, 12.5) as video:
        for level in range(0, 250, 10):
            video.write(grey(level))
        assert not path.exists()
    with open_source(path) as source:
        assert (source.length, source.fps, source.size) == (25, 12.5, (48, 64))
        levels = [frame.pixels.mean() for frame in source]
    np.testing.assert_allclose(levels, np.arange(0, 250, 10), atol=5)
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_write_video_of_odd_size_repeats_the_last_row_and_column(tmp_path: Path) -> None:
    path = tmp_path / "odd.mp4"
    record(path, [grey(200, 47, 63)])
    (frame,) = open_source(path)
    assert frame.pixels.shape == (48, 64, 3)
    np.testing.assert_allclose(frame.pixels, 200, atol=5)


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, BrokenPipeError])
def test_write_video_abandoned(tmp_path: Path, error: type[BaseException]) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(b"what was there before")

    def frames() -> Iterator[NDArray[np.uint8]]:
        yield grey(0)
        raise error

    with pytest.raises(error):
        record(path, frames())
    assert [file.name for file in tmp_path.iterdir()] == ["a.mp4"]
    assert path.read_bytes() == b"what was there before"


def test_write_video_refuses(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    with pytest.raises(OutputError, match=r"only MP4.*end the name in \.mp4"):
        record(tmp_path / "a.avi", [grey(0)])
    with pytest.raises(OutputError, match=r"folder .* does not exist"):
        record(tmp_path / "missing" / "a.mp4", [grey(0)])
    for fps in (0, -1, float("nan"), float("inf")):
        with pytest.raises(InputError, match="fps is"):
            record(path, [grey(0)], fps)
    with pytest.raises(OutputError, match="no frame was given"):
        record(path, [])
    with pytest.raises(InputError, match=r"frame 1 has shape \(46, 64, 3\)"):
        record(path, [grey(0), grey(0, 46, 64)])
    for wrong in (grey(0)[..., 0], grey(0).astype(np.float32), grey(0)[:0]):
        with pytest.raises(InputError, match="uint8 BGR was expected"):
            record(path, [wrong])
    with pytest.raises(OutputError, match=r"refuses 9000×16 .* resize"):
        record(path, [grey(0, 16, 9000)])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("answer", "words"), [(None, "1 of 3 frames are in it"), (False, "frame 1")]
)
def test_write_video_notices_lost_frames(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: bool | None, words: str
) -> None:
    """OpenCV 4 says nothing of a frame that is lost, OpenCV 5 does."""

    class Forgetful:
        """Delegates: cv2's classes crash when they are derived from."""

        fourcc = cv2.VideoWriter.fourcc

        def __init__(self, *args: Any) -> None:
            self.writer = cv2_writer(*args)
            self.isOpened, self.release = self.writer.isOpened, self.writer.release
            self.taken = 0

        def write(self, frame: Any) -> Any:
            self.taken += 1
            return self.writer.write(frame) if self.taken == 1 else answer

    cv2_writer = cv2.VideoWriter
    monkeypatch.setattr(cv2, "VideoWriter", Forgetful)
    with pytest.raises(OutputError, match=words):
        record(tmp_path / "a.mp4", [grey(0)] * 3)
    assert list(tmp_path.iterdir()) == []


FULL_DISK = """
import pathlib, resource, sys
import numpy as np
from edgeseg.errors import OutputError
from edgeseg.images import write_image
from edgeseg.video import write_video

folder = pathlib.Path(sys.argv[1])
noise = np.random.default_rng(0).integers(0, 256, (240, 320, 3), np.uint8)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    write_image(folder / "a.png", noise)
except OutputError as error:
    print(error)
for count in (1, 100):  # one frame: only the index at the end does not fit
    try:
        with write_video(folder / "a.mp4", 25) as video:
            for _ in range(count):
                video.write(noise)
                resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
    except OutputError as error:
        print(error)
"""


def test_full_disk(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, tmp_path],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    image, *clips = done.stdout.splitlines()
    assert "a.png: File too large" in image
    assert len(clips) == 2
    for clip in clips:
        assert "a.mp4" in clip
        assert "disk is probably full" in clip
    assert list(tmp_path.iterdir()) == []
