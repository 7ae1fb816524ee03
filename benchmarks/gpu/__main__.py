"""The command line: measure, or `report` what was measured."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import benchmarks.gpu
from benchmarks.gpu import machine
from benchmarks.gpu.report import markdown
from benchmarks.gpu.results import Environment, Results, default_path, load, save
from rich.console import Console

from edgeseg.errors import ConfigError, EdgesegError, InputError

if TYPE_CHECKING:
    from benchmarks.gpu.counts import Ceilings
    from benchmarks.gpu.device import Device

REBUILT = "--rebuilt"


@dataclass(frozen=True)
class Session:
    """What the parts need."""

    device: Device
    ceilings: Ceilings
    folder: Path
    rounds: int
    frames: int
    progress: Callable[[str], object]


Measured = tuple[Any, tuple[str, ...]]
"""A part's field of `Results`, and what of it was not measured."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the command line and do what it says; the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu",
        description=benchmarks.gpu.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("command", nargs="?", choices=("run", "report"), default="run")
    parser.add_argument(
        "--only", metavar="PART,...", help=f"of {','.join(PARTS)}; default: all of them"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="default: by the GPU's name")
    parser.add_argument("--rounds", type=int, default=100, help="turns of every contender")
    parser.add_argument("--frames", type=int, default=10_000, help="of the memory test")
    parser.add_argument(REBUILT, action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    console = Console(soft_wrap=True, highlight=False, markup=False)
    try:
        parts = chosen(options.only)
        for name in ("rounds", "frames"):
            if getattr(options, name) < 10:
                raise ConfigError(f"--{name} is {getattr(options, name)}; at least 10 are needed")
        if options.command == "report":
            console.print(markdown(load(options.json or the_only_result())))
            return 0
        given = sys.argv[1:] if arguments is None else arguments
        return _run(options, parts, console, given)
    except EdgesegError as error:
        console.print(f"error: {error}")
        return 2


def chosen(only: str | None) -> tuple[str, ...]:
    """Names of the parts to run, in their order.

    Raises:
        ConfigError: one of them is unknown.
    """
    names = set(PARTS) if only is None else set(only.split(","))
    if unknown := names - PARTS.keys():
        raise ConfigError(f"unknown parts {sorted(unknown)}; there are {', '.join(PARTS)}")
    return tuple(part for part in PARTS if part in names)


def the_only_result() -> Path:
    """The one GPU's results that are there.

    Raises:
        InputError: there are none, or several.
    """
    found = sorted(default_path("").parent.glob("gpu_*.json"))
    if len(found) != 1:
        names = ", ".join(path.name for path in found) or "none"
        raise InputError(f"results of one GPU were expected, found: {names}; name one by --json")
    return found[0]


def _run(
    options: argparse.Namespace, parts: Sequence[str], console: Console, given: Sequence[str]
) -> int:
    if reason := machine.missing():
        console.print(f"nothing can be measured here: {reason}.")
        return 2
    if reason := machine.needs_build():
        if options.rebuilt:
            console.print(f"error: {reason}, even after a build; is another edgeseg installed?")
            return 2
        console.print(f"{reason}; building")
        machine.build()
        # The old core cannot be unloaded.
        os.execv(sys.executable, [sys.executable, "-m", "benchmarks.gpu", *given, REBUILT])

    from benchmarks.gpu.device import Device

    environment = machine.environment()
    path = options.json or default_path(environment.gpu)
    device = Device.gpu()
    clocks = (machine.clocks(),)
    ceilings = machine.ceilings(
        device,
        copy_bytes=1 << 30,
        product=8192,
        dtypes=("float32", "tfloat32", "float16", "bfloat16"),
        rounds=10,
    )
    results = earlier(path, environment, ceilings)
    with tempfile.TemporaryDirectory() as folder:
        session = Session(
            device, ceilings, Path(folder), options.rounds, options.frames, console.print
        )
        for part in parts:
            console.print(f"== {part}")
            results = with_part(results, part, PARTS[part](session))
            results = replace(results, clocks=(*clocks, machine.clocks()))
            save(path, results)  # what was measured stays, whatever happens to the next part
    console.print(markdown(results))
    console.print(f"written: {path}")
    return 0 if all_passed(results, parts) else 1


def earlier(path: Path, environment: Environment, ceilings: Ceilings) -> Results:
    """What the file holds of the very same GPU, software and commit; else nothing yet."""
    if path.exists():
        results = load(path)
        if results.environment == environment:
            return replace(results, ceilings=ceilings)
    return Results(environment, ceilings)


def with_part(results: Results, part: str, measured: Measured) -> Results:
    """Results with a part measured anew."""
    assert part in {field.name for field in fields(results)}
    value, missing = measured
    return replace(
        results, **{part: value}, not_measured=dict(results.not_measured) | {part: missing}
    )


def all_passed(results: Results, parts: Sequence[str]) -> bool:
    """Whether every check of these parts passed; slow is not wrong."""
    checked = ("tests", "sanitizer", "runtime")
    return all(
        check.passed for part in checked if part in parts for check in getattr(results, part) or ()
    )


# --- The parts ------------------------------------------------------------------------------------


def _tests(session: Session) -> Measured:
    from benchmarks.gpu.correctness import run_tests

    return run_tests(), ()


def _sanitizer(session: Session) -> Measured:
    from benchmarks.gpu.correctness import sanitize

    return sanitize()


def _kernels(session: Session) -> Measured:
    from benchmarks.gpu.kernels import all_benches, measure

    return measure(
        all_benches(),
        session.device,
        session.ceilings,
        rounds=session.rounds,
        progress=session.progress,
    )


def _paper(session: Session) -> Measured:
    from benchmarks.gpu.contenders import CAMVID, CITYSCAPES, PAPER, Subject
    from benchmarks.gpu.engines import measure_paper
    from benchmarks.gpu.results import Engines

    engines, missing = Engines(), ()
    for case in (CITYSCAPES, CAMVID):
        guided, baseline = (
            Subject(replace(case, guided=guided), session.device, session.folder)
            for guided in (True, False)
        )
        measured, absent = measure_paper(
            guided,
            baseline,
            PAPER,
            session.ceilings,
            rounds=session.rounds,
            progress=session.progress,
        )
        engines, missing = engines + measured, missing + absent
    return engines, missing


def _engines(session: Session) -> Measured:
    from benchmarks.gpu.contenders import CAMVID, CITYSCAPES, OURS, PEERS, Subject
    from benchmarks.gpu.engines import measure_engines
    from benchmarks.gpu.results import Engines

    engines, missing = Engines(), ()
    for case in (CITYSCAPES, CAMVID):
        sizes = dict.fromkeys(((case.height, case.width), (512, 1024), (1024, 2048)))
        measured, absent = measure_engines(
            Subject(case, session.device, session.folder),
            (*PEERS, *OURS),
            session.ceilings,
            frames=tuple(sizes),
            rounds=session.rounds,
            progress=session.progress,
        )
        engines, missing = engines + measured, missing + absent
    return engines, missing


def _runtime(session: Session) -> Measured:
    from benchmarks.gpu.contenders import CITYSCAPES, OURS, Subject
    from benchmarks.gpu.engines import open_runtime
    from benchmarks.gpu.frames import first_file, measure_runtime

    subject = Subject(CITYSCAPES, session.device, session.folder)
    file, reasons = first_file(
        [
            lambda contender=contender: contender.make(subject, contender.precision).file
            for contender in OURS
            if contender.precision == "float16"
        ]
    )
    if file is None:
        return (), reasons
    return measure_runtime(
        lambda: open_runtime(file, "float16"),
        size=(CITYSCAPES.height, CITYSCAPES.width),
        frames=session.frames,
        rounds=max(5, session.rounds // 10),
        progress=session.progress,
    )


PARTS: Mapping[str, Callable[[Session], Measured]] = {
    "tests": _tests,
    "sanitizer": _sanitizer,
    "kernels": _kernels,
    "paper": _paper,
    "engines": _engines,
    "runtime": _runtime,
}


if __name__ == "__main__":
    sys.exit(main())
