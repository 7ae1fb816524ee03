"""Fuzz what an engine file's network can do to `Runtime`: one that is not what the manifest says.

OpenVINO reads the network. Its parser is not this project's, but what it makes of a file is: an
EngineError of one line, or labels that are class ids.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
from tests.fuzz import drafts, guard
from tests.fuzz.fuzzing import BrokenPromiseError, Target, main

from edgeseg.engine_file import open_engine
from edgeseg.errors import EngineError
from edgeseg.runtime import Runtime, openvino

_FOLDER = tempfile.TemporaryDirectory(prefix="edgeseg-fuzz-")
PATH = Path(_FOLDER.name) / "fuzzed.edgeseg"
_FRAME = np.full((16, 24, 3), 200, np.uint8)


def check(data: bytes) -> str:
    """Load a file and label a frame with it."""
    PATH.write_bytes(drafts.assemble(data))
    try:
        with open_engine(PATH) as file:
            size = file.manifest.input
            if size.height * size.width > 1 << 20:
                return "large"  # allowed, and slow
        with guard.only_reading(PATH):
            runtime = Runtime(PATH, device="cpu", threads=1)
            labels = runtime.predict(_FRAME).labels
    except EngineError as error:
        guard.check_message(error)
        return "refused"
    if labels.shape != _FRAME.shape[:2] or labels.max() >= len(runtime.classes):
        raise BrokenPromiseError(f"labels of {labels.shape} up to {labels.max()}")
    return "sound"


TARGET = Target(
    name="network",
    check=check,
    seeds=drafts.networks,
    mutate=drafts.mutate,
    modules=("edgeseg.engine_file", openvino.__name__),
)

if __name__ == "__main__":
    main(TARGET)
