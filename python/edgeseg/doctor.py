"""What an installation of edgeseg has, and what is missing."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec
from typing import Literal

import edgeseg
from edgeseg import _core
from edgeseg.errors import EdgesegError, EngineError, MissingDependencyError
from edgeseg.machine import driver_installed, gpus, outdated_driver
from edgeseg.tensorrt_library import PlanKind, load_library


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        subject: what.
        state: "ok"; "absent": optional and not there; "broken": there but unusable.
        detail: version, or what to do.
    """

    subject: str
    state: Literal["ok", "absent", "broken"]
    detail: str


def examine() -> list[Finding]:
    """Look at everything that edgeseg can use, without importing torch."""
    return list(_findings())


def _findings() -> Iterator[Finding]:
    build = edgeseg.build_info()
    yield Finding("edgeseg", "ok", f"{edgeseg.__version__}, {build['compiler']}")
    yield Finding("python", "ok", f"{platform.python_version()} on {platform.platform()}")
    yield Finding(
        "cpu",
        "ok",
        f"{len(os.sched_getaffinity(0))} cores usable, kernels run {_core.dispatch_level()} "
        f"(of {', '.join(_core.dispatch_levels())})",
    )
    yield _cuda(build)
    yield from _gpus()
    yield _attempt("packaged engine", _packaged_engine)
    for package, purpose in (
        ("numpy", ""),
        ("opencv-python", ""),
        ("openvino", "runs engines on CPUs"),
        ("torch", "pip install 'edgeseg[train]' to train, 'edgeseg[export]' to export"),
        ("onnxscript", "pip install 'edgeseg[export]' to export"),
        ("lightning", "pip install 'edgeseg[train]' to train"),
        ("cuda-bindings", "pip install 'edgeseg[gpu]' to run engines on a GPU"),
        ("onnx", "pip install 'edgeseg[gpu]' to build plans for GPUs"),
        ("starlette", "pip install 'edgeseg[serve]' for a page, and labels by HTTP"),
        ("ray", "pip install 'edgeseg[ray]' to label archives on many machines"),
    ):
        yield _package(package, purpose)
    yield _plan_library("tensorrt", "pip install 'edgeseg[gpu]' where there is a GPU")
    yield _plan_library("tensorrt-rtx", "pip install 'edgeseg[gpu-rtx]' to build without a GPU")


def _cuda(build: dict[str, object]) -> Finding:
    if not build["cuda"]:
        return Finding(
            "cuda", "absent", "no kernels: no nvcc when this was built, or EDGESEG_CUDA=OFF"
        )
    compiled = f"kernels for {build['cuda_architectures']}"
    devices = _core.cuda.device_count()
    if devices == 0:
        return Finding("cuda", "absent", f"{compiled}; no device or no driver on this machine")
    return Finding("cuda", "ok", f"{compiled}; {devices} devices")


def _gpus() -> Iterator[Finding]:
    found = gpus()
    for gpu in found:
        yield Finding(
            f"gpu {gpu.index}",
            "ok",
            f"{gpu.name}, compute capability {gpu.compute_capability}, "
            f"{gpu.memory_bytes / 1e9:.1f} GB, its driver runs CUDA up to {gpu.driver}",
        )
    if found:
        return
    if not driver_installed():
        yield Finding("gpu", "absent", "no NVIDIA driver (libcuda.so.1) on this machine")
    elif find_spec("cuda") is None:
        yield Finding("gpu", "absent", "a driver, but no cuda-bindings to ask it for GPUs")
    elif reason := outdated_driver():
        yield Finding("gpu", "broken", reason)
    else:
        yield Finding("gpu", "broken", "the driver finds no GPU that CUDA can use; see nvidia-smi")


def _plan_library(kind: PlanKind, purpose: str) -> Finding:
    try:
        return Finding(kind, "ok", load_library(kind).version)
    except MissingDependencyError:
        return Finding(kind, "absent", purpose)
    except EngineError as error:
        return Finding(kind, "broken", str(error))


def _packaged_engine() -> str:
    from edgeseg.runtime import verify

    verification = verify()
    return f"{verification.agreement:.3%} as trained; {verification.runtime}"


def _attempt(subject: str, action: Callable[[], str]) -> Finding:
    try:
        return Finding(subject, "ok", action())
    except EdgesegError as error:
        return Finding(subject, "broken", str(error))


def _package(name: str, purpose: str) -> Finding:
    try:
        return Finding(name, "ok", metadata.version(name))
    except metadata.PackageNotFoundError:
        return Finding(name, "absent", purpose)
