"""Segment a source and write what comes out: the work behind `edgeseg predict` and `demo`."""

from __future__ import annotations

import re
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeseg.arguments import check_integer
from edgeseg.errors import InputError, OutputError
from edgeseg.files import make_folder
from edgeseg.images import write_image
from edgeseg.runtime import Result, Runtime, Timings
from edgeseg.runtime.result import Picture
from edgeseg.video import (
    RECONNECT,
    TIMEOUT,
    ImageSource,
    LiveSource,
    VideoSource,
    open_source,
    prefetch,
    write_video,
)

OnFrame = Callable[[int, int | None], None]
"""Called after every frame with the number done and the number expected, if known."""

_READ_AHEAD = 2
_DEFAULT_FPS = 25.0  # of a camera that does not tell
_NO_FRAME = "the source gave no frame; check that it is not empty"


@dataclass(frozen=True)
class StageTimes:
    """Milliseconds per frame that a stage took."""

    p50: float
    p99: float


@dataclass(frozen=True)
class Report:
    """What was done.

    Attributes:
        runtime: engine, backend and machine, in words.
        frames: how many were labelled.
        frames_per_second: from the first to the last, reading and writing files included.
        stages_ms: times of "preprocess", "inference", "upsample_argmax" and "total".
        areas: mean fraction of the pixels per class.
        written: files, in the order in which they were begun.
    """

    runtime: str
    frames: int
    frames_per_second: float
    stages_ms: dict[str, StageTimes]
    areas: dict[str, float]
    written: tuple[str, ...]


