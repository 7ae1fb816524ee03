"""Results as Markdown: what was aimed at and whether it was met, then every figure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from benchmarks.gpu.results import Check, EngineRow, Engines, KernelRow, Ratio, Results

# Frames per second of the paper's Tables 1 and 2: GTX 1080 Ti, TensorRT 5.1.5.
PUBLISHED_FPS = {
    "text-guided, K = 19, 1024×512": 245.3,
    "baseline, K = 19, 1024×512": 250.4,
    "text-guided, K = 11, 960×720": 196.8,
    "baseline, K = 11, 960×720": 197.6,
}
GUIDED_OVER_BASELINE = 1.01
FRAME_OVER_ENGINE = 1.15
SCORE_MAP_OVER_TORCH = 2.0
SCORE_MAP_SHARE = 0.7
UPSAMPLE_OVER_TORCH = 10.0


@dataclass(frozen=True)
class Target:
    """Something to reach; `met` is None where it was not measured."""

    claim: str
    found: str
    met: bool | None


def targets(results: Results) -> tuple[Target, ...]:
    """All of the project's targets for a GPU."""
    found = [
        *_checks("the tests of kernels and Runtime pass, none skipped", results.tests),
        *_checks("compute-sanitizer finds nothing in the kernels", results.sanitizer),
        *_below(
            f"text-guided over baseline: upper 95 % end at most {GUIDED_OVER_BASELINE}",
            GUIDED_OVER_BASELINE,
            None if results.paper is None else results.paper.guided_over_baseline,
        ),
        *_below(
            "frame to labels over engine only, 1024×512 from a 1024×512 host frame: at most "
            f"{FRAME_OVER_ENGINE}",
            FRAME_OVER_ENGINE,
            None
            if results.engines is None
            else [ratio for ratio in results.engines.over_engine if "1024×512" in ratio.name],
            by_median=True,
        ),
        _faster("score_map_concat", SCORE_MAP_OVER_TORCH, results.kernels),
        _share(results.kernels),
        _faster("upsample_argmax", UPSAMPLE_OVER_TORCH, results.kernels),
        *_checks("the Runtime over many frames", results.runtime),
    ]
    return tuple(found)


def markdown(results: Results) -> str:
    """The whole report."""
    return "\n".join(_lines(results)) + "\n"


def _lines(results: Results) -> Iterator[str]:
    environment, ceilings = results.environment, results.ceilings
    yield f"# {environment.gpu}"
    yield ""
    versions = ", ".join(f"{name} {version}" for name, version in environment.versions.items())
    yield (
        f"Compute capability {environment.compute_capability}, "
        f"{environment.multiprocessors} multiprocessors, {environment.l2_bytes / 2**20:.0f} MiB L2,"
        f" {environment.memory_bytes / 2**30:.0f} GiB; driver {environment.driver}; {versions}; "
        f"kernels for {environment.build.get('cuda_architectures')}; commit {environment.commit}."
    )
    rates = ", ".join(
        f"{name} {rate / 1e12:.1f} TFLOP/s" for name, rate in ceilings.operations.items()
    )
    yield ""
    yield (
        f"Measured ceilings: copy {ceilings.bandwidth / 1e9:,.0f} GB/s (read plus written), launch "
        f"inside a CUDA graph {ceilings.launch_us:.2f} µs, matrix products {rates}."
    )
    if results.clocks:
        yield ""
        yield "Clocks (SM, memory, their maxima), power, limit, temperature, state:"
        yield from (f"- {line}" for line in results.clocks)
    yield from _section("Targets", _targets(targets(results)))
    yield from _section("Networks: text-guided and baseline", _paper(results.paper))
    yield from _section("Networks: contenders", _engines(results.engines))
    yield from _section("Kernels", _kernels(results.kernels))
    yield from _section(
        "Checks",
        _table(
            ("check", "", "seen"),
            [
                (check.name, _mark(check.passed), check.detail)
                for part in (results.tests, results.sanitizer, results.runtime)
                for check in part or ()
            ],
        ),
    )
    yield from _section("Not measured", _not_measured(results))


def _targets(found: Sequence[Target]) -> Iterator[str]:
    yield from _table(("target", "found", "met"), [(t.claim, t.found, _mark(t.met)) for t in found])


def _paper(engines: Engines | None) -> Iterator[str]:
    if engines is None:
        return
    yield "Device time of one frame, launches inside a CUDA graph; the paper's on a GTX 1080 Ti."
    yield ""
    yield from _table(
        ("network", "by", "p50", "FPS", "share of the roofline", "paper's FPS"),
        [
            (
                row.network,
                f"{row.contender}, {row.precision}",
                f"{row.latency.p50:.3f} ms",
                f"{1e3 / row.latency.p50:.0f}",
                _share_of_roofline(row),
                PUBLISHED_FPS.get(row.network, ""),
            )
            for row in engines.rows
        ],
    )
    yield ""
    yield from _table(
        ("text-guided over baseline", "ratio (95 %)"),
        [(ratio.name, _interval(ratio)) for ratio in engines.guided_over_baseline],
    )


