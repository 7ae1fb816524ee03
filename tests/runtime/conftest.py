"""GPUs to run on: a fake one everywhere, a real one where there is one."""

from __future__ import annotations

import importlib.util
import sys
import tempfile
import types
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tests.runtime.fake_cuda import FakeCuda, FakeKernels, HostKernels, view
from tests.runtime.fake_tensorrt import fake_tensorrt, plan

from edgeseg import _core, trust
from edgeseg.engine_file import Target, add_target, open_engine
from edgeseg.machine import this_platform
from edgeseg.runtime.device_arrays import DeviceArray

VERSION = "10.15.1.29"


@dataclass
class FakeGpu:
    """A fake CUDA runtime, with a fake TensorRT on it."""

    cuda: FakeCuda
    libraries: dict[str, Any]
    write: Callable[..., Path]
    model: bytes

    def engine(self, path: Path, *, trusted: bool = True, **changes: Any) -> Path:
        """A tiny engine with a plan; `changes` replace fields of the manifest."""
        return self.add_plan(self.write(path, **changes), trusted=trusted)

    def put(self, array: NDArray[np.uint8], *, dlpack: bool = True) -> Any:
        """The array's values on the device, rows as far apart, once its maker's stream has run."""
        _, stream = self.cuda.cudaStreamCreateWithFlags(1)
        _, event = self.cuda.cudaEventCreateWithFlags(2)
        _, address = self.cuda.cudaMalloc(len(array) * array.strides[0])
        kept = array.copy()
        target = view(address, array.shape, "uint8", array.strides)
        self.cuda.queue(stream, lambda: np.copyto(target, kept))
        self.cuda.cudaEventRecord(event, stream)
        made = DeviceArray(
            address=address,
            shape=array.shape,
            strides=array.strides,
            typestr="|u1",
            device=0,
            owner=None,
            order=lambda taker: self.cuda.cudaStreamWaitEvent(taker, event, 0),
        )
        return made if dlpack else OnlyInterface(made, stream=int(stream))

    def get(self, array: Any) -> NDArray[Any]:
        """Values of a device array, on a stream of their taker."""
        _, stream = self.cuda.cudaStreamCreateWithFlags(1)
        array.__dlpack__(stream=int(stream))
        self.cuda.cudaStreamSynchronize(stream)
        self.cuda.cudaStreamDestroy(stream)
        return view(array.address, array.shape, array.typestr, array.strides).copy()

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
    monkeypatch: pytest.MonkeyPatch,
    write_tiny_engine: Callable[..., Path],
    tiny_onnx: bytes,
) -> FakeGpu:
    """A fake GPU of compute capability 8.7 with TensorRT; its kernels are the CPU's."""
    monkeypatch.setattr(_core, "cuda", FakeKernels(fake_cuda, HostKernels), raising=False)
    libraries = {
        kind: fake_tensorrt(kind.replace("-", "_"), VERSION, fake_cuda)
        for kind in ("tensorrt", "tensorrt-rtx")
    }
    for module in libraries.values():
        monkeypatch.setitem(sys.modules, module.__name__, module)
    return FakeGpu(fake_cuda, libraries, write_tiny_engine, tiny_onnx)


class RealGpu:
    """The first GPU, with TensorRT if it is installed, else with AOTInductor."""

    def __init__(self, write: Callable[..., Path]) -> None:
        self._write = write

    def engine(self, path: Path, **changes: Any) -> Path:
        """A tiny engine with a target for this GPU, in float32."""
        self._write(path, **changes)
        if importlib.util.find_spec("tensorrt") is not None:
            from edgeseg.export.tensorrt import build_engine

            build_engine(path, "tensorrt", precision="float32")
        else:
            content, requires = compiled_pool("cuda")
            target = Target(
                kind="aoti",
                parts=("aoti/cuda.pt2",),
                weights="float32",
                precision="float32",
                requires=requires,
            )
            add_target(path, target, {target.parts[0]: content})
            with open_engine(path) as engine:
                trust.remember(engine.manifest.parts[target.parts[0]].sha256)
        return path

    def put(self, array: NDArray[np.uint8], *, dlpack: bool = True) -> Any:
        """The array's values on the device, rows as far apart as the array has them."""
        import torch

        row, *_ = array.strides
        rows = torch.zeros(len(array), row, dtype=torch.uint8, device="cuda")
        flat = np.ascontiguousarray(array).reshape(len(array), -1)
        rows[:, : flat.shape[1]] = torch.from_numpy(flat)
        tensor = rows[:, : flat.shape[1]].unflatten(1, array.shape[1:])
        return tensor if dlpack else OnlyInterface(tensor)

    def get(self, array: Any) -> NDArray[Any]:
        """Values of a device array."""
        import torch

        return np.asarray(torch.from_dlpack(array).cpu())


class OnlyInterface:
    """An array that offers nothing but `__cuda_array_interface__`."""

    def __init__(self, array: Any, **changes: Any) -> None:
        self._array = array
        self.__cuda_array_interface__ = array.__cuda_array_interface__ | changes


def compiled_pool(device: str) -> tuple[bytes, dict[str, str]]:
    """The tiny engine's network as an AOTInductor package, and what it requires."""
    import torch
    from torch._inductor import aoti_compile_and_package

    from edgeseg.export.aoti import requirements

    program = torch.export.export(
        torch.nn.AvgPool2d(8).to(device), (torch.zeros(1, 3, 64, 96, device=device),)
    )
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        path = Path(folder) / "model.pt2"
        aoti_compile_and_package(program, package_path=str(path))
        return path.read_bytes(), requirements(device, 3)  # type: ignore[arg-type]


@pytest.fixture
def emulated_gpu(
    fake_gpu: FakeGpu, cuda_emulation: types.ModuleType, monkeypatch: pytest.MonkeyPatch
) -> FakeGpu:
    """The same with the real kernels, emulated."""
    monkeypatch.setattr(_core, "cuda", FakeKernels(fake_gpu.cuda, cuda_emulation))
    return fake_gpu


REAL = pytest.param("real", marks=pytest.mark.gpu)
EMULATED = pytest.param("emulated", marks=pytest.mark.cuda_emulation)


@pytest.fixture(params=["fake", REAL])
def machine(
    request: pytest.FixtureRequest,
    write_tiny_engine: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> Any:
    """A GPU: "fake", "emulated" or "real"."""
    if request.param == "real":
        monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
        return RealGpu(write_tiny_engine)
    return request.getfixturevalue(f"{request.param}_gpu")
