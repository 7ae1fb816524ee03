"""`export_engine`: checkpoint -> engine file, with the proof that both compute the same."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

import edgeseg
from edgeseg import _core, trust
from edgeseg.checkpoint import Checkpoint, load_checkpoint
from edgeseg.engine_file import (
    Agreement,
    Architecture,
    FloatType,
    FloatWeights,
    Golden,
    Input,
    Manifest,
    Resize,
    Target,
    Training,
    open_engine,
    write_engine,
)
from edgeseg.errors import ConfigError, EngineError
from edgeseg.export import aoti, torch_tensorrt
from edgeseg.export.onnx import to_onnx
from edgeseg.export.openvino import to_openvino
from edgeseg.files import replacing
from edgeseg.models import STDCSeg
from edgeseg.runtime import Runtime
from edgeseg.runtime.geometry import place
from edgeseg.runtime.runtime import Precision
from edgeseg.synthetic import street

LOWEST_FLOAT32_AGREEMENT = 0.998
_GOLDEN = Golden(frame="golden/frame.png", labels="golden/labels.png")
_GOLDEN_SIZE = (480, 640)
_GOLDEN_SEED = 2024

TargetName = Literal["onnx", "openvino", "aoti", "tensorrt"]


@dataclass(frozen=True)
class ExportConfig:
    """What an engine file is made to be.

    Attributes:
        height, width: network input in pixels.
        targets: forms to store; "onnx" is always there. "openvino" loads faster on CPUs. "aoti"
            (compiled by PyTorch) and "tensorrt" (a plan, by Torch-TensorRT) are code for the
            machine that makes them.
        weights: number format of the stored weights of the portable forms.
        precision: what the compiled forms compute in; "bfloat16" is for "aoti" only.
        device: what "aoti" is compiled for, "cuda" or "cpu".
        score_map: how a plan computes the score map: "plugin" (our kernel in it) or "native"
            (TensorRT's layers).
        resize: "stretch" or "letterbox".
        name: the engine's name; empty takes the file's.
        license: what may be done with the weights, and why.
        check_frames: synthetic frames on which each target is compared with PyTorch.
    """

    height: int = 720
    width: int = 960
    targets: tuple[TargetName, ...] = ("onnx",)
    weights: FloatWeights = "float16"
    precision: FloatType = "float16"
    device: aoti.CompileDevice = "cuda"
    score_map: torch_tensorrt.ScoreMap = "plugin"
    resize: Resize = "stretch"
    name: str = ""
    license: str = ""
    check_frames: int = 4

    def __post_init__(self) -> None:
        for side, pixels in (("height", self.height), ("width", self.width)):
            if not 32 <= pixels <= 8192:
                raise ConfigError(f"{side} is {pixels}; the network takes 32 to 8192 pixels")
        if self.check_frames < 1:
            raise ConfigError(f"check_frames is {self.check_frames}; at least 1 is needed")
        unknown = set(self.targets) - set(get_args(TargetName))
        if unknown:
            raise ConfigError(
                f"unknown targets {sorted(unknown)}; there are {get_args(TargetName)}"
            )
        if "tensorrt" in self.targets and self.precision == "bfloat16":
            raise ConfigError(
                "a TensorRT plan takes and gives float32 or float16, precision is 'bfloat16'; "
                "choose one of these"
            )


@dataclass(frozen=True)
class _Source:
    """What targets are made of."""

    model: STDCSeg
    onnx: bytes
    config: ExportConfig


Made = tuple[Target, dict[str, bytes]]


def _onnx(source: _Source) -> Made:
    parts = {"onnx/model.onnx": source.onnx}
    return Target(kind="onnx", parts=tuple(parts), weights=source.config.weights), parts


def _openvino(source: _Source) -> Made:
    names = ("openvino/model.xml", "openvino/model.bin")
    parts = dict(zip(names, to_openvino(source.onnx, source.config.weights), strict=True))
    return Target(kind="openvino", parts=names, weights=source.config.weights), parts


def _aoti(source: _Source) -> Made:
    config = source.config
    package = aoti.to_aoti(
        source.model, config.height, config.width, config.precision, config.device
    )
    requires = aoti.requirements(config.device, source.model.config.num_classes)
    return _code("aoti", package, "pt2", config.precision, requires)


def _tensorrt(source: _Source) -> Made:
    config = source.config
    plan = torch_tensorrt.to_tensorrt(
        source.model, config.height, config.width, config.precision, config.score_map
    )
    requires = torch_tensorrt.requirements(source.model.config.num_classes)
    return _code("tensorrt", plan, "plan", config.precision, requires)


_MAKERS: Mapping[TargetName, Callable[[_Source], Made]] = {
    "onnx": _onnx,
    "openvino": _openvino,
    "aoti": _aoti,
    "tensorrt": _tensorrt,
}


def _code(
    kind: Literal["aoti", "tensorrt"],
    content: bytes,
    suffix: str,
    precision: FloatType,
    requires: dict[str, str],
) -> Made:
    """A target that is code, remembered as built here: only then the Runtime loads it."""
    trust.remember(hashlib.sha256(content).hexdigest())
    capability = requires.get("compute_capability", "")
    device = f"sm{capability.replace('.', '')}" if capability else requires["device"]
    name = f"{kind}/{device}-{precision}.{suffix}"
    target = Target(
        kind=kind, parts=(name,), weights=precision, precision=precision, requires=requires
    )
    return target, {name: content}


def export_engine(
    checkpoint: str | os.PathLike[str],
    path: str | os.PathLike[str],
    config: ExportConfig = ExportConfig(),
) -> Manifest:
    """Write an engine file from a training checkpoint and check it against PyTorch.

    Raises:
        CheckpointError: the checkpoint cannot be read.
        ConfigError: the configuration does not fit.
        MissingDependencyError: a target needs a package that is not installed.
        EngineError: a target cannot be made on this machine, or its float32 labels do not agree
            with PyTorch's.
        OutputError: the file cannot be written.
    """
    _check_machine(config)
    trained = load_checkpoint(Path(checkpoint))
    model = trained.model()
    source = _Source(model, to_onnx(model, config.height, config.width, config.weights), config)
    targets: list[Target] = []
    parts: dict[str, bytes] = {}
    for name in dict.fromkeys(("onnx", *config.targets)):
        target, made = _MAKERS[name](source)
        targets.append(target)
        parts.update(made)

    network_input = Input(
        height=config.height,
        width=config.width,
        mean=trained.mean,
        std=trained.std,
        resize=config.resize,
    )
    golden_frame = street(_GOLDEN_SEED, *_GOLDEN_SIZE).frame
    golden_labels = trained_labels(model, golden_frame, network_input)
    parts[_GOLDEN.frame] = _png(golden_frame)
    parts[_GOLDEN.labels] = _png(golden_labels)
    manifest = _describe(trained, model, config, network_input, targets, Path(path).stem)

    frames = [street(seed, *_GOLDEN_SIZE).frame for seed in range(config.check_frames)]
    expected = [trained_labels(model, frame, network_input) for frame in frames]
    with replacing(path) as draft:
        measured = []
        for target in targets:
            # One target at a time, so that the Runtime has no choice.
            alone = manifest.model_copy(update={"targets": (target,)})
            write_engine(draft, alone, {name: parts[name] for name in alone.named_parts()})
            agreement = _measure(draft, target, frames, expected)
            _require_agreement(target, agreement)
            measured.append(target.model_copy(update={"agreement": agreement}))
        manifest = manifest.model_copy(update={"targets": tuple(measured)})
        return write_engine(draft, manifest, parts)


def trained_labels(
    model: STDCSeg, frame: NDArray[np.uint8], network_input: Input
) -> NDArray[np.uint8]:
    """Labels H×W uint8 that the network gives in PyTorch float32 for a BGR frame H×W×3."""
    return _labels(model, frame, network_input, align_corners=model.config.align_corners)


def _labels(
    network: Callable[[Tensor], Tensor],
    frame: NDArray[np.uint8],
    network_input: Input,
    *,
    align_corners: bool,
) -> NDArray[np.uint8]:
    """Labels that a network gives, 1×3×h×w float32 -> logits 1×K×⌈h/8⌉×⌈w/8⌉ float32.

    The kernels around the network are the Runtime's own, so that a comparison with its labels
    compares the networks; the kernels are compared with their slow twins elsewhere.
    """
    size = frame.shape[0], frame.shape[1]
    grid = (-(-network_input.height // 8), -(-network_input.width // 8))
    placement = place(size, network_input, grid, align_corners=align_corners)
    image = np.empty((3, network_input.height, network_input.width), np.float32)
    labels: NDArray[np.uint8] = np.empty(size, np.uint8)
    _core.preprocess(
        frame,
        image,
        mean=network_input.mean,
        std=network_input.std,
        content=placement.content,
        pad=network_input.pad,
    )
    with torch.inference_mode():
        logits = network(torch.from_numpy(image)[None]).numpy()
    _core.upsample_argmax(
        logits, labels[None], source=placement.source, align_corners=align_corners
    )
    return labels


def _check_machine(config: ExportConfig) -> None:
    """Refuse at once what this machine cannot make: compiling the rest takes minutes."""
    if "aoti" in config.targets:
        aoti.check_machine(config.device)
    if "tensorrt" in config.targets:
        torch_tensorrt.check_machine(config.score_map)


def _describe(
    trained: Checkpoint,
    model: STDCSeg,
    config: ExportConfig,
    network_input: Input,
    targets: Sequence[Target],
    name: str,
) -> Manifest:
    return Manifest(
        name=config.name or name,
        created_by=f"edgeseg {edgeseg.__version__}",
        classes=trained.classes.names,
        palette=trained.classes.palette,
        input=network_input,
        architecture=Architecture(
            backbone=model.config.backbone,
            text_guidance=model.config.text_guidance,
            parameters=sum(parameter.numel() for parameter in model.parameters()),
            align_corners=model.config.align_corners,
        ),
        text=trained.text_provenance or "",
        training=_training(trained.training),
        license=config.license,
        targets=tuple(targets),
        golden=_GOLDEN,
    )


def _training(provenance: Mapping[str, Any]) -> Training:
    """The manifest's account of a training run; a run that tells less leaves gaps."""
    start = provenance.get("start") or {}
    synthetic = provenance.get("config", {}).get("synthetic", 0)
    images = f", {provenance['train_images']} images" if "train_images" in provenance else ""
    notes = [
        f"{name} {provenance[name]}" for name in ("edgeseg", "torch", "git") if name in provenance
    ]
    if start:
        notes.insert(0, f"started from weights trained on {start.get('dataset', 'unknown data')}")
    return Training(
        dataset=f"{provenance.get('dataset', 'unknown')}{images}"
        + (f", {synthetic} of them synthetic streets" if synthetic else ""),
        validation=f"{provenance.get('validation_images', 'no')} images",
        iterations=provenance.get("iteration", 0),
        miou=provenance.get("miou_last"),
        iou=provenance.get("iou_last") or {},
        notes="; ".join(notes),
    )


def _png(image: NDArray[np.uint8]) -> bytes:
    return cv2.imencode(".png", image)[1].tobytes()


def _require_agreement(target: Target, measured: Sequence[Agreement]) -> None:
    for agreement in measured:
        if agreement.precision == "float32" and agreement.pixels < LOWEST_FLOAT32_AGREEMENT:
            raise EngineError(
                f"the {target.kind} target gives {agreement.pixels:.4%} of PyTorch's labels in "
                f"float32, at least {LOWEST_FLOAT32_AGREEMENT:.1%} is required; nothing was "
                "written. Try weights='float32', or train longer: a network without clear winners "
                "changes its mind on rounding"
            )


def _measure(
    engine: Path,
    target: Target,
    frames: Sequence[NDArray[np.uint8]],
    expected: Sequence[NDArray[np.uint8]],
) -> tuple[Agreement, ...]:
    if target.requires.get("device") == "cpu":
        return (_measure_cpu_package(engine, target, frames, expected),)
    results = []
    # What is compiled computes in one precision; the portable forms, in the one they are asked for.
    precisions: tuple[Precision, ...] = ("auto",) if target.requires else ("float32", "auto")
    device = "cuda" if target.requires else "cpu"
    for precision in precisions:
        runtime = Runtime(engine, device, precision=precision, strict=True)
        labels = [runtime.predict(frame).labels for frame in frames]
        results.append(_agreement(runtime.precision, runtime.device, labels, expected))
    return tuple({result.precision: result for result in results}.values())


def _measure_cpu_package(
    engine: Path,
    target: Target,
    frames: Sequence[NDArray[np.uint8]],
    expected: Sequence[NDArray[np.uint8]],
) -> Agreement:
    """For PyTorch programs: the Runtime has something faster for CPUs, and does not load it."""
    from edgeseg.runtime.aoti import AotiNetwork

    with open_engine(engine) as file:
        package = AotiNetwork(file, target, "cpu")
        manifest = file.manifest
    network = package.load()
    dtype: torch.dtype = getattr(torch, package.input_dtype)

    def logits(image: Tensor) -> Tensor:
        return package.run(network, image.to(dtype)).float()

    align_corners = manifest.architecture.align_corners
    labels = [
        _labels(logits, frame, manifest.input, align_corners=align_corners) for frame in frames
    ]
    return _agreement(package.precision, "cpu", labels, expected)


def _agreement(
    precision: str,
    device: str,
    labels: Sequence[NDArray[np.uint8]],
    expected: Sequence[NDArray[np.uint8]],
) -> Agreement:
    same = [np.mean(a == b) for a, b in zip(labels, expected, strict=True)]
    return Agreement(
        precision=precision, device=device, frames=len(same), pixels=float(np.mean(same))
    )
