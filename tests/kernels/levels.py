"""Running the kernels at a chosen instruction-set level."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from edgeseg import _core


@contextmanager
def at_level(name: str) -> Iterator[None]:
    """Within it the kernels run at that level; then at the one before."""
    before = _core.dispatch_level()
    _core.set_dispatch_level(name)
    try:
        yield
    finally:
        _core.set_dispatch_level(before)
