"""The float16 form of a portable network, as a strongly typed TensorRT network takes it.

A portable network computes in float32, its weights may be stored as float16 behind Casts. In the
float16 form weights stay as they are stored, and input, logits and all between them are float16,
except for what is unsafe in it: sums over many numbers, which a backend may accumulate in the type
of the tensor.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgeseg.errors import EngineError

# Over whole images, and over the score map's 1024 channels.
_FLOAT32_OPERATORS = ("ReduceMean", "ReduceSum", "ReduceL2")
_QUANTIZERS = ("QuantizeLinear", "DequantizeLinear")
_SMALLEST = 2.0**-24  # positive number of float16


def to_float16(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of a float32 network with float16 input, arithmetic, weights and output.

    8-bit weights stay what they are. A quantizer's scale is float16, too, and positive: below 1e-5
    it loses more than 8 bits resolve, but then the weights of its channel are below 1e-3.

    Raises:
        EngineError: a weight is beyond float16's range.
    """
    result = onnx.ModelProto()
    result.CopyFrom(model)
    graph = result.graph
    del graph.value_info[:]
    for value in (*graph.input, *graph.output):
        if value.type.tensor_type.elem_type == TensorProto.FLOAT:
            value.type.tensor_type.elem_type = TensorProto.FLOAT16

    # Resize's region and scales are float32 whatever it resizes.
    kept = {name for node in graph.node if node.op_type == "Resize" for name in node.input[1:3]}
    scales = {node.input[1] for node in graph.node if node.op_type in _QUANTIZERS}
    stored_as_float16 = {t.name for t in graph.initializer if t.data_type == TensorProto.FLOAT16}
    for tensor in graph.initializer:
        if tensor.data_type == TensorProto.FLOAT and tensor.name not in kept:
            tensor.CopyFrom(_float16(tensor, at_least=_SMALLEST if tensor.name in scales else None))

    nodes: list[onnx.NodeProto] = []
    weights: dict[str, str] = {}  # the float32 form of a weight -> the float16 one
    for node in graph.node:
        node.input[:] = [weights.get(name, name) for name in node.input]
        if node.op_type == "Cast" and _to(node) == TensorProto.FLOAT:
            if node.input[0] in stored_as_float16:
                weights[node.output[0]] = node.input[0]
                continue
            node.CopyFrom(_cast(node.input[0], node.output[0], TensorProto.FLOAT16))
        if node.op_type in _FLOAT32_OPERATORS:
            wide, (data, out) = f"{node.output[0]}.float32", (node.input[0], node.output[0])
            node.input[0], node.output[0] = f"{wide}.input", wide
            nodes += [
                _cast(data, node.input[0], TensorProto.FLOAT),
                node,
                _cast(wide, out, TensorProto.FLOAT16),
            ]
        else:
            nodes.append(node)
    nodes = [_copy(node) for node in nodes]  # the graph owns those that it is about to forget
    del graph.node[:]
    graph.node.extend(nodes)
    return result


def _float16(tensor: TensorProto, at_least: float | None) -> TensorProto:
    values = numpy_helper.to_array(tensor)
    if at_least is not None:
        values = np.maximum(values, at_least)
    with np.errstate(over="ignore"):  # the sentence below says it
        narrow = values.astype(np.float16)
    if not np.isfinite(narrow).all():
        raise EngineError(
            f"the weight {tensor.name[:200]} reaches {np.abs(values).max():g}, float16 ends at "
            "65504; build the plan with --precision float32"
        )
    return numpy_helper.from_array(narrow, tensor.name)


def _to(cast: onnx.NodeProto) -> int:
    to: int = next(attribute.i for attribute in cast.attribute if attribute.name == "to")
    return to


def _cast(source: str, result: str, to: int) -> onnx.NodeProto:
    return helper.make_node("Cast", [source], [result], name=f"{result}.cast", to=to)


def _copy(node: onnx.NodeProto) -> onnx.NodeProto:
    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    return copy
