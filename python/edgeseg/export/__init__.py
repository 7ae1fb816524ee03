"""From a checkpoint to an engine file."""

from edgeseg.export.engine import ExportConfig, export_engine

__all__ = ["ExportConfig", "export_engine"]
