"""Who runs the network: every tool from a frame to labels, tuned as its documentation advises.

All of them take H×W×3 uint8 BGR and give H×W uint8 class ids. What is written here is what a
careful user of the tool would write: sources of the settings stand beside them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec
from typing import Any, Literal

import cv2
import numpy as np
import openvino as ov
from benchmarks.suite.networks import Subject
from numpy.typing import NDArray

import edgeseg
from edgeseg.bench import bare_engine
from edgeseg.machine import cpu_computes_in_bfloat16

Precision = Literal["float32", "bfloat16", "int8"]
PRECISIONS: tuple[Precision, ...] = ("float32", "bfloat16", "int8")
NO_BFLOAT16 = "this CPU does not compute in bfloat16"
Frame = NDArray[np.uint8]
Labels = NDArray[np.uint8]


@dataclass(frozen=True)
class Peer:
    """A tool, ready to run.

    Attributes:
        name: what the tables call it.
        version: of its package.
        precision: number format of its network.
        labels: from a frame to its labels.
        exact: whether its method can give our labels; where it cannot, `why_not` says so, and its
            agreement is stated instead of required.
    """

    name: str
    version: str
    precision: Precision
    labels: Callable[[Frame], Labels]
    why_not: str = ""

    @property
    def exact(self) -> bool:
        return not self.why_not


@dataclass(frozen=True)
class Maker:
    """How to make a peer, and what it needs."""

    name: str
    package: str
    module: str
    precisions: tuple[Precision, ...]
    make: Callable[[Subject, Frame, Precision, int], Peer]

    def missing(self, subject: Subject, precision: Precision) -> str | None:
        """Why this machine cannot make it, or None."""
        if precision == "bfloat16" and not cpu_computes_in_bfloat16():
            return NO_BFLOAT16
        if find_spec(self.module) is None:
            return f"{self.package} is not installed; pip install '.[peers]'"
        if (
            precision == "int8"
            and f"{_INT8_OF.get(self.name, 'openvino')}-int8" not in subject.files
        ):
            return f"the engine has no INT8 network that {self.name} reads"
        return None


def ours(subject: Subject, precision: Precision, threads: int) -> Peer:
    """edgeseg itself."""
    runtime = edgeseg.Runtime(subject.engine, "cpu", threads, precision=precision)
    return Peer(
        "edgeseg",
        edgeseg.__version__,
        precision,
        lambda frame: runtime.predict(frame).labels,
    )


def bare(
    subject: Subject, frame: Frame, precision: Precision, threads: int
) -> Callable[[], object]:
    """The network alone on a ready tensor, compiled outside the Runtime."""
    runtime = edgeseg.Runtime(subject.engine, "cpu", threads, precision=precision)
    return bare_engine(subject.engine, runtime, frame)


# ------------------------------------------------------------------------------------------ PyTorch


def _torch(
    subject: Subject, frame: Frame, precision: Precision, threads: int, *, compiled: bool
) -> Peer:
    from copy import deepcopy

    import torch
    import torch.nn.functional as F

    torch.set_num_threads(threads)
    settings = subject.manifest.input
    align_corners = subject.manifest.architecture.align_corners
    dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
    # Channels last, and bfloat16 where the CPU has it: PyTorch's performance tuning guide
    # (pytorch.org/tutorials/recipes/recipes/tuning_guide.html, "CPU specific optimizations").
    model = deepcopy(subject.model).to(dtype).to(memory_format=torch.channels_last)
    mean = torch.tensor(settings.mean).view(1, 3, 1, 1)
    std = torch.tensor(settings.std).view(1, 3, 1, 1)

    def pipeline(pixels: torch.Tensor) -> torch.Tensor:
        image = pixels.permute(2, 0, 1)[None].flip(1).float()  # BGR to RGB; stays channels-last
        size = (settings.height, settings.width)
        image = F.interpolate(image, size, mode="bilinear", align_corners=False)
        image = ((image - mean) / std).to(dtype, memory_format=torch.channels_last)
        logits = model(image).float()
        full = F.interpolate(logits, pixels.shape[:2], mode="bilinear", align_corners=align_corners)
        return full.argmax(1)[0].to(torch.uint8)

    # Freezing folds weights in and lets oneDNN prepack them: "freezing" of torch._inductor.config,
    # for inference without gradients.
    run = torch.compile(pipeline, options={"freezing": True}) if compiled else pipeline

    def labels(frame: Frame) -> Labels:
        with torch.inference_mode() if not compiled else torch.no_grad():
            found: Labels = run(torch.from_numpy(frame)).numpy()
        return found

    name = "PyTorch compiled" if compiled else "PyTorch eager"
    return Peer(name, torch.__version__, precision, labels)


def torch_eager(subject: Subject, frame: Frame, precision: Precision, threads: int) -> Peer:
    return _torch(subject, frame, precision, threads, compiled=False)


def torch_compiled(subject: Subject, frame: Frame, precision: Precision, threads: int) -> Peer:
    return _torch(subject, frame, precision, threads, compiled=True)


# ---------------------------------------------------------------------- the usual NumPy and OpenCV


@dataclass(frozen=True)
class _Around:
    """What is usually written around a network: resize, normalise; resize logits, argmax."""

    subject: Subject
    threads: int

    def prepare(self, frame: Frame) -> NDArray[np.float32]:
        cv2.setNumThreads(self.threads)
        settings = self.subject.manifest.input
        resized = cv2.resize(frame, (settings.width, settings.height))
        image = cv2.cvtColor(resized, cv2.COLOR_BGR2RGB).astype(np.float32)
        image -= np.array(settings.mean, np.float32)
        image /= np.array(settings.std, np.float32)
        return np.ascontiguousarray(image.transpose(2, 0, 1)[None])

    def finish(self, logits: NDArray[np.float32], frame: Frame) -> Labels:
        # Class by class: faster here than one resize of an h×w×K array, and a smaller argmax step.
        size = frame.shape[1::-1]
        best = cv2.resize(logits[0, 0], size)
        labels = np.zeros(best.shape, np.uint8)
        for number, plane in enumerate(logits[0, 1:], 1):
            full = cv2.resize(plane, size)
            larger = full > best
            labels[larger] = number
            np.maximum(best, full, out=best)
        return labels

    @property
    def why_not(self) -> str:
        if self.subject.manifest.architecture.align_corners:
            return "cv2.resize has half-pixel centres, the network's logits have aligned corners"
        return ""


def numpy_openvino(subject: Subject, frame: Frame, precision: Precision, threads: int) -> Peer:
    """OpenVINO for the network, and around it what most scripts have."""
    around = _Around(subject, threads)
    model, core = _openvino_model(subject, precision)
    request = core.compile_model(model, "CPU", _latency(precision, threads)).create_infer_request()

    def labels(frame: Frame) -> Labels:
        outputs = request.infer([around.prepare(frame)], share_inputs=True, share_outputs=True)
        return around.finish(outputs[0], frame)

    version = metadata.version("openvino")
    return Peer("NumPy + cv2 + OpenVINO", version, precision, labels, around.why_not)


def onnxruntime(subject: Subject, frame: Frame, precision: Precision, threads: int) -> Peer:
    """ONNX Runtime for the network, and the same around it."""
    import onnxruntime as ort

    around = _Around(subject, threads)
    # onnxruntime.ai/docs/performance/tune-performance/threading.html: all optimisations, sequential
    # execution of a graph without wide branches, threads as many as cores.
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    # Spinning threads would slow down whoever is timed next: they stop at the end of each run.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    file = subject.files["onnx-int8" if precision == "int8" else "onnx"]
    session = ort.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name

    def labels(frame: Frame) -> Labels:
        return around.finish(session.run(None, {name: around.prepare(frame)})[0], frame)

    why_not = around.why_not
    if precision == "int8":  # NNCF makes another one of the same weights for OpenVINO
        why_not = why_not or "its INT8 network is quantized anew: symmetric, as ONNX wants it"
    return Peer("NumPy + cv2 + ONNX Runtime", ort.__version__, precision, labels, why_not)


def opencv_dnn(subject: Subject, frame: Frame, precision: Precision, threads: int) -> Peer:
    """OpenCV alone: its own blob, its own network."""
    around = _Around(subject, threads)
    settings = subject.manifest.input
    net = cv2.dnn.readNetFromONNX(str(subject.files["onnx"]))
    parameters = blob_parameters(settings.mean, settings.std, (settings.width, settings.height))

    def labels(frame: Frame) -> Labels:
        cv2.setNumThreads(threads)
        net.setInput(cv2.dnn.blobFromImageWithParams(frame, parameters))
        return around.finish(net.forward(), frame)

    return Peer("cv2.dnn", cv2.__version__, precision, labels, around.why_not)


def blob_parameters(
    mean: tuple[float, ...], std: tuple[float, ...], size: tuple[int, int], *, swap: bool = True
) -> cv2.dnn.Image2BlobParams:
    """Resize to `size` (width, height) and normalise; blobFromImage knows one scale for all."""
    parameters = cv2.dnn.Image2BlobParams()
    parameters.scalefactor = tuple(1 / value for value in std)
    parameters.mean = mean
    parameters.size = size
    parameters.swapRB = swap
    return parameters


# ----------------------------------------------------------------------------------------- OpenVINO


def openvino_in_graph(subject: Subject, frame: Frame, precision: Precision, threads: int) -> Peer:
    """Everything inside the graph, as OpenVINO's guide to preprocessing advises.

    docs.openvino.ai, "Optimize Preprocessing": the tensor as the camera gives it, and steps from
    there to the model's input; upsampling and the best class behind its output.
    """
    from openvino.preprocess import ColorFormat, PrePostProcessor, ResizeAlgorithm

    settings = subject.manifest.input
    model, core = _openvino_model(subject, precision)
    processor = PrePostProcessor(model)
    taken = processor.input()
    taken.tensor().set_element_type(ov.Type.u8).set_layout(ov.Layout("NHWC")).set_color_format(
        ColorFormat.BGR
    ).set_spatial_static_shape(*frame.shape[:2])
    taken.model().set_layout(ov.Layout("NCHW"))
    steps = taken.preprocess().convert_element_type(ov.Type.f32).convert_color(ColorFormat.RGB)
    steps.resize(ResizeAlgorithm.RESIZE_LINEAR)
    steps.mean(list(settings.mean)).scale(list(settings.std))
    model = processor.build()
    align_corners = subject.manifest.architecture.align_corners
    logits = model.get_results()[0].input_value(0)
    labelled = with_upsampling(logits, frame.shape[:2], align_corners=align_corners)
    model = ov.Model([labelled], model.get_parameters())
    request = core.compile_model(model, "CPU", _latency(precision, threads)).create_infer_request()

    def labels(frame: Frame) -> Labels:
        found: Labels = request.infer([frame[None]], share_inputs=True, share_outputs=True)[0]
        return found[0, 0]

    return Peer("OpenVINO in one graph", ov.__version__.split("-")[0], precision, labels)


def with_upsampling(logits: Any, size: tuple[int, int], *, align_corners: bool) -> Any:
    """OpenVINO operations behind 1×K×h×w logits: Interpolate and TopK, 1×1×H×W uint8."""
    from openvino import opset13

    upsampled = opset13.interpolate(
        logits,
        np.array(size, np.int64),
        mode="linear_onnx",
        shape_calculation_mode="sizes",
        coordinate_transformation_mode="align_corners" if align_corners else "half_pixel",
        axes=np.array([2, 3], np.int64),
    )
    best = opset13.topk(upsampled, np.int32(1), 1, "max", "none", "i32")
    return opset13.convert(best.output(1), "u8").output(0)


def model_api(subject: Subject, frame: Frame, precision: Precision, threads: int) -> Peer:
    """OpenVINO model_api: argmax at the logits' size, then nearest upsampling."""
    from model_api.adapters import OpenvinoAdapter
    from model_api.models import SegmentationModel

    settings = subject.manifest.input
    file = subject.files["openvino-int8" if precision == "int8" else "onnx"]
    adapter = OpenvinoAdapter(
        ov.Core(), str(file), device="CPU", plugin_config=_latency(precision, threads)
    )
    model = SegmentationModel(
        adapter,
        {
            "mean_values": list(settings.mean),
            "scale_values": list(settings.std),
            "reverse_input_channels": True,
            "resize_type": "standard",
            "return_soft_prediction": False,  # labels are all that is wanted
            "blur_strength": -1,
        },
        preload=True,
    )
    return Peer(
        "OpenVINO model_api",
        metadata.version("openvino-model-api"),
        precision,
        lambda frame: model(frame).astype(np.uint8),
        "it takes the best class before it resizes, and resizes to the nearest",
    )


