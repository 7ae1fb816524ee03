"""What this machine has, and which targets that are code fit it."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import pytest

from edgeseg.engine_file import Target
from edgeseg.machine import Gpu, gpus, mismatch, outdated_driver, this_platform

ORIN = Gpu(0, "Orin", "8.7", 8 << 30, "12.6")


class FakeRuntime:
    """As much of `cuda.bindings.runtime` as is asked for, on a machine with two GPUs."""

    def __init__(self, error: int = 0, bindings: int = 12090) -> None:
        self._error = error
        self.bindings = bindings

    def cudaGetDeviceCount(self) -> tuple[int, int | None]:  # noqa: N802
        return (self._error, None) if self._error else (0, 2)

    def cudaDriverGetVersion(self) -> tuple[int, int]:  # noqa: N802
        return 0, 12060

    def cudaRuntimeGetVersion(self) -> tuple[int, int]:  # noqa: N802
        return 0, self.bindings

    def cudaGetDeviceProperties(self, index: int) -> tuple[int, Any]:  # noqa: N802
        name = (b"NVIDIA RTX 4000\0\0", b"Orin")[index]
        major, minor = ((8, 9), (8, 7))[index]
        return 0, SimpleNamespace(name=name, major=major, minor=minor, totalGlobalMem=8 << 30)


def plan(**changes: str | None) -> Target:
    """A plan for Orin, with some requirements changed or (None) left out."""
    requires = {
        "library": "tensorrt",
        "version": "10.15.1.29",
        "compute_capability": "8.7",
        "platform": this_platform(),
        "classes": "11",
    } | changes
    return Target(
        kind="tensorrt",
        parts=("tensorrt/sm87-float16.plan",),
        weights="float16",
        precision="float16",
        requires={key: value for key, value in requires.items() if value is not None},
    )


def test_gpus_are_those_of_the_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", FakeRuntime())  # type: ignore[arg-type]
    first, second = gpus()
    assert first == Gpu(0, "NVIDIA RTX 4000", "8.9", 8 << 30, "12.6")
    assert second == Gpu(1, "Orin", "8.7", 8 << 30, "12.6")


@pytest.mark.parametrize("runtime", [FakeRuntime(35), FakeRuntime(100), SimpleNamespace(), None])
def test_no_driver_no_device_no_package_is_no_gpu(
    monkeypatch: pytest.MonkeyPatch, runtime: Any
) -> None:
    # None in sys.modules is how Python spells "cannot be imported".
    monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", runtime)
    assert gpus() == ()


def test_a_driver_too_old_for_cuda_bindings_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", FakeRuntime(35, 13050))  # type: ignore[arg-type]
    assert outdated_driver() == (
        "the NVIDIA driver runs CUDA up to 12.6, the installed cuda-bindings is for CUDA 13; "
        "update the driver, or pip install 'cuda-bindings==12.*' tensorrt-cu12"
    )


@pytest.mark.parametrize("runtime", [FakeRuntime(), SimpleNamespace(), None])
def test_a_driver_is_no_older_than_it_has_to_be(
    monkeypatch: pytest.MonkeyPatch, runtime: Any
) -> None:
    monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", runtime)
    assert outdated_driver() is None


def test_a_plan_for_this_machine_fits() -> None:
    assert mismatch(plan(), ORIN, 11, "10.15.1.29") is None
    assert mismatch(plan(compute_capability="8.6 8.7 8.9"), ORIN, 11, "10.15.1.29") is None


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"compute_capability": "9.0"}, "compute capability 9.0, here it is 8.7 (Orin)"),
        ({"compute_capability": "8.6 12.0"}, "compute capability 8.6 or 12.0, here it is 8.7"),
        ({"version": "10.3.0"}, "library version 10.3.0, here it is 10.15.1.29"),
        ({"platform": "qnx riscv"}, f"platform qnx riscv, here it is {this_platform()}"),
        ({"classes": "19"}, "number of classes 19, here it is 11"),
        ({"library": "other"}, "library other, here it is tensorrt"),
        ({"compute_capability": None}, "does not say which compute capability"),
        ({"version": None}, "does not say which library version"),
        ({"platform": None}, "does not say which platform"),
        ({"classes": None}, "does not say which number of classes"),
    ],
)
def test_what_does_not_fit_is_told_with_the_command_that_mends_it(
    changes: dict[str, str | None], told: str
) -> None:
    sentence = mismatch(plan(**changes), ORIN, 11, "10.15.1.29")
    assert sentence is not None
    assert told in sentence
    assert "edgeseg build FILE --target tensorrt" in sentence


def test_no_substring_of_a_capability_fits() -> None:
    assert mismatch(plan(compute_capability="18.7 8.70"), ORIN, 11, "10.15.1.29") is not None


def test_a_plan_does_not_run_on_a_cpu_but_a_library_for_cpus_does() -> None:
    sentence = mismatch(plan(), None, 11, "10.15.1.29")
    assert sentence is not None
    assert "runs on a GPU" in sentence
    requires = {"library": "aoti", "version": "2.14.1", "device": "cpu", "classes": "11"}
    package = Target(
        kind="aoti",
        parts=("aoti/cpu-float32.pt2",),
        weights="float32",
        requires=requires | {"platform": this_platform()},
    )
    assert mismatch(package, None, 11, "2.14.1") is None
    sentence = mismatch(package, None, 11, "2.13.0")
    assert sentence is not None
    assert "edgeseg export CHECKPOINT FILE --target aoti" in sentence
