"""The command line: `run` the matrix, `report` what came out."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from benchmarks.accuracy.plan import ARMS, BUDGETS, GROUPS, adapted, selected
from rich.console import Console

from edgeseg.errors import ConfigError, EdgesegError

OUT = Path("runs/accuracy")


def main(arguments: list[str] | None = None) -> int:
    """Parse the command line and do what it says; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.accuracy", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    _add_run(commands.add_parser("run", help="train what is missing; start it twice to share"))
    options = parser.parse_args(arguments)
    console = Console(soft_wrap=True, highlight=False, markup=False)
    try:
        return _run(options, console)
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


if __name__ == "__main__":
    sys.exit(main())
