"""The OpenVINO target: the network in OpenVINO's own format, which loads faster than ONNX."""

from __future__ import annotations

import io
import tempfile
from pathlib import Path

import openvino as ov

from edgeseg.engine_file import FloatWeights


def to_openvino(onnx_model: bytes, weights: FloatWeights) -> tuple[bytes, bytes]:
    """Convert an ONNX model to OpenVINO's intermediate representation.

    Returns:
        The graph (XML) and the weights (binary).
    """
    return serialize(ov.Core().read_model(io.BytesIO(onnx_model)), compress=weights == "float16")


def serialize(model: ov.Model, *, compress: bool) -> tuple[bytes, bytes]:
    """Graph (XML) and weights (binary) of a network; compressed, float32 is stored as float16."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.xml"
        ov.save_model(model, path, compress_to_fp16=compress)
        return path.read_bytes(), path.with_suffix(".bin").read_bytes()
