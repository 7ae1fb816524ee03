"""Does resident memory stay flat over thousands of predictions and of loads?"""

from __future__ import annotations

import gc
import resource
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.stress.engines import frames

from edgeseg.runtime import Runtime

SIZES = ((480, 640), (720, 1280), (101, 333), (64, 96))
_SAMPLES = 10  # at the beginning and at the end, whose medians are compared


@dataclass(frozen=True)
class Growth:
    """Resident memory after the warm-up and at the end, in bytes."""

    what: str
    rounds: int
    warm: int
    end: int
    seconds: float

    @property
    def relative(self) -> float:
        return self.end / self.warm - 1

    def __str__(self) -> str:
        return (
            f"{self.rounds} {self.what}: {self.warm / 1e6:.1f} MB after warm-up, "
            f"{self.end / 1e6:.1f} MB at the end, {self.relative:+.2%}, {self.seconds:.0f} s"
        )


def predicts(engine: Path, rounds: int, threads: int | None = None) -> Growth:
    """One Runtime, many frames of several sizes."""
    runtime = Runtime(engine, device="cpu", threads=threads)
    pictures = frames(8, SIZES)

    def one(index: int) -> None:
        result = runtime.predict(pictures[index % len(pictures)], confidence=index % 5 == 0)
        if index % 7 == 0:
            result.overlay()
            result.areas()

    return _grow("predicts", one, rounds)


def loads(engine: Path, rounds: int, threads: int | None = None) -> Growth:
    """Load an engine, label a frame, let go of it."""
    picture = frames(1, SIZES)[0]

    def one(index: int) -> None:
        Runtime(engine, device="cpu", threads=threads).predict(picture)

    return _grow("load/unload cycles", one, rounds)


def _grow(what: str, one: Callable[[int], None], rounds: int) -> Growth:
    """Warm up with a fifth of the rounds, then go through all of them."""
    started = time.monotonic()
    for index in range(max(rounds // 5, 10)):
        one(index)
    gc.collect()
    gc.freeze()  # what a test process holds already would take half a second in each collection
    samples = []
    every = max(rounds // (6 * _SAMPLES), 1)
    for index in range(rounds):
        one(index)
        if index % every == 0:
            gc.collect()
            samples.append(resident())
    return Growth(
        what=what,
        rounds=rounds,
        warm=int(statistics.median(samples[:_SAMPLES])),
        end=int(statistics.median(samples[-_SAMPLES:])),
        seconds=time.monotonic() - started,
    )


def resident() -> int:
    """Bytes of this process in memory."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()
