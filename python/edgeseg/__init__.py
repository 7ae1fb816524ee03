"""Real-time semantic segmentation: trained with text guidance, shipped as one engine file."""

from edgeseg import _core
from edgeseg._core import build_info
from edgeseg.errors import EdgesegError, EngineError, InputError
from edgeseg.runtime import Result, Runtime, smooth, write_coco

__version__: str = _core.__version__

__all__ = [
    "EdgesegError",
    "EngineError",
    "InputError",
    "Result",
    "Runtime",
    "__version__",
    "build_info",
    "smooth",
    "write_coco",
]
