"""Interleaved timing: contenders take turns, so that a noisy machine disturbs all of them alike."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from time import perf_counter, sleep

import numpy as np


@dataclass(frozen=True)
class Times:
    """Wall-clock times of one contender, in milliseconds, in the order of the rounds."""

    ms: tuple[float, ...]

    def percentile(self, q: float) -> float:
        return float(np.percentile(self.ms, q))

    @property
    def p50(self) -> float:
        return self.percentile(50)


def interleaved(
    contenders: Mapping[str, Callable[[], object]],
    rounds: int,
    warm_up: int = 3,
    *,
    lead: int = 0,
    pause: float = 0.0,
) -> dict[str, Times]:
    """Time every contender once per round, after `warm_up` rounds that do not count.

    Args:
        contenders: what to call, by name.
        rounds: calls of each that count.
        warm_up: rounds before them.
        lead: calls of a contender right before its timed one, so that it finds the caches as its
            own previous call left them, as it would in a loop over frames.
        pause: seconds before a turn, in which the threads of the contender before go to sleep.
    """
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for number in range(warm_up + rounds):
        for name, action in contenders.items():
            sleep(pause)
            for _ in range(lead):
                action()
            started = perf_counter()
            action()
            elapsed = 1e3 * (perf_counter() - started)
            if number >= warm_up:
                times[name].append(elapsed)
    return {name: Times(tuple(values)) for name, values in times.items()}


def ratio_interval(
    slow: Times, fast: Times, resamples: int = 2000, seed: int = 0
) -> tuple[float, float, float]:
    """Ratio of the medians slow/fast with its 95 % interval, by bootstrap over paired rounds."""
    pairs = np.array([slow.ms, fast.ms])
    chosen = np.random.default_rng(seed).integers(0, pairs.shape[1], (resamples, pairs.shape[1]))
    medians = np.median(pairs[:, chosen], axis=2)
    low, high = np.percentile(medians[0] / medians[1], [2.5, 97.5])
    return slow.p50 / fast.p50, float(low), float(high)
