"""The native core under sanitizers: the kernels' promises, checked from one and from 16 threads."""

from __future__ import annotations

from pathlib import Path

from tests.fuzz import native

THREADS = {"address,undefined": 2, "thread": 16}


def sanitize(sanitizers: str, calls: int, folder: Path) -> str:
    """Build the driver and run it; what it says, or a RuntimeError with the report."""
    program = native.build(folder / sanitizers.replace(",", "-"), sanitizers, [native.DRIVER])
    done = native.run([str(program), str(THREADS[sanitizers]), str(calls), "0", "0"])
    return f"{sanitizers}: {done.stdout.strip()}, clean"
