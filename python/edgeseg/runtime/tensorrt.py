"""Plans of TensorRT and of TensorRT for RTX: one interface, two libraries."""

from __future__ import annotations

from typing import Any

from edgeseg.engine_file import EngineFile, FloatType, Target
from edgeseg.errors import EngineError
from edgeseg.runtime.cuda import Stream
from edgeseg.tensorrt_library import Library

_IMAGE, _LOGITS = "image", "logits"
_DTYPES: dict[str, FloatType] = {"FLOAT": "float32", "HALF": "float16", "BF16": "bfloat16"}


class TensorRTNetwork:
    """A `CudaNetwork` from a plan; attributes as there. Its contexts share one engine."""

    def __init__(self, engine: EngineFile, target: Target, library: Library) -> None:
        """Deserialise a plan on the current device. A plan is code: see `gpu_targets` first.

        Raises:
            EngineError: the library refuses the plan, or it is not what the manifest describes.
        """
        trt = library.module
        self._plan = f"the plan {target.parts[0]} of {engine.path}"
        self._kind = library.kind
        self._messages = library.messages
        self._messages.last_error = ""
        self._runtime = trt.Runtime(self._messages)  # has to outlive its engine
        self._engine = self._runtime.deserialize_cuda_engine(engine.part(target.parts[0]))
        if self._engine is None:
            raise self._error("was refused")
        self.name: str = library.kind
        self.precision = "int8" if target.quantized else target.precision or target.weights
        size, classes = engine.manifest.input, len(engine.manifest.classes)
        names = [self._engine.get_tensor_name(i) for i in range(self._engine.num_io_tensors)]
        if sorted(names) != [_IMAGE, _LOGITS]:
            raise self._error(f"has the tensors {names}, 'image' and 'logits' were expected")
        if self._engine.get_tensor_mode(_IMAGE) != trt.TensorIOMode.INPUT:
            raise self._error("has 'image' as an output")
        for name in names:
            if self._engine.get_tensor_format(name) != trt.TensorFormat.LINEAR:
                raise self._error(f"has {name!r} in a layout other than linear NCHW")
        image, logits = (tuple(self._engine.get_tensor_shape(n)) for n in (_IMAGE, _LOGITS))
        if image != (1, 3, size.height, size.width):
            raise self._error(f"takes {image}, the manifest says {(1, 3, size.height, size.width)}")
        if (
            len(logits) != 4
            or logits[:2] != (1, classes)
            or not 1 <= logits[2] <= size.height
            or not 1 <= logits[3] <= size.width
        ):
            raise self._error(
                f"gives {logits}, the manifest's {classes} classes need (1, {classes}, h, w), no "
                f"larger than the input's {size.height}×{size.width}"
            )
        self.logits = (classes, logits[2], logits[3])
        self.input_dtype = self._dtype(_IMAGE)
        self.logits_dtype = self._dtype(_LOGITS)
        self.capturable = self._is_capturable()

    def context(self) -> TensorRTContext:
        """A context on the current device, with its own memory for activations.

        Raises:
            EngineError: there is too little memory for it.
        """
        context = self._engine.create_execution_context()
        if context is None:
            raise self._error(
                "gave no execution context",
                "if the GPU's memory is used up, end other programs that use it ('nvidia-smi' "
                "lists them)",
            )
        return TensorRTContext(context, self._error)

    def _dtype(self, tensor: str) -> FloatType:
        name = self._engine.get_tensor_dtype(tensor).name
        if name not in _DTYPES:
            raise self._error(f"has {tensor!r} in {name}, one of {', '.join(_DTYPES)} was expected")
        return _DTYPES[name]

    def _is_capturable(self) -> bool:
        # Fixed shapes without loops always are; TensorRT for RTX, which compiles late, can tell.
        if self._kind == "tensorrt":
            return True
        return bool(self.context().is_capturable())

    def _error(self, what: str, mend: str | None = None) -> EngineError:
        said = f" ({self._messages.last_error})" if self._messages.last_error else ""
        build = f"build it again on this machine: edgeseg build FILE --target {self._kind}"
        return EngineError(f"{self._plan} {what}{said}; {mend or build}")


class TensorRTContext:
    """A `CudaContext` of TensorRT."""

    def __init__(self, context: Any, error: Any) -> None:
        self._context = context
        self._error = error

    def is_capturable(self) -> bool:
        """Whether the library says so."""
        stream = Stream()
        return bool(self._context.is_stream_capturable(stream.handle))

    def enqueue(self, image: int, logits: int, stream: int) -> None:
        """See `CudaContext.enqueue`."""
        if not (
            self._context.set_tensor_address(_IMAGE, image)
            and self._context.set_tensor_address(_LOGITS, logits)
            and self._context.execute_async_v3(stream)
        ):
            raise self._error("could not be run")