def _engines(engines: Engines | None) -> Iterator[str]:
    if engines is None:
        return
    yield "What a caller waits for, all contenders of a network taking turns."
    yield ""
    yield from _table(
        ("network", "by", "span", "p50", "p90", "p99", "share of the roofline", "error"),
        [
            (
                row.network,
                f"{row.contender}, {row.precision}",
                row.span,
                *(f"{ms:.3f} ms" for ms in (row.latency.p50, row.latency.p90, row.latency.p99)),
                _share_of_roofline(row),
                f"{row.error:.2g}",
            )
            for row in engines.rows
        ],
    )
    for title, ratios in (
        ("frame to labels over engine only", engines.over_engine),
        ("PyTorch over ours, engine only", engines.over_ours),
    ):
        yield ""
        yield from _table((title, "ratio (95 %)"), [(r.name, _interval(r)) for r in ratios])


def _kernels(rows: Sequence[KernelRow] | None) -> Iterator[str]:
    if rows is None:
        return
    yield (
        "One launch inside a CUDA graph; cold: inputs and outputs rotate through twice the L2 "
        "cache. The floor is the larger of bytes and operations at the measured ceilings, and one "
        "launch."
    )
    for kernel in dict.fromkeys(row.kernel for row in rows):
        yield ""
        yield f"### {kernel}"
        yield ""
        yield from _table(
            ("case", "L2", "MB", "MFLOP", "floor", "ours", "of the floor", "torch", "Inductor"),
            [_kernel_cells(row) for row in rows if row.kernel == kernel],
        )


def _kernel_cells(row: KernelRow) -> tuple[str, ...]:
    ratios = {ratio.name: ratio for ratio in row.ratios}

    def peer(name: str) -> str:
        if name not in row.us:
            return ""
        return f"{row.us[name]:.1f} µs, {ratios[name].value:.1f} ×"

    return (
        row.case,
        row.cache,
        f"{row.bytes / 1e6:.2f}",
        f"{row.operations / 1e6:.1f}",
        f"{row.floor_us:.1f} µs",
        f"{row.us['ours']:.1f} µs",
        f"{row.share:.2f}",
        peer("torch"),
        peer("inductor"),
    )


def _not_measured(results: Results) -> Iterator[str]:
    parts = ("tests", "sanitizer", "kernels", "paper", "engines", "runtime")
    for part in parts:
        if getattr(results, part) is None:
            yield f"- {part}: not run; `python -m benchmarks.gpu --only {part}`"
        yield from (f"- {part}: {reason}" for reason in results.not_measured.get(part, ()))


def _checks(claim: str, checks: Sequence[Check] | None) -> list[Target]:
    if not checks:
        return [Target(claim, "not measured", None)]
    return [Target(f"{claim}: {check.name}", check.detail, check.passed) for check in checks]


def _below(
    claim: str, bound: float, ratios: Sequence[Ratio] | None, *, by_median: bool = False
) -> list[Target]:
    if not ratios:
        return [Target(claim, "not measured", None)]
    return [
        Target(
            claim,
            f"{ratio.name}: {_interval(ratio)}",
            (ratio.value if by_median else ratio.high) <= bound,
        )
        for ratio in ratios
    ]


def _faster(kernel: str, bound: float, rows: Sequence[KernelRow] | None) -> Target:
    claim = f"{kernel}: at least {bound:g} × as fast as PyTorch under CUDA graphs"
    pairs = [
        (row, ratio)
        for row in rows or ()
        for ratio in row.ratios
        if row.kernel == kernel and ratio.name == "torch"
    ]
    if not pairs:
        return Target(claim, "not measured", None)
    reached = sum(ratio.value >= bound for _, ratio in pairs)
    row, least = min(pairs, key=lambda pair: pair[1].value)
    return Target(
        claim,
        f"in {reached} of {len(pairs)} cases; least {_interval(least)}: {row.case}, {row.cache}",
        reached == len(pairs),
    )


def _share(rows: Sequence[KernelRow] | None) -> Target:
    claim = f"score_map_concat, batch 8, cold: at least {SCORE_MAP_SHARE} of the copy floor"
    batches = [
        row
        for row in rows or ()
        if row.kernel == "score_map_concat" and row.case.startswith("8×") and row.cache == "cold"
    ]
    if not batches:
        return Target(claim, "not measured", None)
    reached = sum(row.share >= SCORE_MAP_SHARE for row in batches)
    least = min(batches, key=lambda row: row.share)
    return Target(
        claim,
        f"in {reached} of {len(batches)} cases; least {least.share:.2f}: {least.case}",
        reached == len(batches),
    )


def _share_of_roofline(row: EngineRow) -> str:
    return "" if row.floor_ms is None else f"{row.floor_ms / row.latency.p50:.2f}"


def _interval(ratio: Ratio) -> str:
    return f"{ratio.value:.3f} ({ratio.low:.3f} to {ratio.high:.3f})"


def _mark(met: bool | None) -> str:
    return {True: "yes", False: "**no**", None: "not measured"}[met]


def _section(title: str, lines: Iterable[str]) -> Iterator[str]:
    body = list(lines)
    if body:
        yield from ("", f"## {title}", "", *body)


def _table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> Iterator[str]:
    if not rows:
        return
    yield "| " + " | ".join(header) + " |"
    yield "|" + "---|" * len(header)
    for row in rows:
        yield "| " + " | ".join(str(cell).replace("|", "/") for cell in row) + " |"
