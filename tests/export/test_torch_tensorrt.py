"""Checkpoint -> TensorRT plan: what a machine without TensorRT and GPU can prove of it."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from collections.abc import Iterator
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from tests.export import tensorrt_stub as stub
from tests.export.test_engine_export import small_model

from edgeseg import plugin
from edgeseg.errors import EngineError, MissingDependencyError
from edgeseg.export import torch_tensorrt

SHAPE, CLASSES = (1, 1024, 16, 32), 19
DATA_TYPES = {
    "float32": stub.DataType.FLOAT,
    "float16": stub.DataType.HALF,
    "bfloat16": stub.DataType.BF16,
}


@pytest.fixture
def tensorrt(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The real `tensorrt.plugin` upon a stand-in of TensorRT's C++ half, our plugin defined."""
    trt = stub.import_plugin(monkeypatch)
    monkeypatch.setattr(plugin, "ptx", lambda: b"// PTX")  # a build without CUDA has none
    torch_tensorrt.define_plugin(trt, importlib.import_module("tensorrt.plugin"))
    yield trt
    for name in [name for name in sys.modules if name.split(".")[0] == "tensorrt"]:
        del sys.modules[name]


def built_plugin(trt: ModuleType, dtype: str) -> SimpleNamespace:
    """What TensorRT's builder gets out of the plugin, asked in the builder's order."""
    operators = importlib.import_module("tensorrt.plugin").op
    create = operators.edgeseg.score_map_concat(trt.ITensor(), trt.ITensor())
    _, _, instance = create(trt.QuickPluginCreationRequest.STRICT_AOT)
    features, text = DATA_TYPES[dtype], stub.DataType.FLOAT
    (out_type,) = instance.get_output_data_types([features, text], [4, 2])
    builder = stub.ExprBuilder()
    shapes = [[stub.IDimensionExpr(side) for side in shape] for shape in (SHAPE, (CLASSES, 1024))]
    (out_shape,) = instance.get_output_shapes(shapes, [], builder)
    sides = tuple(side.value for side in out_shape)
    ends = [
        stub.DynamicPluginTensorDesc(SHAPE, features),
        stub.DynamicPluginTensorDesc((CLASSES, 1024), text),
        stub.DynamicPluginTensorDesc(sides, out_type),
    ]
    combinations = instance.get_supported_format_combinations(ends, 2)
    instance.configure_plugin(ends[:2], ends[2:])
    assert instance.get_valid_tactics() == []
    instance.set_tactic(0)
    launch, scalars = SimpleNamespace(), stub.SymExprSetter()
    instance.get_launch_params(None, ends, 2, launch, scalars, builder)
    name, ptx = instance.get_kernel([end.desc for end in ends[:2]], [ends[2].desc])
    return SimpleNamespace(
        out_type=out_type,
        out_shape=sides,
        types=[combination.type for combination in combinations],
        launch={name: expression.expr.value for name, expression in vars(launch).items()},
        scalars=[(scalars[i].expr.value, scalars[i].dtype) for i in range(scalars.nbSymExprs)],
        name=name,
        ptx=ptx,
    )


@pytest.mark.tensorrt_bindings
@pytest.mark.parametrize("dtype", DATA_TYPES)
def test_tensorrt_gets_our_kernel_and_its_launch(tensorrt: ModuleType, dtype: str) -> None:
    built = built_plugin(tensorrt, dtype)
    kernel = plugin.launch(SHAPE, CLASSES, dtype)
    assert built.out_shape == (1, 1024 + CLASSES, 16, 32)
    assert built.types == [DATA_TYPES[dtype], stub.DataType.FLOAT, DATA_TYPES[dtype]]
    assert built.name == kernel.entry == f"edgeseg_score_map_concat_{dtype}"
    assert built.ptx == plugin.ptx()
    assert tuple(built.launch[f"grid_{axis}"] for axis in "xyz") == kernel.grid
    assert tuple(built.launch[f"block_{axis}"] for axis in "xyz") == kernel.block
    assert built.launch["shared_mem"] == kernel.shared_memory
    int32 = tensorrt.PluginArgDataType.INT32
    assert built.scalars == [(value, int32) for value in kernel.scalars]
    # TensorRT puts them between the inputs and the output, and the kernel wants them there.
    kinds = [kind for _, kind in plugin.ARGUMENTS]
    assert kinds == ["u64"] * 2 + ["u32"] * len(built.scalars) + ["u64"]


@pytest.mark.tensorrt_bindings
def test_the_real_api_refuses_another_order_of_arguments(tensorrt: ModuleType) -> None:
    """So the test above would notice: TensorRT finds arguments by place, and checks the names."""
    trtp = importlib.import_module("tensorrt.plugin")

    def swapped(
        text: trtp.TensorDesc,
        features: trtp.TensorDesc,
        outputs: tuple[trtp.TensorDesc],
        tactic: int,
    ) -> tuple[str, bytes, trtp.KernelLaunchParams, trtp.SymIntExprs]:
        raise AssertionError

    swapped.__annotations__ = {  # as if this file did not postpone them
        "text": trtp.TensorDesc,
        "features": trtp.TensorDesc,
        "outputs": tuple[trtp.TensorDesc],
        "tactic": int,
        "return": tuple[str, bytes, trtp.KernelLaunchParams, trtp.SymIntExprs],
    }
    with pytest.raises(ValueError, match="expected input arg schema"):
        trtp.aot_impl(torch_tensorrt.PLUGIN)(swapped)


