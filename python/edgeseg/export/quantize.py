"""`quantize_engine`: adds an INT8 target to an engine file, and says what it costs.

Two forms of the same recipe (NNCF, one set of frames, biases corrected): "openvino" for CPUs, and
"onnx", a graph with QuantizeLinear and DequantizeLinear that TensorRT builds its INT8 plans from.
"""

from __future__ import annotations

import logging
import os
import shutil
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
import onnx
import openvino as ov
from numpy.typing import NDArray
from onnx import numpy_helper
from openvino.passes import ConstantFolding, Manager

from edgeseg import _core
from edgeseg.arguments import check_choice
from edgeseg.engine_file import (
    Agreement,
    EngineFile,
    Input,
    Manifest,
    Quantization,
    Target,
    add_target,
    open_engine,
    write_engine,
)
from edgeseg.errors import EngineError, InputError, MissingDependencyError
from edgeseg.evaluate import evaluate_runtime
from edgeseg.export.openvino import serialize
from edgeseg.files import cannot_write, replacing
from edgeseg.runtime import Runtime, verify
from edgeseg.runtime.frames import as_frame
from edgeseg.runtime.geometry import place
from edgeseg.runtime.openvino import read_model

if TYPE_CHECKING:
    from edgeseg.data import LabelledImages

QuantizedKind = Literal["openvino", "onnx"]
PRESET = "performance"  # symmetric activations; "mixed" agreed no better with float32
GOLDEN_TOLERANCE = 0.02  # other instruction sets round otherwise, and compute the rest otherwise

# Of these, and of the convolution that one of them divides, only the score map is made. Its norms
# span more than eight bits, and TensorRT fuses them best in one type. The second row is of engines
# that were exported before the norm was one operator.
_SCORE_MAP = (
    *("ReduceL2", "Greater", "Where", "Div"),
    *("Abs", "ReduceMax", "Pow", "ReduceSum", "Sqrt"),
)


def quantize_engine(
    path: str | os.PathLike[str],
    frames: Sequence[NDArray[np.uint8]],
    *,
    calibration: str,
    target: QuantizedKind = "openvino",
    validation: LabelledImages | None = None,
    validation_name: str = "",
    threads: int | None = None,
) -> Manifest:
    """Add an INT8 target to an engine file in place, instead of an earlier one of its kind.

    Post-training quantization by NNCF: 8-bit weights per channel, 8-bit activations whose ranges
    are those seen on `frames` after the engine's own preprocessing, biases corrected.

    Args:
        path: the engine file; it stays as it was on any error.
        frames: RGB uint8 H×W×3, of the kind that the engine is for; some hundred will do.
        calibration: where the frames come from, for the manifest.
        target: "openvino" is what CPUs run. "onnx" is what `edgeseg build` makes INT8 plans of:
            symmetric signed integers, zero points 0, weights stored as int8; the score map stays
            in floating point.
        validation: labelled images to measure mIoU on. Without them nothing is known of it, and
            the target runs only where INT8 is asked for.
        validation_name: where they come from, for the manifest.
        threads: CPU threads of the measurements; None is every core.

    Returns:
        The manifest with the new target.

    Raises:
        MissingDependencyError: NNCF is not installed, or for "onnx" ONNX Runtime.
        InputError: there are no frames, no such target, or the validation images have other
            classes.
        EngineError: the file cannot be read, has no ONNX target, or NNCF cannot quantize it.
        OutputError: the file cannot be written.
    """
    check_choice("target", target, get_args(QuantizedKind))
    nncf = _nncf(target)
    if not frames:
        raise InputError(
            "there are no frames to calibrate on; give some hundred of the kind that the engine "
            "is for"
        )
    with open_engine(path) as engine:
        portable = engine.manifest.target("onnx")
        if portable is None:
            raise EngineError(
                f"{engine.path} has no ONNX target to quantize; export the engine again"
            )
        try:
            with redirect_stdout(sys.stderr):  # NNCF's progress bars
                made = _MAKERS[target](nncf, engine, portable, frames)
        except RuntimeError as error:
            raise EngineError(
                f"OpenVINO {ov.__version__} cannot run the ONNX target of {engine.path}: {error}; "
                "export the engine again"
            ) from error
        added = Target(kind=target, parts=tuple(made), weights="int8")
        # Beside the float engine alone, so that the Runtime has no choice.
        alone = engine.manifest.model_copy(update={"targets": (portable, added)})
        kept = {name: engine.part(name) for name in alone.named_parts() - set(made)}
        with replacing(path) as draft:
            write_engine(draft, alone, {**kept, **made})
            exact = Runtime(draft, precision="float32", threads=threads)
            integer = Runtime(draft, precision="int8", threads=threads)
            float_miou = miou = None
            if validation is not None:
                float_miou = evaluate_runtime(exact, validation).miou
                miou = evaluate_runtime(integer, validation).miou
            measured = added.model_copy(
                update={
                    "agreement": (_agreement(exact, integer, frames),),
                    "quantization": Quantization(
                        method=f"nncf {nncf.__version__}, preset {PRESET}",
                        calibration=f"{calibration}, {len(frames)} frames",
                        golden=verify(draft, precision="int8", threads=threads).agreement,
                        golden_tolerance=GOLDEN_TOLERANCE,
                        validation=validation_name,
                        float_miou=float_miou,
                        miou=miou,
                    ),
                }
            )
            try:
                shutil.copyfile(path, draft)
            except OSError as error:
                raise cannot_write(path, error) from error
            return add_target(draft, measured, made)


