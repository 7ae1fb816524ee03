"""From a checkpoint to an engine file, and from that to INT8."""

from edgeseg.export.engine import ExportConfig, TargetName, export_engine
from edgeseg.export.quantize import quantize_engine

__all__ = ["ExportConfig", "TargetName", "export_engine", "quantize_engine"]
