"""Engines that the stress runs load, by name or path."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tests.fuzz import drafts

from edgeseg.runtime import packaged_engine


def engine(name: str, folder: Path) -> Path:
    """ "packaged", "tiny" (64×96, labels each pixel by its brightest channel), or a file."""
    if name == "packaged":
        return packaged_engine()
    if name == "tiny":
        path = folder / "tiny.edgeseg"
        path.write_bytes(drafts.assemble(drafts.GOOD.encode()))
        return path
    return Path(name)


def frames(
    count: int, sizes: tuple[tuple[int, int], ...], seed: int = 0
) -> list[NDArray[np.uint8]]:
    """Noise in coarse patches, so that labels differ from frame to frame and place to place."""
    random = np.random.default_rng(0)
    made = []
    for index in range(count):
        height, width = sizes[index % len(sizes)]
        patches = random.integers(0, 256, (height // 16 + 1, width // 16 + 1, 3), dtype=np.uint8)
        made.append(patches.repeat(16, 0).repeat(16, 1)[:height, :width].copy())
    return made