def _nncf(target: QuantizedKind) -> ModuleType:
    # NNCF reports each use to its makers unless it believes that it is being tested.
    os.environ.setdefault("NNCF_CI", "1")
    nncf = _need("nncf", "NNCF is not installed, it quantizes networks")
    if target == "onnx":
        _need("onnxruntime", "ONNX Runtime is not installed, NNCF calibrates ONNX networks with it")
    nncf.set_log_level(logging.ERROR)
    return nncf


def _need(package: str, what: str) -> ModuleType:
    try:
        return import_module(package)
    except ModuleNotFoundError as error:
        if error.name != package:
            raise
        raise MissingDependencyError(
            f"{what}; pip install 'edgeseg[export]', in the source folder pip install '.[export]'"
        ) from error


def _openvino(
    nncf: ModuleType, engine: EngineFile, portable: Target, frames: Sequence[NDArray[np.uint8]]
) -> dict[str, bytes]:
    model = read_model(ov.Core(), engine, portable)
    # NNCF takes for weights what is constant, not what a Reshape or an Unsqueeze makes of
    # constants: the depthwise convolutions, 4 % of the time, would stay in floating point.
    folding = Manager()
    folding.register_pass(ConstantFolding())
    folding.run_passes(model)
    quantized = nncf.quantize(
        model,
        nncf.Dataset(frames, lambda frame: _tensor(frame, engine.manifest.input)),
        preset=nncf.QuantizationPreset(PRESET),
        target_device=nncf.TargetDevice.CPU,
        subset_size=len(frames),
    )
    xml, weights = serialize(quantized, compress=True)
    return {"openvino/int8.xml": xml, "openvino/int8.bin": weights}


def _onnx(
    nncf: ModuleType, engine: EngineFile, portable: Target, frames: Sequence[NDArray[np.uint8]]
) -> dict[str, bytes]:
    from onnxscript import optimizer

    read_model(ov.Core(), engine, portable)  # for its checks
    stored = bytes(engine.part(portable.parts[0]))
    # NNCF takes for weights what is constant, not what a Cast or an Unsqueeze makes of constants.
    limit = 4 * len(stored)
    model = optimizer.optimize(
        onnx.load_from_string(stored), input_size_limit=limit, output_size_limit=limit
    )
    divided = {node.input[0] for node in model.graph.node if node.op_type == "Div"}
    cosines = [
        node.name
        for node in model.graph.node
        if node.op_type == "Conv" and node.output[0] in divided
    ]
    image = model.graph.input[0].name
    quantized = nncf.quantize(
        model,
        nncf.Dataset(frames, lambda frame: {image: _tensor(frame, engine.manifest.input)}),
        preset=nncf.QuantizationPreset(PRESET),
        subset_size=len(frames),
        ignored_scope=nncf.IgnoredScope(names=cosines, types=list(_SCORE_MAP), validate=False),
        advanced_parameters=nncf.AdvancedQuantizationParameters(
            overflow_fix=nncf.OverflowFix.DISABLE  # it is for old CPUs
        ),
    )
    _make_signed(quantized)
    del quantized.graph.value_info[:]  # still of unsigned tensors
    onnx.checker.check_model(quantized, full_check=True)
    return {"onnx/int8.onnx": quantized.SerializeToString()}


_MAKERS = {"openvino": _openvino, "onnx": _onnx}


def _make_signed(model: onnx.ModelProto) -> None:
    """Give what NNCF made unsigned (what never is negative) the same range as signed integers.

    TensorRT has no unsigned ones; NNCF lets nobody forbid them.
    """
    constants = {constant.name: constant for constant in model.graph.initializer}
    unsigned = {
        (node.input[1], node.input[2])
        for node in model.graph.node
        if node.op_type in ("QuantizeLinear", "DequantizeLinear")
        and constants[node.input[2]].data_type == onnx.TensorProto.UINT8
    }
    for scale, zero_point in unsigned:
        step = numpy_helper.to_array(constants[scale]) * np.float32(255 / 127)
        constants[scale].CopyFrom(numpy_helper.from_array(step.astype(np.float32), scale))
        zero = numpy_helper.to_array(constants[zero_point]).astype(np.int8)
        constants[zero_point].CopyFrom(numpy_helper.from_array(zero, zero_point))


def _tensor(pixels: NDArray[np.uint8], network_input: Input) -> NDArray[np.float32]:
    """What the Runtime would give the network for an RGB frame: 1×3×h×w float32."""
    frame = as_frame(pixels, "rgb")
    image = np.empty((1, 3, network_input.height, network_input.width), np.float32)
    # Where the frame's logits lie does not matter here, nor does how they are aligned.
    placement = place((frame.height, frame.width), network_input, (1, 1), align_corners=False)
    _core.preprocess(
        frame.pixels,
        image[0],
        mean=network_input.mean,
        std=network_input.std,
        pixel_format=frame.pixel_format,
        content=placement.content,
        pad=network_input.pad,
    )
    return image


def _agreement(exact: Runtime, integer: Runtime, frames: Sequence[NDArray[np.uint8]]) -> Agreement:
    same = [
        np.mean(integer.predict(frame, "rgb").labels == exact.predict(frame, "rgb").labels)
        for frame in frames
    ]
    return Agreement(
        precision=integer.precision,
        device=integer.device,
        frames=len(frames),
        pixels=float(np.mean(same)),
    )
