"""What this machine has to run compiled targets on, and whether a target fits it. No torch."""

from __future__ import annotations

import ctypes
import platform
from dataclasses import dataclass
from importlib import import_module

from edgeseg.engine_file import Target


@dataclass(frozen=True)
class Gpu:
    """A CUDA device.

    Attributes:
        index: its number among those that this process sees.
        name: as the driver gives it.
        compute_capability: e.g. "8.7".
        memory_bytes: all of its memory, used or free.
        driver: newest CUDA version that the driver runs, e.g. "13.0".
    """

    index: int
    name: str
    compute_capability: str
    memory_bytes: int
    driver: str


def cpu_computes_in_bfloat16() -> bool:
    """Whether this CPU has instructions for it; imitated, training takes ten times as long."""
    import openvino as ov

    capabilities: list[str] = ov.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    return "BF16" in capabilities


def gpus() -> tuple[Gpu, ...]:
    """CUDA devices of this machine; () without a driver, a device or cuda-bindings. Never raises.

    Reads properties only: no CUDA context is made and no memory taken on a device.
    """
    try:
        cudart = import_module("cuda.bindings.runtime")
        error, count = cudart.cudaGetDeviceCount()
        if int(error) != 0:
            return ()
        _, version = cudart.cudaDriverGetVersion()
        found = []
        for index in range(count):
            error, properties = cudart.cudaGetDeviceProperties(index)
            if int(error) != 0:
                continue
            found.append(
                Gpu(
                    index=index,
                    name=properties.name.rstrip(b"\0").decode(errors="replace"),
                    compute_capability=f"{properties.major}.{properties.minor}",
                    memory_bytes=int(properties.totalGlobalMem),
                    driver=_spell(version),
                )
            )
    except Exception:  # whatever a missing, old or broken driver makes of it: no GPU to use
        return ()
    return tuple(found)


def outdated_driver() -> str | None:
    """Why `gpus` finds none although there may be one: cuda-bindings is for a newer driver.

    Returns:
        A sentence with what mends it, or None.
    """
    try:
        cudart = import_module("cuda.bindings.runtime")
        _, driver = cudart.cudaDriverGetVersion()  # 0 without one
        _, bindings = cudart.cudaRuntimeGetVersion()
        major = int(driver) // 1000
        if major == 0 or major >= int(bindings) // 1000:  # minor versions are compatible
            return None
    except Exception:  # as in `gpus`
        return None
    older = f", or pip install 'cuda-bindings=={major}.*' tensorrt-cu{major}"
    return (
        f"the NVIDIA driver runs CUDA up to {_spell(driver)}, the installed cuda-bindings is for "
        f"CUDA {bindings // 1000}; update the driver{older if major >= 12 else ''}"
    )


def driver_installed() -> bool:
    """Whether NVIDIA's driver is on this machine; there need not be a device."""
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    return True


def this_platform() -> str:
    """Operating system and processor, which native code is tied to, e.g. "linux x86_64"."""
    return f"{platform.system().lower()} {platform.machine()}"


def mismatch(target: Target, gpu: Gpu | None, classes: int, library_version: str) -> str | None:
    """Why a target that is code cannot run here, or None if it can.

    To be asked before a byte of the target's part reaches its library.

    Args:
        target: of kind "tensorrt", "tensorrt-rtx" or "aoti".
        gpu: where it is to run; None for the CPU.
        classes: of the engine file.
        library_version: of the library of `target.kind` that is installed here.

    Returns:
        A sentence: what was found, what is needed, and the command that mends it.
    """
    here = {
        "library": target.kind,
        "version": library_version,
        "platform": this_platform(),
        "classes": str(classes),
    }
    if gpu is not None:
        here["compute_capability"] = gpu.compute_capability
    elif target.requires.get("device") != "cpu":
        return f"{_made(target)} runs on a GPU, the CPU was chosen; choose the device 'cuda'"
    for requirement, found in here.items():
        name = _NAMES[requirement]
        needed = target.requires.get(requirement)
        if needed is None:
            return f"{_made(target)} does not say which {name} it is for; {_mend(target)}"
        # Only compute capabilities are ever several.
        alternatives = needed.split() if requirement == "compute_capability" else (needed,)
        if found not in alternatives:
            on = f" ({gpu.name})" if gpu is not None and requirement == "compute_capability" else ""
            return (
                f"{_made(target)} is for {name} {' or '.join(alternatives)}, "
                f"here it is {found}{on}; {_mend(target)}"
            )
    return None


_NAMES = {
    "library": "library",
    "version": "library version",
    "platform": "platform",
    "classes": "number of classes",
    "compute_capability": "compute capability",
}


def _spell(version: int) -> str:
    """CUDA's 12060 is 12.6."""
    return f"{version // 1000}.{version % 1000 // 10}"


def _made(target: Target) -> str:
    return f"the {target.kind} target {target.parts[0]}"


def _mend(target: Target) -> str:
    if target.kind == "aoti":
        return "export it again on this machine: edgeseg export CHECKPOINT FILE --target aoti"
    return f"build it again on this machine: edgeseg build FILE --target {target.kind}"
