"""Fixtures that several test modules share, and the one place where tests are skipped."""

from __future__ import annotations

import os

import pytest

from edgeseg import _core


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "gpu: needs a CUDA device and a build with CUDA")


def _gpu_missing() -> str | None:
    if not hasattr(_core, "cuda"):
        return "edgeseg was built without CUDA"
    if _core.cuda.device_count() == 0:
        return "no CUDA device"
    return None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip GPU tests without a GPU; EDGESEG_REQUIRE_GPU=1 lets them fail instead."""
    reason = _gpu_missing()
    if reason is None or os.environ.get("EDGESEG_REQUIRE_GPU") == "1":
        return
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.skip(reason=reason))
