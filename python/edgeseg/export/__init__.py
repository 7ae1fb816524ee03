"""From a checkpoint to an engine file, and from that to INT8 and to plans for GPUs."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgeseg.export.engine import ExportConfig, TargetName, export_engine
    from edgeseg.export.quantize import quantize_engine
    from edgeseg.export.tensorrt import build_engine

__all__ = ["ExportConfig", "TargetName", "build_engine", "export_engine", "quantize_engine"]

# Loaded when they are asked for: a device builds plans without torch, which the others need.
_MODULES = {
    "ExportConfig": "engine",
    "TargetName": "engine",
    "export_engine": "engine",
    "quantize_engine": "quantize",
    "build_engine": "tensorrt",
}


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
