"""Checks of what callers pass in."""

from __future__ import annotations

import math
import operator

from edgeseg.errors import InputError

LARGEST_SIDE = 8192
"""Pixels; a larger image is taken for a mistake."""


def check_integer(name: str, value: int) -> int:
    """An integer (numpy's too), or InputError."""
    try:
        return operator.index(value)
    except TypeError:
        raise InputError(
            f"{name} is {value!r} ({type(value).__name__}); expected an integer"
        ) from None


def check_size(height: int, width: int) -> tuple[int, int]:
    """Image height and width within 1..LARGEST_SIDE, or InputError."""
    height, width = check_integer("height", height), check_integer("width", width)
    for name, side in (("height", height), ("width", width)):
        if not 1 <= side <= LARGEST_SIDE:
            raise InputError(f"{name} is {side} pixels; expected 1 to {LARGEST_SIDE}")
    return height, width


def check_time(time: float) -> float:
    """A finite time in seconds, or InputError."""
    if isinstance(time, (int, float)) and math.isfinite(time):
        return float(time)
    raise InputError(f"time is {time!r}; expected a finite number of seconds")
