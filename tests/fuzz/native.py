"""Builds the native core and the fuzz target with sanitizers."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HERE = Path(__file__).parent
CSRC = HERE.parents[1] / "csrc"
KERNELS = tuple(sorted((CSRC / "src").glob("*.cpp")))
TARGET, DRIVER = HERE / "kernels.cpp", HERE / "driver.cpp"
FLAGS = (
    *("-std=c++17", "-g", "-O1", "-fno-omit-frame-pointer", "-pthread", f"-I{CSRC / 'include'}"),
    *("-fno-math-errno", "-fno-trapping-math"),  # as CMakeLists.txt has it
    "-fno-sanitize-recover=all",
)
# A report ends the process with a code that nothing else has.
ENVIRONMENT = {
    "ASAN_OPTIONS": "detect_leaks=1:detect_stack_use_after_return=1:exitcode=86",
    "UBSAN_OPTIONS": "print_stacktrace=1:exitcode=86",
    "TSAN_OPTIONS": "halt_on_error=1:second_deadlock_stack=1:exitcode=86",
}


def clang() -> str | None:
    """A clang++ that has libFuzzer beside it, newest first."""
    names = ("clang++", *(f"clang++-{version}" for version in range(25, 13, -1)))
    for name in names:
        if shutil.which(name):
            runtime = subprocess.run(
                [name, "-print-file-name=libclang_rt.fuzzer-x86_64.a"], capture_output=True
            ).stdout
            folder = subprocess.run([name, "-print-resource-dir"], capture_output=True, text=True)
            found = list(Path(folder.stdout.strip()).glob("lib/**/libclang_rt.fuzzer*.a"))
            if found or Path(os.fsdecode(runtime).strip()).is_file():
                return name
    return None


def compiler() -> str | None:
    """What builds the driver: g++, or any clang++."""
    return shutil.which("g++") or shutil.which("c++") or clang()


def build(
    program: Path, sanitizers: str, sources: Sequence[Path] = (), *, cxx: str | None = None
) -> Path:
    """Compile the kernels and the fuzz target, with `sources` beside them, into `program`.

    Args:
        program: the file to make; objects lie beside it.
        sanitizers: as -fsanitize takes them, e.g. "address,undefined".
        sources: a main, unless one of the sanitizers is "fuzzer".
        cxx: the compiler.
    """
    cxx = cxx or compiler()
    if cxx is None:
        raise RuntimeError("no C++ compiler: install g++ or clang")
    flags = [*FLAGS, f"-fsanitize={sanitizers}"]

    def compile_one(source: Path) -> Path:
        target = program.with_name(f"{program.name}-{source.stem}.o")
        run([cxx, *flags, "-c", str(source), "-o", str(target)])
        return target

    with ThreadPoolExecutor(2) as pool:
        objects = list(pool.map(compile_one, (*KERNELS, TARGET, *sources)))
    run([cxx, *flags, *map(str, objects), "-o", str(program)])
    return program


def run(command: Sequence[str], timeout: float | None = None) -> subprocess.CompletedProcess[str]:
    """Run a command; its output is in the error if it fails."""
    environment = os.environ | ENVIRONMENT
    done = subprocess.run(
        command, capture_output=True, text=True, env=environment, timeout=timeout, errors="replace"
    )
    if done.returncode != 0:
        output = (done.stdout + done.stderr)[-6000:]
        raise RuntimeError(f"{' '.join(map(str, command))}: exit code {done.returncode}\n{output}")
    return done
