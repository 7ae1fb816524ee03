"""What the path around the network costs: two claims of the README, measured in one run.

1. `upsample_argmax` against the same step inside an OpenVINO graph (Interpolate, then TopK), on the
   logits that the engine gives for a street.
2. `Runtime.predict` against the bare engine, compiled and timed here, from outside the Runtime.

    python benchmarks/frame_to_labels.py [--engine FILE] [--precision int8] [--json FILE]

Labels are compared before any clock starts.
"""

from __future__ import annotations

import argparse
import io
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import get_args

import numpy as np
import openvino as ov
from numpy.typing import NDArray
from openvino import opset13, properties
from timing import Times, interleaved, ratio_interval

import edgeseg
from edgeseg import _core
from edgeseg.engine_file import open_engine
from edgeseg.runtime import packaged_engine
from edgeseg.runtime.openvino import PRECISIONS
from edgeseg.runtime.runtime import Precision
from edgeseg.synthetic import street


@dataclass(frozen=True)
class Row:
    """One comparison: medians in ms, and their ratio with its 95 % interval."""

    what: str
    peer: str
    ours_ms: float
    peer_ms: float
    ratio: float
    low: float
    high: float


def compare(what: str, peer: str, ours: Times, theirs: Times, *, ours_first: bool = False) -> Row:
    slow, fast = (ours, theirs) if ours_first else (theirs, ours)
    return Row(what, peer, ours.p50, theirs.p50, *ratio_interval(slow, fast))


def bare_engine(path: Path, runtime: edgeseg.Runtime, threads: int) -> ov.CompiledModel:
    """Compile the Runtime's target of the engine as its user would, without edgeseg."""
    kind = runtime.target
    with open_engine(path) as engine:
        target = engine.manifest.target(kind, quantized=runtime.precision == "int8")
        assert target is not None
        parts = [bytes(engine.part(name)) for name in target.parts]
        size = engine.manifest.input
    core = ov.Core()
    if kind == "onnx":
        model = core.read_model(io.BytesIO(parts[0]))
    else:
        model = core.read_model(parts[0], ov.Tensor(np.frombuffer(parts[1], np.uint8)))
    model.reshape([1, 3, size.height, size.width])
    options = latency(threads)
    if runtime.precision != "int8":
        options[properties.hint.inference_precision()] = PRECISIONS[runtime.precision]
    return core.compile_model(model, "CPU", options)


def latency(threads: int) -> dict[str, object]:
    return {
        properties.hint.performance_mode(): properties.hint.PerformanceMode.LATENCY,
        properties.inference_num_threads(): threads,
    }


def in_graph_upsample(
    logits: NDArray[np.float32], height: int, width: int, align_corners: bool, threads: int
) -> ov.CompiledModel:
    """Interpolate to the frame's size and take the best class, as graph operations."""
    parameter = opset13.parameter(logits.shape, np.float32)
    upsampled = opset13.interpolate(
        parameter,
        np.array([height, width], np.int64),
        mode="linear_onnx",
        shape_calculation_mode="sizes",
        coordinate_transformation_mode="align_corners" if align_corners else "half_pixel",
        axes=np.array([2, 3], np.int64),
    )
    best = opset13.topk(upsampled, np.int32(1), 1, "max", "none", "i32")
    labels = opset13.convert(best.output(1), "u8")
    options = latency(threads) | {properties.hint.inference_precision(): ov.Type.f32}
    return ov.Core().compile_model(ov.Model([labels], [parameter]), "CPU", options)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--engine", type=Path, default=packaged_engine())
    parser.add_argument("--height", type=int, default=1024)
    parser.add_argument("--width", type=int, default=2048)
    parser.add_argument("--precision", choices=get_args(Precision), default="auto")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()

    frame = street(1, args.height, args.width).frame
    runtime = edgeseg.Runtime(args.engine, threads=args.threads, precision=args.precision)
    labels = runtime.predict(frame).labels
    print(runtime)

    # The bare engine gives the logits; both upsampling paths must label them as predict did.
    engine = bare_engine(args.engine, runtime, args.threads)
    request = engine.create_infer_request()
    settings = runtime.manifest.input
    _core.preprocess(
        frame, request.get_input_tensor().data[0], mean=settings.mean, std=settings.std
    )
    request.infer()
    logits = request.get_output_tensor().data.copy()
    align_corners = runtime.manifest.architecture.align_corners
    graph = in_graph_upsample(logits, args.height, args.width, align_corners, args.threads)
    graph_request = graph.create_infer_request()
    graph_request.set_input_tensor(ov.Tensor(logits))
    graph_request.infer()
    ours = np.empty((1, args.height, args.width), np.uint8)
    in_graph = graph_request.get_output_tensor().data[0]

    def upsample(threads: int) -> None:
        _core.upsample_argmax(logits, ours, align_corners=align_corners, threads=threads)

    upsample(args.threads)
    for name, found in (("predict", labels), ("in-graph", in_graph[0])):
        agreement = float(np.mean(found == ours[0]))
        print(f"labels of {name} agree with upsample_argmax on {agreement:.4%} of pixels")
        assert agreement > 0.999, "the contenders do not compute the same thing"

    random_logits = np.random.default_rng(0).standard_normal(logits.shape, np.float32)
    rows = []
    for kind, values in (("the engine's logits", logits), ("random logits", random_logits)):
        graph_request.set_input_tensor(ov.Tensor(values))
        times = interleaved(
            {
                "ours": lambda values=values: _core.upsample_argmax(
                    values, ours, align_corners=align_corners, threads=args.threads
                ),
                "in-graph": graph_request.infer,
            },
            args.rounds,
        )
        rows.append(
            compare(
                f"upsample_argmax, {kind}", "OpenVINO in-graph", times["ours"], times["in-graph"]
            )
        )
    times = interleaved(
        {"predict": lambda: runtime.predict(frame), "engine": request.infer}, args.rounds
    )
    rows.append(
        compare("predict", "bare engine", times["predict"], times["engine"], ours_first=True)
    )
    for row in rows:
        print(
            f"{row.what}: {row.ours_ms:.2f} ms, {row.peer} {row.peer_ms:.2f} ms, "
            f"ratio {row.ratio:.2f} (95 %: {row.low:.2f} to {row.high:.2f})"
        )
    if args.json:
        report = {
            "runtime": repr(runtime),
            "frame": [args.height, args.width],
            "cpu": ov.Core().get_property("CPU", "FULL_DEVICE_NAME"),
            "versions": {"edgeseg": edgeseg.__version__, "openvino": ov.__version__},
            "rounds": args.rounds,
            "rows": [asdict(row) for row in rows],
        }
        args.json.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
