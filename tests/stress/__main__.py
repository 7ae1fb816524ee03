"""Long runs: `python -m tests.stress soak | threads | processes | sanitizers | serve | archive`.

Each prints its figures and ends with 1 if a promise is broken. `--engine tiny` is quick.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from tests.stress import archives, processes, sanitizers, serve, soak, threads
from tests.stress.engines import engine

MOST_GROWTH = 0.02
MOST_SERVER_GROWTH = 0.05  # pictures of several sizes are in work whenever it is measured


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.stress", description=__doc__)
    runs = ("soak", "threads", "processes", "sanitizers", "serve", "archive")
    parser.add_argument("run", choices=runs)
    parser.add_argument("--engine", default="packaged", help="packaged, tiny, or a file")
    parser.add_argument("--predicts", type=int, default=10_000)
    parser.add_argument("--loads", type=int, default=1_000)
    parser.add_argument("--threads", type=int, default=16)
    parser.add_argument("--calls", type=int, default=1_000, help="of each thread")
    parser.add_argument("--clients", type=int, default=32, help="of serve, at once")
    parser.add_argument("--minutes", type=float, default=5.0, help="of serve")
    parser.add_argument("--inputs", type=int, default=2_000, help="images of archive")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="edgeseg-stress-") as name:
        folder = Path(name)
        file = engine(options.engine, folder)
        match options.run:
            case "soak":
                kept = _soak(file, options.predicts, options.loads)
            case "threads":
                kept = _threads(file, options.threads, options.calls)
            case "processes":
                kept = _processes(file, folder)
            case "sanitizers":
                kept = _sanitizers(options.calls, folder)
            case "serve":
                made = serve.load(file, options.clients, options.minutes * 60, folder)
                print(made)
                kept = made.clean and made.growth <= MOST_SERVER_GROWTH
            case "archive":
                kept = _archive(file, folder, options.inputs)
    sys.exit(0 if kept else 1)


def _soak(file: Path, predicts: int, loads: int) -> bool:
    kept = True
    for run, rounds in ((soak.predicts, predicts), (soak.loads, loads)):
        if rounds > 0:
            growth = run(file, rounds)
            print(growth, flush=True)
            kept &= growth.relative <= MOST_GROWTH
    return kept


def _threads(file: Path, count: int, calls: int) -> bool:
    agreement = threads.agreement(file, count, calls)
    print(agreement, flush=True)
    progress = threads.progress(file, 50)
    print(progress)
    return agreement.different == 0 and progress.woken > progress.predicts / 2


def _processes(file: Path, folder: Path) -> bool:
    different = processes.spawn(file)
    print(f"spawned children: {different} of 2 came to other labels", flush=True)
    parents, own = processes.fork_after_use(file)
    print(f"a forked child with its parent's Runtime: {parents}")
    print(f"a forked child with its own Runtime: {own}", flush=True)
    interrupted = (
        processes.interrupt_pictures(file, folder),
        processes.interrupt_video(file, folder),
    )
    for what, ending in zip(("a folder", "a video"), interrupted, strict=True):
        print(f"Ctrl-C while {what} is labelled: {ending}", flush=True)
    refused = "made before the process was forked" in parents
    clean = all((e.code, e.broken) == (130, ()) and e.seconds < 3 for e in interrupted)
    return different == 0 and (refused or parents == "works") and own == "works" and clean


def _archive(file: Path, folder: Path, images: int) -> bool:
    grown, seconds = archives.plan_memory(folder, 100 * images)
    print(f"{100 * images} images planned and recorded: {grown / 1e6:.1f} MB, {seconds:.0f} s")
    source, deadly = folder / "drives", "drive0/rear.avi"
    broken = archives.make_archive(source, images, images)
    kept = grown < 64e6
    for what in ("a worker killed", "a node killed", "whoever comes to one video killed"):
        out = folder / what.replace(" ", "-")
        if what == "a worker killed":
            ending = archives.label_and_interrupt(source, out, file, "--workers", "2")
            print(f"Ctrl-C: exit code {ending.code} after {ending.seconds:.1f} s", flush=True)
            kept &= ending.code == 130
        with archives.two_workers() as address:
            options = {"raylet": True} if "node" in what else {}
            if "whoever" in what:
                made = archives.label_and_kill(source, out, file, address, deadly=deadly)
            else:
                made = archives.label_and_kill(source, out, file, address, **options)
        print(f"{what}: {made}", flush=True)
        failed = len(broken) + ("whoever" in what)
        kept &= (made.code, made.repeated, made.report["failed"]) == (4, 0, failed)
        kept &= made.report["inputs"] == images + 4
        kept &= made.different == 0 and made.report["frames"] == made.labels
    return kept


def _sanitizers(calls: int, folder: Path) -> bool:
    try:
        for names in sanitizers.THREADS:
            print(sanitizers.sanitize(names, calls, folder), flush=True)
    except RuntimeError as error:
        print(error)
        return False
    return True


if __name__ == "__main__":
    main()
