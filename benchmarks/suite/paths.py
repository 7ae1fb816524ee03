"""From frame to labels, all contenders in turn; and the networks alone."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
from benchmarks.suite.networks import Subject
from benchmarks.suite.peers import (
    MAKERS,
    PRECISIONS,
    Frame,
    Labels,
    Maker,
    Missing,
    Peer,
    Precision,
    bare,
    make_peers,
)
from benchmarks.suite.results import EngineOnly, GuidedRow, Left, PathRow, PathTable, Ratio
from benchmarks.timing import Times, interleaved

import edgeseg
from edgeseg.machine import cpu_computes_in_bfloat16
from edgeseg.runtime import Timings

AGREES = 0.99
STEADY = 8  # calls of predict for each round, to say how steady it is: a p99 takes 100 or more
PAUSE = 0.02  # seconds; thread pools spin for some milliseconds after their work
Progress = Callable[[str], object]


def agreement(found: Labels, expected: Labels) -> float:
    """Share of equal labels, 0..1."""
    return float(np.mean(found == expected))


@dataclass
class _Ours:
    """edgeseg in one precision; keeps how long its stages took."""

    runtime: edgeseg.Runtime
    timings: list[Timings]

    def labels(self, frame: Frame) -> Labels:
        result = self.runtime.predict(frame)
        self.timings.append(result.timings)
        return result.labels

    def stages_ms(self, calls: int) -> dict[str, float]:
        """Medians of the last `calls`."""
        return {
            stage: statistics.median(getattr(timings, stage) for timings in self.timings[-calls:])
            for stage in ("preprocess", "inference", "upsample_argmax")
        }


def precisions_of(subject: Subject) -> tuple[Precision, ...]:
    """Those that the engine and this CPU have."""
    lacking = set()
    if "openvino-int8" not in subject.files:
        lacking.add("int8")
    if not cpu_computes_in_bfloat16():
        lacking.add("bfloat16")
    return tuple(p for p in PRECISIONS if p not in lacking)


def measure_paths(
    subject: Subject,
    frame: Frame,
    *,
    threads: int,
    rounds: int,
    progress: Progress,
    makers: tuple[Maker, ...] = MAKERS,
    precisions: tuple[Precision, ...] = PRECISIONS,
    judged: bool = True,
) -> PathTable:
    """Compare labels, then time everybody.

    A contender whose labels do not agree, and whose method is no excuse, is left out and named.

    Args:
        subject: the network.
        frame: what is labelled.
        threads: of everybody.
        rounds: that count; eight times as many calls of `predict` say how steady it is.
        progress: told what comes next.
        makers: of the peers.
        precisions: those that the engine or this CPU lacks are passed over.
        judged: whether targets are set for this network.
    """
    ours = {
        precision: _Ours(edgeseg.Runtime(subject.engine, "cpu", threads, precision=precision), [])
        for precision in precisions_of(subject)
        if precision in precisions
    }
    expected = {precision: own.labels(frame) for precision, own in ours.items()}
    engines = {precision: bare(subject, frame, precision, threads) for precision in ours}
    peers: list[tuple[Peer, float]] = []
    left_out: list[Left] = []
    chosen = tuple(
        replace(maker, precisions=tuple(p for p in maker.precisions if p in precisions))
        for maker in makers
    )
    for made in make_peers(subject, frame, threads, chosen):
        progress(f"{subject.name}: {made.name}, {made.precision}")
        if isinstance(made, Missing):
            left_out.append(Left(made.name, made.precision, made.reason))
            continue
        share = agreement(made.labels(frame), expected[made.precision])
        if made.exact and share < AGREES:
            reason = f"its labels agree with ours on {share:.2%} of the pixels only"
            left_out.append(Left(made.name, made.precision, reason))
            continue
        peers.append((made, share))

    progress(f"{subject.name}: timing {len(peers)} peers, {rounds} rounds")
    contenders: dict[str, Callable[[], object]] = {}
    for precision, own in ours.items():
        contenders[f"engine {precision}"] = engines[precision]
        contenders[f"ours {precision}"] = lambda own=own: own.labels(frame)
    for peer, _ in peers:
        name = f"{peer.name} {peer.precision}"
        contenders[name] = lambda peer=peer: peer.labels(frame)
    times = interleaved(contenders, rounds, warm_up=1, lead=1, pause=PAUSE)
    stages_ms = {precision: own.stages_ms(2 * rounds) for precision, own in ours.items()}
    steady = {
        precision: interleaved({"ours": lambda own=own: own.labels(frame)}, STEADY * rounds)["ours"]
        for precision, own in ours.items()
    }
    own_rows = tuple(
        _row(
            Peer("edgeseg", edgeseg.__version__, precision, own.labels),
            1.0,
            times[f"ours {precision}"],
            times,
        )
        for precision, own in ours.items()
    )
    rows = tuple(
        _row(peer, share, times[f"{peer.name} {peer.precision}"], times) for peer, share in peers
    )
    return PathTable(
        network=subject.name,
        frame=f"{frame.shape[1]}×{frame.shape[0]}",
        judged=judged,
        rows=own_rows + rows,
        engines=tuple(
            EngineOnly(
                precision,
                times[f"engine {precision}"],
                Ratio.of(times[f"ours {precision}"], times[f"engine {precision}"]),
                steady[precision],
                stages_ms[precision],
            )
            for precision in ours
        ),
        left_out=tuple(left_out),
    )


def _row(peer: Peer, share: float, ms: Times, times: Mapping[str, Times]) -> PathRow:
    return PathRow(
        peer.name,
        peer.version,
        peer.precision,
        share,
        peer.why_not,
        ms,
        Ratio.of(ms, times[f"ours {peer.precision}"]),
    )


def measure_guided(
    guided: Subject, baseline: Subject, frame: Frame, *, threads: int, rounds: int
) -> tuple[GuidedRow, ...]:
    """Engines alone, with and without text guidance, in turn; `rounds` go by pairs."""
    rows = []
    for precision in precisions_of(guided):
        times = interleaved(
            {
                "guided": bare(guided, frame, precision, threads),
                "baseline": bare(baseline, frame, precision, threads),
            },
            rounds,
            warm_up=1,
            lead=1,
        )
        over, under = times["guided"], times["baseline"]
        rows.append(GuidedRow(precision, over.p50, under.p50, Ratio.paired(over, under)))
    return tuple(rows)
