"""How fast an engine is here, and how steady: the work behind `edgeseg bench`.

Two rows always. A, engine only: the network on a ready input tensor; on a CPU compiled and timed
from outside the Runtime. B, frame to labels: `Runtime.predict` on a frame in host memory, labels at
the frame's own size. They take turns, so that a noisy machine disturbs both alike. The golden
sample is checked before the clock starts.
"""

from __future__ import annotations

import io
import os
import platform
import resource
import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import metadata
from itertools import cycle, islice
from pathlib import Path
from time import perf_counter
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

import edgeseg
from edgeseg import _core
from edgeseg.arguments import check_number
from edgeseg.engine_file import open_engine
from edgeseg.errors import EngineError, InputError
from edgeseg.runtime import Runtime, packaged_engine, verify
from edgeseg.runtime.runtime import Precision
from edgeseg.synthetic import street
from edgeseg.video import open_source

Value = TypeVar("Value")

SOURCE_HZ = (10.0, 30.0, 60.0)
_WARM_UP = 5  # rounds that do not count
_FEWEST_ROUNDS = 3
_FRAMES = 16  # of a video, in memory
_FRAME_SEED = 1
_VECTOR_FLAGS = (
    "sse4",
    "avx",
    "fma",
    "f16c",
    "amx",
    "vnni",
    "asimd",
    "sve",
    "fphp",
    "bf16",
    "i8mm",
)
_PACKAGES = ("numpy", "opencv-python", "openvino")


@dataclass(frozen=True)
class Latency:
    """Milliseconds of one row.

    Attributes:
        clock: "outside": around the call, as a caller feels it; "runtime": as the Runtime timed
            the stage itself.
        ms: every measured call, in order.
        fps: calls in a second, one after another: 1000 over the mean.
    """

    clock: str
    p50: float
    p90: float
    p99: float
    max: float
    fps: float
    ms: tuple[float, ...]

    @staticmethod
    def of(ms: Sequence[float], clock: str = "outside") -> Latency:
        """Of at least one measured call."""
        p50, p90, p99 = (float(p) for p in np.percentile(ms, [50, 90, 99]))
        return Latency(clock, p50, p90, p99, max(ms), 1e3 / statistics.fmean(ms), tuple(ms))


@dataclass(frozen=True)
class LiveSource:
    """What becomes of a camera's frames; see `live_source`.

    Attributes:
        hz: frames that the source gives in a second.
        offered: frames that came, up to the last one that was taken.
        missed: of these, those that nobody took.
        jitter_ms: standard deviation of the time between one result and the next.
    """

    hz: float
    offered: int
    missed: int
    jitter_ms: float


@dataclass(frozen=True)
class Machine:
    """The CPU, and how much of it this process may use."""

    cpu: str
    cores: int
    flags: tuple[str, ...]
    kernels: str


@dataclass(frozen=True)
class BenchReport:
    """What `bench` measured.

    Attributes:
        engine: name of the engine.
        runtime: engine, target, backend and machine, in words.
        backend, target, device, precision, threads: as of the `Runtime`.
        network, frame: WIDTH×HEIGHT.
        golden: share of the golden sample's pixels as trained, 0..1, before the clock started.
        load_ms: from the file to a Runtime that is ready.
        first_frame_ms: the first frame's labels.
        peak_memory_mb: most resident memory of the process up to the end of the Runtime's warm-up,
            in 10⁶ bytes; the comparison engine is compiled later.
        engine_only: row A.
        frame_to_labels: row B.
        stages_ms: medians of B's stages.
        sources: what B makes of sources of 10, 30 and 60 Hz.
        versions: of what ran.
        machine: where.
    """

    engine: str
    runtime: str
    backend: str
    target: str
    device: str
    precision: str
    threads: int
    network: str
    frame: str
    golden: float
    load_ms: float
    first_frame_ms: float
    peak_memory_mb: float
    engine_only: Latency
    frame_to_labels: Latency
    stages_ms: dict[str, float]
    sources: tuple[LiveSource, ...]
    versions: dict[str, str]
    machine: Machine


