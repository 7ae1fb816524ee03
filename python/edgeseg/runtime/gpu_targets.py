"""From a compiled target to a network on a GPU: what is asked before its code is read."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from edgeseg import _core, trust
from edgeseg.engine_file import EngineFile, Manifest, Target, TargetKind
from edgeseg.errors import EngineError
from edgeseg.machine import Gpu, gpus, mismatch, outdated_driver
from edgeseg.tensorrt_library import load_library

if TYPE_CHECKING:
    from edgeseg.runtime.gpu import CudaNetwork, GpuPipeline

_KINDS: tuple[TargetKind, ...] = ("tensorrt", "tensorrt-rtx", "aoti")  # fastest first
_FLOATS = ("float16", "bfloat16", "float32", None)  # fastest first
_INSTALL = "install it again where there is an nvcc: pip install . -C cmake.define.EDGESEG_CUDA=ON"


def of_kinds(manifest: Manifest, precision: str) -> tuple[tuple[Target, ...], ...]:
    """Targets for GPUs in a precision, kind after kind, best first; "auto" takes harmless INT8."""
    return tuple(_of_kind(manifest, kind, precision) for kind in _KINDS)


def best_first(manifest: Manifest, precision: str, gpu: Gpu) -> Iterator[Target]:
    """The targets to try on a GPU; of a kind that has some for it, only those."""
    for targets in of_kinds(manifest, precision):
        meant = [
            target
            for target in targets
            if gpu.compute_capability in target.requires.get("compute_capability", "").split()
        ]
        yield from meant or targets  # which are refused with a sentence


def _of_kind(manifest: Manifest, kind: TargetKind, precision: str) -> tuple[Target, ...]:
    quantized = manifest.targets_of(kind, quantized=True)
    floating = [t for t in manifest.targets_of(kind) if t.requires.get("device") != "cpu"]
    if precision == "int8":
        return quantized
    if precision != "auto":
        return tuple(t for t in floating if t.precision == precision)
    harmless = [t for t in quantized if t.quantization and t.quantization.harmless]
    known = [t for t in floating if t.precision in _FLOATS]
    return (*harmless, *sorted(known, key=lambda target: _FLOATS.index(target.precision)))


def find_gpu(index: int) -> Gpu:
    """A GPU that this build of edgeseg can use.

    Raises:
        EngineError: there is none of that index, or what it needs is missing.
    """
    found = gpus()
    if not hasattr(_core, "cuda"):
        raise EngineError(f"edgeseg was built without CUDA; {_INSTALL}")
    for gpu in found:
        if gpu.index == index:
            return gpu
    if reason := outdated_driver():
        raise EngineError(f"{reason}, or use device='cpu'")
    names = ", ".join(f"cuda:{gpu.index} ({gpu.name})" for gpu in found)
    raise EngineError(
        f"there is no device cuda:{index}, this process sees {names or 'no GPU'}; install an "
        "NVIDIA driver and pip install 'edgeseg[gpu]', give the container access to the GPU, or "
        "use device='cpu'"
    )


def load(engine: EngineFile, target: Target, gpu: Gpu, *, trusted: bool) -> GpuPipeline:
    """Make a pipeline of a target that this machine built or the caller trusts, and that fits.

    Raises:
        EngineError: the target is refused, before its library sees a byte, or fails.
        MissingDependencyError: its library is not installed.
    """
    if not trusted:
        _check_trust(engine, target)
    from edgeseg.runtime.cuda import on_device
    from edgeseg.runtime.gpu import GpuPipeline

    with on_device(gpu.index):
        return GpuPipeline(_network(engine, target, gpu), engine.manifest, gpu)


def _network(engine: EngineFile, target: Target, gpu: Gpu) -> CudaNetwork:
    if target.kind == "aoti":
        from edgeseg.runtime import aoti

        _check_fit(engine, target, gpu, aoti.VERSION)
        return aoti.AotiNetwork(engine, target, f"cuda:{gpu.index}")

    from edgeseg.runtime.tensorrt import TensorRTNetwork

    library = load_library("tensorrt" if target.kind == "tensorrt" else "tensorrt-rtx")
    _check_fit(engine, target, gpu, library.version)
    return TensorRTNetwork(engine, target, library)


def _check_trust(engine: EngineFile, target: Target) -> None:
    for name in target.parts:
        if not trust.built_here(engine.manifest.parts[name].sha256):
            mend = (
                "edgeseg export CHECKPOINT FILE" if target.kind == "aoti" else "edgeseg build FILE"
            )
            raise EngineError(
                f"{name} in {engine.path} is native code that this machine did not build; build it "
                f"here: {mend} --target {target.kind}, or say trust=True if you know who made it"
            )


def _check_fit(engine: EngineFile, target: Target, gpu: Gpu, version: str) -> None:
    if reason := mismatch(target, gpu, len(engine.manifest.classes), version):
        raise EngineError(f"{engine.path}: {reason}")
