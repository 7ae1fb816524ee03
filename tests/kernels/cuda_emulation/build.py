"""Compiles CUDA kernels for the host: the sources, slightly rewritten, against the shim."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sysconfig
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HERE = Path(__file__).parent
CSRC = HERE.parents[2] / "csrc"
KERNELS = (*sorted((CSRC / "cuda").glob("*.cu")), CSRC / "cuda/bindings_cuda.cpp")
FLAGS = (
    "-std=c++17",
    "-O1",
    "-w",  # the toolkit's headers and unused launch attributes
    "-march=native",
    "-ffp-contract=off",  # fma where a kernel asks for it, nowhere else
    "-fPIC",
    "-fvisibility=hidden",
)


def missing() -> str | None:
    """What this machine lacks to build the emulation, if anything."""
    if shutil.which("g++") is None:
        return "no g++"
    if _cuda_include() is None:
        return "no CUDA headers: set CUDA_HOME"
    return None


def build(sources: Iterable[Path], library: Path) -> Path:
    """Compiles `sources` and the scheduler into the shared `library`, beside its objects."""
    import pybind11

    for header in (CSRC / "cuda").glob("*.cuh"):
        if not (HERE / "shim" / header.name).exists():
            (library.parent / header.name).write_text(rewrite(header.read_text()))
    includes = (
        library.parent,  # before the headers as they were written
        HERE / "shim",  # before the toolkit
        CSRC / "cuda",
        CSRC / "include",
        _cuda_include(),
        pybind11.get_include(),
        sysconfig.get_path("include"),
    )
    flags = (*FLAGS, *(f"-I{folder}" for folder in includes))

    def compile_one(source: Path) -> Path:
        compiled = source
        if source.suffix == ".cu":
            compiled = library.parent / f"{source.name}.cpp"
            compiled.write_text(rewrite(source.read_text()))
        target = library.parent / f"{source.name}.o"
        _run("g++", *flags, "-c", compiled, "-o", target)
        return target

    with ThreadPoolExecutor(2) as pool:
        objects = list(pool.map(compile_one, (*sources, HERE / "scheduler.cpp")))
    _run("g++", "-shared", *objects, "-o", library)
    return library


def rewrite(source: str) -> str:
    """Changes what no header can: the declarations of shared memory."""
    source = re.sub(
        r"extern __shared__ (\w+) (\w+)\[\];",
        r"\1* \2 = static_cast<\1*>(emulation::dynamic_shared());",
        source,
    )
    return re.sub(r"^.*__shared__ .*;$", _announce, source, flags=re.MULTILINE)


def _announce(declaration: re.Match[str]) -> str:
    names = re.findall(r"(\w+)\[", declaration[0])
    calls = (f" emulation::shared_array({name}, sizeof {name});" for name in names)
    return declaration[0] + "".join(calls)


def _cuda_include() -> Path | None:
    """The toolkit's headers: CUDA_HOME's, nvcc's, or those in the usual place."""
    roots = [Path("/usr/local/cuda")]
    if nvcc := shutil.which("nvcc"):
        roots.insert(0, Path(nvcc).resolve().parents[1])
    if home := os.environ.get("CUDA_HOME"):
        roots.insert(0, Path(home))
    folders = (root / "include" for root in roots)
    return next((folder for folder in folders if (folder / "cuda_fp16.h").is_file()), None)


def _run(*command: str | Path) -> None:
    result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode != 0:
        raise RuntimeError(f"{result.args}\n{result.stderr}")