class Compiler:
    """`torch_tensorrt` as far as we call it, with the parameters of 2.14."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls: list[SimpleNamespace] = []
        self.plugins: list[str] = []

        def convert(
            exported_program: Any,
            inputs: Any = None,
            *,
            arg_inputs: Any = None,
            disable_tf32: bool = False,
            require_full_compilation: bool = False,
            min_block_size: int = 5,
            arg_input_binding_names: Any = None,
            output_binding_names: Any = None,
        ) -> bytes:
            assert inputs is None
            call = SimpleNamespace(
                program=exported_program,
                inputs=arg_inputs,
                tf32=not disable_tf32,
                whole=require_full_compilation and min_block_size == 1,
                names=(arg_input_binding_names, output_binding_names),
            )
            self.calls.append(call)
            return b"plan"

        self.dynamo: Any = ModuleType("torch_tensorrt.dynamo")
        self.dynamo.convert_exported_program_to_serialized_trt_engine = convert
        monkeypatch.setitem(sys.modules, "torch_tensorrt", ModuleType("torch_tensorrt"))
        monkeypatch.setitem(sys.modules, "torch_tensorrt.dynamo", self.dynamo)
        monkeypatch.setattr(
            torch_tensorrt, "register_plugin", lambda: self.plugins.append(torch_tensorrt.PLUGIN)
        )


def operators(program: torch.export.ExportedProgram) -> list[str]:
    return [str(node.target) for node in program.graph.nodes if node.op == "call_function"]


@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_the_whole_network_goes_in_with_the_operator_as_a_plugin(
    monkeypatch: pytest.MonkeyPatch, precision: Any
) -> None:
    compiler = Compiler(monkeypatch)
    plan = torch_tensorrt.to_tensorrt(small_model(), 64, 96, precision, "plugin", device="cpu")
    (call,) = compiler.calls
    assert plan == b"plan"
    assert call.names == (("image",), "logits")
    assert call.whole
    assert not call.tf32
    assert operators(call.program).count("edgeseg.score_map_concat.default") == 1
    assert compiler.plugins == ["edgeseg::score_map_concat"]
    (image,) = call.inputs
    assert (tuple(image.shape), image.dtype) == ((1, 3, 64, 96), getattr(torch, precision))
    (node,) = [node for node in call.program.graph.nodes if "score_map" in str(node.target)]
    assert node.args[1].meta["val"].dtype is torch.float32  # the text stays what the kernel takes


def test_the_native_twin_has_no_operator_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    compiler = Compiler(monkeypatch)
    torch_tensorrt.to_tensorrt(small_model(), 64, 96, "float16", "native", device="cpu")
    (call,) = compiler.calls
    assert not [name for name in operators(call.program) if name.startswith("edgeseg")]
    assert compiler.plugins == []


def test_what_tensorrt_refuses_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    compiler = Compiler(monkeypatch)

    def refuse(program: Any, *, output_binding_names: Any, **_: Any) -> bytes:
        raise RuntimeError("While interpreting the module got an error")

    compiler.dynamo.convert_exported_program_to_serialized_trt_engine = refuse
    with pytest.raises(EngineError, match="edgeseg build FILE --target tensorrt"):
        torch_tensorrt.to_tensorrt(small_model(), 64, 96, "float32", "native", device="cpu")


def test_an_older_torch_tensorrt_would_drop_the_names(monkeypatch: pytest.MonkeyPatch) -> None:
    def convert_2_13(program: Any, inputs: Any = None, **_: Any) -> bytes:
        raise AssertionError

    compiler = Compiler(monkeypatch)
    compiler.dynamo.convert_exported_program_to_serialized_trt_engine = convert_2_13
    with pytest.raises(MissingDependencyError, match=r"2\.14"):
        torch_tensorrt.to_tensorrt(small_model(), 64, 96, "float32", "native", device="cpu")


def test_torch_tensorrt_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch_tensorrt, "find_spec", lambda name: None)
    with pytest.raises(MissingDependencyError, match=r"edgeseg\[torch-tensorrt\]"):
        torch_tensorrt.check_machine("native")


def test_there_is_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch_tensorrt, "find_spec", lambda name: object())
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(EngineError, match="no CUDA device"):
        torch_tensorrt.check_machine("native")


def test_the_plugin_needs_a_kernel_and_a_gpu_that_runs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch_tensorrt, "find_spec", lambda name: object())
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (7, 5))
    torch_tensorrt.check_machine("native")
    monkeypatch.setattr(plugin, "ptx", lambda: b"// PTX")
    with pytest.raises(EngineError, match="--score-map native"):
        torch_tensorrt.check_machine("plugin")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (8, 7))
    torch_tensorrt.check_machine("plugin")
    monkeypatch.undo()
    monkeypatch.setattr(torch_tensorrt, "find_spec", lambda name: object())
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(plugin, "_core", object())
    with pytest.raises(EngineError, match="built without CUDA"):
        torch_tensorrt.check_machine("plugin")


@pytest.mark.torch_tensorrt_rtx
@pytest.mark.tensorrt_bindings
@pytest.mark.parametrize("score_map", ["native", "plugin"])
@pytest.mark.parametrize(("precision", "dtype"), [("float32", "FLOAT"), ("float16", "HALF")])
def test_a_plan_is_built_without_a_gpu(precision: str, dtype: str, score_map: str) -> None:
    """Torch-TensorRT converts every operator of the network, TensorRT-RTX builds the result."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.export.plan_without_gpu", precision, score_map],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    built = json.loads(done.stdout.splitlines()[-1])
    assert built["inputs"] == [["image", [1, 3, 96, 160], dtype]]
    assert built["outputs"] == [["logits", [1, 11, 12, 20], dtype]]
    assert built["convolutions"] >= 40
    assert built["bytes"] > 1e7
    if score_map == "plugin":
        inputs = [[[1, 1024, 3, 5], dtype], [[11, 1024], "FLOAT"]]
        assert built["plugin"] == [True, "_TemplateAOTPlugin", inputs]
