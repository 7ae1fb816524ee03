"""Means and paired differences with intervals. NaN stands for what was not measured, and is left
out; what too few runs cannot give is None."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats  # type: ignore[import-untyped]

_EXACT_UP_TO = 16  # 65,536 sign patterns


@dataclass(frozen=True)
class Spread:
    """Mean and sample standard deviation of n values."""

    n: int
    mean: float | None
    sd: float | None

    @staticmethod
    def of(values: Sequence[float]) -> Spread:
        """Of those that are no NaN."""
        known = np.array([value for value in values if not math.isnan(value)], float)
        return Spread(
            len(known),
            float(known.mean()) if len(known) else None,
            float(known.std(ddof=1)) if len(known) > 1 else None,
        )


@dataclass(frozen=True)
class PairedDifference:
    """Treatment minus control over the seeds that both have.

    Attributes:
        n: Number of pairs.
        mean: Of the differences.
        sd: Sample standard deviation of the differences.
        low: Lower end of the 95 % interval of the mean, from Student's t with n − 1 degrees.
        high: Upper end.
        p: Exact two-sided sign-flip permutation test: among all 2ⁿ ways to swap treatment and
            control within the pairs, the share with a mean at least as far from zero. Not below
            2/2ⁿ, so that five pairs cannot get under 0.06; None above 16 pairs.
        differences: By seed.
    """

    n: int
    mean: float | None
    sd: float | None
    low: float | None
    high: float | None
    p: float | None
    differences: Mapping[int, float]

    @staticmethod
    def of(treatment: Mapping[int, float], control: Mapping[int, float]) -> PairedDifference:
        """Of values by seed."""
        differences = {
            seed: treatment[seed] - control[seed]
            for seed in sorted(treatment.keys() & control.keys())
            if not math.isnan(treatment[seed] - control[seed])
        }
        values = np.array(list(differences.values()), float)
        spread = Spread.of(values.tolist())
        low = high = None
        if spread.mean is not None and spread.sd is not None:
            margin = float(stats.t.ppf(0.975, spread.n - 1)) * spread.sd / math.sqrt(spread.n)
            low, high = spread.mean - margin, spread.mean + margin
        return PairedDifference(
            spread.n, spread.mean, spread.sd, low, high, _sign_flip_p(values), differences
        )


def _sign_flip_p(values: np.ndarray) -> float | None:
    if not 1 < len(values) <= _EXACT_UP_TO:
        return None
    signs = np.array(list(itertools.product((1, -1), repeat=len(values))))
    sums = np.abs(signs @ values)
    observed = abs(values.sum())
    return float(np.mean(sums >= observed - 1e-12 * np.abs(values).sum()))
