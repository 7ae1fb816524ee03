"""One Runtime in many threads: the labels of a serial run; and Python goes on meanwhile."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tests.stress.engines import frames

from edgeseg.runtime import Runtime

SIZES = ((120, 160), (64, 96), (97, 131), (240, 320))
_TICK = 1e-3  # seconds that the other thread sleeps


@dataclass(frozen=True)
class Agreement:
    """Calls from many threads, and how many gave other labels than a serial run."""

    threads: int
    calls: int
    different: int
    seconds: float

    def __str__(self) -> str:
        return (
            f"{self.threads} threads × {self.calls // self.threads} calls on one Runtime: "
            f"{self.different} of {self.calls} differ from serial, {self.seconds:.0f} s"
        )


@dataclass(frozen=True)
class Progress:
    """What another Python thread did during predictions.

    Attributes:
        predicts: how many there were.
        woken: in how many of them it woke between the first and the last tenth of their time.
        milliseconds: a prediction takes in the middle.
        longest_gap: milliseconds between two times that it woke.
    """

    predicts: int
    woken: int
    milliseconds: float
    longest_gap: float

    def __str__(self) -> str:
        return (
            f"another thread that sleeps {_TICK * 1e3:.0f} ms woke in {self.woken} of "
            f"{self.predicts} predicts of {self.milliseconds:.1f} ms, "
            f"longest gap {self.longest_gap:.1f} ms"
        )


def agreement(engine: Path, threads: int, calls: int) -> Agreement:
    """`calls` predictions in each of `threads` threads, begun together."""
    runtime = Runtime(engine, device="cpu")
    pictures = frames(8, SIZES)
    serial = [_answer(runtime, picture) for picture in pictures]
    start = threading.Barrier(threads)

    def work(worker: int) -> int:
        start.wait()
        different = 0
        for call in range(calls):
            index = (worker + call) % len(pictures)
            labels, confidence = _answer(runtime, pictures[index])
            same = np.array_equal(labels, serial[index][0])
            different += not (same and np.array_equal(confidence, serial[index][1]))
        return different

    begun = time.monotonic()
    with ThreadPoolExecutor(threads) as pool:
        different = sum(pool.map(work, range(threads)))
    return Agreement(threads, threads * calls, different, time.monotonic() - begun)


def _answer(
    runtime: Runtime, picture: NDArray[np.uint8]
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    result = runtime.predict(picture, confidence=True)
    assert result.confidence is not None
    return result.labels, result.confidence


def progress(engine: Path, predicts: int, size: tuple[int, int] = (4320, 7680)) -> Progress:
    """Predict while another thread sleeps and wakes; a held GIL would not let it wake."""
    runtime = Runtime(engine, device="cpu", threads=1)
    picture = frames(1, (size,))[0]
    runtime.predict(picture)
    ticks: list[float] = []
    stop = threading.Event()

    def tick() -> None:
        while not stop.is_set():
            ticks.append(time.perf_counter())
            time.sleep(_TICK)

    ticker = threading.Thread(target=tick)
    ticker.start()
    times = []
    for _ in range(predicts):
        begun = time.perf_counter()
        runtime.predict(picture)
        times.append((begun, time.perf_counter()))
    stop.set()
    ticker.join()
    woke = np.array(ticks)
    lengths = np.diff(times, axis=1)[:, 0]
    woken = sum(
        bool(np.any((woke > begun + length / 10) & (woke < begun + length * 9 / 10)))
        for (begun, _), length in zip(times, lengths, strict=True)
    )
    during = woke[(woke > times[0][0]) & (woke < times[-1][1])]
    gaps = np.diff([times[0][0], *during, times[-1][1]])
    return Progress(predicts, woken, 1e3 * float(np.median(lengths)), 1e3 * float(gaps.max()))
