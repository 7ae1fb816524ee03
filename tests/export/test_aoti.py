"""Checkpoint -> AOTInductor package, compiled for the CPU: the same labels, our operator inside."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args

import pytest
import torch
import torch._inductor
from tests.export.test_engine_export import small_checkpoint, small_model
from torch import Tensor
from torch._inductor.exc import InvalidCxxCompiler

from edgeseg import ops
from edgeseg.engine_file import FloatType, open_engine
from edgeseg.errors import EngineError
from edgeseg.export import ExportConfig, aoti, export_engine
from edgeseg.export.program import exported_program, fold_batch_norms
from edgeseg.machine import mismatch
from edgeseg.models import STDCSeg
from edgeseg.runtime import Runtime
from edgeseg.trust import built_here

SIZE = (64, 96)


@pytest.fixture(scope="module")
def model() -> STDCSeg:
    return small_model()


@pytest.fixture(scope="module")
def image() -> Tensor:
    return torch.randn(1, 3, *SIZE, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Exported with a record of its own of what this machine built."""
    folder = tmp_path_factory.mktemp("aoti")
    config = ExportConfig(
        *SIZE, targets=("aoti",), precision="float32", device="cpu", check_frames=1
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(folder / "state"))
        export_engine(small_checkpoint(folder / "small.pt"), folder / "small.edgeseg", config)
        yield folder / "small.edgeseg"


@pytest.fixture(scope="module")
def package(engine: Path) -> Path:
    path = engine.with_name("model.pt2")
    with open_engine(engine) as file:
        path.write_bytes(file.part("aoti/cpu-float32.pt2"))
    return path


def test_the_file_says_what_the_package_is_and_how_exact(engine: Path) -> None:
    with open_engine(engine) as file:
        portable, target = file.manifest.targets
        (agreement,) = target.agreement
        assert portable.kind == "onnx"
        assert (target.kind, target.weights, target.precision) == ("aoti", "float32", "float32")
        assert (agreement.precision, agreement.device) == ("float32", "cpu")
        assert agreement.pixels >= 0.998
        assert built_here(file.manifest.parts[target.parts[0]].sha256)
        assert not built_here(file.manifest.parts[portable.parts[0]].sha256)
        assert mismatch(target, None, len(file.manifest.classes), torch.__version__) is None
        other = mismatch(target, None, len(file.manifest.classes), "2.10.0")
    assert other is not None
    assert "--target aoti" in other


def test_the_runtime_takes_the_portable_target_of_such_a_file(engine: Path) -> None:
    runtime = Runtime(engine)
    assert runtime.target == "onnx"


def test_a_package_computes_the_network_and_calls_our_operator_once(
    package: Path, model: STDCSeg, image: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[int, ...]] = []
    kernel = ops._core.score_map_concat

    def counted(features: Any, *args: Any, **options: Any) -> None:
        calls.append(features.shape)
        kernel(features, *args, **options)

    monkeypatch.setattr(ops, "_core", SimpleNamespace(score_map_concat=counted))
    logits = torch._inductor.aoti_load_package(str(package))(image)
    assert calls == [(1, 1024, 2, 3)]
    with torch.no_grad():
        torch.testing.assert_close(logits, model(image), atol=1e-5, rtol=1e-4)
    assert logits.is_contiguous()


def test_a_package_runs_in_a_fresh_process_that_imported_the_operators(package: Path) -> None:
    code = (
        "import sys, torch, edgeseg.ops\n"
        "logits = torch._inductor.aoti_load_package(sys.argv[1])(torch.zeros(1, 3, 64, 96))\n"
        "assert logits.shape == (1, 11, 8, 12)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(package)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("precision", get_args(FloatType))
def test_what_is_compiled_is_channels_last_and_keeps_the_text(
    model: STDCSeg, precision: Any
) -> None:
    program = exported_program(model, *SIZE, precision, memory_format=torch.channels_last)
    (node,) = [node for node in program.graph.nodes if "score_map_concat" in str(node.target)]
    features, text = (argument.meta["val"] for argument in node.args)
    assert features.dtype is getattr(torch, precision)
    assert features.is_contiguous(memory_format=torch.channels_last)
    assert text.dtype is torch.float32
    assert not [node for node in program.graph.nodes if "batch_norm" in str(node.target)]


def test_batch_norms_fold_before_anything_is_rounded(model: STDCSeg, image: Tensor) -> None:
    """A variance beyond float16 is ordinary: features of some hundreds have it."""
    loud = small_model()
    norm: Any = loud.backbone.stem[1].bn
    norm.running_var.mul_(1e7)
    norm.weight.data.mul_(1e3)
    assert norm.running_var.max() > torch.finfo(torch.float16).max
    with torch.no_grad():
        expected = loud(image)
        torch.testing.assert_close(fold_batch_norms(loud)(image), expected, atol=1e-5, rtol=1e-4)
        program = exported_program(loud, *SIZE, "float16")
        logits = program.module()(image.half()).float()
    spread = expected.max() - expected.min()
    assert (logits - expected).abs().max() < 0.02 * spread


def test_the_network_is_not_changed(model: STDCSeg) -> None:
    before = {name: value.clone() for name, value in model.state_dict().items()}
    exported_program(model, *SIZE, "float16")
    after = model.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[name], value) for name, value in before.items())


def test_there_is_no_gpu(model: STDCSeg, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(EngineError, match="--device cpu"):
        aoti.to_aoti(model, *SIZE, "float16", "cuda")


def test_a_build_without_cuda_has_no_kernel_for_the_package(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(aoti, "_core", SimpleNamespace())
    with pytest.raises(EngineError, match="EDGESEG_CUDA=ON"):
        aoti.check_machine("cuda")


def test_a_failing_compiler_is_told(model: STDCSeg, monkeypatch: pytest.MonkeyPatch) -> None:
    def compiler_is_missing(*_: Any, **__: Any) -> str:
        raise InvalidCxxCompiler  # what Inductor raises after some ten seconds

    monkeypatch.setattr(torch._inductor, "aoti_compile_and_package", compiler_is_missing)
    with pytest.raises(EngineError, match="needs a C\\+\\+ compiler"):
        aoti.to_aoti(model, *SIZE, "float32", "cpu")


def test_requirements_name_what_the_package_was_compiled_with() -> None:
    needed = aoti.requirements("cpu", 11)
    assert needed["library"] == "aoti"
    assert needed["version"] == torch.__version__
    assert (needed["device"], needed["classes"]) == ("cpu", "11")
    assert "compute_capability" not in needed