def bench(
    engine: str | os.PathLike[str] | None = None,
    *,
    frames: Sequence[NDArray[np.uint8]] = (),
    seconds: float = 10.0,
    device: str = "auto",
    threads: int | None = None,
    precision: Precision = "auto",
    trust: bool = False,
) -> BenchReport:
    """Measure an engine on this machine.

    Args:
        engine: an engine file; None is the packaged one.
        frames: H×W×3 uint8 BGR, of one size, labelled in turn; none: one synthetic street of the
            network's own size.
        seconds: how long to measure; at least three rounds are.
        device: as for `Runtime`, like all that follow.
        threads: CPU threads.
        precision: number format of the inference.
        trust: whether to load compiled targets that were not built here.

    Raises:
        InputError: an argument is out of range, or the frames differ in size.
        EngineError: the engine cannot run here, or does not compute what was trained.
    """
    check_number("seconds", seconds, 0.01, 3600.0)
    if len({frame.shape for frame in frames}) > 1:
        raise InputError("the frames differ in size; give frames of one size")
    path = packaged_engine() if engine is None else Path(engine)

    runtime, load_ms = _timed(
        partial(Runtime, path, device, threads, precision=precision, trust=trust)
    )
    size = runtime.manifest.input
    shown = frames or [street(_FRAME_SEED, size.height, size.width).frame]
    _, first_frame_ms = _timed(partial(runtime.predict, shown[0]))
    for frame in islice(cycle(shown), _WARM_UP):
        runtime.predict(frame)
    peak_memory_mb = _peak_memory_mb()

    golden = verify(path, threads=threads, precision=precision)
    if not golden.ok:
        raise EngineError(
            f"{path} gives {golden.agreement:.2%} of the golden sample's labels as trained, which "
            "is too little for its times to mean anything; see 'edgeseg verify', or export it again"
        )
    alone = bare_engine(path, runtime, shown[0]) if runtime.backend == "openvino" else None
    for frame in islice(cycle(shown), _WARM_UP):
        if alone:
            alone()
        runtime.predict(frame)

    engine_ms, path_ms, stages = [], [], []
    until = perf_counter() + seconds
    for frame in cycle(shown):
        if alone:
            engine_ms.append(_timed(alone)[1])
        result, elapsed = _timed(partial(runtime.predict, frame))
        path_ms.append(elapsed)
        stages.append(result.timings)
        if perf_counter() >= until and len(path_ms) >= _FEWEST_ROUNDS:
            break
    stages_ms = {
        name: statistics.median(getattr(timings, name) for timings in stages)
        for name in ("preprocess", "inference", "upsample_argmax")
    }
    return BenchReport(
        engine=runtime.manifest.name,
        runtime=repr(runtime),
        backend=runtime.backend,
        target=runtime.target,
        device=runtime.device,
        precision=runtime.precision,
        threads=runtime.threads,
        network=f"{size.width}×{size.height}",
        frame=f"{shown[0].shape[1]}×{shown[0].shape[0]}",
        golden=golden.agreement,
        load_ms=load_ms,
        first_frame_ms=first_frame_ms,
        peak_memory_mb=peak_memory_mb,
        engine_only=Latency.of(engine_ms)
        if alone
        else Latency.of([timings.inference for timings in stages], clock="runtime"),
        frame_to_labels=Latency.of(path_ms),
        stages_ms=stages_ms,
        sources=tuple(live_source(path_ms, hz) for hz in SOURCE_HZ),
        versions=versions(),
        machine=machine(),
    )


def live_source(durations_ms: Sequence[float], hz: float) -> LiveSource:
    """What a source that does not wait loses, where frames take these times.

    Frame i comes at i/hz. It is taken if the one before it has finished by then, and missed if not:
    there is no queue. The frames taken last as long as `durations_ms`, in their order; the time
    line ends with the last of these.

    Args:
        durations_ms: at least one, of frame to labels.
        hz: frames in a second.
    """
    finished: list[float] = []
    number = -1
    missed = 0
    for duration in durations_ms:
        number += 1
        while finished and _arrival_ms(number, hz) < finished[-1]:
            missed += 1
            number += 1
        finished.append(_arrival_ms(number, hz) + duration)
    intervals = np.diff(finished)
    jitter = float(np.std(intervals)) if len(intervals) else 0.0
    return LiveSource(hz, number + 1, missed, jitter)


def _arrival_ms(number: int, hz: float) -> float:
    return 1e3 * number / hz


def bare_engine(
    path: Path, runtime: Runtime, frame: NDArray[np.uint8]
) -> Callable[[], NDArray[np.float32]]:
    """The network that a CPU Runtime runs, compiled by OpenVINO alone, as its user would.

    Returns:
        A function that infers on the prepared `frame` (H×W×3 uint8 BGR, stretched) and gives the
        logits, 1×K×h×w float32, valid until the next call.
    """
    import openvino as ov
    from openvino import properties

    from edgeseg.runtime.openvino import PRECISIONS

    with open_engine(path) as engine:
        settings = engine.manifest.input
        quantized = runtime.precision == "int8"
        target = engine.manifest.target(runtime.target, quantized=quantized)
        assert target is not None  # the Runtime runs it
        parts = [bytes(engine.part(name)) for name in target.parts]
    core = ov.Core()
    if target.kind == "onnx":
        model = core.read_model(io.BytesIO(parts[0]))
    else:
        model = core.read_model(parts[0], ov.Tensor(np.frombuffer(parts[1], np.uint8)))
    model.reshape([1, 3, settings.height, settings.width])
    options: dict[str, object] = {
        properties.hint.performance_mode(): properties.hint.PerformanceMode.LATENCY,
        properties.inference_num_threads(): runtime.threads,
    }
    if not quantized:
        options[properties.hint.inference_precision()] = PRECISIONS[runtime.precision]
    request = core.compile_model(model, "CPU", options).create_infer_request()
    _core.preprocess(
        frame, request.get_input_tensor().data[0], mean=settings.mean, std=settings.std
    )
    logits: NDArray[np.float32] = request.get_output_tensor().data

    def infer() -> NDArray[np.float32]:
        request.infer()
        return logits

    return infer


