"""The portable target: standard ONNX operators only, weights stored as float16 if wanted."""

from __future__ import annotations

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper

from edgeseg.engine_file import FloatWeights
from edgeseg.export.program import fold_batch_norms
from edgeseg.models import STDCSeg
from edgeseg.ops import decomposition_table

_SMALL = 4096  # elements; smaller constants (scales, shapes, biases) stay float32: nothing to gain


def to_onnx(model: STDCSeg, height: int, width: int, weights: FloatWeights) -> bytes:
    """Export an evaluation-mode network: "image" 1×3×h×w float32 -> "logits" 1×K×h/8×w/8 float32.

    Args:
        model: the network; exported as it computes in evaluation mode, and not changed.
        height: height of the input in pixels.
        width: width of the input in pixels.
        weights: number format of the stored weights; arithmetic is float32 either way, a backend
            may choose to compute in less.
    """
    image = torch.zeros(1, 3, height, width)
    network = fold_batch_norms(model).requires_grad_(False)  # a smaller graph: twice as fast
    with torch.no_grad():
        exported = torch.export.export(network, (image,))
        exported = exported.run_decompositions(decomposition_table())
        program = torch.onnx.export(
            exported, input_names=["image"], output_names=["logits"], dynamo=True, verbose=False
        )
    assert program is not None
    proto = program.model_proto
    _strip_debug_information(proto)
    if weights == "float16":
        _store_weights_as_float16(proto)
    onnx.checker.check_model(proto, full_check=True)
    serialized: bytes = proto.SerializeToString()
    return serialized


def _strip_debug_information(proto: onnx.ModelProto) -> None:
    """Remove stack traces and the like: they tell of the exporting machine and weigh megabytes."""
    del proto.metadata_props[:]
    for node in proto.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    del proto.graph.metadata_props[:]
    del proto.graph.value_info[:]
    proto.graph.doc_string = proto.doc_string = ""
    for value in (*proto.graph.input, *proto.graph.output, *proto.graph.initializer):
        del value.metadata_props[:]
        value.doc_string = ""


def _store_weights_as_float16(proto: onnx.ModelProto) -> None:
    """Keep large float32 constants as float16, each behind a Cast that loaders fold or fuse."""
    casts = []
    for tensor in proto.graph.initializer:
        if tensor.data_type != TensorProto.FLOAT or np.prod(tensor.dims) < _SMALL:
            continue
        values = numpy_helper.to_array(tensor)
        name, stored = tensor.name, f"{tensor.name}.float16"
        tensor.CopyFrom(numpy_helper.from_array(values.astype(np.float16), stored))
        casts.append(helper.make_node("Cast", [stored], [name], to=TensorProto.FLOAT))
    nodes = list(proto.graph.node)
    del proto.graph.node[:]
    proto.graph.node.extend([*casts, *nodes])
