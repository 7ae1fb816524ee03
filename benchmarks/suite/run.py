"""The whole measurement, or some of its parts."""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from time import perf_counter

import cv2
import numpy as np
from benchmarks.counts import macs
from benchmarks.suite.counts import parameters
from benchmarks.suite.kernels import (
    FRAMES,
    Setting,
    bandwidth,
    measure_preprocess,
    measure_upsample,
)
from benchmarks.suite.networks import Subject, Subjects, resized
from benchmarks.suite.paths import Progress, measure_guided, measure_paths, precisions_of
from benchmarks.suite.peers import MAKERS, PRECISIONS, Frame, Maker, Precision, bare
from benchmarks.suite.results import (
    PARTS,
    SCHEMA_VERSION,
    Accuracy,
    AccuracyPoint,
    CostRow,
    Guidance,
    Kernels,
    Part,
    Paths,
    Picture,
    Results,
    Run,
    Setup,
    Streams,
)
from benchmarks.suite.streams import check_stream, make_video, measure_live, measure_stream

from edgeseg.bench import machine, versions
from edgeseg.images import read_image
from edgeseg.synthetic import street

_PAPER = (("Cityscapes", 19, (1024, 512)), ("CamVid", 11, (960, 720)))
_PEERS = ("torch", "onnxruntime", "openvino-model-api", "nncf")
_STREET = 5


@dataclass(frozen=True)
class Plan:
    """How much is measured; smaller in tests.

    Attributes:
        threads: of every contender.
        rounds: of the paths; kernels have four times as many, streams a quarter.
        guidance_rounds: of text-guided against baseline, which differ by a percent or less.
        network: (width, height) of the wide network.
        classes: of it.
        calibration: synthetic streets for INT8; 0 leaves INT8 out.
        wide_frame, packaged_frame: (width, height) that the networks label; the small one labels
            the wide one's.
        kernel_frames: (width, height) that `preprocess` reads.
        video_frames: of the clip that is streamed.
        makers: of the peers.
        picture: a photograph to label, resized to each frame; None: a synthetic street.
    """

    threads: int
    rounds: int = 40
    guidance_rounds: int = 150
    network: tuple[int, int] = (1024, 512)
    classes: int = 19
    calibration: int = 40
    wide_frame: tuple[int, int] = (2048, 1024)
    packaged_frame: tuple[int, int] = (960, 720)
    kernel_frames: tuple[tuple[int, int], ...] = FRAMES
    video_frames: int = 40
    makers: tuple[Maker, ...] = MAKERS
    picture: Path | None = None

    def frame(self, size: tuple[int, int]) -> Frame:
        """What is labelled, H×W×3 uint8 BGR, of (width, height)."""
        if self.picture is None:
            return street(_STREET, size[1], size[0]).frame
        return cv2.resize(read_image(self.picture), size).astype(np.uint8, copy=False)

    def setup(self) -> Setup:
        """What the results will be of.

        Raises:
            InputError: the picture cannot be read.
        """
        picture = (
            Picture(f"street {_STREET} of edgeseg.synthetic", None, None)
            if self.picture is None
            else Picture.of(self.picture, read_image(self.picture))
        )
        return Setup(commit(), machine(), versions() | _peer_versions(), self.threads, picture)


def measure(plan: Plan, folder: Path, progress: Progress, parts: Sequence[Part] = PARTS) -> Results:
    """Run what `plan` says.

    Args:
        plan: how much.
        folder: for engines and a clip, some 300 MB.
        progress: told what comes next.
        parts: which.
    """
    subjects = Subjects(folder, plan.network, plan.classes, plan.calibration)
    begun = datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S")
    job = _Job(plan, subjects, folder, progress, begun)
    return Results(
        SCHEMA_VERSION,
        plan.setup(),
        paths=job.paths() if "paths" in parts else None,
        guidance=job.guidance() if "guidance" in parts else None,
        kernels=job.kernels() if "kernels" in parts else None,
        streams=job.streams() if "streams" in parts else None,
        accuracy=job.accuracy() if "accuracy" in parts else None,
    )


