"""Fuzz the reader of engine files: archive, manifest, hashes, and the golden sample's pictures."""

from __future__ import annotations

import tempfile
from pathlib import Path

import cv2
from tests.fuzz import drafts, guard
from tests.fuzz.fuzzing import Target, main

from edgeseg.engine_file import open_engine
from edgeseg.errors import EngineError
from edgeseg.runtime import verification

_FOLDER = tempfile.TemporaryDirectory(prefix="edgeseg-fuzz-")
PATH = Path(_FOLDER.name) / "fuzzed.edgeseg"


def check(data: bytes) -> str:
    """Open a file, read all its parts and decode its golden sample.

    Promised: an EngineError of one short line, or a file that is sound; no file but this one is
    opened, none is written, nothing is run; and no more memory than its size accounts for.
    """
    content = drafts.assemble(data)
    PATH.write_bytes(content)
    with guard.only_reading(PATH), guard.bounded_memory(len(content)):
        try:
            with open_engine(PATH) as file:
                for name in file.manifest.parts:
                    file.part(name)
                golden = file.manifest.golden
                verification._decode(file, golden.frame, cv2.IMREAD_COLOR)
                verification._decode(file, golden.labels, cv2.IMREAD_GRAYSCALE)
        except EngineError as error:
            guard.check_message(error)
            return "refused"
    return "sound"


TARGET = Target(
    name="engine_file",
    check=check,
    seeds=lambda: [*drafts.archives(), *drafts.goldens()],
    mutate=drafts.mutate,
    modules=("edgeseg.engine_file", "edgeseg.runtime.verification"),
)

if __name__ == "__main__":
    main(TARGET)
