"""The page: what was promised first, then every table."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path

from benchmarks.suite import figures
from benchmarks.suite.results import (
    PARTS,
    Accuracy,
    AccuracyPoint,
    Guidance,
    KernelRow,
    PathTable,
    Picture,
    Ratio,
    Results,
    Streams,
)
from benchmarks.suite.verdict import RULE, added_frames, verdicts

from edgeseg.bench import Machine
from edgeseg.files import write_atomically


def write_report(results: Results, folder: Path, stem: str) -> tuple[Path, ...]:
    """Write STEM.md and its figures into `folder`; their paths.

    Raises:
        OutputError: a file cannot be written.
    """
    pictures = {}
    for name, draw in _figures(results).items():
        pictures[name] = folder / f"{stem}-{name}.png"
        draw(pictures[name])
    page = folder / f"{stem}.md"
    text = "\n".join(_page(results, {name: path.name for name, path in pictures.items()}))
    write_atomically(page, [text.encode()])
    return page, *pictures.values()


def _figures(results: Results) -> dict[str, Callable[[Path], None]]:
    """How to draw each figure that there is something for, by its name."""
    drawn: dict[str, Callable[[Path], None]] = {}
    if results.paths:
        tables = results.paths.tables
        drawn["latency"] = partial(figures.latencies, tables)
        drawn["stages"] = partial(figures.stages, tables)
    if results.paths and results.accuracy:
        drawn["accuracy"] = partial(
            figures.accuracy, [(point, fps) for point, fps in _speeds(results) if fps is not None]
        )
    return drawn


def _page(results: Results, pictures: dict[str, str]) -> Iterator[str]:
    setup = results.setup
    machine = setup.machine
    yield from (
        "# Frame to labels on a CPU",
        "",
        "Made by `python -m benchmarks.suite run`. Contenders take turns within one run, every",
        "other round backwards, each with a call of its own before the timed one; labels are",
        "compared before any clock starts; times are medians in ms, ratios stand with their 95 %",
        "interval (bootstrap over paired rounds).",
        "",
        f"- {machine.cpu}, {machine.cores} cores usable, {setup.threads} threads for everybody, "
        f"commit {setup.commit}",
        f"- {' '.join(machine.flags)}",
        f"- {', '.join(f'{name} {version}' for name, version in setup.versions.items())}",
        f"- {_picture(setup.picture)}",
    )
    if results.kernels:
        yield (
            "- a large copy moves "
            + ", ".join(
                f"{rate / 1e9:.1f} GB/s on {threads} thread{'s' if threads > 1 else ''}"
                for threads, rate in results.kernels.bandwidth.items()
            )
            + " (read plus written): the floor of the kernels"
        )
    yield from ("", *_runs(results), "## What was promised", "", RULE, "")
    yield from as_table(
        ("target", "where", "seen", ""),
        ((v.target, v.where, v.seen, _mark(v.outcome)) for v in verdicts(results)),
    )
    if results.paths:
        for table in results.paths.tables:
            yield from _paths(table)
            if not table.judged:
                yield from _why_small(results.paths.tables[0], table, machine)
        yield from (f"![Latency]({pictures['latency']})", "")
        yield from (f"![Stages]({pictures['stages']})", "")
    if results.guidance:
        yield from _guidance(results.guidance)
    if results.accuracy:
        yield from _costs(results.accuracy)
    if results.kernels:
        for kernel in dict.fromkeys(row.kernel for row in results.kernels.rows):
            rows = [row for row in results.kernels.rows if row.kernel == kernel]
            yield from _kernel(kernel, rows)
        yield from ("What does not depend on load: `python -m benchmarks.suite instructions`.", "")
    if results.streams:
        yield from _streams(results.streams)
    if results.accuracy:
        yield from _accuracy(results)
        if "accuracy" in pictures:
            yield from (f"![Accuracy]({pictures['accuracy']})", "")


def _picture(picture: Picture) -> str:
    if picture.sha256 is None:
        return f"labelled: {picture.name}: synthetic, drawn at each frame's size"
    return (
        f"labelled: {picture.name}, {picture.size}, SHA-256 {picture.sha256}…: a file, not drawn "
        "by the suite; resized to each frame"
    )


def _runs(results: Results) -> Iterator[str]:
    """Which part is of when, and which are missing."""
    runs = results.runs()
    yield from as_table(
        ("part", "of the run begun at (UTC)", "minutes", "rounds"),
        (
            (part, run.begun, f"{run.minutes:.1f}", str(run.rounds) if run.rounds else "–")
            for part, run in runs.items()
        ),
    )
    if len({run.begun for run in runs.values()}) > 1:
        yield "Several runs, all on the machine and at the commit above; others are refused."
    if missing := [part for part in PARTS if part not in runs]:
        yield f"Not measured: {', '.join(missing)}."
    yield ""


def _why_small(wide: PathTable, small: PathTable, machine: Machine) -> Iterator[str]:
    """Why a network is measured that no target is set for."""
    lacks_amx = not any(flag.startswith("amx") for flag in machine.flags)
    cpu = "On this CPU without AMX" if lacks_amx else "On this CPU"
    precision = next(e.precision for e in small.engines if e.precision != "int8")
    shares = [f"{_network_share(table, precision):.0%}" for table in (wide, small)]
    yield from (
        f"{cpu} the {_size(wide)} network is {shares[0]} of the time ({precision}), so ratios",
        "against peers are bounded by the network; with the small network the shares are as they",
        f"are on machines whose network is four times faster: {_size(small)} is a quarter of the",
        f"multiply-adds, and {shares[1]} of the time. No target is set for it.",
        "",
    )


def _size(table: PathTable) -> str:
    return table.network.partition(",")[0]


def _network_share(table: PathTable, precision: str) -> float:
    """Of `predict`, 0..1."""
    stages = next(e.stages_ms for e in table.engines if e.precision == precision)
    return stages["inference"] / sum(stages.values())


def _guidance(guidance: Guidance) -> Iterator[str]:
    yield from (
        "## Text guidance at run time",
        "",
        f"The engine alone, 1 frame, {guidance.run.rounds} rounds in alternating order. Times are",
        "medians; the ratio is the median over pairs of rounds, one in each order, with its 95 %",
        "interval by bootstrap over these pairs.",
        "",
    )
    yield from as_table(
        ("precision", "text-guided", "baseline", "ratio"),
        (
            (row.precision, f"{row.guided_ms:.2f}", f"{row.baseline_ms:.2f}", _ratio(row.ratio, 3))
            for row in guidance.rows
        ),
    )


def _costs(accuracy: Accuracy) -> Iterator[str]:
    yield from ("## Parameters and multiply-adds", "")
    yield from as_table(
        ("network", "K", "input", "parameters", "GMAC"),
        (
            (
                row.network,
                str(row.classes),
                row.size,
                f"{row.parameters / 1e3:,.0f}k",
                f"{row.macs / 1e9:.2f}",
            )
            for row in accuracy.costs
        ),
    )


def _streams(streams: Streams) -> Iterator[str]:
    yield from ("## stream()", "", "Whole videos, decoding included.", "")
    yield from as_table(
        ("video", "precision", "stream()", "read–predict loop", "loop ÷ stream()"),
        (
            (
                f"{row.frames} frames of {row.frame}",
                row.precision,
                f"{row.stream_ms:.0f}",
                f"{row.loop_ms:.0f}",
                _ratio(row.ratio),
            )
            for row in streams.rows
        ),
    )
    yield from (
        "Latency: from a camera's frame being there to its labels, by `stream()` and by a loop",
        "that take turns. The camera shows its newest frame to whoever asks; one that is faster",
        "than the loop is read with `latest=True`. A frame is the camera's period, or the loop's",
        "time of one where that is longer.",
        "",
    )
    yield from as_table(
        (
            "camera",
            "precision",
            "a frame",
            "stream() p50",
            "p99",
            "loop p50",
            "p99",
            "added, frames",
        ),
        (
            (
                f"{row.source}{', latest=True' if row.latest else ''}",
                row.precision,
                f"{max(row.period_ms, row.frame_ms):.1f}",
                f"{row.stream_ms.p50:.1f}",
                f"{row.stream_ms.percentile(99):.1f}",
                f"{row.loop_ms.p50:.1f}",
                f"{row.loop_ms.percentile(99):.1f}",
                f"{added_frames(row):+.2f}",
            )
            for row in streams.live
        ),
    )


def _speeds(results: Results) -> list[tuple[AccuracyPoint, float | None]]:
    """Accuracy with the frames a second of the same network, where the paths were measured."""
    tables = results.paths.tables if results.paths else ()
    ms = {
        (table.network, row.precision): row.ms.p50
        for table in tables
        for row in table.rows
        if row.name == "edgeseg"
    }
    points = results.accuracy.points if results.accuracy else ()
    return [
        (point, 1e3 / ms[key] if (key := (point.network, point.precision)) in ms else None)
        for point in points
    ]


def _accuracy(results: Results) -> Iterator[str]:
    yield from (
        "## Speed against accuracy",
        "",
        "mIoU as the packaged engine's manifest has it.",
        "",
    )
    yield from as_table(
        ("network", "precision", "mIoU, CamVid val", "frames a second"),
        (
            (
                point.network,
                point.precision,
                f"{100 * point.miou:.2f}",
                "not measured" if fps is None else f"{fps:.1f}",
            )
            for point, fps in _speeds(results)
        ),
    )


def _paths(table: PathTable) -> Iterator[str]:
    yield from (f"## {table.network} network, {table.frame} frame", "")
    yield from as_table(
        (
            "engine alone",
            "p50",
            "p99",
            "predict ÷ engine",
            "preprocess",
            "upsample_argmax",
            "predict on end: calls",
            "p99 ÷ p50",
        ),
        (
            (
                engine.precision,
                f"{engine.ms.p50:.2f}",
                f"{engine.ms.percentile(99):.2f}",
                _ratio(engine.predict_to_engine),
                f"{engine.stages_ms['preprocess']:.2f}",
                f"{engine.stages_ms['upsample_argmax']:.2f}",
                str(len(engine.steady.ms)),
                f"{engine.steady.percentile(99) / engine.steady.p50:.2f}",
            )
            for engine in table.engines
        ),
    )
    rows = sorted(table.rows, key=lambda row: (row.precision, row.ms.p50))
    yield from as_table(
        ("frame to labels", "version", "precision", "p50", "p90", "p99", "max", "÷ ours", "labels"),
        (
            (
                row.name,
                row.version,
                row.precision,
                f"{row.ms.p50:.1f}",
                f"{row.ms.percentile(90):.1f}",
                f"{row.ms.percentile(99):.1f}",
                f"{max(row.ms.ms):.1f}",
                "" if row.name == "edgeseg" else _ratio(row.to_ours),
                f"{row.agreement:.2%}{'*' if row.why_not else ''}",
            )
            for row in rows
        ),
    )
    notes = dict.fromkeys(f"\\* {row.name}: {row.why_not}" for row in rows if row.why_not)
    left: dict[tuple[str, str], list[str]] = {}
    for x in table.left_out:
        left.setdefault((x.precision, x.reason), []).append(x.name)
    reasons = [f"Left out, {p}: {', '.join(names)}: {why}" for (p, why), names in left.items()]
    for line in (*notes, *reasons):
        yield from (line, "")


def _kernel(kernel: str, rows: list[KernelRow]) -> Iterator[str]:
    yield from (f"## {kernel}", "")
    yield from as_table(
        ("case", "threads", "level", "ours", "floor", "× floor", "peer", "its ms", "peer ÷ ours"),
        (
            (
                row.case,
                str(row.threads),
                row.level,
                f"{row.ours_ms:.3f}",
                f"{row.floor_ms:.3f}",
                f"{row.ours_ms / row.floor_ms:.1f}",
                row.peer,
                f"{row.peer_ms:.3f}",
                _ratio(row.ratio),
            )
            for row in rows
        ),
    )


def as_table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> Iterator[str]:
    """Markdown."""
    yield f"| {' | '.join(head)} |"
    yield "|---" * len(head) + "|"
    for row in rows:
        yield f"| {' | '.join(row)} |"
    yield ""


def _ratio(ratio: Ratio, digits: int = 2) -> str:
    return f"{ratio.value:.{digits}f} ({ratio.low:.{digits}f} to {ratio.high:.{digits}f})"


def _mark(outcome: str) -> str:
    return f"**{outcome}**" if outcome == "missed" else outcome
