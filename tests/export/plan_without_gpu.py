"""Build a plan from a checkpoint's network on a machine without a GPU, through TensorRT-RTX.

Run by test_torch_tensorrt.py in a process of its own, where `torch_tensorrt` is the RTX build. That
build needs a CUDA device in two places only: to ask which GPU there is, and to load the finished
plan before it hands out its bytes. Both are answered here; export, lowering, conversion of every
operator and TensorRT-RTX's builder are the real ones. The plan is not run.
"""

from __future__ import annotations

import json
import sys
from types import SimpleNamespace
from typing import Any

import torch

GPU = SimpleNamespace(name="none", major=8, minor=9, total_memory=1 << 34, multi_processor_count=1)


def pretend_gpu() -> None:
    """Answer PyTorch's questions for the GPU; nothing is allocated on it."""
    cuda: Any = torch.cuda
    cuda.current_device = lambda: 0
    cuda.device_count = lambda: 1
    cuda.get_device_capability = lambda *_: (GPU.major, GPU.minor)
    cuda.get_device_properties = lambda *_: GPU
    cuda.mem_get_info = lambda *_: (GPU.total_memory, GPU.total_memory)


def main(precision: str) -> None:
    pretend_gpu()
    import torch_tensorrt  # noqa: F401
    from tests.export.test_engine_export import small_model
    from torch_tensorrt.dynamo.conversion import _TRTInterpreter as interpreter

    from edgeseg.export.torch_tensorrt import to_tensorrt

    seen: dict[str, Any] = {}

    class Plan:
        """What a loaded plan is asked for here."""

        def __init__(self, content: bytes) -> None:
            self.content = content

        def serialize(self) -> bytes:
            return self.content

        def get_aliased_input_tensor(self, name: str) -> None:
            return None

    class Runtime:
        def __init__(self, logger: Any) -> None:
            pass

        def deserialize_cuda_engine(self, content: bytes) -> Plan:
            return Plan(content)

    trt = interpreter.trt

    class Library:
        def __getattr__(self, name: str) -> Any:
            return Runtime if name == "Runtime" else getattr(trt, name)

    construct = interpreter.TRTInterpreter._construct_trt_network_def

    def construct_and_look(self: Any) -> None:
        construct(self)
        network = self.ctx.net
        ends = {
            "inputs": [network.get_input(i) for i in range(network.num_inputs)],
            "outputs": [network.get_output(i) for i in range(network.num_outputs)],
        }
        for kind, tensors in ends.items():
            seen[kind] = [(t.name, list(t.shape), t.dtype.name) for t in tensors]
        seen["convolutions"] = sum(
            network.get_layer(i).type == trt.LayerType.CONVOLUTION
            for i in range(network.num_layers)
        )

    interpreter.TRTInterpreter._construct_trt_network_def = construct_and_look
    interpreter.trt = Library()
    plan = to_tensorrt(small_model(), 96, 160, precision, "native", device="cpu")  # type: ignore[arg-type]
    print(json.dumps({**seen, "library": trt.__name__, "bytes": len(plan)}))


if __name__ == "__main__":
    main(sys.argv[1])
