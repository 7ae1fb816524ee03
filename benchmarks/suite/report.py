"""The page: what was promised first, then every table."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from benchmarks.suite import figures
from benchmarks.suite.results import KernelRow, PathTable, Ratio, Results
from benchmarks.suite.verdict import verdicts

from edgeseg.files import write_atomically


def write_report(results: Results, folder: Path, stem: str) -> tuple[Path, ...]:
    """Write STEM.md and its figures into `folder`; their paths.

    Raises:
        OutputError: a file cannot be written.
    """
    pictures = {
        "latency": folder / f"{stem}-latency.png",
        "stages": folder / f"{stem}-stages.png",
        "accuracy": folder / f"{stem}-accuracy.png",
    }
    figures.latencies(results.paths, pictures["latency"])
    figures.stages(results.paths, pictures["stages"])
    figures.accuracy(results.accuracy, pictures["accuracy"])
    page = folder / f"{stem}.md"
    text = "\n".join(_page(results, {name: path.name for name, path in pictures.items()}))
    write_atomically(page, [text.encode()])
    return page, *pictures.values()


def _page(results: Results, pictures: dict[str, str]) -> Iterator[str]:
    machine = results.machine
    yield from (
        "# Frame to labels on a CPU",
        "",
        "Made by `python -m benchmarks.suite run`. Contenders take turns within one run, each with",
        "a call of its own before the timed one; labels are compared before any clock starts;",
        "times are medians in ms, ratios stand with their 95 % interval (bootstrap over paired",
        "rounds).",
        "",
        f"- {machine.cpu}, {machine.cores} cores usable, {results.threads} threads for everybody, "
        f"{results.rounds} rounds, commit {results.commit}",
        f"- {' '.join(machine.flags)}",
        f"- {', '.join(f'{name} {version}' for name, version in results.versions.items())}",
        "- a large copy moves "
        + ", ".join(
            f"{rate / 1e9:.1f} GB/s on {threads} thread{'s' if threads > 1 else ''}"
            for threads, rate in results.bandwidth.items()
        )
        + " (read plus written): the floor of the kernels",
        "",
        "## What was promised",
        "",
    )
    yield from _table(
        ("target", "where", "seen", ""),
        ((v.target, v.where, v.seen, _mark(v.outcome)) for v in verdicts(results)),
    )
    for table in results.paths:
        yield from _paths(table)
    yield from (f"![Latency]({pictures['latency']})", "", f"![Stages]({pictures['stages']})", "")
    yield from ("## Text guidance at run time", "", "The engine alone, 1 frame.", "")
    yield from _table(
        ("precision", "text-guided", "baseline", "ratio"),
        (
            (row.precision, f"{row.guided_ms:.2f}", f"{row.baseline_ms:.2f}", _ratio(row.ratio, 3))
            for row in results.guided
        ),
    )
    yield from ("## Parameters and multiply-adds", "")
    yield from _table(
        ("network", "K", "input", "parameters", "GMAC"),
        (
            (
                row.network,
                str(row.classes),
                row.size,
                f"{row.parameters / 1e3:,.0f}k",
                f"{row.macs / 1e9:.2f}",
            )
            for row in results.costs
        ),
    )
    for kernel in dict.fromkeys(row.kernel for row in results.kernels):
        yield from _kernel(kernel, [row for row in results.kernels if row.kernel == kernel])
    yield from ("## stream()", "", "Whole videos, decoding included.", "")
    yield from _table(
        ("video", "precision", "stream()", "read–predict loop", "loop ÷ stream()"),
        (
            (
                f"{row.frames} frames of {row.frame}",
                row.precision,
                f"{row.stream_ms:.0f}",
                f"{row.loop_ms:.0f}",
                _ratio(row.ratio),
            )
            for row in results.streams
        ),
    )
    yield from ("## Speed against accuracy", "", f"![Accuracy]({pictures['accuracy']})", "")


def _paths(table: PathTable) -> Iterator[str]:
    yield from (f"## {table.network} network, {table.frame} frame", "")
    yield from _table(
        ("engine alone", "p50", "p99", "predict ÷ engine", "preprocess", "upsample_argmax"),
        (
            (
                engine.precision,
                f"{engine.ms.p50:.2f}",
                f"{engine.ms.percentile(99):.2f}",
                _ratio(engine.predict_to_engine),
                f"{engine.stages_ms['preprocess']:.2f}",
                f"{engine.stages_ms['upsample_argmax']:.2f}",
            )
            for engine in table.engines
        ),
    )
    rows = sorted(table.rows, key=lambda row: (row.precision, row.ms.p50))
    yield from _table(
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
    left = [f"Left out: {x.name}, {x.precision}: {x.reason}" for x in table.left_out]
    for line in (*notes, *left):
        yield from (line, "")


def _kernel(kernel: str, rows: list[KernelRow]) -> Iterator[str]:
    yield from (f"## {kernel}", "")
    yield from _table(
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


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield "|---" * len(head) + "|"
    for row in rows:
        yield f"| {' | '.join(row)} |"
    yield ""


def _ratio(ratio: Ratio, digits: int = 2) -> str:
    return f"{ratio.value:.{digits}f} ({ratio.low:.{digits}f} to {ratio.high:.{digits}f})"


def _mark(outcome: str) -> str:
    return f"**{outcome}**" if outcome == "missed" else outcome
