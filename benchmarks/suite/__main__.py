"""The command line: `run` measures, `report` writes the page, `instructions` counts."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path
from typing import cast

from benchmarks.suite.results import PARTS, Part

from edgeseg.errors import EdgesegError

RESULTS = Path("benchmarks/results/suite.json")
INSTRUCTIONS = Path("benchmarks/results/suite-instructions.json")


def main(arguments: list[str] | None = None) -> int:
    """Parse the command line and do what it says; the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.suite",
        description="Frame to labels on a CPU, edgeseg beside other tools.",
    )
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="measure, and write the JSON and the report")
    run.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    run.add_argument("--rounds", type=_rounds, default=40, help="2 for a smoke test")
    run.add_argument(
        "--guidance-rounds",
        type=_rounds,
        default=150,
        help="of text-guided against baseline, which decides on 1 %%",
    )
    run.add_argument(
        "--only",
        type=_parts,
        metavar="PART,...",
        help=f"of {', '.join(PARTS)}: measure these, and keep the others of the file if they are "
        "of the same machine and commit",
    )
    run.add_argument(
        "--picture", type=Path, help="photograph to label, resized; default: a synthetic street"
    )
    run.add_argument("--folder", type=Path, help="keep the engines here; default: a temporary one")
    for command in (run, commands.add_parser("report", help="the page and figures, from the JSON")):
        command.add_argument("--json", type=Path, default=RESULTS, metavar="FILE")
    count = commands.add_parser(
        "instructions", help="count the kernels' instructions per pixel, with valgrind"
    )
    count.add_argument("--json", type=Path, default=INSTRUCTIONS, metavar="FILE")
    options = parser.parse_args(arguments)
    try:
        if options.command == "instructions":
            _count(options.json)
        else:
            if options.command == "run":
                _run(options)
            _report(options.json)
    except EdgesegError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _run(options: argparse.Namespace) -> None:
    from benchmarks.suite.results import check_same, load, merged, save
    from benchmarks.suite.run import Plan, measure

    plan = Plan(options.threads, options.rounds, options.guidance_rounds, picture=options.picture)
    stored = load(options.json) if options.only and options.json.exists() else None
    if stored is not None:
        check_same(stored, plan.setup(), options.json)
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        results = measure(plan, folder, _say, options.only or PARTS)
    save(results if stored is None else merged(stored, results), options.json)


def _report(path: Path) -> None:
    from benchmarks.suite.report import write_report
    from benchmarks.suite.results import load

    for written in write_report(load(path), path.parent, path.stem):
        print(f"wrote {written}")


def _count(path: Path) -> None:
    from benchmarks.suite.instructions import count, write_counts

    for written in write_counts(count(_say), path):
        print(f"wrote {written}")


def _parts(text: str) -> tuple[Part, ...]:
    chosen = text.split(",")
    if unknown := [part for part in chosen if part not in PARTS]:
        raise argparse.ArgumentTypeError(
            f"{', '.join(unknown)}: no such part; there are {', '.join(PARTS)}"
        )
    return cast("tuple[Part, ...]", tuple(chosen))


def _rounds(text: str) -> int:
    if not text.isdecimal() or int(text) < 2:
        raise argparse.ArgumentTypeError(f"{text}: a number of rounds, 2 or more, was expected")
    return int(text)


def _say(what: str) -> None:
    print(what, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
