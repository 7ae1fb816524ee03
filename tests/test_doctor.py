"""What `edgeseg doctor` says of GPUs and of the libraries that build plans for them."""

from __future__ import annotations

import pytest

from edgeseg import doctor
from edgeseg.errors import EngineError, MissingDependencyError
from edgeseg.machine import Gpu
from edgeseg.tensorrt_library import Library, PlanKind


def test_gpus_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    gpus = (Gpu(0, "RTX 4000", "8.9", 20_000_000_000, "12.6"), Gpu(1, "Orin", "8.7", 8, "12.6"))
    monkeypatch.setattr(doctor, "gpus", lambda: gpus)
    first, second = doctor._gpus()
    assert (first.subject, first.state) == ("gpu 0", "ok")
    assert first.detail == (
        "RTX 4000, compute capability 8.9, 20.0 GB, its driver runs CUDA up to 12.6"
    )
    assert second.subject == "gpu 1"


@pytest.mark.parametrize(
    ("driver", "bindings", "state", "told"),
    [
        (False, True, "absent", "no NVIDIA driver"),
        (True, False, "absent", "no cuda-bindings"),
        (True, True, "broken", "nvidia-smi"),
    ],
)
def test_no_gpu_has_a_reason(
    monkeypatch: pytest.MonkeyPatch, driver: bool, bindings: bool, state: str, told: str
) -> None:
    monkeypatch.setattr(doctor, "gpus", lambda: ())
    monkeypatch.setattr(doctor, "driver_installed", lambda: driver)
    monkeypatch.setattr(doctor, "find_spec", lambda _: object() if bindings else None)
    (finding,) = doctor._gpus()
    assert finding.state == state
    assert told in finding.detail


def test_a_library_for_plans_is_there_missing_or_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    def found(kind: PlanKind) -> Library:
        return Library(kind, None, "10.15.1.29")

    def missing(kind: PlanKind) -> Library:
        raise MissingDependencyError(kind)

    def broken(kind: PlanKind) -> Library:
        raise EngineError("cannot be loaded")

    states = {}
    for load in (found, missing, broken):
        monkeypatch.setattr(doctor, "load_library", load)
        finding = doctor._plan_library("tensorrt", "what to do")
        states[finding.state] = finding.detail
    assert states == {"ok": "10.15.1.29", "absent": "what to do", "broken": "cannot be loaded"}
