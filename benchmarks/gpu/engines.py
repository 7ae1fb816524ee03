"""Networks: engine only and from frame to labels, all contenders taking turns in one run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from benchmarks.gpu.clocks import Launch
from benchmarks.gpu.contenders import Contender, Made, Subject, logits_error
from benchmarks.gpu.counts import Ceilings, network_floor_ms
from benchmarks.gpu.device import Device
from benchmarks.gpu.results import EngineRow, Engines, Latency, Ratio, one_line
from benchmarks.timing import Times

from edgeseg.errors import EngineError
from edgeseg.synthetic import street

Progress = Callable[[str], object]
OpenRuntime = Callable[[Path, str], Any]
Action = Callable[[], object]
LABELS_AGREE = 0.8  # of pixels, at least: a random network seldom has a clear winner
INT8_LABELS_AGREE = 0.5


@dataclass(frozen=True)
class _Entry:
    """A contender that gives the right logits."""

    contender: Contender
    made: Made
    error: float


@dataclass(frozen=True)
class _Span:
    """What a contender is timed on."""

    entry: _Entry
    span: str
    run: Action
    error: float


def open_runtime(file: Path, precision: str) -> Any:
    """The Runtime on the file's compiled target, or an error."""
    import edgeseg

    asked = "int8" if precision == "int8" else "auto"  # a plan in floating point has its own
    return edgeseg.Runtime(file, device="cuda", strict=True, trust=True, precision=asked)


def measure_engines(
    subject: Subject,
    contenders: Sequence[Contender],
    ceilings: Ceilings,
    *,
    frames: Sequence[tuple[int, int]],
    rounds: int,
    progress: Progress,
    open_runtime: OpenRuntime = open_runtime,
) -> tuple[Engines, tuple[str, ...]]:
    """Latencies that a caller sees, and what was not measured.

    Args:
        subject: the network.
        contenders: who runs it.
        ceilings: of the GPU.
        frames: sizes (H, W) of host frames that the Runtime labels.
        rounds: turns of every contender.
        progress: told what is being made.
        open_runtime: for tests on machines without a GPU.
    """
    entries, missing = _entries(subject, contenders, progress)
    spans: dict[str, _Span] = {}
    for entry in entries:
        name = f"{subject.case.name}, {entry.contender.title}"
        run = _ready(entry.made, subject.device, name, missing)
        spans[f"{name}, engine"] = _Span(entry, "engine", run, entry.error)
        if entry.made.file is None:
            continue
        try:
            runtime = open_runtime(entry.made.file, entry.contender.precision)
            for height, width in frames:
                span = f"frame {width}×{height}"
                frame = street(1, height, width).frame
                error = _labels_error(subject, runtime, frame, entry.contender.precision)
                spans[f"{name}, {span}"] = _Span(entry, span, _predict(runtime, frame), error)
        except Exception as problem:
            missing.append(f"{name}, from frame to labels: {one_line(problem)}")
    progress(f"{subject.case.name}: {rounds} rounds of {len(spans)} contenders")
    times = subject.device.latency_clock.time(
        {name: _launch(span.run) for name, span in spans.items()}, rounds=rounds, launches=1
    )
    rows = tuple(
        EngineRow(
            network=subject.case.name,
            contender=span.entry.contender.name,
            precision=span.entry.contender.precision,
            span=span.span,
            latency=Latency.of(times[name]),
            error=span.error,
            floor_ms=_floor(subject, span.entry.contender.precision, ceilings),
        )
        for name, span in spans.items()
    )
    over_engine, over_ours = _ratios(subject, entries, times)
    return Engines(rows, over_engine, over_ours), tuple(missing)


