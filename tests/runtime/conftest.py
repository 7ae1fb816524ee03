"""GPUs to run on: a fake one everywhere, a real one where there is one."""

from __future__ import annotations

import importlib
import sys
import types
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.runtime.fake_cuda import FakeCuda, FakeKernels
from tests.runtime.fake_tensorrt import fake_tensorrt, plan

from edgeseg import _core, trust
from edgeseg.engine_file import Target, add_target, open_engine
from edgeseg.machine import this_platform

VERSION = "10.15.1.29"


@dataclass
class FakeGpu:
    """A fake CUDA runtime, with a fake TensorRT on it."""

    cuda: FakeCuda
    tensorrt: Any
    write: Callable[..., Path]
    model: bytes

    def engine(self, path: Path, *, trusted: bool = True, **changes: Any) -> Path:
        """A tiny engine with a plan; `changes` replace fields of the manifest."""
        return self.add_plan(self.write(path, **changes), trusted=trusted)

    def add_plan(
        self,
        path: Path,
        kind: str = "tensorrt",
        *,
        trusted: bool = True,
        content: bytes | None = None,
        precision: str = "float32",
        weights: str = "float32",
        quantization: Any = None,
        **requires: str,
    ) -> Path:
        """Add a plan; `requires` replace what it is for."""
        needed = {
            "library": kind,
            "version": VERSION,
            "compute_capability": "8.7",
            "platform": this_platform(),
            "classes": "3",
        } | requires
        capability = needed["compute_capability"].replace(".", "").replace(" ", "-")
        name = f"{kind}/sm{capability}-{weights}-{precision}.plan"
        content = plan(self.model) if content is None else content
        target = Target(
            kind=kind,  # type: ignore[arg-type]
            parts=(name,),
            weights=weights,  # type: ignore[arg-type]
            precision=precision,
            requires=needed,
            quantization=quantization,
        )
        add_target(path, target, {name: content})
        if trusted:
            with open_engine(path) as engine:
                trust.remember(engine.manifest.parts[name].sha256)
        return path


@pytest.fixture
def fake_cuda(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> FakeCuda:
    """A fake CUDA runtime in the real one's place; kernels come by `fake_gpu`."""
    fake = FakeCuda()
    bindings: Any = types.ModuleType("cuda.bindings")
    bindings.runtime = fake
    for name, module in (("cuda.bindings", bindings), ("cuda.bindings.runtime", fake)):
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(importlib.import_module("edgeseg.runtime.cuda"), "_api", fake)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return fake


@pytest.fixture
def fake_gpu(
    fake_cuda: FakeCuda,
    cuda_emulation: types.ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    write_tiny_engine: Callable[..., Path],
    tiny_onnx: bytes,
) -> FakeGpu:
    """A fake GPU of compute capability 8.7 with TensorRT; its kernels are the real sources."""
    monkeypatch.setattr(_core, "cuda", FakeKernels(fake_cuda, cuda_emulation), raising=False)
    tensorrt = fake_tensorrt("tensorrt", VERSION, fake_cuda)
    monkeypatch.setitem(sys.modules, "tensorrt", tensorrt)
    monkeypatch.setitem(
        sys.modules, "tensorrt_rtx", fake_tensorrt("tensorrt_rtx", VERSION, fake_cuda)
    )
    return FakeGpu(fake_cuda, tensorrt, write_tiny_engine, tiny_onnx)
