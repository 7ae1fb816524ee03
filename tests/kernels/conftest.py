from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.kernels.levels import at_level

from edgeseg import _core


@pytest.fixture(params=_core.dispatch_levels())
def level(request: pytest.FixtureRequest) -> Iterator[str]:
    """Runs the test once with every instruction-set level of this machine."""
    with at_level(request.param):
        yield request.param
