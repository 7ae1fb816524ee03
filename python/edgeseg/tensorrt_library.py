"""TensorRT and TensorRT for RTX: one interface, two libraries. Needs neither a GPU nor CUDA."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from types import ModuleType
from typing import Any, Literal

from edgeseg.errors import EngineError, MissingDependencyError

PlanKind = Literal["tensorrt", "tensorrt-rtx"]

logger = logging.getLogger("edgeseg.tensorrt")

_MODULES: dict[PlanKind, str] = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx"}
_NAMES: dict[PlanKind, str] = {"tensorrt": "TensorRT", "tensorrt-rtx": "TensorRT-RTX"}
_EXTRAS: dict[PlanKind, str] = {"tensorrt": "gpu", "tensorrt-rtx": "gpu-rtx"}


@dataclass(frozen=True)
class Library:
    """TensorRT or TensorRT-RTX as it is installed here.

    Attributes:
        kind: of the targets that it builds and runs.
        module: its Python module.
        version: e.g. "10.15.1.29"; a plan runs with this one only.
    """

    kind: PlanKind
    module: Any
    version: str

    @property
    def name(self) -> str:
        """As its maker writes it, with the version."""
        return f"{_NAMES[self.kind]} {self.version}"

    @property
    def messages(self) -> Any:
        """The library's logger, to make its builders and runtimes with.

        All goes to Python's `edgeseg.tensorrt`, nothing louder than INFO: an error is raised, too,
        with `last_error` (a text, which whoever begins something may empty) in its sentence.
        """
        return _messages(self.module)


def load_library(kind: PlanKind) -> Library:
    """Import the library that builds and runs plans of a kind.

    Raises:
        MissingDependencyError: it is not installed.
        EngineError: it is installed, but cannot be loaded.
    """
    name = _MODULES[kind]
    try:
        module = import_module(name)
    except (ImportError, OSError, RuntimeError) as error:  # its shared libraries, or their driver
        if isinstance(error, ModuleNotFoundError) and error.name == name:
            raise MissingDependencyError(
                f"{_NAMES[kind]} is not installed, it builds and runs {kind} targets; "
                f"pip install 'edgeseg[{_EXTRAS[kind]}]', "
                f"in the source folder pip install '.[{_EXTRAS[kind]}]'"
            ) from error
        raise EngineError(
            f"{_NAMES[kind]} is installed but cannot be loaded: {error}; install it again with "
            f"pip install --force-reinstall {name}"
        ) from error
    return Library(kind, module, module.__version__)


@cache  # one for the process: the library keeps the first that it gets, and warns of a second
def _messages(module: ModuleType) -> Any:
    trt: Any = module
    errors = (trt.ILogger.Severity.ERROR, trt.ILogger.Severity.INTERNAL_ERROR)
    quiet = (trt.ILogger.Severity.INFO, trt.ILogger.Severity.VERBOSE)

    class Messages(trt.ILogger):  # type: ignore[misc]  # the library is known at run time only
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.last_error = ""

        def log(self, severity: Any, message: str) -> None:
            if severity in errors:
                self.last_error = message.strip()
            logger.log(logging.DEBUG if severity in quiet else logging.INFO, "%s", message)

    return Messages()