def measure_paper(
    guided: Subject,
    baseline: Subject,
    contenders: Sequence[Contender],
    ceilings: Ceilings,
    *,
    rounds: int,
    progress: Progress,
) -> tuple[Engines, tuple[str, ...]]:
    """Text-guided over baseline network by each contender: device time, launches in a graph."""
    rows: list[EngineRow] = []
    ratios: list[Ratio] = []
    missing: list[str] = []
    for contender in contenders:
        pair: list[tuple[Subject, _Entry]] = []
        for subject in (guided, baseline):
            entries, absent = _entries(subject, [contender], progress)
            missing += absent
            pair += [(subject, entry) for entry in entries]
        if len(pair) < 2:
            continue
        runs = {subject.case.name: _launch(entry.made.engine.run) for subject, entry in pair}
        try:
            times = guided.device.kernel_clock.time(runs, rounds=rounds, launches=4)
        except Exception as error:
            missing.append(f"{guided.case.name}, {contender.title}, in a graph: {one_line(error)}")
            continue
        rows += [
            EngineRow(
                network=subject.case.name,
                contender=contender.name,
                precision=contender.precision,
                span="engine",
                latency=Latency.of(times[subject.case.name]),
                error=entry.error,
                floor_ms=_floor(subject, contender.precision, ceilings),
            )
            for subject, entry in pair
        ]
        over, under = (times[subject.case.name] for subject in (guided, baseline))
        size = f"{guided.case.width}×{guided.case.height}"
        ratios.append(Ratio.of(f"{size}, {contender.title}", over, under))
    return Engines(tuple(rows), guided_over_baseline=tuple(ratios)), tuple(missing)


def _entries(
    subject: Subject, contenders: Sequence[Contender], progress: Progress
) -> tuple[list[_Entry], list[str]]:
    """Contenders that can be made here and compute the network."""
    entries: list[_Entry] = []
    missing: list[str] = []
    for contender in contenders:
        name = f"{subject.case.name}, {contender.title}"
        progress(f"{name}: making it")
        try:
            made = contender.make(subject, contender.precision)
            error = logits_error(subject, made.engine.run())
        except Exception as problem:  # whatever a compiler, a library or an import raises
            missing.append(f"{name}: {one_line(problem)}")
            continue
        allowed = subject.allowed_error(contender.precision)
        if error <= allowed:
            entries.append(_Entry(contender, made, error))
        else:
            missing.append(f"{name}: logits are off by {error:.2g}, {allowed:.2g} is allowed")
    return entries, missing


def _ready(made: Made, device: Device, title: str, missing: list[str]) -> Action:
    """The engine's launches: in a graph where they can be."""
    if not made.in_graph:
        return made.engine.run
    try:
        return device.graph(lambda _: made.engine.run())
    except Exception as error:
        missing.append(f"{title}, in a CUDA graph (launched step by step): {one_line(error)}")
        return made.engine.run


def _labels_error(subject: Subject, runtime: Any, frame: np.ndarray, precision: str) -> float:
    wrong = float(np.mean(runtime.predict(frame).labels != subject.labels(frame)))
    if 1 - wrong < (INT8_LABELS_AGREE if precision == "int8" else LABELS_AGREE):
        raise EngineError(f"{wrong:.1%} of the labels differ from those of PyTorch in float32")
    return wrong


def _launch(run: Action) -> Launch:
    return lambda _: run()


def _predict(runtime: Any, frame: np.ndarray) -> Action:
    return lambda: runtime.predict(frame)


def _floor(subject: Subject, precision: str, ceilings: Ceilings) -> float | None:
    rate = ceilings.operations.get("tfloat32" if precision == "float32" else precision)
    return None if rate is None else network_floor_ms(subject.macs, rate)


def _ratios(
    subject: Subject, entries: Sequence[_Entry], times: Mapping[str, Times]
) -> tuple[tuple[Ratio, ...], tuple[Ratio, ...]]:
    """Frame over engine of each contender of ours; and PyTorch's engines over each of ours."""
    case = subject.case
    over_engine: list[Ratio] = []
    over_ours: list[Ratio] = []
    peers = [f"{case.name}, {e.contender.title}" for e in entries if e.made.file is None]
    ours = [f"{case.name}, {e.contender.title}" for e in entries if e.made.file is not None]
    for name in ours:
        engine = times[f"{name}, engine"]
        if frame := times.get(f"{name}, frame {case.width}×{case.height}"):
            over_engine.append(Ratio.of(name, frame, engine))
        for peer in peers:
            title = f"{peer} over {name.removeprefix(case.name + ', ')}"
            over_ours.append(Ratio.of(title, times[f"{peer}, engine"], engine))
    return tuple(over_engine), tuple(over_ours)