def read_frames(source: str) -> list[NDArray[np.uint8]]:
    """Frames to measure on: a synthetic street of "WIDTHxHEIGHT", or the first of a file.

    Raises:
        InputError: it is neither a size nor something that can be read.
    """
    width, separator, height = source.partition("x")
    if separator and width.isdecimal() and height.isdecimal():
        sides = int(width), int(height)
        if not all(16 <= side <= 8192 for side in sides):
            raise InputError(f"a frame of {source} was asked for, 16 to 8192 pixels are expected")
        return [street(_FRAME_SEED, sides[1], sides[0]).frame]
    with open_source(source) as opened:
        pixels = [frame.pixels for frame in islice(opened, _FRAMES)]
    # A folder's pictures may differ in size; those of the first one's stay.
    return [frame for frame in pixels if frame.shape == pixels[0].shape]


def machine() -> Machine:
    """The CPU as the system names it, its vector instructions, and the kernels chosen for it."""
    fields: dict[str, str] = {}
    if sys.platform == "linux":
        for line in Path("/proc/cpuinfo").read_text().split("\n\n")[0].splitlines():
            field, _, value = line.partition(":")
            fields[field.strip()] = value.strip()
    flags = fields.get("flags") or fields.get("Features", "")
    return Machine(
        cpu=fields.get("model name") or platform.processor() or platform.machine(),
        cores=len(os.sched_getaffinity(0)),
        flags=tuple(sorted(f for f in flags.split() if any(k in f for k in _VECTOR_FLAGS))),
        kernels=_core.dispatch_level(),
    )


def versions() -> dict[str, str]:
    """Of edgeseg, Python, the system, and what runs a CPU engine."""
    found = {
        "edgeseg": edgeseg.__version__,
        "Python": platform.python_version(),
        "system": platform.platform(),
    }
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def markdown(report: BenchReport) -> str:
    """The report as a page."""
    lines = [
        f"# {report.engine}: {report.network} network, {report.frame} frame",
        "",
        f"{report.target} target with {report.backend} in {report.precision} on {report.device}, "
        f"{report.threads} threads. Golden sample: {report.golden:.3%} of the labels as trained.",
        "",
        "| | p50 ms | p90 | p99 | max | FPS | calls |",
        "|---|---|---|---|---|---|---|",
        *(
            f"| {name} | {row.p50:.2f} | {row.p90:.2f} | {row.p99:.2f} | {row.max:.2f} "
            f"| {row.fps:.1f} | {len(row.ms)} |"
            for name, row in rows(report).items()
        ),
        "",
        "| stage | p50 ms |",
        "|---|---|",
        *(f"| {stage} | {ms:.2f} |" for stage, ms in report.stages_ms.items()),
        "",
        "| source | frames | missed | jitter ms |",
        "|---|---|---|---|",
        *(
            f"| {source.hz:g} Hz | {source.offered} | {source.missed} | {source.jitter_ms:.2f} |"
            for source in report.sources
        ),
        "",
        "A frame is missed that comes while the one before it is in work. Jitter is the standard "
        "deviation of the time between results.",
        "",
        "| | |",
        "|---|---|",
        *(f"| {name} | {value} |" for name, value in facts(report).items()),
        "",
    ]
    return "\n".join(lines)


def rows(report: BenchReport) -> dict[str, Latency]:
    """The two rows, by the names that they are printed under."""
    of = "" if report.engine_only.clock == "outside" else ", by the Runtime's own clock"
    return {
        f"A engine only{of}": report.engine_only,
        "B frame to labels": report.frame_to_labels,
    }


def facts(report: BenchReport) -> dict[str, str]:
    """What surrounds the measurement, in words."""
    return {
        "load": f"{report.load_ms:.0f} ms",
        "first frame": f"{report.first_frame_ms:.1f} ms",
        "peak memory": f"{report.peak_memory_mb:.0f} MB",
        "CPU": f"{report.machine.cpu}, {report.machine.cores} cores usable, "
        f"kernels for {report.machine.kernels}",
        "CPU flags": " ".join(report.machine.flags),
        "versions": ", ".join(f"{name} {value}" for name, value in report.versions.items()),
    }


def _timed(action: Callable[[], Value]) -> tuple[Value, float]:
    started = perf_counter()
    value = action()
    return value, 1e3 * (perf_counter() - started)


def _peak_memory_mb() -> float:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak * (1e-6 if sys.platform == "darwin" else 1.024e-3)
