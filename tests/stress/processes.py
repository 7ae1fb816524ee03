"""Runtimes in child processes, and what Ctrl-C leaves behind."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from tests.stress.engines import frames

from edgeseg.errors import EngineError
from edgeseg.runtime import Runtime

_SIZE = (90, 130)
_CLI = (sys.executable, "-c", "from edgeseg.cli import main; main()")


def spawn(engine: Path, children: int = 2) -> int:
    """Label a frame here and in spawned children; how many of them came to other labels."""
    picture = frames(1, (_SIZE,))[0]
    here = Runtime(engine, device="cpu").predict(picture).labels
    with multiprocessing.get_context("spawn").Pool(children) as pool:
        there = pool.starmap(_labels, [(engine, picture)] * children)
    return sum(not np.array_equal(labels, here) for labels in there)


def _labels(engine: Path, picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return Runtime(engine, device="cpu").predict(picture).labels


def fork_after_use(engine: Path) -> tuple[str, str]:
    """What a forked child can do with its parent's Runtime, and with one of its own.

    Each is "works", the words of an EngineError, or "hangs".
    """
    picture = frames(1, (_SIZE,))[0]
    runtime = Runtime(engine, device="cpu")
    labels = runtime.predict(picture).labels

    def parents() -> str:
        return "works" if np.array_equal(runtime.predict(picture).labels, labels) else "differs"

    def own() -> str:
        return "works" if np.array_equal(_labels(engine, picture), labels) else "differs"

    return _in_a_fork(parents), _in_a_fork(own)


def _in_a_fork(action: Callable[[], str], seconds: float = 60) -> str:
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            try:
                words = action()
            except EngineError as error:
                words = str(error)
            os.write(writing, words.encode())
        finally:
            os._exit(0)
    os.close(writing)
    end = time.monotonic() + seconds
    while os.waitpid(child, os.WNOHANG) == (0, 0):
        if time.monotonic() > end:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            os.close(reading)
            return "hangs"
        time.sleep(0.01)
    with os.fdopen(reading, "rb") as pipe:
        return pipe.read().decode()


@dataclass(frozen=True)
class Interrupted:
    """A long `edgeseg predict`, interrupted while it wrote.

    Attributes:
        code: its exit code; 130 is meant.
        seconds: from the signal to the end of the process.
        whole: files that can be read to their end.
        broken: names of those that cannot.
        output: what it said.
    """

    code: int
    seconds: float
    whole: int
    broken: tuple[str, ...]
    output: str

    def __str__(self) -> str:
        return (
            f"exit code {self.code} after {self.seconds:.2f} s, {self.whole} whole files, "
            f"{len(self.broken)} broken"
        )


Interrupt = Callable[[Path, Path], Interrupted]


def interrupt_pictures(engine: Path, folder: Path) -> Interrupted:
    """Of a folder with hundreds of images."""
    source, out = folder / "images", folder / "pictures"
    source.mkdir()
    for index, picture in enumerate(frames(300, ((600, 800),))):
        cv2.imwrite(str(source / f"{index:04d}.jpg"), picture)
    return _interrupt(engine, source, out, lambda: len(list(out.glob("*.png"))) >= 5)


def interrupt_video(engine: Path, folder: Path) -> Interrupted:
    """Of a clip, whose file appears when it is done."""
    source, out = folder / "drive.avi", folder / "clips"
    writer = cv2.VideoWriter(str(source), cv2.VideoWriter.fourcc(*"MJPG"), 25, (800, 600))
    for picture in frames(30, ((600, 800),)) * 14:
        writer.write(picture)
    writer.release()
    return _interrupt(engine, source, out, lambda: out.is_dir() and any(out.iterdir()))


def _interrupt(engine: Path, source: Path, out: Path, has_begun: Callable[[], bool]) -> Interrupted:
    command = [*_CLI, "predict", str(source), "-e", str(engine), "-o", str(out), "--labels"]
    # What was started in the background, as CI may be, ignores Ctrl-C, and so would its children.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
    finally:
        signal.signal(signal.SIGINT, before)
    end = time.monotonic() + 120
    while not has_begun():
        if process.poll() is not None or time.monotonic() > end:
            process.kill()
            raise RuntimeError(f"{command} did not begin: {process.communicate()[0]}")
        time.sleep(0.01)
    sent = time.monotonic()
    process.send_signal(signal.SIGINT)
    output = process.communicate(timeout=60)[0]
    seconds = time.monotonic() - sent
    files = [file for file in out.rglob("*") if file.is_file()]
    broken = tuple(file.name for file in files if not _is_whole(file))
    return Interrupted(process.returncode, seconds, len(files) - len(broken), broken, output)


def _is_whole(file: Path) -> bool:
    if file.name.startswith("."):
        return False  # a temporary file
    if file.suffix == ".png":
        image = cv2.imread(str(file))
        return image is not None and file.read_bytes()[-8:-4] == b"IEND"
    clip = cv2.VideoCapture(str(file))
    return clip.isOpened() and clip.read()[0]
