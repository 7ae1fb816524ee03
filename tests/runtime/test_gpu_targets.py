"""Which target a Runtime takes, and that a refused one's code is never read."""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.runtime.conftest import FakeGpu
from tests.runtime.fake_tensorrt import plan

from edgeseg import _core
from edgeseg.engine_file import Quantization
from edgeseg.errors import EngineError, InputError, MissingDependencyError
from edgeseg.runtime import Runtime, verify

HARMLESS = Quantization(
    method="",
    calibration="",
    golden=1.0,
    golden_tolerance=0.0,
    validation="some",
    float_miou=0.7,
    miou=0.698,
)
HARMFUL = HARMLESS.model_copy(update={"miou": 0.6})


@pytest.fixture
def path(fake_gpu: FakeGpu, tmp_path: Path) -> Path:
    return fake_gpu.write(tmp_path / "tiny.edgeseg")


@pytest.mark.parametrize(
    ("requires", "words"),
    [
        ({"version": "10.3.0"}, "is for library version 10.3.0, here it is 10.15.1.29"),
        ({"compute_capability": "7.5 8.9"}, "7.5 or 8.9, here it is 8.7"),
        ({"platform": "windows amd64"}, "is for platform windows amd64"),
        ({"classes": "4"}, "is for number of classes 4, here it is 3"),
        ({"library": "tensorrt-rtx"}, "is for library tensorrt-rtx"),
    ],
)
def test_a_plan_for_something_else_is_refused_before_it_is_read(
    fake_gpu: FakeGpu,
    path: Path,
    caplog: pytest.LogCaptureFixture,
    requires: dict[str, str],
    words: str,
) -> None:
    fake_gpu.add_plan(path, **requires)  # type: ignore[arg-type]
    assert Runtime(path).backend == "openvino"
    assert caplog.text.count(words) == 1
    assert "edgeseg build FILE --target tensorrt" in caplog.text
    for arguments in ({"strict": True}, {"device": "cuda"}, {"device": "cuda:0"}):
        with pytest.raises(EngineError, match=words):
            Runtime(path, **arguments)  # type: ignore[arg-type]
    assert fake_gpu.libraries["tensorrt"].seen == 0


def test_trust_comes_first(fake_gpu: FakeGpu, path: Path, caplog: pytest.LogCaptureFixture) -> None:
    fake_gpu.add_plan(path, trusted=False, version="10.3.0")
    assert Runtime(path).target == "onnx"
    assert "this machine did not build" in caplog.text
    with pytest.raises(EngineError, match="trust=True if you know who made it"):
        Runtime(path, strict=True)
    with pytest.raises(EngineError, match="is for library version"):
        Runtime(path, strict=True, trust=True)
    assert fake_gpu.libraries["tensorrt"].seen == 0
    fake_gpu.add_plan(path, trusted=False)
    assert Runtime(path, trust=True).target == "tensorrt"


def test_a_manifest_that_says_too_little_is_refused(fake_gpu: FakeGpu, path: Path) -> None:
    fake_gpu.add_plan(path)
    from edgeseg.engine_file import add_target, open_engine

    with open_engine(path) as engine:
        target = engine.manifest.targets[-1]
        content = {target.parts[0]: bytes(engine.part(target.parts[0]))}
    silent = target.model_copy(update={"requires": {"compute_capability": "8.7"}})
    add_target(path, silent, content)
    with pytest.raises(EngineError, match="does not say which library"):
        Runtime(path, strict=True)
    assert fake_gpu.libraries["tensorrt"].seen == 0


