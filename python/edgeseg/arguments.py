"""Checks of what callers pass in: the value, or an error that says what was expected."""

from __future__ import annotations

import math
from collections.abc import Collection
from numbers import Integral, Real
from typing import TypeVar

from edgeseg.errors import ConfigError, InputError

T = TypeVar("T")
Refusal = type[InputError] | type[ConfigError]

MAX_THREADS = 1024
"""More are a mistake, and the system runs out of them at some tens of thousands."""


def check_integer(
    name: str,
    value: object,
    low: float = -math.inf,
    high: float = math.inf,
    *,
    error: Refusal = InputError,
) -> int:
    """A whole number in low..high, NumPy's too."""
    if isinstance(value, Integral) and low <= int(value) <= high:
        return int(value)
    raise error(f"{name} is {value!r}; a whole number{_range(low, high)} was expected")


def check_number(
    name: str,
    value: object,
    low: float = -math.inf,
    high: float = math.inf,
    *,
    error: Refusal = InputError,
) -> float:
    """A finite number in low..high, NumPy's too."""
    if isinstance(value, Real) and math.isfinite(value) and low <= float(value) <= high:
        return float(value)
    raise error(f"{name} is {value!r}; a finite number{_range(low, high)} was expected")


def check_choice(
    name: str, value: T, choices: Collection[T], *, error: Refusal = InputError
) -> None:
    """One of a few words."""
    if value not in choices:
        words = [repr(choice) for choice in choices]
        raise error(f"{name} {value!r} is unknown; use {', '.join(words[:-1])} or {words[-1]}")


def check_threads(value: object) -> int:
    """A number of CPU threads that a machine can have."""
    return check_integer("threads", value, 1, MAX_THREADS)


def _range(low: float, high: float) -> str:
    if math.isinf(high):
        return "" if math.isinf(low) else f" of at least {low}"
    return f" from {low} to {high}"
