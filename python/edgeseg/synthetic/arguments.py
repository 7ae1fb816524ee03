"""Checks of what callers pass in."""

from __future__ import annotations

import math
import operator
from contextlib import suppress

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


def check_finite(name: str, value: float) -> float:
    """A finite number, or InputError."""
    with suppress(TypeError):  # not a number at all
        if math.isfinite(value):
            return float(value)
    raise InputError(f"{name} is {value!r}; expected a finite number")