@pytest.mark.parametrize(
    ("properties", "words"),
    [
        ({"names": ["x", "logits"]}, "has the tensors"),
        ({"names": ["image", "logits", "more"]}, "has the tensors"),
        ({"image": [1, 3, 32, 96]}, "takes"),
        ({"logits": [1, 4, 8, 12]}, "3 classes"),
        ({"logits": [1, 3, 8]}, "3 classes"),
        ({"logits": [1, 3, -1, 12]}, "3 classes"),
        ({"dtype": "INT8"}, "in INT8"),
    ],
)
def test_a_plan_of_another_network_is_refused(
    fake_gpu: FakeGpu, path: Path, properties: dict[str, Any], words: str
) -> None:
    fake_gpu.add_plan(path, content=plan(fake_gpu.model, **properties))
    with pytest.raises(EngineError, match=words):
        Runtime(path, strict=True)
    assert Runtime(path).target == "onnx"


def test_a_damaged_plan_brings_the_library_s_words(fake_gpu: FakeGpu, path: Path) -> None:
    fake_gpu.add_plan(path, content=b"no plan")
    with pytest.raises(EngineError, match=r"was refused \(the magic tag does not match\)"):
        Runtime(path, strict=True)


def test_the_best_that_runs_is_taken(fake_gpu: FakeGpu, path: Path) -> None:
    runtime = Runtime(path)
    assert (runtime.target, runtime.backend) == ("onnx", "openvino")
    fake_gpu.add_plan(path, "tensorrt-rtx", compute_capability="7.5 8.7")
    assert Runtime(path).backend == "tensorrt-rtx"
    fake_gpu.add_plan(path, "tensorrt")
    runtime = Runtime(path, strict=True)
    assert (runtime.target, runtime.device) == ("tensorrt", "cuda:0 (Fake GPU)")
    assert Runtime(path, device="cpu").backend == "openvino"


