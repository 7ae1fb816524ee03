"""What `edgeseg.smooth` is worth: `python -m benchmarks.smoothing` writes a page of figures.

Drives down synthetic streets, whose labels are known, with a camera's noise; the packaged engine
labels them. Flicker is the share of pixels whose label changes from one frame to the next though
what they show does not. Accuracy and mIoU are against the street's labels, so that a label that
is held too long counts as wrong. "Standing" is one frame again and again, with new noise.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from edgeseg import Result, Runtime, smooth, synthetic
from edgeseg.files import write_atomically

HEIGHT, WIDTH, FPS = 360, 480, 30
NOISE, EXPOSURE = 5.0, 0.01  # grey levels; share of the brightness
# frames, with confidence; None is as the network gives them
SETTINGS: dict[str, tuple[int, bool] | None] = {
    "as labelled": None,
    "labels alone, 2 frames": (2, False),
    "labels alone, 3 frames": (3, False),
    "with confidence, 2 frames": (2, True),
    "**with confidence, 3 frames**": (3, True),
    "with confidence, 5 frames": (5, True),
}
RATES = {"30 a second": 1, "15 a second": 2, "10 a second": 3}

Clip = list[tuple[Result, NDArray[np.uint8]]]
"""Results, and the true labels of each frame."""


def drive(runtime: Runtime, seed: int, frames: int) -> Clip:
    rng = np.random.default_rng(seed)
    street = synthetic.clip(seed, HEIGHT, WIDTH, frames, FPS)
    return [(label(runtime, one.frame, rng), one.labels) for one in street]


def standing(runtime: Runtime, seed: int, frames: int) -> Clip:
    rng = np.random.default_rng(seed)
    street = synthetic.street(seed, HEIGHT, WIDTH)
    return [(label(runtime, street.frame, rng), street.labels) for _ in range(frames)]


def label(runtime: Runtime, frame: NDArray[np.uint8], rng: np.random.Generator) -> Result:
    brightness = 1 + rng.normal(0, EXPOSURE)
    noisy = frame * brightness + rng.normal(0, NOISE, frame.shape)
    return runtime.predict(np.clip(noisy, 0, 255).astype(np.uint8), confidence=True)


def measured(clip: Clip, setting: tuple[int, bool] | None) -> tuple[float, float, float]:
    """Flicker, pixel accuracy and mIoU of a clip, in percent."""
    results: Iterable[Result] = (result for result, _ in clip)
    classes = len(clip[0][0].classes)
    if setting is not None:
        frames, with_confidence = setting
        if not with_confidence:
            results = (replace(result, confidence=None) for result in results)
        results = smooth(results, frames)
    shown = [result.labels for result in results]
    true = [labels for _, labels in clip]
    changed, still = 0, 0
    counts = np.zeros((classes, classes))
    for index, (found, labels) in enumerate(zip(shown, true, strict=True)):
        known = labels != 255
        pairs = labels[known].astype(int) * classes + found[known]
        counts += np.bincount(pairs, minlength=classes**2).reshape(classes, classes)
        if index:
            same = known & (labels == true[index - 1])
            changed += np.count_nonzero(same & (found != shown[index - 1]))
            still += np.count_nonzero(same)
    hits = np.diag(counts)
    union = counts.sum(0) + counts.sum(1) - hits
    there = counts.sum(1) > 0
    return (
        100 * changed / still,
        100 * hits.sum() / counts.sum(),
        100 * float((hits[there] / union[there]).mean()),
    )


def table(title: str, clips: Sequence[Clip]) -> str:
    """Means over the clips, and how much the mIoU of each changes at the worst and best."""
    lines = [
        f"| {title} | flicker | accuracy | mIoU | mIoU of single clips against as labelled |",
        "|---|---|---|---|---|",
    ]
    plain = np.array([measured(clip, None) for clip in clips])
    for name, setting in SETTINGS.items():
        found = np.array([measured(clip, setting) for clip in clips])
        flicker, accuracy, miou = found.mean(0)
        change = found[:, 2] - plain[:, 2]
        spread = "" if setting is None else f"{change.min():+.1f} to {change.max():+.1f}"
        row = f"| {name} | {flicker:.2f} % | {accuracy:.2f} % | {miou:.2f} % | {spread} |"
        lines.append(row.replace("-", "−"))
    return "\n".join(lines)


def cost(rounds: int = 30) -> str:
    """CPU time of one frame's smoothing, and of the confidence that it is better with."""
    before = cv2.getNumThreads()
    cv2.setNumThreads(1)
    runtime = Runtime(threads=1)
    street = synthetic.street(7, HEIGHT, WIDTH).frame
    rng = np.random.default_rng(0)
    lines = ["| frame | labels alone | with confidence | confidence itself |", "|---|---|---|---|"]
    for height, width in ((360, 480), (720, 960), (1080, 1920), (2160, 3840)):
        frame = cv2.resize(street, (width, height)).astype(np.uint8, copy=False)
        one = runtime.predict(frame, confidence=True)
        flipped = np.where(rng.random((height, width)) < 0.03, np.uint8(1), one.labels)
        frames = [one, replace(one, labels=flipped)] * (rounds // 2)
        columns = []
        for with_confidence in (False, True):
            given = frames if with_confidence else [replace(f, confidence=None) for f in frames]
            smoothed = smooth(given)
            times = []
            for _ in given:
                started = time.thread_time()
                next(smoothed)
                times.append(1e3 * (time.thread_time() - started))
            columns.append(np.median(times))
        labels, both = (
            min(runtime.predict(frame, confidence=c).timings.upsample_argmax for _ in range(10))
            for c in (False, True)
        )
        columns.append(both - labels)
        lines.append(f"| {width}×{height} | " + " | ".join(f"{ms:.2f} ms" for ms in columns) + " |")
    cv2.setNumThreads(before)
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(101, 105)))
    parser.add_argument("--frames", type=int, default=60)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/smoothing.md"))
    arguments = parser.parse_args()
    runtime = Runtime()
    drives, stills = [], []
    for seed in arguments.seeds:
        drives.append(drive(runtime, seed, arguments.frames))
        stills.append(standing(runtime, seed, arguments.frames))
        print(f"street {seed} is labelled", flush=True)
    sections = [
        "# Temporal smoothing",
        f"{len(drives)} synthetic drives of {arguments.frames} frames, {WIDTH}×{HEIGHT}, seeds "
        f"{', '.join(map(str, arguments.seeds))}; {runtime}. "
        "How it is counted: the head of `benchmarks/smoothing.py`, whose command wrote this page.",
        *(table(name, [clip[::step] for clip in drives]) for name, step in RATES.items()),
        table("standing", stills),
        "What it costs, on one thread: CPU time of `smooth`, the median; beside it how much longer "
        "`upsample_argmax` takes to give confidence, too, the least of ten:",
        cost(),
    ]
    write_atomically(arguments.out, ["\n\n".join(sections).encode() + b"\n"])
    print(f"wrote {arguments.out}")


if __name__ == "__main__":
    main()
