"""Real-time semantic segmentation: trained with text guidance, shipped as one engine file."""

from edgeseg import _core
from edgeseg.errors import EdgesegError, EngineError, InputError

__version__: str = _core.__version__

__all__ = ["EdgesegError", "EngineError", "InputError", "__version__"]
