"""Who competes: PyTorch, and every target that edgeseg can make on this machine."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from benchmarks.counts import macs
from benchmarks.gpu.bare import AotiEngine, BareEngine, PlanEngine, TorchEngine
from benchmarks.gpu.device import Device
from tests.kernels.cases import MEAN, STD
from torch import Tensor

from edgeseg.engine_file import (
    Architecture,
    Golden,
    Input,
    Manifest,
    Target,
    TargetKind,
    Training,
    open_engine,
    write_engine,
)
from edgeseg.errors import EngineError
from edgeseg.export import aoti, torch_tensorrt
from edgeseg.export.engine import trained_labels
from edgeseg.export.onnx import to_onnx
from edgeseg.models import STDCSeg, STDCSegConfig
from edgeseg.synthetic import street
from edgeseg.tensorrt_library import PlanKind, load_library

BACKBONE_CHANNELS = 1024


@dataclass(frozen=True)
class Case:
    """A network to run: STDC1 with K classes on 3×height×width."""

    classes: int
    height: int
    width: int
    guided: bool = True

    @property
    def name(self) -> str:
        kind = "text-guided" if self.guided else "baseline"
        return f"{kind}, K = {self.classes}, {self.width}×{self.height}"


CITYSCAPES = Case(19, 512, 1024)
CAMVID = Case(11, 720, 960)


@dataclass(frozen=True)
class Subject:
    """A case's network with weights, and what must come out of it.

    The weights are random: no time depends on them. Batch normalisation has seen streets, so that
    activations have the size that they have in a trained network.
    """

    case: Case
    device: Device
    folder: Path

    @cached_property
    def model(self) -> STDCSeg:
        """In evaluation mode, float32, on the host."""
        torch.manual_seed(0)
        case = self.case
        text = F.normalize(torch.randn(case.classes, BACKBONE_CHANNELS), dim=1)
        config = STDCSegConfig(
            "stdc1", case.classes, text_guidance="encoder" if case.guided else None
        )
        model = STDCSeg(config, text if case.guided else None)
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.momentum = None  # statistics of all batches alike
        frames = torch.cat([_normalised(street(seed, 128, 256).frame) for seed in range(4)])
        model.to(self.device.memory).train()
        with torch.no_grad():
            model(frames.to(self.device.memory))
        return model.cpu().eval()

    @cached_property
    def image(self) -> Tensor:
        """1×3×h×w float32 on the device: a street."""
        frame = street(1, self.case.height, self.case.width).frame
        return _normalised(frame).to(self.device.memory)

    @cached_property
    def logits(self) -> Tensor:
        """The model's, float32 on the device without TF32."""
        before = torch.backends.cudnn.allow_tf32
        torch.backends.cudnn.allow_tf32 = False
        try:
            return TorchEngine(self.model, self.image, "float32").run().clone()
        finally:
            torch.backends.cudnn.allow_tf32 = before

    def allowed_error(self, precision: str) -> float:
        """Three times what PyTorch errs by in that precision; random weights amplify rounding.

        float32 may run in TF32, whose significands are float16's. Of INT8 only that it computes
        this network: the logits of another would be off by more than 1.
        """
        if precision == "int8":
            return 0.7
        naive = "float16" if precision == "float32" else precision
        return 3 * logits_error(self, TorchEngine(self.model, self.image, naive).run())

    @cached_property
    def onnx(self) -> bytes:
        """The portable form."""
        return to_onnx(self.model, self.case.height, self.case.width, "float16")

    @cached_property
    def macs(self) -> int:
        """Of one image."""
        return macs(self.model, self.case.height, self.case.width)

    @cached_property
    def golden(self) -> tuple[np.ndarray, np.ndarray]:
        """A street and its labels."""
        frame = street(1, self.case.height, self.case.width).frame
        return frame, self.labels(frame)

    @property
    def calibration(self) -> list[np.ndarray]:
        """RGB frames."""
        size = self.case.height, self.case.width
        return [np.ascontiguousarray(street(seed, *size).frame[..., ::-1]) for seed in range(16)]

    def labels(self, frame: np.ndarray) -> np.ndarray:
        """H×W uint8 that PyTorch gives in float32 on the host."""
        return trained_labels(self.model, frame, self._input)

    def write(self, name: str, target: Target | None = None, content: bytes = b"") -> Path:
        """An engine file with the portable target and, if given, one more of one part."""
        case = self.case
        frame, labels = self.golden
        parts = {
            "onnx/model.onnx": self.onnx,
            "golden/frame.png": _png(frame),
            "golden/labels.png": _png(labels),
        }
        targets = [Target(kind="onnx", parts=("onnx/model.onnx",), weights="float16")]
        if target is not None:
            targets.append(target)
            parts[target.parts[0]] = content
        path = self.folder / f"{name}.edgeseg"
        manifest = Manifest(
            name=name,
            created_by="benchmarks.gpu",
            classes=tuple(f"class {index}" for index in range(case.classes)),
            palette=tuple((index, 0, 0) for index in range(case.classes)),
            input=self._input,
            architecture=Architecture(
                backbone="stdc1",
                text_guidance=self.model.config.text_guidance,
                parameters=sum(parameter.numel() for parameter in self.model.parameters()),
                align_corners=self.model.config.align_corners,
            ),
            training=Training(dataset="none: random weights, to be timed"),
            targets=tuple(targets),
            golden=Golden(frame="golden/frame.png", labels="golden/labels.png"),
        )
        write_engine(path, manifest, parts)
        return path

    @property
    def _input(self) -> Input:
        return Input(height=self.case.height, width=self.case.width, mean=MEAN, std=STD)


