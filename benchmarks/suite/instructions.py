"""Instructions of every kernel, counted by valgrind: they do not depend on the machine's load.

A process runs every case on one level under callgrind, and asks it for a count of each. valgrind
knows AVX2, but not AVX-512: such a process sees a CPU without it.

    python -m benchmarks.suite.instructions FOLDER LEVEL    # what valgrind runs
"""

from __future__ import annotations

import ctypes
import mmap
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydantic import TypeAdapter

from edgeseg import _core
from edgeseg.errors import EdgesegError, MissingDependencyError
from edgeseg.files import write_atomically

LEVELS = ("baseline", "avx2")  # that valgrind can run; on another CPU only the first
_FRAME = (1024, 2048)  # height, width; as of the suite's wide network
_INPUT = (512, 1024)
_GRID = (64, 128)
_FEATURES = (16, 32)


@dataclass(frozen=True)
class Case:
    """A kernel on something.

    Attributes:
        kernel: its name.
        what: in words.
        pixels: that a call writes.
        prepare: gives the call, from a folder with what `_prepare` wrote.
    """

    kernel: str
    what: str
    pixels: int
    prepare: Callable[[Path], Callable[[], None]]


@dataclass(frozen=True)
class Count:
    """Instructions of a kernel on one thread."""

    kernel: str
    what: str
    level: str
    per_pixel: float


@dataclass(frozen=True)
class Counts:
    """What was counted, of which build (the installed one; its sources are the checkout's)."""

    version: str
    commit: str
    compiler: str
    valgrind: str
    rows: tuple[Count, ...]


