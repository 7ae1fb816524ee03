"""Segment a source and write what comes out: the work behind `edgeseg predict` and `demo`."""

from __future__ import annotations

import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeseg.arguments import check_integer, check_number
from edgeseg.errors import InputError
from edgeseg.outputs import OVERLAYS, Clips, ImageFiles, Outputs
from edgeseg.runtime import Result, Runtime, Timings, smooth
from edgeseg.runtime.result import check_classes
from edgeseg.video import RECONNECT, TIMEOUT, ImageSource, LiveSource, open_source, prefetch

OnFrame = Callable[[int, int | None], None]
"""Called after every frame with the number done and the number expected, if known."""

_READ_AHEAD = 2
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
        return self.frames

    @property
    def frames(self) -> int:
        """How many results were added."""
        return len(self._timings)

    def report(self, written: list[Path]) -> Report:
        """Summarise what was added.

        Raises:
            InputError: nothing was.
        """
        frames = self.frames
        if frames == 0:
            raise InputError(_NO_FRAME)
        times = [timings.stages() for timings in self._timings]
        stages = {}
        for stage in times[0]:
            of_stage = [frame[stage] for frame in times]
            stages[stage] = StageTimes(*(float(p) for p in np.percentile(of_stage, [50, 99])))
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
    outputs: Outputs = OVERLAYS,
    *,
    only: Sequence[str] = (),
    min_confidence: float | None = None,
    smoothing: int = 1,
    limit: int | None = None,
    latest: bool = False,
    reconnect: float = RECONNECT,
    timeout: float = TIMEOUT,
    on_frame: OnFrame = lambda done, total: None,
) -> Report:
    """Segment images, a video or a camera and write pictures into a folder.

    Pictures become `NAME_overlay.png` and so on, with `NAME.geojson` beside them. Of a video,
    pictures become clips, `NAME_overlay.mp4`, labels a folder of PNGs and GeoJSON one of files;
    where the frames' size changes, another clip begins (`NAME_overlay-2.mp4`). COCO is one file for
    the whole source, `NAME_coco.json`; it calls a video's frames `NAME/000000.png` and so on.

    A camera or stream ends well by Ctrl-C or SIGTERM: what was recorded is finished and reported.
    The second one interrupts.

    Args:
        runtime: the engine.
        source: see `edgeseg.video.open_source`.
        out: the folder; made if it is not there.
        outputs: what to write of every frame.
        only: write these classes alone, see `Result.only`; none is all.
        min_confidence: write only what is as sure as that, see `Result.confident`.
        smoothing: frames that a label must stay to be taken though it is not sure, see
            `edgeseg.smooth`; 1 does nothing.
        limit: stop after so many frames.
        latest: pass over frames of a camera or stream that came while earlier ones were in work; a
            clip holds the others alone, and plays faster than it happened.
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
    if min_confidence is not None:
        check_number("min_confidence", min_confidence, 0, 1)
    check_classes(only, runtime.classes)
    confidence = outputs.parts or min_confidence is not None or smoothing > 1
    with open_source(source, reconnect=reconnect, timeout=timeout) as opened:
        length = opened.length if limit is None else min(limit, opened.length or limit)
        names: deque[str] = deque()
        tally = Tally(runtime)
        failure: InputError | None = None
        with ExitStack() as stack:
            sink: ImageFiles | Clips
            if isinstance(opened, ImageSource):
                sink = ImageFiles(opened, out, outputs, runtime.classes)
            else:
                sink = Clips(opened, out, outputs, runtime.classes)
            stack.enter_context(sink)
            depth = 1 if latest else _READ_AHEAD
            decoded = stack.enter_context(prefetch(opened, depth, newest=latest, stop=opened.stop))
            if isinstance(opened, LiveSource):
                stack.enter_context(_ending_by_signals(opened))

            def frames() -> Iterator[NDArray[np.uint8]]:
                for item in islice(decoded, limit):
                    names.append(item.name)
                    yield item.pixels

            try:
                results = runtime.stream(frames(), confidence=confidence)
                for result in results if smoothing == 1 else smooth(results, smoothing):
                    wanted = result.only(*only) if only else result
                    if min_confidence is not None:
                        wanted = wanted.confident(min_confidence)
                    sink.write(names.popleft(), wanted)
                    on_frame(tally.add(result), length)
            except InputError as error:
                if not tally.frames:
                    raise
                failure = error  # keep what was made of the frames before it
            if not tally.frames:
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
