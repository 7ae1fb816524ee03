"""What was promised, and whether a run keeps it. Targets are ratios within one run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from benchmarks.suite.results import KernelRow, PathRow, PathTable, Results

Outcome = Literal["met", "missed", "not measured"]
_OVERHEAD = {"bfloat16": 1.10, "int8": 1.15}
_TIMES_SLOWER = {
    "OpenVINO model_api": 1.5,
    "OpenVINO in one graph": 3.0,
    "PyTorch eager": 6.0,
}
_STEADY = 1.3
_GUIDED = 1.01
_BLOB = 0.6


@dataclass(frozen=True)
class Verdict:
    """One target: what was promised, what was seen, where."""

    target: str
    where: str
    seen: str
    outcome: Outcome


def verdicts(results: Results) -> tuple[Verdict, ...]:
    """All targets, in the order in which they were set."""
    return (
        *(verdict for table in results.paths for verdict in _paths(table)),
        *_upsample(results),
        *_preprocess(results),
        *_guided(results),
        *_stream(results),
    )


def _paths(table: PathTable) -> Iterator[Verdict]:
    where = f"{table.network} network, {table.frame} frame"
    rows = {(row.name, row.precision): row for row in table.rows}
    engines = {engine.precision: engine for engine in table.engines}
    for precision, limit in _OVERHEAD.items():
        engine = engines.get(precision)
        yield _verdict(
            f"predict ≤ {limit:.2f} × bare engine, {precision}",
            where,
            engine and engine.predict_to_engine.value,
            lambda value, limit=limit: value <= limit,
        )
    for precision in engines:
        own = rows["edgeseg", precision]
        yield _verdict(
            f"p99 ≤ {_STEADY} × p50 of predict, {precision}",
            where,
            own.ms.percentile(99) / own.ms.p50,
            lambda value: value <= _STEADY,
        )
    for name, times in _TIMES_SLOWER.items():
        for precision in engines:
            row = rows.get((name, precision))
            if row is None and not _expected(table, name, precision):
                continue
            yield _verdict(
                f"≥ {times:g} × {name}, {precision}",
                where,
                row and row.to_ours.value,
                lambda value, times=times: value >= times,
            )
    for precision in engines:
        others = [r for r in table.rows if r.precision == precision and r.name != "edgeseg"]
        yield _ahead(f"ahead of every other, {precision}", where, others, 1.0)
    own_best = min(rows["edgeseg", precision].ms.p50 for precision in engines)
    others = [row for row in table.rows if row.name != "edgeseg"]
    fastest = min(others, key=lambda row: row.ms.p50, default=None)
    yield Verdict(
        "ahead of all at each tool's best",
        where,
        "–"
        if fastest is None
        else f"{fastest.ms.p50 / own_best:.2f} × ({fastest.name}, {fastest.precision})",
        "not measured" if fastest is None else _outcome(fastest.ms.p50 > own_best),
    )


def _expected(table: PathTable, name: str, precision: str) -> bool:
    """Whether a contender was meant to run in that precision."""
    return any((left.name, left.precision) == (name, precision) for left in table.left_out)


def _ahead(target: str, where: str, others: list[PathRow], limit: float) -> Verdict:
    nearest = min(others, key=lambda row: row.to_ours.value, default=None)
    if nearest is None:
        return Verdict(target, where, "–", "not measured")
    value = nearest.to_ours.value
    return Verdict(target, where, f"{value:.2f} × ({nearest.name})", _outcome(value > limit))


def _upsample(results: Results) -> Iterator[Verdict]:
    for what, times in (("a street's logits", 20.0), ("random logits", 4.0)):
        found = [row for row in _best_level(results, "upsample_argmax") if what in row.case]
        yield from _kernels(f"upsample_argmax ≥ {times:g} × in-graph, {what}", found, times)


def _preprocess(results: Results) -> Iterator[Verdict]:
    found = [row for row in _best_level(results, "preprocess") if " bgr " in row.case]
    yield from _kernels(f"preprocess ≤ {_BLOB} × blobFromImage, BGR", found, 1 / _BLOB)


def _kernels(target: str, rows: list[KernelRow], times: float) -> Iterator[Verdict]:
    for row in rows:
        threads = f"{row.threads} thread{'s' if row.threads > 1 else ''}"
        yield Verdict(
            target,
            f"{row.case}, {threads}",
            f"{row.ratio.value:.1f} × faster",
            _outcome(row.ratio.value >= times),
        )
    if not rows:
        yield Verdict(target, "–", "–", "not measured")


def _best_level(results: Results, kernel: str) -> list[KernelRow]:
    return [
        row
        for row in results.kernels
        if row.kernel == kernel and row.level == results.machine.kernels
    ]


def _guided(results: Results) -> Iterator[Verdict]:
    target = f"text-guided ÷ baseline engine: upper end of the 95 % interval ≤ {_GUIDED}"
    for row in results.guided:
        ratio = row.ratio
        seen = f"{ratio.value:.3f} ({ratio.low:.3f} to {ratio.high:.3f})"
        yield Verdict(target, row.precision, seen, _outcome(ratio.high <= _GUIDED))
    if not results.guided:
        yield Verdict(target, "–", "–", "not measured")


def _stream(results: Results) -> Iterator[Verdict]:
    target = "stream() never slower than a read–predict loop"
    for row in results.streams:
        ratio = row.ratio
        seen = f"{ratio.value:.2f} × faster ({ratio.low:.2f} to {ratio.high:.2f})"
        where = f"{row.frames} frames of {row.frame}, {row.precision}"
        yield Verdict(target, where, seen, _outcome(ratio.value >= 1.0))
    if not results.streams:
        yield Verdict(target, "–", "–", "not measured")


def _verdict(target: str, where: str, value: float | None, met: Callable[[float], bool]) -> Verdict:
    if value is None:
        return Verdict(target, where, "–", "not measured")
    return Verdict(target, where, f"{value:.2f}", _outcome(met(value)))


def _outcome(met: bool) -> Outcome:
    return "met" if met else "missed"
