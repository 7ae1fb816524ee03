"""How much memory there is for a data set."""

from __future__ import annotations

from pathlib import Path

_SYSTEM = Path("/proc/meminfo")
_CONTAINER = Path("/sys/fs/cgroup")


def available_memory(system: Path = _SYSTEM, container: Path = _CONTAINER) -> int | None:
    """Bytes that can be used without swapping, within the container's limit if there is one.

    Args:
        system: Linux's account of the machine's memory.
        container: Folder with this control group's ``memory.max`` (version 2).

    Returns:
        The number, or None where the system does not tell.
    """
    try:
        lines = system.read_text().splitlines()
        available = next(int(s.split()[1]) * 1024 for s in lines if s.startswith("MemAvailable"))
    except (OSError, StopIteration):
        return None
    try:
        limit = int((container / "memory.max").read_text())
        used = int((container / "memory.current").read_text())
        cached = next(
            int(line.split()[1])
            for line in (container / "memory.stat").read_text().splitlines()
            if line.startswith("inactive_file ")
        )
    except (OSError, ValueError, StopIteration):  # ValueError: "max", no limit
        return available
    return min(available, limit - used + cached)
