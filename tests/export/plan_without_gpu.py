"""Build a plan from a checkpoint's network on a machine without a GPU, through TensorRT-RTX.

Run by test_torch_tensorrt.py in a process of its own, where `torch_tensorrt` is the RTX build. That
build needs a CUDA device in two places only: to ask which GPU there is, and to load the finished
plan before it hands out its bytes. Both are answered here; export, lowering, conversion of every
operator and TensorRT-RTX's builder are the real ones. The plan is not run.

TensorRT-RTX has no plugins in Python. For score_map="plugin" it gets the missing classes from
tensorrt_stub and TensorRT's own `tensorrt.plugin`; Torch-TensorRT's converter and our plugin are
real, and a layer of the plugin's output shape takes its place in the network.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from types import SimpleNamespace
from typing import Any

import torch
from tests.export import tensorrt_stub as stub
from tests.export.test_engine_export import small_model

from edgeseg import plugin
from edgeseg.export import torch_tensorrt as ours

GPU = SimpleNamespace(name="none", major=8, minor=9, total_memory=1 << 34, multi_processor_count=1)


def pretend_gpu() -> None:
    """Answer PyTorch's questions for the GPU; nothing is allocated on it."""
    cuda: Any = torch.cuda
    cuda.current_device = lambda: 0
    cuda.device_count = lambda: 1
    cuda.get_device_capability = lambda *_: (GPU.major, GPU.minor)
    cuda.get_device_properties = lambda *_: GPU
    cuda.mem_get_info = lambda *_: (GPU.total_memory, GPU.total_memory)


class Plan:
    """What a loaded plan is asked for here."""

    def __init__(self, content: bytes) -> None:
        self.content = content

    def serialize(self) -> bytes:
        return self.content

    def get_aliased_input_tensor(self, name: str) -> None:
        return None


class Runtime:
    """Loads plans without a GPU, that is, not at all."""

    def __init__(self, logger: Any) -> None:
        pass

    def deserialize_cuda_engine(self, content: bytes) -> Plan:
        return Plan(content)


def look_at_networks(trt: Any) -> dict[str, Any]:
    """Have the interpreter tell of the networks that it makes, and not load their plans."""
    from torch_tensorrt.dynamo.conversion import _TRTInterpreter as interpreter

    seen: dict[str, Any] = {}
    construct = interpreter.TRTInterpreter._construct_trt_network_def

    class Library:
        def __getattr__(self, name: str) -> Any:
            return Runtime if name == "Runtime" else getattr(trt, name)

    def construct_and_look(self: Any) -> None:
        construct(self)
        net = self.ctx.net
        seen["inputs"] = [described(net.get_input(i)) for i in range(net.num_inputs)]
        seen["outputs"] = [described(net.get_output(i)) for i in range(net.num_outputs)]
        layers = [net.get_layer(i).type for i in range(net.num_layers)]
        seen["convolutions"] = layers.count(trt.LayerType.CONVOLUTION)

    interpreter.TRTInterpreter._construct_trt_network_def = construct_and_look
    interpreter.trt = Library()
    return seen


def described(tensor: Any) -> tuple[str, list[int], str]:
    return tensor.name, list(tensor.shape), tensor.dtype.name


def take_plugins(trt: Any, seen: dict[str, Any]) -> None:
    """Give TensorRT-RTX TensorRT's plugins, to the point where a layer is added."""
    from torch_tensorrt.dynamo.conversion.plugins import _generate_plugin_converter as converters

    missing = stub.stub()
    for name in ("QuickPluginCreationRequest", "ISymExpr", "IPluginV3QuickAOTBuild"):
        setattr(trt, name, getattr(missing, name))
    folder = stub.plugin_folder()
    assert folder is not None
    name = "tensorrt.plugin"
    spec = importlib.util.spec_from_file_location(
        name, folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    assert spec is not None
    assert spec.loader is not None
    trtp = sys.modules[name] = importlib.util.module_from_spec(spec)
    trt.plugin = trtp
    spec.loader.exec_module(trtp)

    def add_plugin(self: Any, create: Any, aot: bool) -> Any:
        inputs, shape_inputs, instance = create(trt.QuickPluginCreationRequest.STRICT_AOT)
        assert shape_inputs == []
        seen["plugin"] = (aot, type(instance).__name__, [described(t)[1:] for t in inputs])
        features, text = inputs
        _, _, height, width = features.shape
        scores = self.add_slice(features, (0,) * 4, (1, text.shape[0], height, width), (1,) * 4)
        layer = self.add_concatenation([features, scores.get_output(0)])
        layer.axis = 1
        return layer

    trt.INetworkDefinition.add_plugin = add_plugin
    plugin.ptx = lambda: b"// PTX"  # a build without CUDA has none
    ours.define_plugin(trt, trtp)
    # The public one refuses where TensorRT has no plugins.
    converters._generate_plugin_converter(*ours.PLUGIN.split("::"), use_aot_if_available=True)
    ours.register_plugin = lambda: None  # type: ignore[assignment]


def main(precision: Any, score_map: Any) -> None:
    pretend_gpu()
    import torch_tensorrt  # noqa: F401  makes TensorRT-RTX the module `tensorrt`

    trt = sys.modules["tensorrt"]
    assert trt.__name__ == "tensorrt_rtx"
    seen = look_at_networks(trt)
    if score_map == "plugin":
        take_plugins(trt, seen)
    plan = ours.to_tensorrt(small_model(), 96, 160, precision, score_map, device="cpu")
    print(json.dumps({**seen, "bytes": len(plan)}))


if __name__ == "__main__":
    main(*sys.argv[1:])
