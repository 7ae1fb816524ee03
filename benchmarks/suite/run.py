"""The whole measurement, from networks to results."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

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
from benchmarks.suite.networks import Subjects, make_subjects, resized
from benchmarks.suite.paths import Progress, measure_guided, measure_paths
from benchmarks.suite.peers import MAKERS, Frame, Maker, bare
from benchmarks.suite.results import (
    SCHEMA_VERSION,
    AccuracyPoint,
    CostRow,
    PathTable,
    Results,
)
from benchmarks.suite.streams import make_video, measure_stream

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
        rounds: of each comparison of paths and engines; kernels have four times as many.
        network: (width, height) of the wide network.
        classes: of it.
        calibration: synthetic streets for INT8; 0 leaves INT8 out.
        wide_frame, packaged_frame: (width, height) that the two networks label.
        kernel_frames: (width, height) that `preprocess` reads.
        video_frames: of the clip that is streamed.
        makers: of the peers.
        picture: a photograph to label, resized to each frame; None: a synthetic street.
    """

    threads: int
    rounds: int = 40
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


def measure(plan: Plan, folder: Path, progress: Progress) -> Results:
    """Run everything that `plan` says.

    Args:
        plan: how much.
        folder: for engines and a clip, some 300 MB.
        progress: told what comes next.
    """
    progress("making the networks")
    subjects = make_subjects(
        folder, size=plan.network, classes=plan.classes, calibration=plan.calibration
    )
    wide_frame, packaged_frame = plan.frame(plan.wide_frame), plan.frame(plan.packaged_frame)
    paths = tuple(
        measure_paths(
            subject,
            frame,
            threads=plan.threads,
            rounds=plan.rounds,
            progress=progress,
            makers=plan.makers,
        )
        for subject, frame in ((subjects.wide, wide_frame), (subjects.packaged, packaged_frame))
    )
    progress("text-guided against baseline")
    guided = measure_guided(
        subjects.wide,
        subjects.wide_baseline,
        wide_frame,
        threads=plan.threads,
        rounds=2 * plan.rounds,
    )
    progress("kernels")
    some_threads = tuple(sorted({1, plan.threads}))
    setting = Setting(
        some_threads, 4 * plan.rounds, {threads: bandwidth(threads) for threads in some_threads}
    )
    logits = np.array(bare(subjects.wide, wide_frame, "float32", plan.threads)())
    manifest = subjects.wide.manifest
    kernels = (
        *measure_preprocess(manifest.input, setting, plan.kernel_frames),
        *measure_upsample(
            logits,
            (plan.wide_frame[1], plan.wide_frame[0]),
            setting,
            align_corners=manifest.architecture.align_corners,
        ),
    )
    progress("streams")
    video = make_video(folder / "streets.mp4", plan.video_frames, plan.packaged_frame)
    streams = tuple(
        measure_stream(
            subjects.packaged.engine,
            video,
            precision=engine.precision,
            threads=plan.threads,
            rounds=max(2, plan.rounds // 4),
        )
        for engine in paths[1].engines
    )
    return Results(
        schema_version=SCHEMA_VERSION,
        commit=_commit(),
        machine=machine(),
        versions=versions() | _peer_versions(),
        threads=plan.threads,
        rounds=plan.rounds,
        bandwidth=setting.bandwidth,
        paths=paths,
        guided=guided,
        kernels=kernels,
        streams=streams,
        costs=_costs(subjects),
        accuracy=_accuracy(subjects, paths[1]),
    )


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


def _accuracy(subjects: Subjects, table: PathTable) -> tuple[AccuracyPoint, ...]:
    """mIoU that the packaged engine's manifest states, at the speed measured here."""
    fps = {row.precision: 1e3 / row.ms.p50 for row in table.rows if row.name == "edgeseg"}
    points = []
    for target in subjects.packaged.manifest.targets:
        measured = target.quantization
        if target.kind == "openvino" and measured and measured.miou and measured.float_miou:
            points.append(AccuracyPoint("float32", measured.float_miou, fps["float32"]))
            points.append(AccuracyPoint("int8", measured.miou, fps["int8"]))
    return tuple(points)


def _peer_versions() -> dict[str, str]:
    found = {}
    for package in _PEERS:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found


def _commit() -> str:
    command = ["git", "describe", "--always", "--dirty", "--exclude=*"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return done.stdout.strip()