@dataclass(frozen=True)
class Made:
    """A contender ready to run.

    Attributes:
        engine: timed from outside the Runtime.
        file: that the Runtime runs; None for PyTorch's own.
        in_graph: whether its launches go into a CUDA graph.
    """

    engine: BareEngine
    file: Path | None = None
    in_graph: bool = True


@dataclass(frozen=True)
class Contender:
    """Something that runs the network."""

    name: str
    precision: str
    make: Callable[[Subject, str], Made] = field(repr=False)

    @property
    def title(self) -> str:
        return f"{self.name}, {self.precision}"


def torch_eager(subject: Subject, precision: str) -> Made:
    """PyTorch as it is written."""
    return Made(TorchEngine(subject.model, subject.image, precision), in_graph=False)


def torch_compiled(subject: Subject, precision: str) -> Made:
    """`torch.compile`."""
    compile = subject.device.compile
    return Made(TorchEngine(subject.model, subject.image, precision, compile))


def aot_inductor(subject: Subject, precision: str) -> Made:
    """The target "aoti"."""
    case = subject.case
    kind: aoti.CompileDevice = "cuda" if subject.device.memory.startswith("cuda") else "cpu"
    package = aoti.to_aoti(subject.model, case.height, case.width, precision, kind)
    file = _file(subject, "aoti", precision, package, aoti.requirements(kind, case.classes))
    return Made(AotiEngine(package, subject.image, precision), file)


def tensorrt_from_torch(score_map: Literal["plugin", "native"]) -> Callable[[Subject, str], Made]:
    """The target "tensorrt" by Torch-TensorRT, the score map as our kernel or as native layers."""

    def make(subject: Subject, precision: str) -> Made:
        torch_tensorrt.check_machine(score_map)
        case = subject.case
        plan = torch_tensorrt.to_tensorrt(
            subject.model, case.height, case.width, precision, score_map
        )
        requires = torch_tensorrt.requirements(case.classes)
        file = _file(subject, "tensorrt", precision, plan, requires, score_map)
        library = load_library("tensorrt")
        return Made(PlanEngine(library, plan, subject.image, subject.device), file)

    return make


def built(kind: PlanKind) -> Callable[[Subject, str], Made]:
    """A plan as `edgeseg build` makes it of the ONNX part."""

    def make(subject: Subject, precision: str) -> Made:
        from edgeseg.export.quantize import quantize_engine  # takes OpenVINO

        library = load_library(kind)
        file = subject.write(_file_name(subject.case, kind, precision, "onnx"))
        if precision == "int8":
            quantize_engine(
                file, subject.calibration, calibration="synthetic streets", target="onnx"
            )
        command = ["build", str(file), "--target", kind, "--precision", precision]
        _edgeseg(command)
        with open_engine(file) as engine:
            target = engine.manifest.target(kind, quantized=precision == "int8")
            if target is None:
                raise EngineError(f"edgeseg {' '.join(command)} added no {kind} target")
            plan = bytes(engine.part(target.parts[0]))
        return Made(PlanEngine(library, plan, subject.image, subject.device), file)

    return make


PEERS = (
    Contender("PyTorch eager", "float16", torch_eager),
    Contender("torch.compile, CUDA graph", "float16", torch_compiled),
)
OURS = (
    Contender("tensorrt, plugin", "float16", tensorrt_from_torch("plugin")),
    Contender("tensorrt, native layers", "float16", tensorrt_from_torch("native")),
    Contender("tensorrt, from ONNX", "float16", built("tensorrt")),
    Contender("tensorrt, from ONNX", "float32", built("tensorrt")),
    Contender("tensorrt, from ONNX", "int8", built("tensorrt")),
    Contender("tensorrt-rtx, from ONNX", "float16", built("tensorrt-rtx")),
    Contender("aoti", "float16", aot_inductor),
    Contender("aoti", "bfloat16", aot_inductor),
    Contender("aoti", "float32", aot_inductor),
)
# The baseline has no score map: it is the same with plugin and without.
PAPER = tuple(contender for contender in (*PEERS[1:], *OURS) if contender.precision == "float16")


def logits_error(subject: Subject, found: Tensor) -> float:
    """‖found − exact‖ / ‖exact‖, NaN where anything is."""
    exact = subject.logits.double()
    return float((found.double() - exact).norm() / exact.norm())


def _file(
    subject: Subject,
    kind: TargetKind,
    precision: str,
    content: bytes,
    requires: dict[str, str],
    detail: str = "",
) -> Path:
    target = Target(
        kind=kind,
        parts=(f"{kind}/model",),
        weights=precision,
        precision=precision,
        requires=requires,
    )
    return subject.write(_file_name(subject.case, kind, precision, detail), target, content)


def _file_name(case: Case, *words: str) -> str:
    name = "-".join(filter(None, (case.name, *words)))
    return "".join(letter if letter.isalnum() and letter.isascii() else "-" for letter in name)


def _edgeseg(arguments: list[str]) -> None:
    """Run the command line in a process of its own, as its user would."""
    beside = Path(sys.executable).with_name("edgeseg")
    program = str(beside) if beside.exists() else shutil.which("edgeseg")
    if program is None:
        raise EngineError("there is no command edgeseg beside this Python; install the package")
    done = subprocess.run([program, *arguments], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        said = " ".join((done.stderr or done.stdout).split())
        raise EngineError(f"edgeseg {' '.join(arguments[:1])} failed: {said[-400:]}")


def _normalised(frame: np.ndarray) -> Tensor:
    """1×3×H×W float32 of a BGR frame."""
    rgb = frame[..., ::-1].astype(np.float32)
    return torch.from_numpy(((rgb - MEAN) / STD).astype(np.float32).transpose(2, 0, 1).copy())[None]


def _png(image: np.ndarray) -> bytes:
    return cv2.imencode(".png", image)[1].tobytes()
