"""The networks that all contenders run: the packaged engine's weights, in PyTorch again.

An engine's ONNX part names its weights as the network does, with batch normalisation folded in. Its
logits are those of a trained network: smooth inside objects, undecided at their borders, which
noise from random weights would not be.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import Tensor, nn

from edgeseg.checkpoint import Checkpoint, save_checkpoint
from edgeseg.classes import CLASS_TABLES, ClassTable
from edgeseg.engine_file import Manifest, open_engine
from edgeseg.export import ExportConfig, export_engine, quantize_engine
from edgeseg.models import STDCSeg, STDCSegConfig
from edgeseg.runtime import packaged_engine
from edgeseg.synthetic import street

_CALIBRATION_SEED = 1000
_HALF = ".float16"  # suffix of weights that are stored as float16


@dataclass(frozen=True)
class Subject:
    """A network in every form that a contender may want.

    Attributes:
        name: e.g. "1024×512, K = 19".
        engine: engine file, in floating point and INT8.
        model: the same weights in PyTorch float32, in evaluation mode.
        manifest: the engine's.
        files: the engine's targets as plain files: "onnx", and where there is one "onnx-int8" and
            "openvino-int8" (the .xml; the .bin lies beside it).
    """

    name: str
    engine: Path
    model: STDCSeg
    manifest: Manifest
    files: dict[str, Path]


def subject(engine: Path, folder: Path) -> Subject:
    """Unpack an engine file.

    Args:
        engine: the file, with an ONNX target.
        folder: where its parts go as files.
    """
    names = {"openvino/int8.xml": "openvino-int8", "onnx/int8.onnx": "onnx-int8"}
    files = {}
    folder.mkdir(parents=True, exist_ok=True)
    with open_engine(engine) as file:
        manifest = file.manifest
        for target in manifest.targets:
            for part in target.parts:
                path = folder / Path(part).name
                path.write_bytes(file.part(part))
                if name := names.get(part, "onnx" if part == "onnx/model.onnx" else ""):
                    files[name] = path
    size, classes = manifest.input, len(manifest.classes)
    name = f"{size.width}×{size.height}, K = {classes}"
    return Subject(name, engine, recovered(manifest, files["onnx"]), manifest, files)


def recovered(manifest: Manifest, path: Path) -> STDCSeg:
    """The network of an engine's ONNX part, in PyTorch."""
    weights = {
        tensor.name.removesuffix(_HALF): torch.from_numpy(
            numpy_helper.to_array(tensor).astype(np.float32)
        )
        for tensor in onnx.load(path).graph.initializer
    }
    config = STDCSegConfig(
        manifest.architecture.backbone,
        len(manifest.classes),
        manifest.architecture.text_guidance,
        align_corners=manifest.architecture.align_corners,
    )
    guided = config.text_guidance is not None
    model = STDCSeg(config, weights["text_embeddings"] if guided else None).eval()
    norms = {name: module for name, module in model.named_modules() if _is_norm(module)}
    state = model.state_dict()
    for name, weight in weights.items():
        convolution, _, kind = name.rpartition(".")
        if name in state:
            state[name] = weight
        elif kind in ("bias", "weight_bias"):  # folded by edgeseg, or by ONNX Script's optimiser
            _fold(state, norms, convolution, weight)
    model.load_state_dict(state)
    return model


def _fold(state: dict[str, Tensor], norms: dict[str, nn.Module], conv: str, bias: Tensor) -> None:
    """Make the batch normalisation behind a convolution one that only adds `bias`."""
    parent, _, last = conv.rpartition(".")
    norm = f"{parent}.bn" if last == "conv" else f"{parent}.{int(last) + 1}"
    module = norms[norm]
    assert isinstance(module, nn.BatchNorm2d)
    state[f"{norm}.weight"] = torch.full_like(bias, (1 + module.eps) ** 0.5)
    state[f"{norm}.bias"] = bias
    state[f"{norm}.running_mean"] = torch.zeros_like(bias)
    state[f"{norm}.running_var"] = torch.ones_like(bias)


def _is_norm(module: nn.Module) -> bool:
    return isinstance(module, nn.BatchNorm2d)