@dataclass(frozen=True)
class _Job:
    """One method for each part."""

    plan: Plan
    subjects: Subjects
    folder: Path
    progress: Progress
    begun: str

    def paths(self) -> Paths:
        run = self._begin("paths", self.plan.rounds)
        wide, packaged = self.plan.wide_frame, self.plan.packaged_frame
        cases = (
            (self.subjects.wide, wide, PRECISIONS, True),
            (self.subjects.packaged, packaged, PRECISIONS, True),
            (self.subjects.small, wide, _fast(self.subjects.small), False),
        )
        tables = tuple(
            measure_paths(
                subject,
                self.plan.frame(size),
                threads=self.plan.threads,
                rounds=self.plan.rounds,
                progress=self.progress,
                makers=self.plan.makers,
                precisions=precisions,
                judged=judged,
            )
            for subject, size, precisions, judged in cases
        )
        return Paths(run(), tables)

    def guidance(self) -> Guidance:
        run = self._begin("guidance: text-guided against baseline", self.plan.guidance_rounds)
        rows = measure_guided(
            self.subjects.wide,
            self.subjects.wide_baseline,
            self.plan.frame(self.plan.wide_frame),
            threads=self.plan.threads,
            rounds=self.plan.guidance_rounds,
        )
        return Guidance(run(), rows)

    def kernels(self) -> Kernels:
        rounds = 4 * self.plan.rounds
        run = self._begin("kernels", rounds)
        some_threads = tuple(sorted({1, self.plan.threads}))
        rates = {threads: bandwidth(threads) for threads in some_threads}
        setting = Setting(some_threads, rounds, rates)
        wide = self.subjects.wide
        frame = self.plan.frame(self.plan.wide_frame)
        logits = np.array(bare(wide, frame, "float32", self.plan.threads)())
        rows = (
            *measure_preprocess(wide.manifest.input, setting, self.plan.kernel_frames),
            *measure_upsample(
                logits,
                (frame.shape[0], frame.shape[1]),
                setting,
                align_corners=wide.manifest.architecture.align_corners,
            ),
        )
        return Kernels(run(), rates, rows)

    def streams(self) -> Streams:
        rounds = max(2, self.plan.rounds // 4)
        run = self._begin("streams", rounds)
        subject, threads = self.subjects.packaged, self.plan.threads
        picture = self.plan.frame(self.plan.packaged_frame)
        video = make_video(
            self.folder / "streets.mp4", self.plan.video_frames, self.plan.packaged_frame
        )
        checks = check_stream(subject.engine, picture, threads=threads)
        rows, live = [], []
        for precision in precisions_of(subject):
            self.progress(f"streams: {precision}")
            rows.append(
                measure_stream(
                    subject.engine, video, precision=precision, threads=threads, rounds=rounds
                )
            )
            live += measure_live(
                subject.engine,
                picture,
                precision=precision,
                threads=threads,
                rounds=self.plan.rounds,
            )
        return Streams(run(), tuple(rows), tuple(live), checks)

    def accuracy(self) -> Accuracy:
        run = self._begin("accuracy", 0)
        costs, points = _costs(self.subjects), _points(self.subjects)
        return Accuracy(run(), costs, points)

    def _begin(self, part: str, rounds: int) -> Callable[[], Run]:
        """Start the clock of a part; called at its end, what is returned says how long it took."""
        self.progress(part)
        started = perf_counter()
        return lambda: Run(self.begun, (perf_counter() - started) / 60, rounds)


def _fast(subject: Subject) -> tuple[Precision, ...]:
    """The narrower of the engine's floats on this CPU, and INT8 if it has that."""
    *floats, last = precisions_of(subject)
    return (last,) if last != "int8" else (floats[-1], last)


def _costs(subjects: Subjects) -> tuple[CostRow, ...]:
    """The paper's networks, baseline and guided, counted."""
    rows = []
    for name, classes, (width, height) in _PAPER:
        for guided in (False, True):
            model = resized(subjects.packaged.model, classes, guided=guided, align_corners=True)
            network = f"STDC1, {'text-guided' if guided else 'baseline'} ({name})"
            cost = macs(model, height, width)
            size = f"{width}×{height}"
            rows.append(CostRow(network, classes, size, parameters(model), cost))
    return tuple(rows)


def _points(subjects: Subjects) -> tuple[AccuracyPoint, ...]:
    """mIoU that the packaged engine's manifest states."""
    subject = subjects.packaged
    points = []
    for target in subject.manifest.targets:
        measured = target.quantization
        if target.kind == "openvino" and measured and measured.miou and measured.float_miou:
            points.append(AccuracyPoint(subject.name, "float32", measured.float_miou))
            points.append(AccuracyPoint(subject.name, "int8", measured.miou))
    return tuple(points)


def _peer_versions() -> dict[str, str]:
    found = {}
    for package in _PEERS:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found


def commit(under: str = ".") -> str:
    """The last one that changed something there, and a digest of what is not committed.

    Results are no change: they may be committed between the runs that they are of.
    """
    paths = ("--", under, ":!benchmarks/results")
    try:
        last = _git("log", "-1", "--format=%h", *paths).decode().strip()
        changes = _git("diff", "HEAD", *paths)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return f"{last}-dirty.{hashlib.sha256(changes).hexdigest()[:8]}" if changes else last


def _git(*arguments: str) -> bytes:
    return subprocess.run(["git", *arguments], capture_output=True, check=True).stdout
