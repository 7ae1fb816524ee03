"""A video through `stream()`, and through the loop that one would write without it."""

from __future__ import annotations

from itertools import cycle, islice
from pathlib import Path

import cv2
import numpy as np
from benchmarks.suite.peers import Frame, Precision
from benchmarks.suite.results import Ratio, StreamRow
from benchmarks.timing import interleaved

import edgeseg
from edgeseg.errors import EdgesegError
from edgeseg.synthetic import street
from edgeseg.video import write_video


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
