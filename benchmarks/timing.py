"""Interleaved timing: contenders take turns, so that a noisy machine disturbs all of them alike."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from time import perf_counter

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
    contenders: Mapping[str, Callable[[], object]], rounds: int, warm_up: int = 3
) -> dict[str, Times]:
    """Time every contender once per round, after `warm_up` rounds that do not count."""
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for number in range(warm_up + rounds):
        for name, action in contenders.items():
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
