"""Figures of the report, from the JSON."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
from benchmarks.suite.results import AccuracyPoint, PathTable
from matplotlib.axes import Axes
from matplotlib.figure import Figure

_COLOURS = {"float32": "#1f5fa8", "bfloat16": "#c8631b", "int8": "#2b8a3e"}
_STAGES = {"preprocess": "#c8631b", "inference": "#9db7d5", "upsample_argmax": "#2b8a3e"}
_DPI = 130
_STYLE = {"font.size": 8, "axes.spines.top": False, "axes.spines.right": False}


def latencies(tables: tuple[PathTable, ...], path: Path) -> None:
    """Distribution of every contender's times: share of calls that took at most so long."""
    figure, panels = _panels(len(tables), 4.2)
    for axes, table in zip(panels, tables, strict=True):
        for row in table.rows:
            ms = np.sort(row.ms.ms)
            own = row.name == "edgeseg"
            axes.step(
                ms,
                np.arange(1, len(ms) + 1) / len(ms),
                where="post",
                color=_COLOURS[row.precision],
                linewidth=2.2 if own else 0.9,
                label=f"edgeseg, {row.precision}" if own else None,
            )
            if not own:
                axes.annotate(row.name, (ms[len(ms) // 2], 0.5), fontsize=5, rotation=90)
        axes.set_xscale("log")
        axes.set_xlabel("ms from frame to labels")
        axes.set_ylabel("share of calls")
        axes.set_title(f"{table.network} network, {table.frame} frame", fontsize=8)
        axes.legend(frameon=False, loc="lower right")
    figure.savefig(path, dpi=_DPI)


def stages(tables: tuple[PathTable, ...], path: Path) -> None:
    """What `predict` spends its time on, by precision."""
    figure, panels = _panels(len(tables), 2.6)
    for axes, table in zip(panels, tables, strict=True):
        names = [engine.precision for engine in table.engines]
        left = np.zeros(len(names))
        for stage, colour in _STAGES.items():
            ms = np.array([engine.stages_ms[stage] for engine in table.engines])
            axes.barh(names, ms, left=left, color=colour, label=stage, height=0.6)
            left += ms
        axes.invert_yaxis()
        axes.set_xlabel("ms, median")
        axes.set_title(f"{table.network} network, {table.frame} frame", fontsize=8)
        axes.legend(frameon=False)
    figure.savefig(path, dpi=_DPI)


def accuracy(points: tuple[AccuracyPoint, ...], path: Path) -> None:
    """mIoU of the packaged engine over frames a second."""
    figure, (axes,) = _panels(1, 2.8)
    for point in points:
        axes.plot(point.fps, 100 * point.miou, "o", color=_COLOURS[point.precision])
        axes.annotate(f"  {point.precision}", (point.fps, 100 * point.miou))
    axes.set_xlabel("frames a second, from frame to labels")
    axes.set_ylabel("mIoU, CamVid val")
    axes.margins(0.25)
    figure.savefig(path, dpi=_DPI)


def _panels(count: int, height: float) -> tuple[Figure, Sequence[Axes]]:
    mpl.rcParams.update(_STYLE)
    figure = Figure(figsize=(4.6 * count, height), layout="constrained")
    return figure, figure.subplots(1, count, squeeze=False)[0]
