"""Interleaved timing: contenders take turns, so that a noisy machine disturbs all of them alike."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from time import perf_counter, sleep

import numpy as np
from numpy.typing import NDArray


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

    Every other round goes backwards, so that a machine that slows down, or a neighbour in the
    order, favours nobody.

    Args:
        contenders: what to call, by name.
        rounds: calls of each that count.
        warm_up: rounds before them.
        lead: calls of a contender right before its timed one, so that it finds the caches as its
            own previous call left them, as it would in a loop over frames.
        pause: seconds before a turn, in which the threads of the contender before go to sleep.
    """
    times: dict[str, list[float]] = {name: [] for name in contenders}
    order = list(contenders.items())
    for number in range(-warm_up, rounds):
        for name, action in order if number % 2 == 0 else reversed(order):
            sleep(pause)
            for _ in range(lead):
                action()
            started = perf_counter()
            action()
            elapsed = 1e3 * (perf_counter() - started)
            if number >= 0:
                times[name].append(elapsed)
    return {name: Times(tuple(values)) for name, values in times.items()}


def ratio_interval(
    slow: Times, fast: Times, resamples: int = 2000, seed: int = 0
) -> tuple[float, float, float]:
    """Ratio of the medians slow/fast with its 95 % interval, by bootstrap over paired rounds."""
    pairs = np.array([slow.ms, fast.ms])
    medians = np.median(_resampled(pairs, resamples, seed), axis=2)
    low, high = np.percentile(medians[0] / medians[1], [2.5, 97.5])
    return slow.p50 / fast.p50, float(low), float(high)


def paired_ratio_interval(
    slow: Times, fast: Times, resamples: int = 2000, seed: int = 0
) -> tuple[float, float, float]:
    """Median of slow/fast over pairs of rounds with its 95 % interval, by bootstrap over the pairs.

    A pair is two rounds on end, one in each order, so that the order cancels; what disturbs a pair
    disturbs both contenders. Finer than a ratio of medians where the two differ by a percent.
    """
    pairs = len(slow.ms) // 2
    sums = np.array([slow.ms, fast.ms])[:, : 2 * pairs].reshape(2, pairs, 2).sum(axis=2)
    ratios = (sums[0] / sums[1])[None]
    medians = np.median(_resampled(ratios, resamples, seed), axis=2)[0]
    low, high = np.percentile(medians, [2.5, 97.5])
    return float(np.median(ratios)), float(low), float(high)


def _resampled(rows: NDArray[np.float64], resamples: int, seed: int) -> NDArray[np.float64]:
    """Rows × resamples × columns, with the same columns chosen in every row."""
    columns = rows.shape[1]
    chosen = np.random.default_rng(seed).integers(0, columns, (resamples, columns))
    return rows[:, chosen]
