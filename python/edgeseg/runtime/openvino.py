"""The CPU backend: OpenVINO runs the engine's ONNX or OpenVINO part."""

from __future__ import annotations

import io
import math
import os
import queue
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgeseg.engine_file import EngineFile, Input, Target
from edgeseg.errors import EngineError, MissingDependencyError, printable
from edgeseg.files import make_folder

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
_PARTS = {"onnx": 1, "openvino": 2}  # the network; the network and its weights
_INPUT_TYPES = (ov.Type.f32, ov.Type.f16, ov.Type.u8)  # that preprocess writes
_FLOATS = (ov.Type.f32, ov.Type.f16)  # of logits, as upsample_argmax reads them, and of weights
_MAX_VALUES_PER_PIXEL = 1024  # of any tensor; STDC has 8
# The key of ONNX's external data, as protobuf writes a string of eight bytes. OpenVINO would follow
# it to any file of this machine, and an engine file is to be all that is read.
_EXTERNAL_DATA = re.compile(rb"(?:\x08|\x88\x80*\x00)location")

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
        self,
        engine: EngineFile,
        target: Target,
        *,
        threads: int,
        precision: str | None,
        cache: Path | None = None,
    ) -> None:
        """Compile a target of kind "onnx" or "openvino".

        Raises:
            EngineError: OpenVINO cannot read the part, or it is not the network that the manifest
                describes.
            OutputError: the folder `cache` cannot be made.
        """
        core = ov.Core()
        if cache is not None:
            make_folder(cache)
            core.set_property({properties.cache_dir: str(cache)})
        try:
            model = read_model(core, engine, target)
            options = {
                properties.hint.performance_mode: properties.hint.PerformanceMode.LATENCY,
                properties.inference_num_threads: threads,
            }
            if precision is not None:
                options[properties.hint.inference_precision] = PRECISIONS[precision]
            if target.kind == "onnx" and target.quantized:
                # OpenVINO's integer kernels get signed activations wrong (2026.4: a tenth of the
                # labels). So it rounds as the graph says, and computes in floats.
                options["LP_TRANSFORMS_MODE"] = "NO"
                options[properties.hint.inference_precision] = ov.Type.f32
            compiled = core.compile_model(model, "CPU", options)
        except (RuntimeError, UnicodeDecodeError) as error:  # of a name in its message
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
        self.logits = _logits(compiled.output(0), engine, target)
        self._process = os.getpid()
        self.turn = threading.Lock()
        """Held while a request runs: one latency stream, so waiting is not counted as inference."""
        self._idle: queue.LifoQueue[Request | None] = queue.LifoQueue()
        for _ in range(_MAX_REQUESTS):
            self._idle.put(None)  # a place; the request is made when first needed

    @contextmanager
    def request(self) -> Iterator[Request]:
        """Borrow a request; waits while all of them are in use.

        Raises:
            EngineError: this is a forked child, which has none of its parent's threads.
        """
        if os.getpid() != self._process:
            raise EngineError(
                "this Runtime was made before the process was forked, and its threads stayed with "
                "the parent; make a Runtime in the child, or start it with "
                "multiprocessing.get_context('spawn')"
            )
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
    if len(target.parts) != _PARTS[target.kind]:
        raise EngineError(
            f"the {target.kind} target of {engine.path} has {len(target.parts)} parts, "
            f"{_PARTS[target.kind]} were expected; export the engine again"
        )
    parts = [bytes(engine.part(name)) for name in target.parts]
    if _EXTERNAL_DATA.search(parts[0]):
        raise EngineError(
            f"the {target.kind} target of {engine.path} keeps weights in another file, which is "
            "never read; export the engine again, with its weights inside"
        )
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
    if (taken := model.input().element_type) not in _INPUT_TYPES:
        raise EngineError(
            f"the {target.kind} target of {engine.path} takes {taken.to_string()} "
            "numbers, float32, float16 or uint8 were expected; export the engine again"
        )
    model.reshape(expected)
    _check_tensors(model, engine, target)
    return model


def _check_tensors(model: ov.Model, engine: EngineFile, target: Target) -> None:
    """Refuse weights that are no numbers, and tensors that no network for this input has."""
    most = _MAX_VALUES_PER_PIXEL * math.prod(_shape(engine.manifest.input)[2:])
    for node in model.get_ordered_ops():
        for output in node.outputs():
            shape = output.partial_shape
            if shape.is_static and math.prod(output.shape) > most:
                raise EngineError(
                    f"the {target.kind} target of {engine.path} makes a tensor of "
                    f"{list(output.shape)}, at most {_MAX_VALUES_PER_PIXEL} values for each pixel "
                    "of its input were expected; export the engine again"
                )
        if node.get_type_name() != "Constant" or node.get_element_type() not in _FLOATS:
            continue
        if not np.isfinite(node.data).all():
            raise EngineError(
                f"the {target.kind} target of {engine.path} has weights that are NaN or infinite "
                f"({node.get_friendly_name()}); train or export it again"
            )


def _logits(output: ov.ConstOutput, engine: EngineFile, target: Target) -> tuple[int, int, int]:
    """(K, height, width) of the output, if it is what `upsample_argmax` takes."""
    classes, size = len(engine.manifest.classes), engine.manifest.input
    shape = list(output.shape) if output.partial_shape.is_static else []
    if (
        len(shape) != 4
        or shape[:2] != [1, classes]
        or not 1 <= shape[2] <= size.height
        or not 1 <= shape[3] <= size.width
        or output.element_type not in _FLOATS
    ):
        raise EngineError(
            f"the {target.kind} target of {engine.path} gives {output.partial_shape} "
            f"{output.element_type.to_string()} logits, the manifest's {classes} classes need "
            f"float32 [1, {classes}, h, w], no larger than the input's {size.height}×{size.width}; "
            "export the engine again"
        )
    return classes, shape[2], shape[3]


def _shape(network_input: Input) -> list[int]:
    return [1, 3, network_input.height, network_input.width]


def _last_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    last = lines[-1] if lines else type(error).__name__
    return printable(last)  # it quotes the file
