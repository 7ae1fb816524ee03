"""A video through `stream()`, and through the loop that one would write without it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import cycle, islice
from pathlib import Path
from time import perf_counter, sleep

import cv2
import numpy as np
from benchmarks.suite.peers import Frame, Precision
from benchmarks.suite.results import LiveRow, Ratio, StreamChecks, StreamRow
from benchmarks.timing import Times, interleaved

import edgeseg
from edgeseg import Result
from edgeseg.errors import EdgesegError
from edgeseg.synthetic import street
from edgeseg.video import write_video

_SOURCES = (("at 80 % of the loop's rate", 1.25, False), ("at twice the loop's rate", 0.5, True))
"""Name, period over the loop's time of a frame, and whether only the newest frame counts."""
_SETTLING = 3  # frames of a turn that do not count
_LIVE_FRAMES = 15  # of a turn; fewer where there are fewer rounds, like the turns
_TURNS = 4
_SLOW_FRAMES = 24


def make_video(path: Path, frames: int, size: tuple[int, int]) -> Path:
    """A clip of (width, height), a few streets over and over."""
    streets = [street(seed, size[1], size[0]).frame for seed in range(4)]
    with write_video(path, 30.0) as writer:
        for frame in islice(cycle(streets), frames):
            writer.write(frame)
    return path


def measure_stream(
    engine: Path, video: Path, *, precision: Precision, threads: int, rounds: int
) -> StreamRow:
    """Whole passes over the video, in turn; labels and their order are compared before."""
    runtime = edgeseg.Runtime(engine, "cpu", threads, precision=precision)

    def by_stream() -> list[Frame]:
        return [result.labels for result in runtime.stream(video)]

    def by_loop() -> list[Frame]:
        capture = cv2.VideoCapture(str(video))
        labels = []
        while True:
            there, frame = capture.read()
            if not there:
                capture.release()
                return labels
            labels.append(runtime.predict(frame).labels)

    streamed, looped = by_stream(), by_loop()
    if len(streamed) != len(looped) or not all(map(np.array_equal, streamed, looped)):
        raise EdgesegError(f"stream() and a loop give different labels of {video.name}")
    times = interleaved({"stream": by_stream, "loop": by_loop}, rounds, warm_up=1)
    height, width = streamed[0].shape
    return StreamRow(
        len(streamed),
        f"{width}×{height}",
        precision,
        times["stream"].p50,
        times["loop"].p50,
        Ratio.of(times["loop"], times["stream"]),
    )


@dataclass
class Camera:
    """Shows a numbered frame every `period` seconds; who comes late gets the newest.

    Attributes:
        picture: H×W×3 uint8 that every frame is a copy of, but for its first pixel: the number.
        period: seconds between frames.
        frames: how many are shown.
        shown: when each frame that was read was there, by its number.
    """

    picture: Frame
    period: float
    frames: int
    shown: dict[int, float] = field(default_factory=dict)

    def __iter__(self) -> Iterator[Frame]:
        started = perf_counter()
        number = -1
        while (number := max(number + 1, int((perf_counter() - started) / self.period))) < (
            self.frames
        ):
            at = started + number * self.period
            sleep(max(0.0, at - perf_counter()))
            self.shown[number] = at
            yield numbered(self.picture, number)


def numbered(picture: Frame, number: int) -> Frame:
    """A copy whose first pixel holds `number` < 65536."""
    frame = picture.copy()
    frame[0, 0, :2] = divmod(number, 256)
    return frame


def number_of(result: Result) -> int:
    """Of the frame that it labels, see `numbered`."""
    high, low = result.frame.pixels[0, 0, :2]
    return 256 * int(high) + int(low)


def measure_live(
    engine: Path, picture: Frame, *, precision: Precision, threads: int, rounds: int
) -> tuple[LiveRow, ...]:
    """Latency of a camera's frames; `stream()` and a loop take turns of some frames each."""
    turns, frames = min(_TURNS, rounds), min(_LIVE_FRAMES, rounds)
    runtime = edgeseg.Runtime(engine, "cpu", threads, precision=precision)
    frame_ms = interleaved({"loop": lambda: runtime.predict(picture)}, frames)["loop"].p50

    def by_loop(camera: Camera) -> Iterator[Result]:
        return map(runtime.predict, camera)

    rows = []
    for source, period, latest in _SOURCES:

        def by_stream(camera: Camera, latest: bool = latest) -> Iterator[Result]:
            return runtime.stream(camera, latest=latest)

        ms: dict[Callable[..., Iterator[Result]], list[float]] = {by_stream: [], by_loop: []}
        for _ in range(turns):
            for label, found in ms.items():
                camera = Camera(picture, 1e-3 * period * frame_ms, int(frames / min(1.0, period)))
                latencies = [
                    1e3 * (perf_counter() - camera.shown[number_of(result)])
                    for result in label(camera)
                ]
                found += latencies[_SETTLING:] or latencies
        rows.append(
            LiveRow(
                source,
                precision,
                latest,
                period * frame_ms,
                frame_ms,
                Times(tuple(ms[by_stream])),
                Times(tuple(ms[by_loop])),
            )
        )
    return tuple(rows)


def check_stream(engine: Path, picture: Frame, *, threads: int) -> StreamChecks:
    """What `stream()` does when its consumer is slow, and when its source fails."""
    runtime = edgeseg.Runtime(engine, "cpu", threads)
    _, pause = _timed(lambda: runtime.predict(picture))
    read = 0

    def source(frames: int, *, fails: bool = False) -> Iterator[Frame]:
        nonlocal read
        for number in range(frames):
            read = number + 1
            yield numbered(picture, number)
        if fails:
            raise EdgesegError("the source is gone")

    numbers, ahead = [], 0
    for result in runtime.stream(source(_SLOW_FRAMES)):
        sleep(2 * pause)
        numbers.append(number_of(result))
        ahead = max(ahead, read - len(numbers))
    readable = _SLOW_FRAMES // 4
    given = 0
    try:
        for _ in runtime.stream(source(readable, fails=True)):
            given += 1
    except EdgesegError:
        pass
    else:
        raise EdgesegError("stream() ended as if its source had not failed")
    return StreamChecks(
        frames=_SLOW_FRAMES,
        in_order=numbers == list(range(_SLOW_FRAMES)),
        read_ahead=ahead,
        before_drop=given,
        readable=readable,
    )


def _timed(action: Callable[[], object]) -> tuple[object, float]:
    started = perf_counter()
    return action(), perf_counter() - started
