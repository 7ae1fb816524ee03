"""`quantize_engine`: adds an INT8 target for CPUs to an engine file, and says what it costs."""

from __future__ import annotations

import logging
import os
import shutil
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np
import openvino as ov
from numpy.typing import NDArray

from edgeseg import _core
from edgeseg.engine_file import (
    Agreement,
    EngineFile,
    Input,
    Manifest,
    Quantization,
    Target,
    add_target,
    open_engine,
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

PRESET = "performance"  # symmetric activations; "mixed" agreed no better with float32
GOLDEN_TOLERANCE = 0.02  # other instruction sets round otherwise, and compute the rest otherwise


def quantize_engine(
    path: str | os.PathLike[str],
    frames: Sequence[NDArray[np.uint8]],
    *,
    calibration: str,
    validation: LabelledImages | None = None,
    validation_name: str = "",
    threads: int | None = None,
) -> Manifest:
    """Add an INT8 target to an engine file in place, instead of an earlier one.

    Post-training quantization by NNCF: 8-bit weights per channel, 8-bit activations whose ranges
    are those seen on `frames` after the engine's own preprocessing, biases corrected.

    Args:
        path: the engine file; it stays as it was on any error.
        frames: RGB uint8 H×W×3, of the kind that the engine is for; some hundred will do.
        calibration: where the frames come from, for the manifest.
        validation: labelled images to measure mIoU on. Without them nothing is known of it, and
            the target runs only where INT8 is asked for.
        validation_name: where they come from, for the manifest.
        threads: CPU threads of the measurements; None is every core.

    Returns:
        The manifest with the new target.

    Raises:
        MissingDependencyError: NNCF is not installed.
        InputError: there are no frames, or the validation images have other classes.
        EngineError: the file cannot be read, has no ONNX target, or NNCF cannot quantize it.
        OutputError: the file cannot be written.
    """
    nncf = _nncf()
    if not frames:
        raise InputError(
            "there are no frames to calibrate on; give some hundred of the kind that the engine "
            "is for"
        )
    with open_engine(path) as engine:
        quantized = _quantize(nncf, engine, frames)
    names = ("openvino/int8.xml", "openvino/int8.bin")
    parts = dict(zip(names, serialize(quantized, compress=True), strict=True))
    target = Target(kind="openvino", parts=names, weights="int8")
    with replacing(path) as draft:
        try:
            shutil.copyfile(path, draft)
        except OSError as error:
            raise cannot_write(path, error) from error
        add_target(draft, target, parts)
        exact = Runtime(draft, precision="float32", threads=threads)
        integer = Runtime(draft, precision="int8", threads=threads)
        float_miou = miou = None
        if validation is not None:
            float_miou = evaluate_runtime(exact, validation).miou
            miou = evaluate_runtime(integer, validation).miou
        measured = target.model_copy(
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
        return add_target(draft, measured, parts)


def _nncf() -> ModuleType:
    # NNCF reports each use to its makers unless it believes that it is being tested.
    os.environ.setdefault("NNCF_CI", "1")
    try:
        nncf = import_module("nncf")
    except ModuleNotFoundError as error:
        if error.name != "nncf":
            raise
        raise MissingDependencyError(
            "NNCF is not installed, it quantizes networks; pip install 'edgeseg[export]', in the "
            "source folder pip install '.[export]'"
        ) from error
    nncf.set_log_level(logging.ERROR)
    return nncf


def _quantize(
    nncf: ModuleType, engine: EngineFile, frames: Sequence[NDArray[np.uint8]]
) -> ov.Model:
    portable = engine.manifest.target("onnx")
    if portable is None:
        raise EngineError(f"{engine.path} has no ONNX target to quantize; export the engine again")
    network_input = engine.manifest.input
    try:
        model = read_model(ov.Core(), engine, portable)
        with redirect_stdout(sys.stderr):  # its progress bars
            quantized: ov.Model = nncf.quantize(
                model,
                nncf.Dataset(frames, lambda frame: _tensor(frame, network_input)),
                preset=nncf.QuantizationPreset(PRESET),
                target_device=nncf.TargetDevice.CPU,
                subset_size=len(frames),
            )
            return quantized
    except RuntimeError as error:
        raise EngineError(
            f"OpenVINO {ov.__version__} cannot run the ONNX target of {engine.path}: {error}; "
            "export the engine again"
        ) from error


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