def test_plans_for_other_gpus_are_no_fall_back(
    fake_gpu: FakeGpu, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fake_gpu.add_plan(path, compute_capability="7.5")
    fake_gpu.add_plan(path)
    assert Runtime(path, strict=True).target == "tensorrt"
    assert "falling back" not in caplog.text


@pytest.mark.parametrize(
    ("quantization", "chosen"), [(HARMLESS, "int8"), (HARMFUL, "float32"), (None, "float32")]
)
def test_auto_takes_int8_only_if_it_is_harmless(
    fake_gpu: FakeGpu, path: Path, quantization: Any, chosen: str
) -> None:
    fake_gpu.add_plan(path)
    fake_gpu.add_plan(path, weights="int8", precision="int8", quantization=quantization)
    assert Runtime(path).precision == chosen
    runtime = Runtime(path, precision="int8")
    assert (runtime.precision, runtime.quantization) == ("int8", quantization)
    assert Runtime(path, precision="float32").precision == "float32"


def test_precision_is_the_plan_s(fake_gpu: FakeGpu, path: Path) -> None:
    fake_gpu.add_plan(path, precision="float16")
    assert Runtime(path).precision == "float16"
    assert Runtime(path, precision="float16").target == "tensorrt"
    assert Runtime(path, precision="float32").target == "onnx"
    with pytest.raises(EngineError, match="no target for GPUs in precision 'float32'"):
        Runtime(path, device="cuda", precision="float32")


def test_cuda_without_a_plan_names_the_command(path: Path, fake_gpu: FakeGpu) -> None:
    with pytest.raises(EngineError, match=r"edgeseg build .*tiny\.edgeseg --target tensorrt"):
        Runtime(path, device="cuda")


@pytest.mark.parametrize("device", ["cuda:", "cuda:x", "gpu", "cuda:-1", "CUDA"])
def test_unknown_devices(path: Path, fake_gpu: FakeGpu, device: str) -> None:
    with pytest.raises(InputError, match=r"device .* is unknown"):
        Runtime(path, device=device)


def test_a_machine_without_gpu_takes_the_cpu(
    fake_gpu: FakeGpu, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fake_gpu.add_plan(path)
    fake_gpu.cuda.no_driver = True
    with caplog.at_level(logging.INFO, "edgeseg"):
        assert Runtime(path, strict=True).target == "onnx"  # nothing that this machine could run
    assert "this process sees no GPU" in caplog.text
    with pytest.raises(EngineError, match="install an NVIDIA driver"):
        Runtime(path, device="cuda")


def test_several_gpus(fake_gpu: FakeGpu, path: Path) -> None:
    fake_gpu.add_plan(path)
    fake_gpu.cuda.devices = 2
    runtimes = [Runtime(path, device=f"cuda:{index}") for index in (0, 1)]
    frame = np.full((9, 9, 3), (0, 0, 200), np.uint8)
    for runtime in runtimes:
        assert (runtime.predict(frame).labels == 0).all()
    assert [r.device[:6] for r in runtimes] == ["cuda:0", "cuda:1"]
    assert {stream.device for stream in fake_gpu.cuda.streams.values()} == {0, 1}
    assert fake_gpu.cuda.cudaGetDevice()[1] == 0  # the caller's is as before
    with pytest.raises(EngineError, match=r"no device cuda:2, .* cuda:0 \(Fake GPU\)"):
        Runtime(path, device="cuda:2")


def test_a_build_without_cuda_says_so(
    fake_gpu: FakeGpu, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_gpu.add_plan(path)
    monkeypatch.delattr(_core, "cuda")
    assert Runtime(path).target == "onnx"
    with pytest.raises(EngineError, match="EDGESEG_CUDA=ON"):
        Runtime(path, device="cuda")


def test_a_missing_library_is_named(
    fake_gpu: FakeGpu, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_gpu.add_plan(path)
    monkeypatch.setitem(sys.modules, "tensorrt", None)  # import raises ModuleNotFoundError
    assert Runtime(path).target == "onnx"
    with pytest.raises(MissingDependencyError, match=r"edgeseg\[gpu\]"):
        Runtime(path, device="cuda")


def test_verify_runs_what_this_machine_would(fake_gpu: FakeGpu, path: Path) -> None:
    fake_gpu.add_plan(path)
    verification = verify(path)
    assert verification.ok
    assert "tensorrt" in verification.runtime


def test_no_torch_and_no_cuda_for_a_file_without_plans(tiny_engine: Path) -> None:
    code = (
        f"import sys, edgeseg\nedgeseg.Runtime({str(tiny_engine)!r})\n"
        "print([m for m in ('torch', 'cuda.bindings', 'edgeseg.runtime.gpu') if m in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"


def test_the_tensorrt_path_never_imports_torch(
    fake_gpu: FakeGpu, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_gpu.add_plan(path)
    monkeypatch.setitem(sys.modules, "torch", None)
    runtime = Runtime(path)
    assert runtime.predict(np.zeros((8, 8, 3), np.uint8)).labels.shape == (8, 8)
    assert runtime.predict(fake_gpu.put(np.zeros((8, 8, 3), np.uint8))).labels.shape == (8, 8)


@pytest.mark.tensorrt_rtx
def test_the_real_library_s_words(path: Path, tmp_path: Path) -> None:
    """In a process of its own, so that TensorRT-RTX meets no fake."""
    code = (
        "from pathlib import Path\n"
        "from edgeseg.engine_file import Target, add_target, open_engine\n"
        "from edgeseg.runtime.tensorrt import TensorRTNetwork\n"
        "from edgeseg.tensorrt_library import load_library\n"
        f"path = Path({str(path)!r})\n"
        "name = 'tensorrt-rtx/bad.plan'\n"
        "target = Target(kind='tensorrt-rtx', parts=(name,), weights='float16')\n"
        "add_target(path, target, {name: b'no plan'})\n"
        "with open_engine(path) as engine:\n"
        "    try:\n"
        "        TensorRTNetwork(engine, target, load_library('tensorrt-rtx'))\n"
        "    except Exception as error:\n"
        "        print(type(error).__name__, error)\n"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.startswith("EngineError the plan tensorrt-rtx/bad.plan of ")
    assert "was refused (" in ran.stdout
    assert "build it again on this machine" in ran.stdout
