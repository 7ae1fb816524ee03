"""The report: one JSON file with everything, the same as Markdown, and figures."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.accuracy import figures
from benchmarks.accuracy.plan import ARMS, GROUPS, HEADLINE
from benchmarks.accuracy.published import (
    CAMVID_SPEED,
    CITYSCAPES_MIOU,
    CITYSCAPES_SPEED,
    NOT_SOURCED,
    PAPER,
    Point,
)
from benchmarks.accuracy.results import Result
from benchmarks.accuracy.tables import (
    ArmRow,
    Comparison,
    IouTable,
    Runs,
    arm_rows,
    arm_table,
    by_arm,
    comparison_table,
    comparisons,
    interval,
    iou_table,
    iou_tables,
    markdown,
    number,
)
from benchmarks.accuracy.text_geometry import Geometry, geometries, geometry_table

from edgeseg.errors import InputError
from edgeseg.files import make_folder, write_atomically
from edgeseg.text import TextEmbeddings

_VARYING = ("seed", "text_guidance")


@dataclass(frozen=True)
class Report:
    """All that is reported of one budget.

    Attributes:
        budget: Its name.
        command: What makes the runs and the report again.
        recipe: Fields of the recipe that every run without a parent shares.
        settings: Machines, versions and numbers of images, each that occurs.
        arms: What each arm came to.
        missing: Arms of the plan without a finished run.
        comparisons: Paired differences.
        classes: IoU per class.
        categories: IoU per category; empty where the set knows none.
        geometry: Cosines between the class vectors.
        measured: Speed and accuracy measured here, if given.
        runs: Every finished run.
    """

    budget: str
    command: str
    recipe: Mapping[str, Any]
    settings: Sequence[Mapping[str, Any]]
    arms: tuple[ArmRow, ...]
    missing: tuple[str, ...]
    comparisons: tuple[Comparison, ...]
    classes: tuple[IouTable, ...]
    categories: tuple[IouTable, ...]
    geometry: tuple[Geometry, ...]
    measured: tuple[Point, ...]
    runs: tuple[Result, ...]


def make_report(
    results: Sequence[Result],
    *,
    budget: str,
    texts: Mapping[str, TextEmbeddings] | None = None,
    measured: Sequence[Point] = (),
) -> Report:
    """Compute a report of what there is; arms without a run are left out and named.

    Args:
        results: Finished runs.
        budget: Name of their budget.
        texts: Tables whose geometry is reported, by name.
        measured: Speed and accuracy measured here.
    """
    runs = by_arm(results)
    return Report(
        budget=budget,
        command=_command(runs, budget),
        recipe=_shared_recipe(runs),
        settings=_distinct([result.provenance for result in results]),
        arms=arm_rows(runs),
        missing=tuple(name for name in ARMS if name not in runs),
        comparisons=comparisons(runs),
        classes=iou_tables(runs, "class"),
        categories=iou_tables(runs, "category"),
        geometry=geometries(texts or {}),
        measured=tuple(measured),
        runs=tuple(results),
    )


def write_report(report: Report, folder: Path) -> list[Path]:
    """Write ``accuracy.json``, ``accuracy.md`` and the figures that there is something to show in.

    Returns:
        What was written.
    """
    make_folder(folder)
    drawn = []
    if report.comparisons:
        drawn.append(folder / "accuracy-differences.png")
        figures.paired_differences(report.comparisons, drawn[-1])
    if report.classes:
        drawn.append(folder / "accuracy-classes.png")
        figures.class_gains(report.classes, drawn[-1])
    drawn.append(folder / "accuracy-speed.png")
    published = {"Cityscapes": CITYSCAPES_SPEED, "CamVid": CAMVID_SPEED}
    figures.speed_accuracy(published, report.measured, drawn[-1])

    content = asdict(report) | {
        "published": {
            "paper": PAPER,
            "cityscapes_miou": dict(CITYSCAPES_MIOU),
            "speed": {name: [asdict(p) for p in points] for name, points in published.items()},
        }
    }
    texts = {
        folder / "accuracy.json": json.dumps(_without_nan(content), indent=1, ensure_ascii=False),
        folder / "accuracy.md": as_markdown(report, [path.name for path in drawn]),
    }
    for path, text in texts.items():
        write_atomically(path, [text.rstrip().encode() + b"\n"])
    return [*texts, *drawn]


def load_measured(path: Path) -> Point:
    """Read a speed and accuracy that were measured here.

    Raises:
        InputError: The file has other fields than a published point.
    """
    try:
        return Point(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        fields = ", ".join(Point.__dataclass_fields__)
        raise InputError(f"{path} must be a JSON object with {fields}: {error}") from error


def as_markdown(report: Report, pictures: Sequence[str]) -> str:
    """The report as text."""
    parts = [
        "# Does text guidance add accuracy?",
        f"Budget `{report.budget}`. {_headline(report)}",
        _how_to_read(),
    ]
    parts.append(f"Made by\n\n```sh\n{report.command}\n```")
    for group in GROUPS:
        rows = [row for row in report.arms if row.group == group]
        if not rows:
            continue
        names = {row.arm for row in rows}
        parts += [f"## {_HEADINGS[group]}", arm_table(rows)]
        if found := [item for item in report.comparisons if item.treatment in names]:
            parts.append(comparison_table(found))
    if report.classes:
        parts.append("## Classes and categories\n\nIoU of the last checkpoints, and gains of both.")
    for tables in (report.classes, report.categories):
        best = {(t.treatment, t.control): t for t in tables if t.which == "best"}
        for last in (t for t in tables if t.which == "last"):
            titles = f"{ARMS[last.treatment].title} against {ARMS[last.control].title}"
            parts += [
                f"### IoU per {last.kind}: {titles}",
                iou_table(last, best[last.treatment, last.control]),
            ]
    if report.geometry:
        parts += [
            "## How close the class vectors lie",
            "Cosines between the vectors of different classes. Where they are all near 1, the "
            "score maps of all classes look alike.",
            geometry_table(report.geometry),
        ]
    parts += [*_published_tables(report), "## Figures"]
    parts += [f"![{name}]({name})" for name in pictures]
    parts += ["## Setting", _setting(report)]
    if report.missing:
        parts.append("Arms of the plan without a finished run: " + ", ".join(report.missing) + ".")
    return "\n\n".join(part.strip() for part in parts) + "\n"


_HEADINGS = {
    "core": "The comparison",
    "text": "Ablations: the text embeddings",
    "training": "Ablations: stages and placement",
    "contexts": "Ablations: learned contexts (one stage, sentence transformer)",
    "backbone": "STDC2",
    "ohem": "OHEM that keeps every pixel, as in the published runs",
}


def _headline(report: Report) -> str:
    control, treatment = HEADLINE
    names = f"{ARMS[treatment].title} − {ARMS[control].title}"
    found = {
        item.which: item.difference
        for item in report.comparisons
        if (item.treatment, item.control) == (treatment, control)
    }
    if not found:
        return f"There is no pair of runs yet for {names}."
    return (
        f"{names}, equal schedules: {interval(found['last'])} mIoU with the last checkpoints, "
        f"{interval(found['best'])} with the best ones, n = {found['last'].n} paired seeds."
    )


def _how_to_read() -> str:
    return (
        "mIoU in percent on the validation images, mean ± standard deviation over seeds. A paired "
        "difference is taken seed by seed: the runs of one seed share their starting weights, the "
        "order of images and every crop. Its 95 % interval is Student's t; where it leaves zero "
        "out it is bold, with no correction for the number of comparisons, so one in twenty of "
        "them is bold by chance. p is an exact sign-flip permutation test, which cannot fall "
        "below 2/2ⁿ. The best checkpoint is chosen on the images it is scored on; "
        "“best − last” is what that choice is worth. Seeds vary start, order and crops, not the "
        "split: the interval says nothing about other streets. Published figures come from "
        f"another start, resolution and schedule ({PAPER}); each is one seed's best checkpoint. "
        "The paper's contexts go through CLIP's text encoder; its figures stand beside ours, "
        "which go through a sentence transformer."
    )


def _published_tables(report: Report) -> list[str]:
    header = ("network", "mIoU", "images/s", "input (h×w)", "hardware", "split", "source")
    parts = ["## Speed and accuracy"]
    groups = {"measured here": report.measured} if report.measured else {}
    groups |= {"Cityscapes, published": CITYSCAPES_SPEED, "CamVid, published": CAMVID_SPEED}
    for title, points in groups.items():
        rows = [
            (
                point.network,
                number(point.miou),
                number(point.fps),
                point.resolution or "–",
                point.hardware,
                point.split,
                point.source,
            )
            for point in points
        ]
        parts += [f"### {title}", markdown(header, rows)]
    parts.append("Left out: " + " ".join(NOT_SOURCED))
    parts.append(
        "The paper on Cityscapes' validation images at half scale (published): "
        + ", ".join(f"{name} {value}" for name, value in _cityscapes_names().items())
        + "."
    )
    return parts


def _cityscapes_names() -> dict[str, float]:
    titles = {"baseline": "baseline", "stage1": "stage 1", "minilm-stage2-contexts": "stage 2"}
    return {titles[arm]: value for arm, value in CITYSCAPES_MIOU.items()}


def _setting(report: Report) -> str:
    lines = [f"- {json.dumps(setting, ensure_ascii=False)}" for setting in report.settings]
    lines.append(f"- recipe that arms without a parent share: `{json.dumps(report.recipe)}`")
    texts = dict.fromkeys(run.text for run in report.runs if run.text is not None)
    lines += [f"- text: {text}" for text in texts if not text.startswith("random directions")]
    starts = sorted({run.start or "random weights" for run in report.runs} - ARMS.keys())
    lines.append(f"- common start (SHA-256 of the checkpoint): {', '.join(starts)}")
    hours = sum(run.seconds for run in report.runs) / 3600
    lines.append(f"- {len(report.runs)} runs, {hours:.1f} hours of wall-clock time in all")
    return "\n".join(lines)


def _command(runs: Runs, budget: str) -> str:
    """What makes the runs and the report again; names in capitals stand for files."""
    results = [result for found in runs.values() for result in found.values()]
    words = ["python -m benchmarks.accuracy run --budget", budget]
    words += dict.fromkeys(result.provenance["options"] for result in results)
    if results[0].config["dataset"] != "synthetic":
        words.append("--data DATA")
    if any(ARMS[name].text == "clip" for name in runs):
        words.append("--text TABLE.npy")
    if any(result.start not in ARMS and result.start is not None for result in results):
        words.append("--init START.pt")
    words += ["--arms", *runs, "--seeds", *map(str, sorted({result.seed for result in results}))]
    run = " ".join(word for word in words if word)
    return f"{run}\npython -m benchmarks.accuracy report --budget {budget}"


def _shared_recipe(runs: Runs) -> dict[str, Any]:
    """The fields that are alike in all runs without a parent."""
    configs = [
        result.config
        for name, found in runs.items()
        if ARMS[name].parent is None
        for result in found.values()
    ]
    return {
        name: value
        for name, value in (configs[0].items() if configs else ())
        if name not in _VARYING and all(config.get(name) == value for config in configs)
    }


def _distinct(items: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    return list({json.dumps(item, sort_keys=True): item for item in items}.values())


def _without_nan(value: Any) -> Any:
    """JSON has no NaN."""
    if isinstance(value, Mapping):
        return {str(key): _without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and math.isnan(value) else value
