"""The AOTInductor target: a library that PyTorch compiled, for CUDA machines without TensorRT.

The network is native code, the score map one call of the operator `edgeseg::score_map_concat` in
it: whoever loads the package imports `edgeseg.ops` first, which registers the operator with its
CPU kernel and, in a build with CUDA, its CUDA kernel. The package runs with the PyTorch version
and on the kind of device that it was compiled for.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any, Literal

import torch

from edgeseg import _core
from edgeseg.engine_file import FloatType
from edgeseg.errors import EngineError
from edgeseg.export.program import exported_program
from edgeseg.machine import this_platform
from edgeseg.models import STDCSeg

CompileDevice = Literal["cuda", "cpu"]


def check_machine(device: CompileDevice) -> None:
    """Raises EngineError where this machine or installation cannot compile for the device."""
    if device == "cpu":
        return
    if not torch.cuda.is_available():
        raise EngineError(
            "PyTorch finds no CUDA device, an 'aoti' target for CUDA is compiled on the GPU that "
            "runs it; export on that machine, or for its CPU with --device cpu"
        )
    if not hasattr(_core, "cuda"):
        raise EngineError(
            "edgeseg was built without CUDA, an 'aoti' target for CUDA calls its kernel; install "
            "it again where there is an nvcc: pip install . -C cmake.define.EDGESEG_CUDA=ON"
        )


def to_aoti(
    model: STDCSeg,
    height: int,
    width: int,
    precision: FloatType,
    device: CompileDevice,
) -> bytes:
    """Compile the network into a package (.pt2) for `torch._inductor.aoti_load_package`.

    Input 1×3×h×w and logits 1×K×⌈h/8⌉×⌈w/8⌉, contiguous, in `precision`, on `device`. Inside, all
    is channels-last: what tensor cores want, and no slower on CPUs.

    Raises:
        EngineError: the device is missing, or the compiler fails.
    """
    from torch._inductor import aoti_compile_and_package  # takes a second

    check_machine(device)
    program = exported_program(
        model, height, width, precision, device=device, memory_format=torch.channels_last
    )
    # Frozen weights are laid out once, at compile time, as the chosen kernels want them.
    options: dict[str, Any] = {"freezing": True, "max_autotune": device == "cuda"}
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        path = Path(folder) / "model.pt2"
        try:
            aoti_compile_and_package(program, package_path=str(path), inductor_configs=options)
        except RuntimeError as error:
            raise EngineError(
                f"PyTorch {torch.__version__} could not compile the network for {device}: {error}; "
                "it needs a C++ compiler (g++, or the one that CXX names)"
            ) from error
        return path.read_bytes()


def requirements(device: CompileDevice, classes: int) -> dict[str, str]:
    """What a machine must have to run a package that is compiled here now."""
    needed = {
        "library": "aoti",
        "version": torch.__version__,
        "device": device,
        "platform": this_platform(),
        "classes": str(classes),
    }
    if device == "cuda":
        major, minor = torch.cuda.get_device_capability()
        needed["compute_capability"] = f"{major}.{minor}"
    return needed