def _preprocess(pixel_format: str) -> Callable[[Path], Callable[[], None]]:
    def prepare(folder: Path) -> Callable[[], None]:
        height, width = _FRAME
        shape = (3 * height // 2, width) if pixel_format == "nv12" else (height, width, 3)
        frame = _random().integers(0, 256, shape, np.uint8)
        out = np.empty((3, *_INPUT), np.float32)
        half = (127.5, 127.5, 127.5)
        return lambda: _core.preprocess(frame, out, mean=half, std=half, pixel_format=pixel_format)

    return prepare


def _upsample(
    logits: Callable[[Path], np.ndarray], size: tuple[int, int], *, align_corners: bool
) -> Callable[[Path], Callable[[], None]]:
    def prepare(folder: Path) -> Callable[[], None]:
        values = logits(folder)
        labels = np.empty((1, *size), np.uint8)
        return lambda: _core.upsample_argmax(values, labels, align_corners=align_corners)

    return prepare


def _random_logits(classes: int) -> Callable[[Path], np.ndarray]:
    return lambda folder: _random().standard_normal((1, classes, *_GRID), np.float32)


def _overlay(folder: Path) -> Callable[[], None]:
    frame = _random().integers(0, 256, (*_FRAME, 3), np.uint8)
    labels = np.arange(_FRAME[1], dtype=np.uint8)[None].repeat(_FRAME[0], 0)
    palette = _random().integers(0, 256, (256, 3), np.uint8)
    out = np.empty_like(frame)
    return lambda: _core.overlay(frame, labels, palette, out, alpha=128)


def _score_map(folder: Path) -> Callable[[], None]:
    features = _random().standard_normal((1, 1024, *_FEATURES), np.float32)
    text = _random().standard_normal((19, 1024), np.float32)
    text /= np.linalg.norm(text, axis=1, keepdims=True)
    out = np.empty((1, 1024 + 19, *_FEATURES), np.float32)
    return lambda: _core.score_map_concat(features, text, out)


def _random() -> np.random.Generator:
    return np.random.default_rng(0)


def _area(size: tuple[int, int]) -> int:
    return size[0] * size[1]


_STREET = "street.npy"  # its logits by the packaged engine, K = 11
_STREET_LABELS = (720, 960)
_HALF = (512, 1024)
CASES = {
    "preprocess-bgr": Case(
        "preprocess", "2048×1024 BGR → 1024×512 float32", _area(_INPUT), _preprocess("bgr")
    ),
    "preprocess-nv12": Case(
        "preprocess", "2048×1024 NV12 → 1024×512 float32", _area(_INPUT), _preprocess("nv12")
    ),
    "upsample-street": Case(
        "upsample_argmax",
        "a street's logits, K = 11, 80×60 → 960×720",
        _area(_STREET_LABELS),
        _upsample(lambda folder: np.load(folder / _STREET), _STREET_LABELS, align_corners=True),
    ),
    "upsample-random": Case(
        "upsample_argmax",
        "random logits, K = 19, 128×64 → 2048×1024",
        _area(_FRAME),
        _upsample(_random_logits(19), _FRAME, align_corners=False),
    ),
    "upsample-many": Case(
        "upsample_argmax",
        "random logits, K = 254, 128×64 → 1024×512",
        _area(_HALF),
        _upsample(_random_logits(254), _HALF, align_corners=False),
    ),
    "overlay": Case("overlay", "2048×1024 BGR", _area(_FRAME), _overlay),
    "score-map": Case(
        "score_map_concat",
        "float32, C = 1024, K = 19, 32×16 NCHW",
        _area(_FEATURES),
        _score_map,
    ),
}


def count(progress: Callable[[str], object]) -> Counts:
    """Count every case on every level that valgrind can run; a minute or two.

    Raises:
        MissingDependencyError: there is no valgrind.
        EdgesegError: it could not run the kernels.
    """
    from benchmarks.suite.run import commit

    if shutil.which("valgrind") is None:
        raise MissingDependencyError(
            "valgrind is not installed, and nothing else here counts instructions: "
            "apt-get install valgrind"
        )
    if platform.machine() != "x86_64":
        raise EdgesegError(
            f"instructions are counted on x86-64 only, this is {platform.machine()}: the request "
            "to valgrind is written in its machine code"
        )
    said = subprocess.run(["valgrind", "--version"], capture_output=True, text=True, check=True)
    rows: list[Count] = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        _prepare(folder)
        for level in LEVELS:
            if level in _core.dispatch_levels():
                progress(f"counting on {level}")
                rows += _counted(folder, level)
    build = _core.build_info()
    return Counts(
        build["version"], commit("csrc"), build["compiler"], said.stdout.strip(), tuple(rows)
    )


def write_counts(counts: Counts, path: Path) -> tuple[Path, ...]:
    """Write the JSON to `path` and a page beside it; their paths.

    Raises:
        OutputError: a file cannot be written.
    """
    from benchmarks.suite.report import as_table

    page = path.with_suffix(".md")
    found = {(row.kernel, row.what, row.level): row.per_pixel for row in counts.rows}
    levels = tuple(dict.fromkeys(row.level for row in counts.rows))
    lines = (
        "# Instructions of the kernels",
        "",
        "Made by `python -m benchmarks.suite instructions`: per pixel that is written, one thread,",
        "counted by valgrind, which knows AVX2 but not AVX-512. They do not depend on the load.",
        "",
        f"edgeseg {counts.version}, kernels as of commit {counts.commit}, {counts.compiler}, "
        f"{counts.valgrind}",
        "",
        *as_table(
            ("kernel", "case", *levels),
            (
                (kernel, what, *(f"{found[kernel, what, level]:.2f}" for level in levels))
                for kernel, what in dict.fromkeys((row.kernel, row.what) for row in counts.rows)
            ),
        ),
    )
    write_atomically(path, [TypeAdapter(Counts).dump_json(counts, indent=1) + b"\n"])
    write_atomically(page, ["\n".join(lines).encode()])
    return path, page


def _prepare(folder: Path) -> None:
    """What OpenVINO has to compute, outside valgrind: a street's logits by the packaged engine."""
    import edgeseg
    from edgeseg.bench import bare_engine
    from edgeseg.synthetic import street

    runtime = edgeseg.Runtime(None, "cpu", 1, precision="float32")
    frame = street(5, *_STREET_LABELS).frame
    logits = bare_engine(edgeseg.runtime.packaged_engine(), runtime, frame)()
    np.save(folder / _STREET, logits)


def _counted(folder: Path, level: str) -> list[Count]:
    """Run every case at one level, in a process under valgrind."""
    out = folder / f"{level}.out"
    command = [
        *("valgrind", "--tool=callgrind", "--instr-atstart=no", f"--callgrind-out-file={out}"),
        *(sys.executable, "-m", "benchmarks.suite.instructions", str(folder), level),
    ]
    # No thread of OpenBLAS spins.
    environment = os.environ | {"OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    found = {}
    for dump in folder.glob(f"{level}.out.*"):
        text = dump.read_text()
        name = re.search(r"^desc: Trigger: Client Request: (\S+)$", text, re.MULTILINE)
        total = re.search(r"^summary: (\d+)", text, re.MULTILINE)
        if name and total:
            found[name[1]] = int(total[1])
    if done.returncode or found.keys() != CASES.keys():
        said = [line for line in done.stderr.splitlines() if line and not line.startswith("==")]
        last = said[-1] if said else f"exit status {done.returncode}"
        raise EdgesegError(f"valgrind could not run the kernels on {level}: {last}")
    return [
        Count(case.kernel, case.what, level, found[name] / case.pixels)
        for name, case in CASES.items()
    ]


# Callgrind's client requests, see valgrind/callgrind.h.
_ZERO, _DUMP_AT, _START = (0x43540000 + number for number in (1, 3, 4))
_REQUEST = bytes.fromhex(
    "4889f8"  # mov rax, rdi: the address of the request and its arguments
    "31d2"  # xor edx, edx: the answer where there is no valgrind
    "48c1c703 48c1c70d 48c1c73d 48c1c733"  # rol rdi by 3, 13, 61 and 51: as it was, and the sign
    "4887db"  # xchg rbx, rbx
    "4889d0 c3"  # mov rax, rdx; ret
)


def _run(folder: Path, level: str) -> None:
    """Call every case twice, and have the second call counted."""
    _core.set_dispatch_level(level)
    code = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    code.write(_REQUEST)
    address = ctypes.addressof(ctypes.c_char.from_buffer(code))
    ask = ctypes.CFUNCTYPE(ctypes.c_size_t, ctypes.c_void_p)(address)

    def request(number: int, argument: int | None = None) -> None:
        ask(ctypes.byref((ctypes.c_size_t * 6)(number, argument or 0)))

    calls = {name: case.prepare(folder) for name, case in CASES.items()}
    request(_START)
    for name, call in calls.items():
        told = ctypes.create_string_buffer(name.encode())
        call()
        request(_ZERO)
        call()
        request(_DUMP_AT, ctypes.addressof(told))


if __name__ == "__main__":
    _run(Path(sys.argv[1]), sys.argv[2])
