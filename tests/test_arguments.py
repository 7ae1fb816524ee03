"""Values of the wrong kind or range are named, with what was expected."""

from __future__ import annotations

import numpy as np
import pytest

from edgeseg.arguments import check_choice, check_integer, check_number, check_threads
from edgeseg.errors import ConfigError, InputError


def test_numbers_of_numpy_are_numbers() -> None:
    assert check_integer("n", np.int16(3), 1) == 3
    assert check_number("x", np.float32(0.5), 0, 1) == 0.5
    assert check_number("x", 1, 0, 1) == 1.0


@pytest.mark.parametrize("value", [0, 2.0, "2", None, float("nan")])
def test_integers(value: object) -> None:
    with pytest.raises(InputError, match=r"n is .*a whole number of at least 1"):
        check_integer("n", value, 1)


@pytest.mark.parametrize("value", [-1, 2, float("nan"), float("inf"), "1", None, 1j])
def test_numbers(value: object) -> None:
    with pytest.raises(ConfigError, match=r"x is .*a finite number from 0 to 1"):
        check_number("x", value, 0, 1, error=ConfigError)


def test_choices() -> None:
    check_choice("mode", "fast", ("fast", "slow"))
    with pytest.raises(InputError, match=r"mode 'quick' is unknown; use 'fast' or 'slow'"):
        check_choice("mode", "quick", ("fast", "slow"))


@pytest.mark.parametrize("value", [0, 10**6, 1.5])
def test_threads(value: object) -> None:
    with pytest.raises(InputError, match=r"threads is .*from 1 to 1024"):
        check_threads(value)
