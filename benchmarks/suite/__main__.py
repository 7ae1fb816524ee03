"""The command line: `run` measures, `report` writes the page."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

from edgeseg.errors import EdgesegError

RESULTS = Path("benchmarks/results/suite.json")


def main(arguments: list[str] | None = None) -> int:
    """Parse the command line and do what it says; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.suite", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="measure, and write the JSON and the report")
    run.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    run.add_argument("--rounds", type=int, default=40, help="2 for a smoke test")
    run.add_argument(
        "--picture", type=Path, help="photograph to label, resized; default: a synthetic street"
    )
    run.add_argument("--folder", type=Path, help="keep the engines here; default: a temporary one")
    for command in (run, commands.add_parser("report", help="the page and figures, from the JSON")):
        command.add_argument("--json", type=Path, default=RESULTS, metavar="FILE")
    options = parser.parse_args(arguments)
    try:
        if options.command == "run":
            _run(options)
        _report(options.json)
    except EdgesegError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _run(options: argparse.Namespace) -> None:
    from benchmarks.suite.results import save
    from benchmarks.suite.run import Plan, measure

    with tempfile.TemporaryDirectory() as temporary:
        plan = Plan(options.threads, options.rounds, picture=options.picture)
        results = measure(plan, options.folder or Path(temporary), _say)
    save(results, options.json)


def _report(path: Path) -> None:
    from benchmarks.suite.report import write_report
    from benchmarks.suite.results import load

    for written in write_report(load(path), path.parent, path.stem):
        print(f"wrote {written}")


def _say(what: str) -> None:
    print(what, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
