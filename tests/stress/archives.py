"""An archive of drives on a cluster of two workers, one of which is killed midway."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from tempfile import TemporaryFile

import cv2
import numpy as np
from tests.stress import soak
from tests.stress.engines import frames

from edgeseg.archive.inputs import Archive, Piece
from edgeseg.archive.plan import missing_pieces, read_plan, write_plan
from edgeseg.archive.record import Record, of_piece
from edgeseg.runtime import Runtime

_CLI = (sys.executable, "-c", "from edgeseg.cli import main; main()")
_SIZES = ((240, 320), (90, 130))


def make_archive(root: Path, images: int, video_frames: int) -> set[str]:
    """Images in two drives, a video, and three broken inputs; the names of those."""
    pictures = frames(16, _SIZES)
    for index in range(images):
        folder = root / f"drive{index % 2}" / "front"
        folder.mkdir(parents=True, exist_ok=True)
        # Turned round and round, so that no two neighbours are the same.
        picture = np.roll(pictures[index % len(pictures)], index, axis=1)
        cv2.imwrite(str(folder / f"{index:05d}.png"), picture)
    _write_video(root / "drive0" / "rear.avi", video_frames)
    _write_video(root / "whole.avi", 80)
    data = (root / "whole.avi").read_bytes()
    (root / "whole.avi").unlink()
    (root / "cut.avi").write_bytes(data[: len(data) // 2])
    (root / "text.png").write_text("no picture\n" * 20)
    encoded = cv2.imencode(".jpg", pictures[0])[1].tobytes()
    (root / "drive1" / "cut.jpg").write_bytes(encoded[: len(encoded) // 2])
    (root / "notes.txt").write_text("of the driver\n")
    return {"cut.avi", "text.png", "drive1/cut.jpg"}


def _write_video(path: Path, count: int) -> None:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 25, (160, 120))
    pictures = frames(16, ((120, 160),))
    for index in range(count):
        writer.write(np.roll(pictures[index % len(pictures)], index, axis=1))
    writer.release()


def command(archive: Path, out: Path, engine: Path, *options: str) -> list[str]:
    """`edgeseg label` with one thread a worker, and its report as JSON."""
    named = [str(archive), "--out", str(out), "--engine", str(engine)]
    return [*_CLI, "label", *named, "--threads", "1", "--json", *options]


@contextmanager
def two_workers() -> Iterator[str]:
    """Address of a cluster on this machine: a head without CPUs, two nodes of one."""
    from ray.cluster_utils import Cluster

    store = {"object_store_memory": 80 << 20}
    services = {"include_dashboard": False, "include_log_monitor": False, "no_monitor": True}
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, **services, **store})
    try:
        for _ in range(2):
            cluster.add_node(wait=False, num_cpus=1, **store)
        cluster.wait_for_nodes()
        yield cluster.address
    finally:
        cluster.shutdown()


@dataclass
class AtWork:
    """A worker, by its journal: how many pieces of its chunk it has begun, and the current one."""

    pid: int
    begun: int = 0
    input: str | None = None


def workers_at_work(out: Path) -> list[AtWork]:
    found = []
    for journal in (out / ".work").glob("*.journal"):
        try:
            lines = journal.read_text().splitlines()
        except FileNotFoundError:  # done meanwhile
            continue
        worker = AtWork(0)
        for text in lines:
            try:
                entry = json.loads(text)
            except ValueError:  # being written
                continue
            if "begin" in entry:
                worker = AtWork(entry["pid"], worker.begun + 1, entry["begin"]["input"])
            else:
                worker.input = None
        found.append(worker)
    return found


@dataclass(frozen=True)
class Labelled:
    """What a run with a killed worker came to.

    Attributes:
        code: exit code of the command.
        report: what it printed.
        raylet: whether the worker's whole node was killed, not only its process.
        lines: of the record.
        repeated: pieces with more than one line.
        labels: PNG files.
        different: labels that are not what a serial `predict` gives, or are missing.
        seconds: of the command.
    """

    code: int
    report: dict[str, object]
    raylet: bool
    lines: int
    repeated: int
    labels: int
    different: int
    seconds: float

    def __str__(self) -> str:
        report = self.report
        return (
            f"{report['inputs']} inputs, {report['labelled']} labelled, {report['failed']} failed; "
            f"{report['frames']} frames, {self.labels} label files, {self.different} not as serial;"
            f" {self.lines} lines, {self.repeated} repeated; {report['abandoned']} chunks of a "
            f"killed {'node' if self.raylet else 'worker'} done by others; exit code {self.code}, "
            f"{self.seconds:.0f} s"
        )


def label_and_kill(
    archive: Path,
    out: Path,
    engine: Path,
    address: str,
    *,
    raylet: bool = False,
    deadly: str | None = None,
) -> Labelled:
    """Label on a cluster; when a worker has begun its second piece, kill it (SIGKILL).

    Args:
        archive: what to label.
        out: where to.
        engine: with what.
        address: of the cluster.
        raylet: kill its whole node.
        deadly: instead, kill every worker that comes to this input.
    """
    earlier = {worker.pid for worker in workers_at_work(out)}
    started = time.monotonic()
    with (out.parent / "errors.txt").open("w+") as errors, TemporaryFile("w+") as printed:
        process = subprocess.Popen(
            command(archive, out, engine, "--address", address), stdout=printed, stderr=errors
        )
        if deadly is None:
            victim = _wait_for_work(process, out, earlier)
            if raylet:
                os.kill(_parent(victim), signal.SIGKILL)  # a worker's parent is its node's raylet
            os.kill(victim, signal.SIGKILL)
        while deadly is not None and process.poll() is None:
            for worker in workers_at_work(out):
                if worker.input == deadly:
                    with suppress(ProcessLookupError):
                        os.kill(worker.pid, signal.SIGKILL)
            time.sleep(0.01)
        process.wait(timeout=600)
        seconds = time.monotonic() - started
        printed.seek(0)
        errors.seek(0)
        output, said = printed.read(), errors.read()
    if not output.startswith("{"):
        raise RuntimeError(f"{output[:2000]}\n{said}")
    lines = [json.loads(text) for text in (out / "labels.jsonl").read_text().splitlines()]
    pieces = Counter((line["input"], line["piece"]) for line in lines)
    labels, different = compare(archive, out, engine, without=deadly)
    return Labelled(
        code=process.returncode,
        report=json.loads(output),
        raylet=raylet,
        lines=len(lines),
        repeated=sum(count > 1 for count in pieces.values()),
        labels=labels,
        different=different,
        seconds=seconds,
    )


@dataclass(frozen=True)
class Interrupted:
    """A run that Ctrl-C ended.

    Attributes:
        code: its exit code; 130 is meant.
        seconds: from the signal to the end.
        output: what it said.
    """

    code: int
    seconds: float
    output: str


def label_and_interrupt(archive: Path, out: Path, engine: Path, *options: str) -> Interrupted:
    """Label; when a worker has begun its second piece, press Ctrl-C."""
    earlier = {worker.pid for worker in workers_at_work(out)}
    # What was started in the background, as CI may be, ignores Ctrl-C, and so would its children.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        process = subprocess.Popen(
            command(archive, out, engine, *options),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
    finally:
        signal.signal(signal.SIGINT, before)
    _wait_for_work(process, out, earlier)
    sent = time.monotonic()
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    output = process.communicate(timeout=120)[0]
    return Interrupted(process.returncode, time.monotonic() - sent, output)


def _wait_for_work(process: subprocess.Popen[str], out: Path, earlier: set[int]) -> int:
    """Pid of a worker that is at its second piece; not of one of an earlier run."""
    end = time.monotonic() + 240
    while time.monotonic() < end and process.poll() is None:
        for worker in workers_at_work(out):
            if worker.begun >= 2 and worker.pid not in earlier:
                return worker.pid
        time.sleep(0.002)
    process.kill()
    raise RuntimeError(f"no worker was seen at work: {process.communicate()[0]}")


def _parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def compare(
    archive: Path, out: Path, engine: Path, *, without: str | None = None
) -> tuple[int, int]:
    """Label PNGs there are, and how many are missing, too many, or not as one Runtime gives them.

    Of the input `without` there are to be none.
    """
    runtime = Runtime(engine, device="cpu", threads=1)
    expected = 0
    different = 0

    def check(label: Path, frame: object) -> None:
        nonlocal expected, different
        expected += 1
        found = cv2.imread(str(label), cv2.IMREAD_UNCHANGED)
        labels = runtime.predict(frame).labels  # type: ignore[arg-type]
        different += found is None or not np.array_equal(found, labels)

    for path in sorted(archive.rglob("*.png")):
        if path.name != "text.png":
            check(out / path.relative_to(archive), path)
    for path in sorted(archive.rglob("*.avi")):
        if str(path.relative_to(archive)) == without:
            continue
        capture = cv2.VideoCapture(str(path))
        index = 0
        while (read := capture.read())[0]:
            check(out / path.relative_to(archive) / f"{index:06d}.png", read[1])
            index += 1
    found = sum(1 for _ in out.rglob("*.png"))
    return found, different + abs(found - expected)


def plan_memory(folder: Path, images: int) -> tuple[int, float]:
    """Find and plan so many images, then look each up in a record that has them all.

    Returns:
        Bytes by which this process grew at most, and seconds.
    """
    source = folder / "many"
    for index in range(images):
        if index % 1000 == 0:
            drive = source / f"{index // 1000:05d}"
            drive.mkdir(parents=True)
            first = drive / "0.png"
            first.write_bytes(b"never read")
        else:
            os.link(first, drive / f"{index}.png")
    started = time.monotonic()
    before = peak = soak.resident()
    with Record(folder / "planned") as record:
        record.work.mkdir()
        plan = write_plan(
            record.work / "0.plan", missing_pieces(Archive(source), record, redo=False)
        )
        for chunk in batched(read_plan(plan.path), 1000):
            lines = [of_piece(p, frames=1, size=(1, 1), areas={}, error=None) for p in chunk]
            assert len(record.add(lines)) == len(chunk)
            peak = max(peak, soak.resident())
        assert not any(True for _ in missing_pieces(Archive(source), record, redo=False))
        assert record.totals().inputs == images
        peak = max(peak, soak.resident())
    return peak - before, time.monotonic() - started


def batched(pieces: Iterator[Piece], size: int) -> Iterator[list[Piece]]:
    while batch := list(islice(pieces, size)):
        yield batch
