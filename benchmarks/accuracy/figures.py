"""Figures of the report. Published points are hollow, what was measured here is filled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib as mpl
from benchmarks.accuracy.plan import ARMS
from benchmarks.accuracy.published import Point
from benchmarks.accuracy.statistics import PairedDifference
from benchmarks.accuracy.tables import WHICH, Comparison, IouTable
from matplotlib.axes import Axes
from matplotlib.figure import Figure

mpl.rcParams.update({"font.size": 8, "axes.spines.top": False, "axes.spines.right": False})

_COLOURS = {"last": "#1f5fa8", "best": "#c8631b"}
_DPI = 130


def paired_differences(found: Sequence[Comparison], path: Path) -> None:
    """Mean, 95 % interval and every pair, of each arm against its first control."""
    shown = [item for item in found if item.control == ARMS[item.treatment].controls[0]]
    names = list(dict.fromkeys(item.treatment for item in shown))
    figure, axes = _axes(7.2, 0.8 + 0.36 * len(names))
    for item in shown:
        height = names.index(item.treatment) + (-0.15 if item.which == "last" else 0.15)
        _interval(axes, item.difference, height, _COLOURS[item.which])
    axes.set_yticks(
        range(len(names)),
        [f"{ARMS[name].title}\n− {ARMS[ARMS[name].controls[0]].title}" for name in names],
        fontsize=7,
    )
    axes.invert_yaxis()
    axes.set_xlabel("paired difference in mIoU, points (mean, 95 % interval, seeds)")
    for which in WHICH:
        axes.plot([], [], "o", color=_COLOURS[which], label=f"{which} checkpoint")
    axes.legend(frameon=False)
    figure.savefig(path, dpi=_DPI)


def class_gains(tables: Sequence[IouTable], path: Path) -> None:
    """Gain of each class, of the last weights, one panel for each comparison."""
    shown = [table for table in tables if table.which == "last"]
    figure = Figure(
        figsize=(2.0 + 2.3 * len(shown), 1.2 + 0.24 * len(shown[0].rows)), layout="constrained"
    )
    panels = figure.subplots(1, len(shown), sharey=True, squeeze=False)[0]
    for axes, table in zip(panels, shown, strict=True):
        axes.axvline(0, color="0.7", linewidth=0.8)
        for height, row in enumerate(table.rows):
            _interval(axes, row.gain, height, _COLOURS["last"])
        axes.set_title(f"{ARMS[table.treatment].title}\n− {ARMS[table.control].title}", fontsize=7)
        axes.set_xlabel("gain in IoU, points")
    panels[0].set_yticks(range(len(shown[0].rows)), [row.name for row in shown[0].rows])
    panels[0].invert_yaxis()
    figure.savefig(path, dpi=_DPI)


def speed_accuracy(
    published: Mapping[str, Sequence[Point]], measured: Sequence[Point], path: Path
) -> None:
    """Accuracy over speed, one panel for each data set; hardware and split by marker."""
    panels_count = len(published) + bool(measured)
    figure = Figure(figsize=(4.6 * panels_count, 3.8), layout="constrained")
    panels = figure.subplots(1, panels_count, squeeze=False)[0]
    for axes, (title, points) in zip(panels, published.items(), strict=False):
        _points(axes, points, filled=False)
        axes.set_title(f"{title}, as published", fontsize=8)
    if measured:
        _points(panels[-1], measured, filled=True)
        panels[-1].set_title("measured here", fontsize=8)
    panels[0].set_ylabel("mIoU, %")
    figure.savefig(path, dpi=_DPI)


def _points(axes: Axes, points: Sequence[Point], *, filled: bool) -> None:
    kinds = list(dict.fromkeys((point.hardware, point.split) for point in points))
    for (hardware, split), marker in zip(kinds, "osD^vP*X", strict=False):
        group = [point for point in points if (point.hardware, point.split) == (hardware, split)]
        axes.scatter(
            [point.fps for point in group],
            [point.miou for point in group],
            marker=marker,
            s=24,
            facecolors="#1f5fa8" if filled else "none",
            edgecolors="#1f5fa8" if filled or split == "val" else "0.35",
            label=f"{hardware}, {split}",
        )
    for point in points:
        axes.annotate(
            point.network,
            (point.fps, point.miou),
            (3, 3 if point.split == "test" else 7),  # some lie on top of each other
            textcoords="offset points",
            fontsize=5.5,
        )
    axes.set_xlabel("images per second")
    axes.margins(0.12)
    axes.legend(frameon=False, fontsize=6)


def _axes(width: float, height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots()
    axes.axvline(0, color="0.7", linewidth=0.8)
    return figure, axes


def _interval(axes: Axes, value: PairedDifference, height: float, colour: str) -> None:
    if value.mean is None:
        return
    if value.low is not None and value.high is not None:
        axes.plot([value.low, value.high], [height, height], color=colour, linewidth=1.4)
    axes.plot(value.mean, height, "o", color=colour, markersize=4)
    seeds = list(value.differences.values())
    axes.plot(seeds, [height] * len(seeds), "|", color=colour, alpha=0.5, markersize=5)