class Tally:
    """Collects results into a report; keeps no frame."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = repr(runtime)
        self._timings: list[Timings] = []
        self._areas = dict.fromkeys(runtime.classes, 0.0)
        self._started = perf_counter()

    def add(self, result: Result) -> int:
        """Count a result; returns how many there are."""
        self._timings.append(result.timings)
        for name, area in result.areas().items():
            self._areas[name] += area
        return len(self._timings)

    def report(self, written: list[Path]) -> Report:
        """Summarise what was added.

        Raises:
            InputError: nothing was.
        """
        frames = len(self._timings)
        if frames == 0:
            raise InputError(_NO_FRAME)
        stages = {}
        for stage in ("preprocess", "inference", "upsample_argmax", "total"):
            times = [getattr(timings, stage) for timings in self._timings]
            stages[stage] = StageTimes(*(float(p) for p in np.percentile(times, [50, 99])))
        return Report(
            runtime=self._runtime,
            frames=frames,
            frames_per_second=frames / (perf_counter() - self._started),
            stages_ms=stages,
            areas={name: area / frames for name, area in self._areas.items()},
            written=tuple(str(path) for path in written),
        )


def predict_source(
    runtime: Runtime,
    source: str | int,
    out: Path,
    *,
    pictures: tuple[Picture, ...] = ("overlay",),
    alpha: float = 0.5,
    limit: int | None = None,
    latest: bool = False,
    reconnect: float = RECONNECT,
    timeout: float = TIMEOUT,
    on_frame: OnFrame = lambda done, total: None,
) -> Report:
    """Segment images, a video or a camera and write pictures into a folder.

    Pictures become `NAME_overlay.png` and so on. Of a video, overlays and colours become clips,
    `NAME_overlay.mp4`, and labels a folder of PNGs; where the frames' size changes, another clip
    begins (`NAME_overlay-2.mp4`). A camera or stream ends well by Ctrl-C or SIGTERM: what was
    recorded is finished and reported. The second one interrupts.

    Args:
        runtime: the engine.
        source: see `edgeseg.video.open_source`.
        out: the folder; made if it is not there.
        pictures: what to write for every frame.
        alpha: weight of the colours in an overlay, 0..1.
        limit: stop after so many frames.
        latest: pass over frames of a camera or stream that came while earlier ones were in work.
        reconnect: seconds for which to try to get a lost camera or stream back; 0 gives up at once,
            inf never.
        timeout: seconds without a frame after which a camera or stream is lost.
        on_frame: for progress bars.

    Raises:
        InputError: the source cannot be opened, or ends before it should; what could be read until
            then has been written.
        SourceLostError: an InputError, too: a camera or stream did not come back.
        OutputError: something cannot be written.
    """
    if limit is not None:
        check_integer("limit", limit, 1, sys.maxsize)
    with open_source(source, reconnect=reconnect, timeout=timeout) as opened:
        length = opened.length if limit is None else min(limit, opened.length or limit)
        names: deque[str] = deque()
        tally = Tally(runtime)
        failure: InputError | None = None
        with ExitStack() as stack:
            sink: _Pictures | _Clips
            if isinstance(opened, ImageSource):
                sink = _Pictures(opened, out, pictures, alpha)
            else:
                sink = stack.enter_context(_Clips(opened, out, pictures, alpha))
            depth = 1 if latest else _READ_AHEAD
            decoded = stack.enter_context(prefetch(opened, depth, newest=latest, stop=opened.stop))
            if isinstance(opened, LiveSource):
                stack.enter_context(_ending_by_signals(opened))

            def frames() -> Iterator[NDArray[np.uint8]]:
                for item in islice(decoded, limit):
                    names.append(item.name)
                    yield item.pixels

            try:
                for result in runtime.stream(frames()):
                    sink.write(names.popleft(), result)
                    on_frame(tally.add(result), length)
            except InputError as error:
                if not sink.written:
                    raise
                failure = error  # keep what was made of the frames before it
            if not sink.written:
                raise InputError(_NO_FRAME)
    if failure is not None:
        raise failure
    return tally.report(sink.written)


@contextmanager
def _ending_by_signals(source: LiveSource) -> Iterator[None]:
    """Ctrl-C and SIGTERM end the source as a file ends; the second one does what it always did."""
    before: dict[int, Any] = {}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def end(*_: object) -> None:
        source.stop()
        restore()

    if threading.current_thread() is threading.main_thread():  # others may set no handlers
        for number in (signal.SIGINT, signal.SIGTERM):
            handler = signal.getsignal(number)
            if handler in (signal.default_int_handler, signal.SIG_DFL):  # not an application's own
                before[number] = signal.signal(number, end)
    try:
        yield
    finally:
        restore()


def render(result: Result, picture: Picture, alpha: float) -> NDArray[np.uint8]:
    """One picture of a result, as an image file holds it."""
    if picture == "overlay":
        return result.overlay(alpha)
    return result.colored() if picture == "colored" else result.labels


class _Pictures:
    """One file per image and picture."""

    def __init__(
        self, source: ImageSource, out: Path, pictures: tuple[Picture, ...], alpha: float
    ) -> None:
        self.written: list[Path] = []
        self._out = out
        self._pictures = pictures
        self._alpha = alpha
        self._sources = {path.resolve() for path in source.paths}
        # Whole names where stems would not tell two images apart: a.jpg beside a.png.
        self._whole_names = len({path.stem for path in source.paths}) < len(source.paths)

    def write(self, name: str, result: Result) -> None:
        stem = name if self._whole_names else Path(name).stem
        for picture in self._pictures:
            path = self._out / f"{stem}_{picture}.png"
            if path.resolve() in self._sources:
                raise OutputError(
                    f"{path} is one of the images to be read; choose another folder for the results"
                )
            make_folder(self._out)  # not before there is a picture: the first may be damaged
            write_image(path, render(result, picture, self._alpha))
            self.written.append(path)


class _Clips:
    """One clip per picture; labels become a folder, since a video codec would change them."""

    def __init__(
        self,
        source: VideoSource | LiveSource,
        out: Path,
        pictures: tuple[Picture, ...],
        alpha: float,
    ) -> None:
        self.written: list[Path] = []
        self._stem = re.sub(r"[^\w-]+", "-", Path(source.name).stem).strip("-") or "video"
        self._out = out
        self._pictures = pictures
        self._fps = source.fps or _DEFAULT_FPS
        self._alpha = alpha
        self._count = 0
        self._size: tuple[int, ...] | None = None
        self._clips = 0
        self._stack = ExitStack()

    def __enter__(self) -> _Clips:
        make_folder(self._out)
        self._begin()  # before the work: where nothing can be written, it would be for nothing
        return self

    def __exit__(self, *exception: object) -> None:
        self._stack.__exit__(*exception)  # type: ignore[arg-type]

    def write(self, name: str, result: Result) -> None:
        if self._size not in (None, result.labels.shape):  # a live source came back as another
            self._stack.close()
            self._begin()
        self._size = result.labels.shape
        for picture, path in self._paths.items():
            pixels = render(result, picture, self._alpha)
            if picture == "labels":
                make_folder(path)
                write_image(path / f"{self._count:06d}.png", pixels)
            else:
                self._writers[picture].write(pixels)
            if path not in self.written:
                self.written.append(path)
        self._count += 1

    def _begin(self) -> None:
        """Open one clip for each picture."""
        self._clips += 1
        number = "" if self._clips == 1 else f"-{self._clips}"
        self._paths = {
            picture: self._out
            / (
                f"{self._stem}_labels"
                if picture == "labels"
                else f"{self._stem}_{picture}{number}.mp4"
            )
            for picture in self._pictures
        }
        self._stack = ExitStack()
        self._writers = {
            picture: self._stack.enter_context(write_video(path, self._fps))
            for picture, path in self._paths.items()
            if picture != "labels"
        }
