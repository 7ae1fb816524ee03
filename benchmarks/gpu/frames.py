"""The Runtime over many frames: flat memory, several at once, and `stream` against a loop."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from benchmarks.gpu.results import Check, Ratio, one_line
from benchmarks.timing import interleaved

from edgeseg.synthetic import street

GROWTH = 16 << 20  # bytes that may come over all frames: allocators round
MemoryInUse = Callable[[], dict[str, int]]
OpenRuntime = Callable[[], Any]


def memory_in_use() -> dict[str, int]:
    """Bytes that this process has on the host, and that anybody has on the device."""
    import torch

    resident = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    free, total = torch.cuda.mem_get_info()
    return {"host": resident, "device": total - free}


def measure_runtime(
    open_runtime: OpenRuntime,
    *,
    size: tuple[int, int],
    frames: int,
    rounds: int,
    progress: Callable[[str], object],
    memory: MemoryInUse = memory_in_use,
) -> tuple[tuple[Check, ...], tuple[str, ...]]:
    """What holds over many frames of (H, W) pixels; and what could not be tried."""
    checks: list[Check] = []
    missing: list[str] = []
    for name, check in (
        ("memory is flat", lambda: flat_memory(open_runtime(), size, frames, memory)),
        ("several Runtimes, several threads", lambda: side_by_side(open_runtime, size)),
        ("stream against a loop", lambda: stream_against_loop(open_runtime(), size, rounds)),
    ):
        progress(name)
        try:
            checks.append(check())
        except Exception as error:  # whatever a driver or a backend raises
            missing.append(f"{name}: {one_line(error)}")
    return tuple(checks), tuple(missing)


def flat_memory(
    runtime: Any, size: tuple[int, int], frames: int, memory: MemoryInUse = memory_in_use
) -> Check:
    """Memory after a tenth of the frames and after all of them."""
    frame = street(1, *size).frame
    begin = frames // 10
    for _ in range(begin):
        runtime.predict(frame)
    before = memory()
    for _ in range(frames - begin):
        runtime.predict(frame)
    after = memory()
    growth = {place: after[place] - before[place] for place in before}
    detail = ", ".join(f"{place} {bytes_ / 2**20:+.1f} MiB" for place, bytes_ in growth.items())
    return Check(
        f"memory is flat over {frames:,} frames",
        max(growth.values()) <= GROWTH,
        f"from frame {begin:,} on: {detail}; {GROWTH >> 20} MiB are allowed",
    )


def side_by_side(open_runtime: OpenRuntime, size: tuple[int, int], frames: int = 24) -> Check:
    """Two Runtimes, two threads each, give the labels that one gives alone."""
    pictures = [street(seed, *size).frame for seed in range(4)]
    runtimes = [open_runtime(), open_runtime()]
    alone = [runtimes[0].predict(picture).labels for picture in pictures]

    def wrong(number: int) -> int:
        labels = runtimes[number % 2].predict(pictures[number % len(pictures)]).labels
        return int(np.count_nonzero(labels != alone[number % len(pictures)]))

    with ThreadPoolExecutor(4) as threads:
        differing = sum(threads.map(wrong, range(frames)))
    return Check(
        "two Runtimes on four threads label as one does alone",
        differing == 0,
        f"{differing} of {frames * alone[0].size:,} labels differ",
    )


def stream_against_loop(
    runtime: Any, size: tuple[int, int], rounds: int, frames: int = 60
) -> Check:
    """The same JPEG frames, decoded and labelled one by one, and through `stream`."""
    encoded = [cv2.imencode(".jpg", street(seed, *size).frame)[1] for seed in range(4)]
    jpegs = [encoded[number % len(encoded)] for number in range(frames)]

    def loop() -> None:
        for jpeg in jpegs:
            runtime.predict(_decoded(jpeg))

    def stream() -> None:
        for _ in runtime.stream(map(_decoded, jpegs)):
            pass

    times = interleaved({"loop": loop, "stream": stream}, rounds, warm_up=1)
    ratio = Ratio.of("stream over loop", times["stream"], times["loop"])
    rates = {name: 1e3 * frames / of_one.p50 for name, of_one in times.items()}
    return Check(
        "stream() is not slower than a loop of decoding and predict()",
        ratio.low <= 1,
        f"{rates['stream']:.0f} frames/s against {rates['loop']:.0f}; time {ratio.value:.2f} "
        f"of the loop's ({ratio.low:.2f} to {ratio.high:.2f})",
    )


def _decoded(jpeg: np.ndarray) -> np.ndarray:
    return cv2.imdecode(jpeg, cv2.IMREAD_COLOR)


def first_file(makers: Sequence[Callable[[], Path]]) -> tuple[Path | None, tuple[str, ...]]:
    """The first engine file that can be made, and why those before it could not."""
    reasons: list[str] = []
    for make in makers:
        try:
            return make(), tuple(reasons)
        except Exception as error:
            reasons.append(one_line(error))
    return None, tuple(reasons)
