"""A TensorRT whose plans are ONNX networks, run by ONNX Runtime on a fake GPU's memory."""

from __future__ import annotations

import enum
import json
import types
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from tests.runtime.fake_cuda import FakeCuda, view


class Severity(enum.Enum):
    INTERNAL_ERROR, ERROR, WARNING, INFO, VERBOSE = range(5)


class TensorIOMode(enum.Enum):
    NONE, INPUT, OUTPUT = range(3)


class TensorFormat(enum.Enum):
    LINEAR, CHW2 = range(2)


class DataType(enum.Enum):
    FLOAT, HALF, INT8, BF16 = range(4)


class ILogger:
    Severity = Severity

    def __init__(self) -> None:
        pass


def plan(onnx: bytes, **properties: Any) -> bytes:
    """A plan of a network; `properties` say what it is to claim, e.g. dtype="HALF"."""
    return json.dumps(properties).encode() + b"\n" + onnx


def fake_tensorrt(name: str, version: str, cuda: FakeCuda) -> Any:
    """The module; `module.seen` counts the bytes that it was given to deserialise."""

    class Context:
        def __init__(self, engine: Engine) -> None:
            self.engine, self.addresses = engine, {}
            self.warm = False

        def set_tensor_address(self, tensor: str, address: int) -> bool:
            self.addresses[tensor] = address
            return address % 256 == 0

        def is_stream_capturable(self, stream: int) -> bool:
            return bool(self.engine.properties.get("capturable", True))

        def execute_async_v3(self, stream: int) -> bool:
            if not self.warm:  # as libraries load kernels when they first run
                _, memory = cuda.cudaMalloc(16)
                if memory is None:
                    return False
                cuda.cudaFree(memory)
                self.warm = True
            image, logits = self.addresses["image"], self.addresses["logits"]
            cuda.launch(stream, lambda: self.engine.run(image, logits, stream))
            return True

    class Engine:
        def __init__(self, properties: dict[str, Any], onnx: bytes) -> None:
            self.properties = properties
            self.session = onnxruntime.InferenceSession(onnx, providers=["CPUExecutionProvider"])
            self.tensors = {
                "image": self.session.get_inputs()[0],
                "logits": self.session.get_outputs()[0],
            }
            self.dtype = DataType[properties.get("dtype", "FLOAT")]
            self.names = properties.get("names", ["image", "logits"])
            self.num_io_tensors = len(self.names)

        def get_tensor_name(self, index: int) -> str:
            return str(self.names[index])

        def get_tensor_mode(self, tensor: str) -> TensorIOMode:
            return TensorIOMode.INPUT if tensor == "image" else TensorIOMode.OUTPUT

        def get_tensor_format(self, tensor: str) -> TensorFormat:
            return TensorFormat.LINEAR

        def get_tensor_shape(self, tensor: str) -> tuple[int, ...]:
            return tuple(self.properties.get(tensor, self.tensors[tensor].shape))

        def get_tensor_dtype(self, tensor: str) -> DataType:
            return self.dtype

        def create_execution_context(self) -> Context | None:
            _, memory = cuda.cudaMalloc(64)
            if memory is None:
                return None
            cuda.cudaFree(memory)
            return Context(self)

        def run(self, image: int, logits: int, stream: int) -> None:
            given = _view(cuda, image, self.tensors["image"].shape, self.dtype, stream)
            found = self.session.run(None, {"image": given.astype(np.float32)})[0]
            _view(cuda, logits, self.tensors["logits"].shape, self.dtype, stream)[:] = found

    class Runtime:
        def __init__(self, log: ILogger) -> None:
            self.log = log

        def deserialize_cuda_engine(self, content: Any) -> Engine | None:
            module.seen += len(content)
            properties, _, onnx = bytes(content).partition(b"\n")
            try:
                return Engine(json.loads(properties), onnx)
            except ValueError:
                self.log.log(Severity.ERROR, "the magic tag does not match")
                return None

    module: Any = types.ModuleType(name)
    module.__version__ = version
    module.seen = 0
    module.ILogger, module.Runtime = ILogger, Runtime
    module.TensorIOMode, module.TensorFormat, module.DataType = TensorIOMode, TensorFormat, DataType
    return module


def _view(cuda: FakeCuda, address: int, shape: Any, dtype: DataType, stream: int) -> NDArray[Any]:
    kind = "float16" if dtype is DataType.HALF else "float32"
    cuda.check(address, int(np.prod(shape)) * np.dtype(kind).itemsize, of_stream=stream)
    return view(address, tuple(shape), kind)
