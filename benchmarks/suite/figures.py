"""Figures of the report, from the JSON."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
from benchmarks.suite.results import AccuracyPoint, PathTable
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, ScalarFormatter

_COLOURS = {"float32": "#1f5fa8", "bfloat16": "#c8631b", "int8": "#2b8a3e"}
_STAGES = {"preprocess": "#c8631b", "inference": "#9db7d5", "upsample_argmax": "#2b8a3e"}
_DPI = 130
_WIDTH = 7.6  # inches
_STYLE = {"font.size": 8, "axes.spines.top": False, "axes.spines.right": False}


def latencies(tables: Sequence[PathTable], path: Path) -> None:
    """Every call of every contender, a line for each, the fastest on top; medians are marked."""
    figure, panels = _panels([0.16 * len(table.rows) + 0.7 for table in tables])
    for axes, table in zip(panels, tables, strict=True):
        rows = sorted(table.rows, key=lambda row: row.ms.p50)
        for place, row in enumerate(rows):
            colour = _COLOURS[row.precision]
            calls = np.full(len(row.ms.ms), place)
            axes.plot(row.ms.ms, calls, "o", color=colour, alpha=0.3, markersize=3, mew=0)
            axes.plot(row.ms.p50, place, "|", color=colour, markersize=9, mew=1.8)
        axes.set_yticks(range(len(rows)), [row.name for row in rows], fontsize=7)
        for label, row in zip(axes.get_yticklabels(), rows, strict=True):
            label.set_fontweight("bold" if row.name == "edgeseg" else "normal")
        axes.set_ylim(len(rows) - 0.3, -0.7)
        axes.set_xlim(left=0)
        axes.grid(axis="x", color="#e4e4e4", linewidth=0.6)
        axes.set_axisbelow(True)
        axes.set_title(f"{table.network} network, {table.frame} frame", fontsize=8, loc="left")
    panels[-1].set_xlabel("ms from frame to labels; a dot is a call, a mark is the median")
    used = {row.precision: None for table in tables for row in table.rows}
    marks = [
        Line2D([], [], color=colour, marker="o", linestyle="", markersize=4, label=precision)
        for precision, colour in _COLOURS.items()
        if precision in used
    ]
    figure.legend(handles=marks, loc="outside upper right", ncols=len(marks), frameon=False)
    figure.savefig(path, dpi=_DPI)


def stages(tables: Sequence[PathTable], path: Path) -> None:
    """What `predict` spends its time on, by precision; the numbers stand in the same order."""
    figure, panels = _panels([0.28 * len(table.engines) + 0.6 for table in tables])
    for axes, table in zip(panels, tables, strict=True):
        names = [engine.precision for engine in table.engines]
        left = np.zeros(len(names))
        for stage, colour in _STAGES.items():
            ms = np.array([engine.stages_ms[stage] for engine in table.engines])
            axes.barh(names, ms, left=left, color=colour, label=stage, height=0.6)
            left += ms
        for place, engine in enumerate(table.engines):
            told = " + ".join(f"{engine.stages_ms[stage]:.2f}" for stage in _STAGES)
            axes.annotate(f"  {told}", (left[place], place), va="center", fontsize=7)
        axes.set_ylim(len(names) - 0.4, -0.6)
        axes.set_xlim(0, 1.25 * left.max())
        axes.set_title(f"{table.network} network, {table.frame} frame", fontsize=8, loc="left")
    panels[-1].set_xlabel("ms, median")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper right", ncols=len(labels), frameon=False)
    figure.savefig(path, dpi=_DPI)


def accuracy(points: Sequence[tuple[AccuracyPoint, float]], path: Path) -> None:
    """mIoU over frames a second, at least two points of mIoU high: small differences stay small."""
    figure, (axes,) = _panels([2.8])
    for point, fps in points:
        axes.plot(fps, 100 * point.miou, "o", color=_COLOURS[point.precision])
        axes.annotate(
            f"{point.precision}: {100 * point.miou:.2f}, {fps:.1f} a second",
            (fps, 100 * point.miou),
            xytext=(0, 7),
            textcoords="offset points",
            ha="center",
        )
    miou = [100 * point.miou for point, _ in points]
    if miou:
        axes.set_ylim(min(miou) - 1, max(miou) + 1)
    axes.margins(x=0.4)
    axes.xaxis.set_major_locator(MaxNLocator(6))
    axes.yaxis.set_major_formatter(ScalarFormatter(useOffset=False))
    axes.set_xlabel("frames a second, from frame to labels")
    axes.set_ylabel("mIoU, CamVid val")
    figure.savefig(path, dpi=_DPI)


def _panels(heights: Sequence[float]) -> tuple[Figure, Sequence[Axes]]:
    """One below the other, of these heights in inches."""
    mpl.rcParams.update(_STYLE)
    figure = Figure(figsize=(_WIDTH, sum(heights) + 0.5), layout="constrained")
    grid = figure.subplots(len(heights), 1, squeeze=False, height_ratios=heights)
    return figure, grid[:, 0]
