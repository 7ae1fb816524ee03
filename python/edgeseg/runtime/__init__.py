"""Run an engine file: frames in, labels out."""

from edgeseg.runtime.coco import write_coco
from edgeseg.runtime.result import Result, Timings
from edgeseg.runtime.runtime import Runtime, packaged_engine
from edgeseg.runtime.smoothing import smooth
from edgeseg.runtime.verification import Verification, verify

__all__ = [
    "Result",
    "Runtime",
    "Timings",
    "Verification",
    "packaged_engine",
    "smooth",
    "verify",
    "write_coco",
]