def _openvino_model(subject: Subject, precision: Precision) -> tuple[Any, Any]:
    settings = subject.manifest.input
    core = ov.Core()
    model = core.read_model(subject.files["openvino-int8" if precision == "int8" else "onnx"])
    model.reshape([1, 3, settings.height, settings.width])
    return model, core


def _latency(precision: Precision, threads: int) -> dict[str, str]:
    # docs.openvino.ai, "High-level Performance Hints": LATENCY for one frame at a time.
    options = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": str(threads)}
    if precision != "int8":
        options["INFERENCE_PRECISION_HINT"] = {"float32": "f32", "bfloat16": "bf16"}[precision]
    return options


_INT8_OF = {"NumPy + cv2 + ONNX Runtime": "onnx"}
_BOTH_FLOATS: tuple[Precision, ...] = ("float32", "bfloat16")
MAKERS = (
    Maker("PyTorch eager", "torch", "torch", _BOTH_FLOATS, torch_eager),
    Maker("PyTorch compiled", "torch", "torch", _BOTH_FLOATS, torch_compiled),
    Maker(
        "NumPy + cv2 + ONNX Runtime",
        "onnxruntime",
        "onnxruntime",
        ("float32", "int8"),
        onnxruntime,
    ),
    Maker("NumPy + cv2 + OpenVINO", "openvino", "openvino", PRECISIONS, numpy_openvino),
    Maker("OpenVINO in one graph", "openvino", "openvino", PRECISIONS, openvino_in_graph),
    Maker("OpenVINO model_api", "openvino-model-api", "model_api", PRECISIONS, model_api),
    Maker("cv2.dnn", "opencv-python", "cv2", ("float32",), opencv_dnn),
)


@dataclass(frozen=True)
class Missing:
    """A peer that could not be made, and why."""

    name: str
    precision: Precision
    reason: str


def make_peers(
    subject: Subject, frame: Frame, threads: int, makers: tuple[Maker, ...] = MAKERS
) -> Iterator[Peer | Missing]:
    """Every peer in every precision that it has; one that fails does not stop the others."""
    for maker in makers:
        for precision in maker.precisions:
            if reason := maker.missing(subject, precision):
                yield Missing(maker.name, precision, reason)
                continue
            try:
                peer = maker.make(subject, frame, precision, threads)
                peer.labels(frame)  # compiles, where that is put off
            except Exception as error:  # another tool's: whatever it raises, the others go on
                said = " ".join(str(error).split()) or type(error).__name__
                yield Missing(maker.name, precision, f"it failed: {said[:300]}")
                continue
            yield peer
