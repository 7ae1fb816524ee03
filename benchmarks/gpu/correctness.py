"""The tests of kernels and Runtime on this GPU, and the kernels under compute-sanitizer."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.gpu.machine import ROOT
from benchmarks.gpu.results import Check

TESTS = ("tests/kernels/test_cuda.py", "tests/runtime")
TOOLS = ("memcheck", "racecheck", "initcheck")
_SUMMARY = {
    "memcheck": r"ERROR SUMMARY: (\d+) error",
    "initcheck": r"ERROR SUMMARY: (\d+) error",
    "racecheck": r"RACECHECK SUMMARY: (\d+) hazard",
}
_ENVIRONMENT = {"EDGESEG_REQUIRE_GPU": "1"}  # a test that cannot run fails
_ONE_ALLOCATION_A_TENSOR = "PYTORCH_NO_CUDA_MEMORY_CACHING=1"  # accesses beyond its end are seen

Command = Callable[[Sequence[str]], tuple[int, str]]
"""Runs a command from the repository's root: exit status, and all that it printed."""


def run_command(command: Sequence[str]) -> tuple[int, str]:
    """See `Command`."""
    done = subprocess.run(
        command,
        cwd=ROOT,
        env=os.environ | _ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        check=False,
    )
    return done.returncode, done.stdout


def run_tests(run: Command = run_command) -> tuple[Check, ...]:
    """Every test that needs a GPU; none may be skipped."""
    return tuple(check_of_tests(path, *run(_pytest(path))) for path in TESTS)


def check_of_tests(path: str, status: int, output: str) -> Check:
    """What pytest's summary says."""
    tail = [line for line in output.splitlines() if line.strip()]
    summary = tail[-1].strip("= ") if tail else "no output"
    ran = re.search(r"\b[1-9]\d* passed", summary)
    passed = status == 0 and ran is not None and "skipped" not in summary
    failures = [line for line in tail if line.startswith(("FAILED", "ERROR"))]
    return Check(f"pytest {path} -m gpu", passed, "; ".join([summary, *failures[:10]]))


def sanitize(run: Command = run_command) -> tuple[tuple[Check, ...], tuple[str, ...]]:
    """The kernels' small cases, every dtype, layout and branch, under each of the tools.

    Returns:
        What each tool found; and what could not be run.
    """
    sanitizer = find_sanitizer()
    if sanitizer is None:
        return (), (
            "compute-sanitizer is not installed; it comes with the CUDA toolkit "
            "(apt install cuda-sanitizer-<version>)",
        )
    return tuple(
        sanitizer_check(
            tool,
            *run(
                [
                    *("env", _ONE_ALLOCATION_A_TENSOR),
                    *(sanitizer, "--tool", tool, "--target-processes", "all"),
                    *_pytest(TESTS[0], "-k", "not full_size", "--timeout", "3000"),
                ]
            ),
        )
        for tool in TOOLS
    ), ()


def sanitizer_check(tool: str, status: int, output: str) -> Check:
    """What the tool's summaries, one for each process, say; no summary is no success."""
    found = [int(number) for number in re.findall(_SUMMARY[tool], output)]
    tests = check_of_tests(TESTS[0], status, _without_sanitizer(output))
    if not found:
        return Check(f"compute-sanitizer {tool}", False, f"no summary; {tests.detail}")
    thing = "hazards" if tool == "racecheck" else "errors"
    detail = f"{sum(found)} {thing}; {tests.detail}"
    return Check(f"compute-sanitizer {tool}", sum(found) == 0 and tests.passed, detail)


def find_sanitizer() -> str | None:
    """The tool on the path, or where CUDA's installers put it."""
    if found := shutil.which("compute-sanitizer"):
        return found
    home = Path(os.environ.get("CUDA_HOME", "/usr/local/cuda"))
    places = (home / "bin/compute-sanitizer", home / "compute-sanitizer/compute-sanitizer")
    return next((str(place) for place in places if place.exists()), None)


def _pytest(path: str, *more: str) -> list[str]:
    return [
        *(sys.executable, "-m", "pytest", path, "-m", "gpu", "-q"),
        *("-p", "no:cacheprovider", *more),
    ]


def _without_sanitizer(output: str) -> str:
    return "\n".join(line for line in output.splitlines() if not line.startswith("========="))
