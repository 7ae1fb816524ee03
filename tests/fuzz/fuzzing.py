"""Run a check over mutated inputs: guided by coverage with atheris, or by a seed without it.

    pip install atheris            # optional; Python 3.11 to 3.13
    python -m tests.fuzz.engine_file --seconds 60
    python -m tests.fuzz.engine_file FILE...      # only these inputs, e.g. what a run has found

A check takes one input, returns in a word what became of it, and raises `BrokenPromiseError`, or
anything else, where a promise was broken. Inputs that break one are written into
`tests/fuzz/found/`; once mended they move into `tests/fuzz/corpus/`, which every test run goes
through.
"""

from __future__ import annotations

import argparse
import atexit
import hashlib
import os
import resource
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from types import FunctionType, ModuleType
from typing import Any

HERE = Path(__file__).parent
CORPUS = HERE / "corpus"
FOUND = HERE / "found"
MEMORY = 1 << 30  # bytes of address space that a whole run may take beyond what it begins with

Check = Callable[[bytes], str]
Mutate = Callable[[bytes, Random], bytes]


class BrokenPromiseError(AssertionError):
    """A promise that an input broke."""


@dataclass(frozen=True)
class Target:
    """What is fuzzed.

    Attributes:
        name: of the corpus' folder.
        check: see above.
        seeds: inputs to begin with, made by code.
        mutate: a new input from an old one, the same for the same random numbers.
        modules: what atheris measures the coverage of.
    """

    name: str
    check: Check
    seeds: Callable[[], Sequence[bytes]]
    mutate: Mutate
    modules: tuple[str, ...]

    def corpus(self) -> list[bytes]:
        """Seeds, and inputs that once broke something."""
        kept = sorted((CORPUS / self.name).glob("*"))
        return [*self.seeds(), *(file.read_bytes() for file in kept)]


@dataclass
class Tally:
    """Figures of a run."""

    outcomes: Counter[str] = field(default_factory=Counter)
    findings: Counter[str] = field(default_factory=Counter)
    distinct: set[bytes] = field(default_factory=set)
    started: float = field(default_factory=time.monotonic)

    def add(self, target: Target, data: bytes) -> None:
        """Check an input; one that breaks a promise is kept, the first of its kind only."""
        self.distinct.add(hashlib.blake2b(data, digest_size=8).digest())
        try:
            self.outcomes[target.check(data)] += 1
        except Exception as error:
            last = traceback.extract_tb(error.__traceback__)[-1]
            kind = f"{type(error).__name__} at {Path(last.filename).name}:{last.lineno}"
            self.findings[kind] += 1
            if self.findings[kind] == 1:
                FOUND.mkdir(exist_ok=True)
                file = FOUND / f"{target.name}-{hashlib.sha256(data).hexdigest()[:12]}"
                file.write_bytes(data)
                print(f"FOUND {kind}: {str(error)[:500]}\n  input: {file}", flush=True)

    def __str__(self) -> str:
        executions = sum(self.outcomes.values()) + sum(self.findings.values())
        words = ", ".join(f"{count} {word}" for word, count in self.outcomes.most_common(8))
        return (
            f"{executions} executions, {len(self.distinct)} distinct inputs ({words}), "
            f"{sum(self.findings.values())} findings of {len(self.findings)} kinds"
        )


def mutated(target: Target, seed: int) -> Iterator[bytes]:
    """Endless inputs, one to six mutations away from the corpus; the same for the same seed."""
    random = Random(seed)
    corpus = target.corpus()
    while True:
        data = random.choice(corpus)
        for _ in range(random.randint(1, 6)):
            data = target.mutate(data, random)
        yield data


def main(target: Target) -> None:
    """The command line of a target."""
    parser = argparse.ArgumentParser(description=f"Fuzz {target.name}.")
    parser.add_argument("inputs", nargs="*", type=Path, help="only these")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--plain", action="store_true", help="without atheris")
    options = parser.parse_args()
    tally = Tally()
    if options.inputs:
        for file in options.inputs:
            tally.add(target, file.read_bytes())
    else:
        limit_memory()
        FOUND.mkdir(exist_ok=True)
        with (FOUND / f"{target.name}.log").open("wb") as log:
            os.dup2(log.fileno(), 2)  # decoders complain there; and a crash says where it was
        for data in target.corpus():
            tally.add(target, data)
        atheris = None if options.plain else _atheris()
        if atheris is None:
            for data in mutated(target, options.seed):
                if time.monotonic() - tally.started > options.seconds:
                    break
                tally.add(target, data)
        else:
            _guided(atheris, target, tally, options)
    report(target, tally)


def report(target: Target, tally: Tally) -> None:
    """Print the figures and end the process, with 1 if there were findings."""
    print(f"{target.name}: {tally}, {time.monotonic() - tally.started:.0f} s", flush=True)
    atexit._run_exitfuncs()  # removes temporary folders; libFuzzer's own are left out
    os._exit(1 if tally.findings else 0)


def limit_memory() -> None:
    """Let allocations beyond `MEMORY` fail, as MemoryError or the library's own error."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def _atheris() -> Any:
    try:
        import atheris
    except ModuleNotFoundError:
        print("without coverage: pip install atheris", flush=True)
        return None
    return atheris


def _guided(atheris: Any, target: Target, tally: Tally, options: argparse.Namespace) -> None:
    """Until the time is over; libFuzzer does not return, so the process ends from within."""
    for name in target.modules:
        _instrument(atheris, sys.modules[name])

    def mutate(data: bytes, max_size: int, seed: int) -> bytes:
        new = target.mutate(data, Random(seed))
        return new if len(new) <= max_size else data

    def test_one(data: bytes) -> None:
        if time.monotonic() - tally.started > options.seconds:
            report(target, tally)
        tally.add(target, data)

    folder = tempfile.TemporaryDirectory(prefix="edgeseg-fuzz-")
    for index, data in enumerate(target.corpus()):
        Path(folder.name, str(index)).write_bytes(data)
    flags = {
        "seed": options.seed + 1,
        "max_len": 200_000,
        "timeout": 60,
        "rss_limit_mb": 0,  # `limit_memory` is stricter
        "verbosity": 0,
    }
    arguments = [sys.argv[0], *(f"-{flag}={value}" for flag, value in flags.items()), folder.name]
    atheris.Setup(arguments, test_one, custom_mutator=mutate)
    atheris.Fuzz()


def _instrument(atheris: Any, module: ModuleType) -> None:
    """Count the branches taken in the functions and methods that a module defines."""
    for holder in (module, *(c for c in vars(module).values() if isinstance(c, type))):
        if getattr(holder, "__module__", module.__name__) != module.__name__:
            continue
        for function in vars(holder).values():
            if isinstance(function, FunctionType) and function.__module__ == module.__name__:
                atheris.instrument_func(function)
