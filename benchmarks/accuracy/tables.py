"""From finished runs to tables. Accuracies are in percent, differences in percentage points."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from benchmarks.accuracy.plan import ARMS, Arm
from benchmarks.accuracy.published import CAMVID_GAIN, CAMVID_MIOU
from benchmarks.accuracy.results import Result
from benchmarks.accuracy.statistics import PairedDifference, Spread

from edgeseg.evaluate import Scores

WHICH = ("last", "best")
"""The checkpoints that are reported: the last, and the best on the validation images."""

Runs = Mapping[str, Mapping[int, Result]]
"""Finished runs by arm and seed."""


@dataclass(frozen=True)
class ArmRow:
    """What one arm came to.

    Attributes:
        arm: Its name.
        title: Its title.
        group: Its part of the matrix.
        seeds: Of its finished runs.
        last: mIoU of the last weights.
        best: mIoU of the best evaluation on the images that are reported.
        optimism: Best minus last, run by run.
        accuracy: Pixel accuracy of the last weights.
        seconds: Of a run, on the machine of this report.
        published: The paper's mIoU of the arm with this form; None where it has none.
    """

    arm: str
    title: str
    group: str
    seeds: tuple[int, ...]
    last: Spread
    best: Spread
    optimism: Spread
    accuracy: Spread
    seconds: Spread
    published: float | None


@dataclass(frozen=True)
class Comparison:
    """mIoU of a treatment minus that of a control, seed by seed.

    Attributes:
        treatment: Name of an arm.
        control: Name of another.
        which: "last" or "best" checkpoints.
        difference: In points.
        published: The same difference between the paper's figures; None where it has none.
    """

    treatment: str
    control: str
    which: str
    difference: PairedDifference
    published: float | None


@dataclass(frozen=True)
class IouRow:
    """One class or category in a comparison."""

    name: str
    control: Spread
    treatment: Spread
    gain: PairedDifference


@dataclass(frozen=True)
class IouTable:
    """IoU of every class or category under a control and a treatment."""

    treatment: str
    control: str
    which: str
    kind: str
    rows: tuple[IouRow, ...]


def by_arm(results: Iterable[Result]) -> Runs:
    """Results of the arms that the plan knows, in its order."""
    runs: dict[str, dict[int, Result]] = {name: {} for name in ARMS}
    for result in results:
        if result.arm in runs:
            runs[result.arm][result.seed] = result
    return {name: found for name, found in runs.items() if found}


def arm_rows(runs: Runs) -> tuple[ArmRow, ...]:
    """One row for each arm that has a finished run."""
    rows = []
    for name, found in runs.items():
        arm = ARMS[name]
        last = [100 * result.scores("last").miou for result in found.values()]
        best = [100 * result.scores("best").miou for result in found.values()]
        accuracy = [100 * result.scores("last").pixel_accuracy for result in found.values()]
        rows.append(
            ArmRow(
                name,
                arm.title,
                arm.group,
                tuple(sorted(found)),
                Spread.of(last),
                Spread.of(best),
                Spread.of([b - a for a, b in zip(last, best, strict=True)]),
                Spread.of(accuracy),
                Spread.of([result.seconds for result in found.values()]),
                CAMVID_MIOU.get(name) if _is_camvid(found) else None,
            )
        )
    return tuple(rows)


def comparisons(runs: Runs) -> tuple[Comparison, ...]:
    """Every arm against each of its controls, where both have a run of the same seed."""
    found = []
    for arm, control in _pairs(runs):
        published = CAMVID_GAIN.get((arm.name, control)) if _is_camvid(runs[arm.name]) else None
        for which in WHICH:
            difference = _difference(runs, arm.name, control, which, _miou)
            found.append(Comparison(arm.name, control, which, difference, published))
    return tuple(found)


def iou_tables(runs: Runs, kind: str) -> tuple[IouTable, ...]:
    """IoU per "class" or "category" of every arm of the core against its first control."""
    tables = []
    for arm, control in _pairs(runs):
        if arm.group != "core" or control != arm.controls[0]:
            continue
        pick = _classes if kind == "class" else Scores.by_category
        sample = pick(next(iter(runs[arm.name].values())).scores("last"))
        if sample is None:  # the set knows no categories
            continue
        for which in WHICH:
            rows = tuple(
                IouRow(
                    name,
                    Spread.of([*_values(runs[control], which, _iou(pick, index)).values()]),
                    Spread.of([*_values(runs[arm.name], which, _iou(pick, index)).values()]),
                    _difference(runs, arm.name, control, which, _iou(pick, index)),
                )
                for index, name in enumerate(sample.classes)
            )
            tables.append(IouTable(arm.name, control, which, kind, rows))
    return tuple(tables)


def _is_camvid(found: Mapping[int, Result]) -> bool:
    return all(result.config["dataset"] == "camvid" for result in found.values())


def _pairs(runs: Runs) -> list[tuple[Arm, str]]:
    return [
        (ARMS[name], control)
        for name in runs
        for control in ARMS[name].controls
        if runs.get(control, {}).keys() & runs[name].keys()
    ]


def _classes(scores: Scores) -> Scores | None:
    return scores


def _miou(scores: Scores) -> float:
    return 100 * scores.miou


def _iou(pick: Callable[[Scores], Scores | None], index: int) -> Callable[[Scores], float]:
    def measure(scores: Scores) -> float:
        picked = pick(scores)
        assert picked is not None  # all runs of a budget have the same classes
        return 100 * float(picked.iou[index])

    return measure


def _values(
    found: Mapping[int, Result], which: str, measure: Callable[[Scores], float]
) -> dict[int, float]:
    return {seed: measure(result.scores(which)) for seed, result in found.items()}


def _difference(
    runs: Runs, treatment: str, control: str, which: str, measure: Callable[[Scores], float]
) -> PairedDifference:
    return PairedDifference.of(
        _values(runs[treatment], which, measure), _values(runs[control], which, measure)
    )


# Markdown.


def markdown(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; the first column is text, the others are numbers."""
    lines = ["| " + " | ".join(header) + " |", "|---" + "|---:" * (len(header) - 1) + "|"]
    lines += ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def spread(value: Spread) -> str:
    """Mean ± standard deviation."""
    if value.mean is None:
        return "–"
    return f"{value.mean:.2f}" + ("" if value.sd is None else f" ± {value.sd:.2f}")


