"""The machine: what is missing on it, what it is, what it reaches. Its state is left as it is."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

from benchmarks.gpu.clocks import Launch
from benchmarks.gpu.counts import Ceilings
from benchmarks.gpu.device import Device
from benchmarks.gpu.results import Environment

import edgeseg
from edgeseg.errors import EngineError

ROOT = Path(__file__).parents[2]
PACKAGES = ("torch", "triton", "tensorrt", "tensorrt_rtx", "torch_tensorrt", "openvino", "onnx")
BUILD = ("-C", "cmake.define.EDGESEG_CUDA=ON")


def missing() -> str | None:
    """Why nothing can be measured here, in one sentence; None where it can."""
    if find_spec("torch") is None:
        return "PyTorch is not installed; pip install '.[export,test]' on a machine with a GPU"
    import torch

    if torch.version.cuda is None:
        return (
            f"PyTorch {torch.__version__} is a build without CUDA; install one with CUDA on a "
            "machine with an NVIDIA GPU"
        )
    if not torch.cuda.is_available():
        return (
            f"no NVIDIA GPU: PyTorch {torch.__version__} finds no CUDA device and driver; run this "
            "on a machine with one, or give this container access to it"
        )
    return None


def needs_build() -> str | None:
    """What the native core lacks for this GPU, or None."""
    import torch

    build = edgeseg.build_info()
    if not build["cuda"]:
        return "the native core was built without CUDA"
    compiled = str(build["cuda_architectures"])
    major, minor = torch.cuda.get_device_capability()
    if not runs_on(compiled, 10 * major + minor):
        return f"the native core holds kernels for {compiled}, this GPU is {major}.{minor}"
    return None


def runs_on(architectures: str, capability: int) -> bool:
    """Whether code for CMake's `architectures` ("75-real 90") runs on compute capability 86, ...

    Machine code runs on its major version from its minor one on; PTX on everything later.
    """
    for name in architectures.split():
        digits, _, kind = name.partition("-")
        architecture = int(digits.rstrip("af"))
        if digits[-1] in "af":  # instructions of that one architecture
            runs = capability == architecture
        else:
            same_major = capability // 10 == architecture // 10
            runs = capability >= architecture and (kind != "real" or same_major)
        if runs:
            return True
    return False


def build_command() -> list[str]:
    """Install this checkout with kernels for the GPU present, in the way it is installed now."""
    direct = metadata.distribution("edgeseg").read_text("direct_url.json") or "{}"
    editable = json.loads(direct).get("dir_info", {}).get("editable", False)
    # Where the build's own tools are at hand, no package index is needed.
    here = find_spec("scikit_build_core") and find_spec("pybind11")
    return [
        *(sys.executable, "-m", "pip", "install", "--no-deps"),
        *(["--no-build-isolation"] if here else []),
        *(["-e"] if editable else []),
        str(ROOT),
        *BUILD,
    ]


def build() -> None:
    """Run `build_command`; the new core is there in the next process.

    Raises:
        EngineError: there is no CUDA compiler, or the build fails.
    """
    if shutil.which("nvcc") is None and not Path("/usr/local/cuda/bin/nvcc").exists():
        raise EngineError(
            f"{needs_build()}, and there is no nvcc; install the CUDA toolkit and repeat"
        )
    command = build_command()
    if subprocess.run(command, check=False).returncode != 0:
        raise EngineError(f"the build failed, its messages stand above: {' '.join(command)}")


def environment() -> Environment:
    """The GPU and the software that drives it."""
    import torch

    properties = torch.cuda.get_device_properties(0)
    build_info = edgeseg.build_info()
    return Environment(
        gpu=properties.name,
        compute_capability=f"{properties.major}.{properties.minor}",
        multiprocessors=properties.multi_processor_count,
        l2_bytes=properties.L2_cache_size,
        memory_bytes=properties.total_memory,
        driver=_nvidia_smi("driver_version"),
        versions=versions() | {"CUDA of PyTorch": str(torch.version.cuda)},
        build={name: str(value) for name, value in build_info.items()},
        commit=_commit(),
    )


def clocks() -> str:
    """Clocks and limits now, as the driver tells them; they are never set."""
    fields = "clocks.sm,clocks.mem,clocks.max.sm,clocks.max.mem,power.draw,power.limit"
    return _nvidia_smi(fields + ",temperature.gpu,pstate")


def versions() -> dict[str, str]:
    """Versions of what is installed of that which is measured."""
    found = {"Python": sys.version.split()[0]}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def ceilings(
    device: Device, *, copy_bytes: int, product: int, dtypes: Sequence[str], rounds: int
) -> Ceilings:
    """Measure the rates that the floors are counted in.

    Args:
        device: where.
        copy_bytes: size of the copied buffer, far beyond the L2 cache.
        product: rows and columns of the matrices; the product fills the chip.
        dtypes: number formats of the products; "tfloat32" is float32 on the matrix units.
        rounds: of each measurement, of which the median counts.
    """
    import torch

    source = torch.randint(0, 256, (copy_bytes,), dtype=torch.uint8, device=device.memory)
    target = torch.empty_like(source)
    one = torch.empty(1, device=device.memory)

    def median_seconds(launch: Launch, launches: int) -> float:
        times = device.kernel_clock.time({"it": launch}, rounds=rounds, launches=launches)
        return times["it"].p50 / 1e3

    operations = {}
    for name in dtypes:
        dtype = torch.float32 if name == "tfloat32" else getattr(torch, name)
        a, b = torch.randn(2, product, product, device=device.memory).to(dtype)
        before = torch.backends.cuda.matmul.allow_tf32
        torch.backends.cuda.matmul.allow_tf32 = name == "tfloat32"
        try:
            seconds = median_seconds(_product(a, b), 1)
        finally:
            torch.backends.cuda.matmul.allow_tf32 = before
        operations[name] = 2 * product**3 / seconds
    return Ceilings(
        bandwidth=2 * copy_bytes / median_seconds(lambda _: target.copy_(source), 1),
        launch_us=1e6 * median_seconds(lambda _: one.fill_(1.0), 200),
        operations=operations,
    )


def _product(a: object, b: object) -> Callable[[int], object]:
    import torch

    out = torch.empty_like(a)
    return lambda _: torch.mm(a, b, out=out)


def _nvidia_smi(fields: str) -> str:
    command = ["nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader", "--id=0"]
    try:
        asked = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    except (OSError, subprocess.SubprocessError):
        return "unknown: nvidia-smi gave no answer"
    return asked.stdout.strip()


def _commit() -> str:
    command = ["git", "describe", "--always", "--dirty", "--exclude=*"]
    try:
        asked = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return asked.stdout.strip()
