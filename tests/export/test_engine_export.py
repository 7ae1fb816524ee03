"""Checkpoint -> engine file: both compute the same, and the file says how exactly."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from edgeseg.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from edgeseg.classes import CAMVID
from edgeseg.engine_file import open_engine
from edgeseg.errors import CheckpointError, ConfigError, EngineError
from edgeseg.export import ExportConfig, TargetName, export_engine, torch_tensorrt
from edgeseg.export.engine import trained_labels
from edgeseg.models import STDCSeg, STDCSegConfig
from edgeseg.runtime import Runtime, verify
from edgeseg.synthetic import street


def small_model() -> STDCSeg:
    """An untrained text-guided network with lively BatchNorm statistics."""
    torch.manual_seed(0)
    config = STDCSegConfig(backbone="stdc1", num_classes=len(CAMVID), text_guidance="encoder")
    text = torch.nn.functional.normalize(torch.randn(len(CAMVID), 1024), dim=1)
    model = STDCSeg(config, text)
    model(torch.randn(4, 3, 96, 128))  # training mode: moves the running statistics
    return model.eval()


def small_checkpoint(path: Path) -> Path:
    """A checkpoint of `small_model`."""
    model = small_model()
    save_checkpoint(
        path,
        Checkpoint(
            model_config=model.config,
            state_dict=model.state_dict(),
            classes=CAMVID,
            text_provenance="random",
            mean=(123.675, 116.28, 103.53),
            std=(58.395, 57.12, 57.375),
            training={"dataset": "none", "iteration": 1, "miou_last": 0.25},
        ),
    )
    return path


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_checkpoint(tmp_path_factory.mktemp("checkpoint") / "small.pt")


@pytest.fixture(scope="module")
def engine(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("engine") / "small.edgeseg"
    config = ExportConfig(
        height=96, width=160, targets=("onnx", "openvino"), resize="letterbox", check_frames=2
    )
    export_engine(checkpoint, path, config)
    return path


def test_every_target_agrees_with_pytorch(engine: Path) -> None:
    with open_engine(engine) as file:
        targets = file.manifest.targets
    assert [target.kind for target in targets] == ["onnx", "openvino"]
    for target in targets:
        by_precision = {a.precision: a.pixels for a in target.agreement}
        assert by_precision["float32"] >= 0.998
        assert min(by_precision.values()) > 0.9


def test_the_stored_agreement_is_reproducible(engine: Path, checkpoint: Path) -> None:
    """Measured again from the finished file, on a frame that the export did not see."""
    frame = street(99, 120, 90).frame
    runtime = Runtime(engine, precision="float32")
    expected = trained_labels(load_checkpoint(checkpoint).model(), frame, runtime.manifest.input)
    assert np.mean(runtime.predict(frame).labels == expected) >= 0.998


def test_the_golden_sample_verifies(engine: Path) -> None:
    assert verify(engine, precision="float32").agreement >= 0.998


def test_the_manifest_tells_the_provenance(engine: Path) -> None:
    with open_engine(engine) as file:
        manifest = file.manifest
    assert manifest.classes == CAMVID.names
    assert manifest.text == "random"
    assert manifest.training.miou == 0.25
    assert manifest.architecture.backbone == "stdc1"
    assert manifest.name == "small"


def test_the_portable_part_is_plain_onnx_and_names_no_machine(engine: Path) -> None:
    with open_engine(engine) as file:
        content = bytes(file.part("onnx/model.onnx"))
    model = onnx.load_from_string(content)
    assert {node.domain for node in model.graph.node} <= {"", "ai.onnx"}
    assert str(Path(torch.__file__).parent).encode() not in content
    assert str(Path.cwd()).encode() not in content
    assert len(content) < 20e6  # float16 weights


def test_a_checkpoint_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "bad.pt").write_bytes(b"no checkpoint")
    with pytest.raises(CheckpointError):
        export_engine(tmp_path / "bad.pt", tmp_path / "out.edgeseg")
    assert [path.name for path in tmp_path.iterdir()] == ["bad.pt"]


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"height": 16}, "32 to 8192"),
        ({"width": 10_000}, "32 to 8192"),
        ({"check_frames": 0}, "at least 1"),
        ({"targets": ("onnx", "coreml")}, "there are"),
        ({"targets": ("tensorrt",), "precision": "bfloat16"}, "float32 or float16"),
    ],
)
def test_bad_configurations(fields: dict[str, Any], reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        ExportConfig(**fields)


@pytest.mark.parametrize("target", ["aoti", "tensorrt"])
def test_what_needs_a_gpu_is_refused_before_any_work(
    target: TargetName, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch_tensorrt, "find_spec", lambda name: object())
    with pytest.raises(EngineError, match="no CUDA device"):
        export_engine(
            tmp_path / "missing.pt", tmp_path / "out.edgeseg", ExportConfig(targets=(target,))
        )
    assert not list(tmp_path.iterdir())
