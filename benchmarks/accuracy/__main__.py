"""The command line: `run` the matrix, `report` what came out."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.accuracy.plan import ARMS, BUDGETS, GROUPS, HEADLINE, adapted, selected
from rich.console import Console

from edgeseg.errors import ConfigError, EdgesegError, InputError

if TYPE_CHECKING:
    from benchmarks.accuracy.results import Result

    from edgeseg.text import TextEmbeddings

OUT = Path("runs/accuracy")


def main(arguments: list[str] | None = None) -> int:
    """Parse the command line and do what it says; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.accuracy", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    _add_run(commands.add_parser("run", help="train what is missing; start it twice to share"))
    _add_report(commands.add_parser("report", help="tables and figures of the finished runs"))
    options = parser.parse_args(arguments)
    console = Console(soft_wrap=True, highlight=False, markup=False)
    try:
        return _run(options, console) if options.command == "run" else _report(options, console)
    except EdgesegError as error:
        console.print(f"error: {error}")
        return 2


def _add_common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--budget", choices=tuple(BUDGETS), default="small")
    parser.add_argument("--out", type=Path, default=OUT, metavar="FOLDER", help="of all runs")
    parser.add_argument(
        "--data",
        type=Path,
        action="append",
        default=[],
        metavar="FOLDER",
        help="with train/ and val/; later ones replace images by name",
    )
    parser.add_argument("--text", type=Path, metavar="NAME.npy", help="table of CLIP embeddings")
    parser.add_argument("--threads", type=int, help="default: one per core")


def _add_run(parser: argparse.ArgumentParser) -> None:
    _add_common(parser)
    parser.add_argument(
        "--arms",
        nargs="+",
        default=["core"],
        metavar="ARM",
        help=f"groups: all, {', '.join(GROUPS)}; arms: {', '.join(ARMS)}",
    )
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2, 3, 4])
    parser.add_argument(
        "--init",
        type=Path,
        action="append",
        default=[],
        metavar="CHECKPOINT",
        help="that all arms with its backbone start from; default: random weights",
    )
    parser.add_argument(
        "--iterations", nargs=2, type=int, metavar=("FIRST", "SECOND"), help="of both schedules"
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="FIELD=VALUE",
        help="change the budget's recipe, as in batch_size=4 or augmentation.crop=[192,256]",
    )
    parser.add_argument(
        "--keep-checkpoints", action="store_true", help="keep those that nobody needs any more"
    )


def _run(options: argparse.Namespace, console: Console) -> int:
    import torch
    from benchmarks.accuracy.runner import Experiment, Start, run_matrix

    from edgeseg.text import TextEmbeddings
    from edgeseg.train import load_data

    if options.threads is not None:
        torch.set_num_threads(options.threads)
    budget = adapted(
        BUDGETS[options.budget],
        iterations=None if options.iterations is None else tuple(options.iterations),
        changes=options.set,
    )
    starts: dict[str, Start] = {}
    for path in options.init:
        start = Start.load(path)
        backbone = start.checkpoint.model_config.backbone
        if backbone in starts:
            raise ConfigError(f"{path} is a second start with a {backbone}; name one of each")
        starts[backbone] = start
    arms = selected(options.arms)
    for backbone in sorted({arm.changes.get("backbone", "stdc1") for arm in arms} - starts.keys()):
        console.print(f"no --init with a {backbone}: its arms start from random weights")
    data, validation = load_data(budget.first, options.data)
    experiment = Experiment(
        budget=budget,
        arms=arms,
        seeds=tuple(options.seeds),
        out=options.out,
        data=data,
        validation=validation,
        clip=None if options.text is None else TextEmbeddings.load(options.text),
        starts=starts,
        keep_checkpoints=options.keep_checkpoints,
    )
    failures = run_matrix(experiment, console)
    for name, reason in failures.items():
        console.print(f"{name}: failed: {reason}")
    return 1 if failures else 0


def _add_report(parser: argparse.ArgumentParser) -> None:
    _add_common(parser)
    parser.add_argument(
        "--to", type=Path, metavar="FOLDER", help="default: the budget's folder of runs"
    )
    parser.add_argument(
        "--measured",
        type=Path,
        action="append",
        default=[],
        metavar="FILE.json",
        help="a point for the plot of speed and accuracy, with the fields of published.Point",
    )
    parser.add_argument(
        "--panels", action="store_true", help="also pictures, beside the runs; takes --data"
    )


def _report(options: argparse.Namespace, console: Console) -> int:
    import torch
    from benchmarks.accuracy.report import load_measured, make_report, write_report
    from benchmarks.accuracy.results import load_results

    if options.threads is not None:
        torch.set_num_threads(options.threads)
    runs = options.out / options.budget
    results = load_results(runs)
    report = make_report(
        results,
        budget=options.budget,
        texts=_texts(options.text, results),
        measured=[load_measured(path) for path in options.measured],
    )
    written = write_report(report, options.to or runs / "report")
    if options.panels:
        written += _panels(options)
    for path in written:
        console.print(str(path))
    return 0


def _texts(clip: Path | None, results: Sequence[Result]) -> dict[str, TextEmbeddings]:
    """The tables of embeddings that the runs were guided by."""
    from benchmarks.accuracy.runner import sentence_embeddings

    from edgeseg.text import TextEmbeddings

    classes = results[0].classes
    texts = {"random T, seed 0": TextEmbeddings.random(classes, seed=0)}
    if clip is not None:
        texts["CLIP table"] = TextEmbeddings.load(clip).select(classes)
    if any(ARMS[result.arm].text == "minilm" for result in results):
        texts["sentence transformer"] = sentence_embeddings(classes)
    return texts


def _panels(options: argparse.Namespace) -> list[Path]:
    from benchmarks.accuracy.panels import draw_panels
    from benchmarks.accuracy.runner import run_folder

    from edgeseg.train import load_data

    runs = options.out / options.budget
    control, treatment = HEADLINE
    seeds = [
        int(path.parent.name.removeprefix("seed-"))
        for path in runs.glob(f"{treatment}/seed-*/best.pt")
    ]
    for seed in sorted(seeds):
        before, after = (
            run_folder(options.out, options.budget, arm, seed) / "best.pt"
            for arm in (control, treatment)
        )
        if before.exists():
            _, validation = load_data(BUDGETS[options.budget].first, options.data)
            return draw_panels(before, after, validation, runs / "panels")
    raise InputError(f"no seed in {runs} has the checkpoints of both {control} and {treatment}")


if __name__ == "__main__":
    sys.exit(main())
