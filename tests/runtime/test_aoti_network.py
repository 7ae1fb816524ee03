"""AOTInductor packages in the GPU pipeline: one for the CPU, on a fake GPU's host memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import cv2
import numpy as np
import pytest
import torch
from tests.runtime.conftest import FakeGpu, compiled_pool

from edgeseg.engine_file import EngineFile, Target, add_target, open_engine
from edgeseg.errors import EngineError
from edgeseg.machine import Gpu
from edgeseg.runtime import Runtime
from edgeseg.runtime.aoti import AotiNetwork
from edgeseg.runtime.frames import as_frame
from edgeseg.runtime.gpu import GpuPipeline

GPU = Gpu(0, "Fake GPU", "8.7", 8 << 30, "13.0")


@pytest.fixture(scope="module")
def package() -> tuple[bytes, dict[str, str]]:
    return compiled_pool("cpu")


@pytest.fixture
def path(fake_gpu: FakeGpu, tmp_path: Path, package: tuple[bytes, dict[str, str]]) -> Path:
    path = fake_gpu.write(tmp_path / "tiny.edgeseg")
    content, requires = package
    target = Target(
        kind="aoti",
        parts=("aoti/cpu-float32.pt2",),
        weights="float32",
        precision="float32",
        requires=requires,
    )
    add_target(path, target, {target.parts[0]: content})
    return path


def network(engine: EngineFile, **changes: Any) -> AotiNetwork:
    target = engine.manifest.targets[-1].model_copy(update=changes)
    return AotiNetwork(engine, target, "cpu")


def test_labels_are_the_cpu_s(fake_gpu: FakeGpu, path: Path) -> None:
    fake_gpu.cuda.at_once = True  # the package runs when it is called, whatever the stream
    cpu = Runtime(path, device="cpu", precision="float32")
    with open_engine(path) as engine:
        pipeline = GpuPipeline(network(engine), engine.manifest, GPU)
    assert pipeline.precision == "float32"
    assert pipeline.logits == (3, 8, 12)
    for seed in range(4):
        small = np.random.default_rng(seed).integers(0, 256, (5, 7, 3), np.uint8)
        frame = cv2.resize(small, (30 + seed % 2, 20))
        labels, confidence, _ = pipeline.label(as_frame(frame), confidence=True)
        expected = cpu.predict(frame, confidence=True)
        assert np.mean(labels == expected.labels) > 0.999
        np.testing.assert_allclose(confidence, expected.confidence, atol=0.01)  # type: ignore[arg-type]
    assert fake_gpu.cuda.launches == 0  # torch's graphs are its own


@pytest.mark.usefixtures("fake_gpu")
def test_a_package_for_the_cpu_is_none_for_gpus(path: Path) -> None:
    assert Runtime(path, trust=True).target == "onnx"
    with pytest.raises(EngineError, match="no target for GPUs"):
        Runtime(path, device="cuda", trust=True)


def test_a_package_for_gpus_is_asked_for_trust_and_fit(fake_gpu: FakeGpu, path: Path) -> None:
    with open_engine(path) as engine:
        target = engine.manifest.targets[-1]
        content = {target.parts[0]: b"never read"}
    requires = target.requires | {"device": "cuda", "compute_capability": "9.0"}
    add_target(path, target.model_copy(update={"requires": requires}), content)
    with pytest.raises(EngineError, match=r"edgeseg export CHECKPOINT FILE --target aoti"):
        Runtime(path, device="cuda")
    with pytest.raises(EngineError, match=r"compute capability 9\.0, here it is 8\.7"):
        Runtime(path, device="cuda", trust=True)


def test_a_package_of_another_network_is_refused(fake_gpu: FakeGpu, path: Path) -> None:
    with open_engine(path) as engine:
        with pytest.raises(EngineError, match="computes in int8"):
            network(engine, precision="int8")
        fewer = engine.manifest.model_copy(update={"classes": ("a", "b")})
        object.__setattr__(engine, "manifest", fewer)
        with pytest.raises(EngineError, match="2 classes need"):
            network(engine)


def test_a_damaged_package_is_refused(fake_gpu: FakeGpu, path: Path) -> None:
    with open_engine(path) as engine:
        target = engine.manifest.targets[-1]
    add_target(path, target, {target.parts[0]: b"no package"})
    with open_engine(path) as engine, pytest.raises(EngineError, match="cannot be loaded"):
        network(engine)


class Recorded:
    """A CUDA graph of torch that remembers what was done with it."""

    made: ClassVar[list[Recorded]] = []

    def __init__(self) -> None:
        self.replays = 0
        self.made.append(self)

    def replay(self) -> None:
        self.replays += 1


def test_a_context_runs_once_and_then_replays_a_graph(
    fake_gpu: FakeGpu, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What torch.cuda would do is only recorded here; the first run is the real package's."""
    captured: list[dict[str, Any]] = []

    @contextmanager
    def capture(graph: Recorded, **arguments: Any) -> Iterator[None]:
        captured.append(arguments)
        yield

    monkeypatch.setattr(Recorded, "made", [])
    monkeypatch.setattr(torch.cuda, "CUDAGraph", Recorded)
    monkeypatch.setattr(torch.cuda, "graph", capture)
    monkeypatch.setattr(AotiNetwork, "has_graphs", True)
    monkeypatch.setattr(AotiNetwork, "external", lambda self, stream: f"stream {stream}")
    with open_engine(path) as engine:
        context = network(engine).context()
    image = np.random.default_rng(0).random((1, 3, 64, 96), np.float32)
    logits = np.zeros((1, 3, 8, 12), np.float32)
    expected = image.reshape(1, 3, 8, 8, 12, 8).mean((3, 5))

    context.enqueue(image.ctypes.data, logits.ctypes.data, 32)
    np.testing.assert_allclose(logits, expected, rtol=1e-5)
    assert not Recorded.made  # the first run takes memory and loads kernels
    for replays in (1, 2, 3):
        context.enqueue(image.ctypes.data, logits.ctypes.data, 32)
        assert [graph.replays for graph in Recorded.made] == [replays]
    assert captured == [{"stream": "stream 32", "capture_error_mode": "thread_local"}]

    elsewhere = np.zeros_like(logits)  # a graph has its addresses inside
    context.enqueue(image.ctypes.data, elsewhere.ctypes.data, 32)
    np.testing.assert_allclose(elsewhere, expected, rtol=1e-5)
    assert [graph.replays for graph in Recorded.made] == [3]
