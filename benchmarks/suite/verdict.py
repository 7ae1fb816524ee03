"""What was promised, and whether a run keeps it. Targets are ratios within one run; see `RULE`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from benchmarks.suite.peers import PRECISIONS
from benchmarks.suite.results import KernelRow, LiveRow, PathTable, Ratio, Results
from benchmarks.timing import Times

Outcome = Literal["met", "missed", "undecided", "not measured"]
RULE = (
    "A target with a number is judged on the ratio of the medians, or on what it names (p99, the "
    'upper end of an interval); "ahead" and "never slower" on the whole 95 % interval: where it '
    "holds 1, that is undecided."
)
_OVERHEAD = {"bfloat16": 1.10, "int8": 1.15}
_TIMES_SLOWER = {
    "OpenVINO model_api": 1.5,
    "OpenVINO in one graph": 3.0,
    "PyTorch eager": 6.0,
}
_STEADY = 1.3
_STEADY_CALLS = 100  # of fewer, the p99 is their maximum
_GUIDED = 1.01
_GUIDED_ROUNDS = 50  # the interval of fewer is none
_BLOB = 0.6
_READ_AHEAD = 4  # frames: two in work, one that waits for a turn, one that was just read


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
        *_all_paths(results),
        *_upsample(results),
        *_preprocess(results),
        *_guided(results),
        *_stream(results),
    )


def _all_paths(results: Results) -> Iterator[Verdict]:
    if results.paths is None:
        yield _not_measured("predict, and everybody's time from frame to labels")
        return
    for table in results.paths.tables:
        if table.judged:
            yield from _paths(table)


def _paths(table: PathTable) -> Iterator[Verdict]:
    where = f"{table.network} network, {table.frame} frame"
    rows = {(row.name, row.precision): row for row in table.rows}
    engines = {engine.precision: engine for engine in table.engines}
    left_out = {left.precision for left in table.left_out}
    wanted = [p for p in PRECISIONS if p in engines or p in left_out]
    for precision, limit in _OVERHEAD.items():
        engine = engines.get(precision)
        yield _verdict(
            f"predict ≤ {limit:.2f} × bare engine, {precision}",
            where,
            engine and engine.predict_to_engine,
            lambda value, limit=limit: value <= limit,
        )
    for precision, engine in engines.items():
        yield _steady(f"p99 ≤ {_STEADY} × p50 of predict, {precision}", where, engine.steady)
    for name, times in _TIMES_SLOWER.items():
        for precision in wanted:
            row = rows.get((name, precision))
            if row is None and not _expected(table, name, precision):
                continue
            yield _verdict(
                f"≥ {times:g} × {name}, {precision}",
                where,
                row and row.to_ours,
                lambda value, times=times: value >= times,
            )
    for precision in wanted:
        others = [r for r in table.rows if r.precision == precision and r.name != "edgeseg"]
        ratios = {row.name: row.to_ours for row in others}
        yield _ahead(f"ahead of every other, {precision}", where, ratios)
    own = min((rows["edgeseg", precision] for precision in engines), key=lambda row: row.ms.p50)
    others = [row for row in table.rows if row.name != "edgeseg"]
    # In the same rounds, if in another precision.
    ratios = {f"{row.name}, {row.precision}": Ratio.of(row.ms, own.ms) for row in others}
    yield _ahead("ahead of all at each tool's best", where, ratios)


def _expected(table: PathTable, name: str, precision: str) -> bool:
    """Whether a contender was meant to run in that precision."""
    return any((left.name, left.precision) == (name, precision) for left in table.left_out)


def _ahead(target: str, where: str, ratios: dict[str, Ratio]) -> Verdict:
    nearest = min(ratios, key=lambda name: ratios[name].low, default=None)
    if nearest is None:
        return _not_measured(target, where)
    ratio = ratios[nearest]
    return Verdict(target, where, f"{_shown(ratio)} × ({nearest})", _beyond_one(ratio))


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
            f"{_shown(row.ratio, 1)} × faster",
            _outcome(row.ratio.value >= times),
        )
    if not rows:
        yield _not_measured(target)


def _best_level(results: Results, kernel: str) -> list[KernelRow]:
    if results.kernels is None:
        return []
    return [
        row
        for row in results.kernels.rows
        if row.kernel == kernel and row.level == results.setup.machine.kernels
    ]


def _guided(results: Results) -> Iterator[Verdict]:
    target = f"text-guided ÷ baseline engine: upper end of the 95 % interval ≤ {_GUIDED}"
    if results.guidance is None:
        yield _not_measured(target)
        return
    if results.guidance.run.rounds < _GUIDED_ROUNDS:
        yield _not_measured(target, f"{_GUIDED_ROUNDS} rounds are needed")
        return
    for row in results.guidance.rows:
        outcome = _outcome(row.ratio.high <= _GUIDED)
        yield Verdict(target, row.precision, _shown(row.ratio, 3), outcome)


def _stream(results: Results) -> Iterator[Verdict]:
    target = "stream() never slower than a read–predict loop"
    latency = "stream() adds no more than one frame of latency"
    streams = results.streams
    if streams is None:
        yield _not_measured(target)
        yield _not_measured(latency)
        return
    for row in streams.rows:
        where = f"{row.frames} frames of {row.frame}, {row.precision}"
        yield Verdict(target, where, f"{_shown(row.ratio)} × faster", _beyond_one(row.ratio))
    for live in streams.live:
        yield Verdict(
            latency,
            f"camera {live.source}, {live.precision}",
            f"{added_frames(live):+.2f} frames",
            _outcome(added_frames(live) <= 1.0),
        )
    checks = streams.checks
    yield Verdict(
        "stream() keeps order",
        f"{checks.frames} frames, slow consumer",
        "all, in order" if checks.in_order else "not all, or not in order",
        _outcome(checks.in_order),
    )
    yield Verdict(
        f"stream() bounds memory: at most {_READ_AHEAD} frames ahead of its consumer",
        f"{checks.frames} frames, slow consumer",
        f"{checks.read_ahead} frames",
        _outcome(checks.read_ahead <= _READ_AHEAD),
    )
    yield Verdict(
        "stream() gives what came before its source drops, then the error",
        f"{checks.readable} frames that can be read",
        f"{checks.before_drop} results",
        _outcome(checks.before_drop == checks.readable),
    )


def added_frames(row: LiveRow) -> float:
    """What `stream()` adds to a loop's latency, medians, in frames: see `LiveRow`."""
    frame_ms = max(row.period_ms, row.frame_ms)
    return (row.stream_ms.p50 - row.loop_ms.p50) / frame_ms


def _steady(target: str, where: str, calls: Times) -> Verdict:
    where = f"{where}, {len(calls.ms)} calls on end"
    if len(calls.ms) < _STEADY_CALLS:
        return _not_measured(target, f"{where}, {_STEADY_CALLS} are needed")
    value = calls.percentile(99) / calls.p50
    return Verdict(target, where, f"{value:.2f}", _outcome(value <= _STEADY))


def _verdict(target: str, where: str, ratio: Ratio | None, met: Callable[[float], bool]) -> Verdict:
    if ratio is None:
        return _not_measured(target, where)
    return Verdict(target, where, _shown(ratio), _outcome(met(ratio.value)))


def _not_measured(target: str, where: str = "–") -> Verdict:
    return Verdict(target, where, "–", "not measured")


def _shown(ratio: Ratio, digits: int = 2) -> str:
    return f"{ratio.value:.{digits}f} ({ratio.low:.{digits}f} to {ratio.high:.{digits}f})"


def _outcome(met: bool) -> Outcome:
    return "met" if met else "missed"


def _beyond_one(ratio: Ratio) -> Outcome:
    if ratio.low >= 1.0:
        return "met"
    return "missed" if ratio.high < 1.0 else "undecided"
