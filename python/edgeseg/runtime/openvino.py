"""The CPU backend: OpenVINO runs the engine's ONNX or OpenVINO part."""

from __future__ import annotations

import io
import queue
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray

from edgeseg.engine_file import EngineFile, Input, Target
from edgeseg.errors import EngineError, MissingDependencyError

try:
    import openvino as ov
    from openvino import properties
except ModuleNotFoundError as error:
    if error.name != "openvino":
        raise
    raise MissingDependencyError(
        "OpenVINO is not installed, it runs engines on CPUs; 'pip install openvino'"
    ) from error

PRECISIONS = {"float32": ov.Type.f32, "bfloat16": ov.Type.bf16, "float16": ov.Type.f16}
_MAX_REQUESTS = 8

# The first `.data` of a process fills a table inside OpenVINO's bindings. Two threads that are both
# first deadlock, one with the GIL, one with the table's lock: so the first one is here, where
# Python's import lock keeps others out.
_ = ov.Tensor(np.zeros(1, np.float32)).data


class Request:
    """One inference with its own buffers; used by one thread at a time."""

    def __init__(self, request: ov.InferRequest):
        self._request = request
        self.input: NDArray[np.float32] = request.get_input_tensor().data[0]
        """3×h×w float32, to be filled before `run`."""

    def run(self) -> NDArray[np.float32]:
        """Infer, without the GIL; logits 1×K×h/8×w/8 float32, valid until the next `run`."""
        self._request.start_async()
        self._request.wait()
        logits: NDArray[np.float32] = self._request.get_output_tensor().data
        return logits


class OpenVINOBackend:
    """A compiled network and a pool of requests.

    Attributes:
        device: "CPU" and its name as OpenVINO gives it.
        precision: number format of the inference, e.g. "bfloat16"; "int8" where the target is
            quantized, whatever the rest of it is computed in.
        logits: (K, height, width) of the output.
    """

    name = "openvino"

    def __init__(
        self, engine: EngineFile, target: Target, *, threads: int, precision: str | None
    ) -> None:
        """Compile a target of kind "onnx" or "openvino".

        Raises:
            EngineError: OpenVINO cannot read the part, or it is not the network that the manifest
                describes.
        """
        core = ov.Core()
        try:
            model = read_model(core, engine, target)
            options = {
                properties.hint.performance_mode: properties.hint.PerformanceMode.LATENCY,
                properties.inference_num_threads: threads,
            }
            if precision is not None:
                options[properties.hint.inference_precision] = PRECISIONS[precision]
            compiled = core.compile_model(model, "CPU", options)
        except RuntimeError as error:
            raise EngineError(
                f"OpenVINO {ov.__version__} cannot run the {target.kind} target of {engine.path}: "
                f"{_last_line(error)}; 'pip install -U openvino', or export the engine again"
            ) from error
        self._compiled = compiled
        self.device = f"CPU ({core.get_property('CPU', properties.device.full_name).strip()})"
        running = compiled.get_property(properties.hint.inference_precision)
        self.precision = (
            "int8"
            if target.quantized
            else next((name for name, kind in PRECISIONS.items() if kind == running), str(running))
        )
        batch, *logits = compiled.output(0).shape
        self.logits: tuple[int, int, int] = tuple(logits)
        expected = len(engine.manifest.classes)
        if batch != 1 or len(logits) != 3 or logits[0] != expected:
            raise EngineError(
                f"the {target.kind} target of {engine.path} gives {list(compiled.output(0).shape)} "
                f"logits, the manifest's {expected} classes need [1, {expected}, h, w]; "
                "export the engine again"
            )
        self.turn = threading.Lock()
        """Held while a request runs: one latency stream, so waiting is not counted as inference."""
        self._idle: queue.LifoQueue[Request | None] = queue.LifoQueue()
        for _ in range(_MAX_REQUESTS):
            self._idle.put(None)  # a place; the request is made when first needed

    @contextmanager
    def request(self) -> Iterator[Request]:
        """Borrow a request; waits while all of them are in use."""
        request = self._idle.get()
        try:
            if request is None:
                request = Request(self._compiled.create_infer_request())
            yield request
        finally:
            self._idle.put(request)


def read_model(core: ov.Core, engine: EngineFile, target: Target) -> ov.Model:
    """The network of a target of kind "onnx" or "openvino", for the manifest's input size.

    Raises:
        EngineError: it is not the network that the manifest describes.
        RuntimeError: OpenVINO cannot read the part.
    """
    parts = [bytes(engine.part(name)) for name in target.parts]
    if target.kind == "onnx":
        model = core.read_model(io.BytesIO(parts[0]))
    else:
        weights = ov.Tensor(np.frombuffer(parts[1], np.uint8))
        model = core.read_model(parts[0], weights)
    expected = _shape(engine.manifest.input)
    if len(model.inputs) != 1 or len(model.outputs) != 1:
        raise EngineError(
            f"the {target.kind} target of {engine.path} has {len(model.inputs)} inputs and "
            f"{len(model.outputs)} outputs, one of each was expected; export the engine again"
        )
    if not model.input().partial_shape.compatible(ov.PartialShape(expected)):
        raise EngineError(
            f"the {target.kind} target of {engine.path} takes {model.input().partial_shape}, "
            f"its manifest says {expected}; export the engine again"
        )
    model.reshape(expected)
    return model


def _shape(network_input: Input) -> list[int]:
    return [1, 3, network_input.height, network_input.width]


def _last_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