def resized(model: STDCSeg, classes: int, *, guided: bool, align_corners: bool) -> STDCSeg:
    """The same network for another number of classes, with or without text guidance.

    Deterministic. Further classes are mixtures of the trained ones, a little less certain; weights
    that see further score-map channels are small and random; none of it is trained.
    """
    config = replace(
        model.config,
        num_classes=classes,
        text_guidance="encoder" if guided else None,
        align_corners=align_corners,
    )
    random = torch.Generator().manual_seed(0)
    text = torch.randn(classes, 1024, generator=random) if guided else None
    grown = STDCSeg(config, None if text is None else nn.functional.normalize(text)).eval()
    state, trained = grown.state_dict(), model.state_dict()
    for name, wanted in state.items():
        if name == "text_embeddings":
            continue
        there = trained[name]
        if name == "head.classify.weight":
            pairs = [(k % len(there), (k + 1) % len(there)) for k in range(len(there), classes)]
            mixed = [0.5 * (there[a] + there[b]) for a, b in pairs]
            there = torch.cat([there, *(row[None] for row in mixed)])[:classes]
        elif there.ndim == 4 and wanted.shape != there.shape:
            # Input channels: 1024 features, then the score map.
            extra = 0.01 * torch.randn(wanted.shape, generator=random)
            shared = min(there.shape[1], wanted.shape[1], 1024)
            if wanted.shape[0] != there.shape[0]:  # heads that only training has
                there = extra
            else:
                extra[:, :shared] = there[:, :shared]
                there = extra
        elif wanted.shape != there.shape:
            there = wanted
        state[name] = there
    grown.load_state_dict(state)
    return grown


def write_engine_of(
    model: STDCSeg,
    path: Path,
    *,
    width: int,
    height: int,
    mean: tuple[float, float, float],
    std: tuple[float, float, float],
    calibration: int,
) -> Path:
    """Export a network and add INT8 targets for OpenVINO and ONNX Runtime.

    Args:
        model: the network.
        path: engine file to write.
        width, height: of its input.
        mean, std: of R, G, B.
        calibration: synthetic streets that INT8's ranges are taken from; 0: no INT8.
    """
    checkpoint = path.with_suffix(".pt")
    classes = model.config.num_classes
    known = CLASS_TABLES["cityscapes"]
    table = (
        known
        if classes == len(known.names)
        else ClassTable.named([f"class {number}" for number in range(classes)])
    )
    guided = model.text_embeddings is not None
    saved = Checkpoint(
        model_config=model.config,
        state_dict=deepcopy(model.state_dict()),
        classes=table,
        text_provenance="random directions, for benchmarks" if guided else None,
        mean=mean,
        std=std,
        training={"dataset": "none: the packaged engine's weights, for benchmarks"},
    )
    save_checkpoint(checkpoint, saved)
    export_engine(checkpoint, path, ExportConfig(height=height, width=width))
    frames = [
        street(_CALIBRATION_SEED + seed, height, width).frame[..., ::-1]
        for seed in range(calibration)
    ]
    if frames:
        for target in ("openvino", "onnx"):
            quantize_engine(path, frames, calibration="synthetic streets", target=target)
    return path


@dataclass(frozen=True)
class Subjects:
    """What the suite runs. Each engine is written when it is first asked for: a minute or two.

    Attributes:
        folder: for engines and their parts.
        size: (width, height) of the wide network.
        classes: of the wide network and what is made after it.
        calibration: as of `write_engine_of`.
    """

    folder: Path
    size: tuple[int, int] = (1024, 512)
    classes: int = 19
    calibration: int = 40

    @cached_property
    def packaged(self) -> Subject:
        return subject(packaged_engine(), self.folder / "packaged")

    @cached_property
    def wide(self) -> Subject:
        return self._made("wide", self.size, guided=True)

    @cached_property
    def wide_baseline(self) -> Subject:
        """The wide network without text guidance."""
        return self._made("baseline", self.size, guided=False)

    @cached_property
    def small(self) -> Subject:
        """The wide network at a quarter of its pixels."""
        return self._made("small", (self.size[0] // 2, self.size[1] // 2), guided=True)

    def _made(self, name: str, size: tuple[int, int], *, guided: bool) -> Subject:
        settings = self.packaged.manifest.input
        # Half-pixel centres: what cv2.resize and OpenVINO's own resize do, so that all can agree.
        model = resized(self.packaged.model, self.classes, guided=guided, align_corners=False)
        folder = self.folder / name
        folder.mkdir(parents=True, exist_ok=True)
        engine = write_engine_of(
            model,
            folder / f"{name}.edgeseg",
            width=size[0],
            height=size[1],
            mean=settings.mean,
            std=settings.std,
            calibration=self.calibration,
        )
        return subject(engine, folder)