def interval(value: PairedDifference) -> str:
    """Mean and its interval; as bold where the interval leaves zero out."""
    if value.mean is None:
        return "–"
    if value.low is None or value.high is None:
        return f"{value.mean:+.2f}"
    text = f"{value.mean:+.2f} ({value.low:+.2f} to {value.high:+.2f})"
    return f"**{text}**" if value.low > 0 or value.high < 0 else text


def number(value: float | None, digits: int = 1) -> str:
    """A figure, or a dash."""
    return "–" if value is None else f"{value:.{digits}f}"


def arm_table(rows: Iterable[ArmRow]) -> str:
    """Arms with the published figure beside, as in the paper's tables of methods and ablations."""
    return markdown(
        ("arm", "n", "mIoU, last", "mIoU, best", "best − last", "pixel acc.", "paper (published)"),
        (
            (
                row.title,
                str(len(row.seeds)),
                spread(row.last),
                spread(row.best),
                spread(row.optimism),
                spread(row.accuracy),
                number(row.published),
            )
            for row in rows
        ),
    )


def comparison_table(found: Iterable[Comparison]) -> str:
    """Paired differences of the last and the best checkpoints, one line for each pair of arms."""
    found = list(found)
    best = {(c.treatment, c.control): c.difference for c in found if c.which == "best"}
    return markdown(
        ("treatment − control", "n", "last (95 %)", "p", "best (95 %)", "p", "paper (published)"),
        (
            (
                f"{ARMS[last.treatment].title} − {ARMS[last.control].title}",
                str(last.difference.n),
                interval(last.difference),
                number(last.difference.p, 3),
                interval(best[last.treatment, last.control]),
                number(best[last.treatment, last.control].p, 3),
                "–" if last.published is None else f"{last.published:+.1f}",
            )
            for last in found
            if last.which == "last"
        ),
    )


def iou_table(last: IouTable, best: IouTable) -> str:
    """Classes or categories, as in the paper's tables with gains."""
    return markdown(
        (
            last.kind,
            ARMS[last.control].title,
            ARMS[last.treatment].title,
            "gain, last (95 %)",
            "gain, best (95 %)",
        ),
        (
            (
                row.name,
                spread(row.control),
                spread(row.treatment),
                interval(row.gain),
                interval(other.gain),
            )
            for row, other in zip(last.rows, best.rows, strict=True)
        ),
    )
