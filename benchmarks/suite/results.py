"""What runs leave behind: one JSON file, from which the report is made.

It has five parts, each from one run. Parts of different runs stand in one file only if all of it
was the same: the code, the machine, the versions, the threads, the picture.
"""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal, get_args

import cv2
from benchmarks.timing import Times, paired_ratio_interval, ratio_interval
from pydantic import TypeAdapter, ValidationError

from edgeseg.bench import Machine
from edgeseg.errors import InputError
from edgeseg.files import write_atomically

SCHEMA_VERSION = 2
Part = Literal["paths", "guidance", "kernels", "streams", "accuracy"]
PARTS: tuple[Part, ...] = get_args(Part)


@dataclass(frozen=True)
class Picture:
    """What was labelled.

    Attributes:
        name: of the file, without its folder; of a synthetic one, which.
        size: WIDTH×HEIGHT of the file; None: drawn at each frame's size.
        sha256: first 16 digits, of the file; None: synthetic.
    """

    name: str
    size: str | None
    sha256: str | None

    @staticmethod
    def of(path: Path, pixels: cv2.typing.MatLike) -> Picture:
        """Of a file, and what was read from it."""
        height, width = pixels.shape[:2]
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        return Picture(path.name, f"{width}×{height}", digest[:16])


@dataclass(frozen=True)
class Setup:
    """What must be the same for parts to stand in one file."""

    commit: str
    machine: Machine
    versions: dict[str, str]
    threads: int
    picture: Picture


@dataclass(frozen=True)
class Run:
    """Which run a part is from.

    Attributes:
        begun: when the run was, UTC, to the second; the same for all its parts.
        minutes: that this part took.
        rounds: of its comparisons.
    """

    begun: str
    minutes: float
    rounds: int


@dataclass(frozen=True)
class Ratio:
    """A quotient of times with its 95 % interval."""

    value: float
    low: float
    high: float

    @staticmethod
    def of(over: Times, under: Times) -> Ratio:
        """Of rounds in which both took their turn."""
        return Ratio(*ratio_interval(over, under))

    @staticmethod
    def paired(over: Times, under: Times) -> Ratio:
        """Median of the quotients of round pairs: where a percent counts."""
        return Ratio(*paired_ratio_interval(over, under))


@dataclass(frozen=True)
class PathRow:
    """One contender from frame to labels.

    Attributes:
        agreement: share of the pixels of a frame with our labels in the same precision, 0..1.
        why_not: why its method cannot agree; empty where it must on 99 %.
        ms: every measured call.
        to_ours: its time over ours in the same precision.
    """

    name: str
    version: str
    precision: str
    agreement: float
    why_not: str
    ms: Times
    to_ours: Ratio


@dataclass(frozen=True)
class EngineOnly:
    """The network alone, and what `predict` takes beside it (ratio: predict over engine).

    Attributes:
        steady: `predict` called over and over with nothing in between.
        stages_ms: medians of `predict`'s stages.
    """

    precision: str
    ms: Times
    predict_to_engine: Ratio
    steady: Times
    stages_ms: dict[str, float]


@dataclass(frozen=True)
class Left:
    """A contender that was not timed, and why."""

    name: str
    precision: str
    reason: str


@dataclass(frozen=True)
class PathTable:
    """All contenders on one network and one size of frames ("WIDTH×HEIGHT").

    Attributes:
        judged: whether targets are set for this network.
    """

    network: str
    frame: str
    judged: bool
    rows: tuple[PathRow, ...]
    engines: tuple[EngineOnly, ...]
    left_out: tuple[Left, ...]


@dataclass(frozen=True)
class GuidedRow:
    """Text-guided over baseline, engines alone (medians; ratio: paired)."""

    precision: str
    guided_ms: float
    baseline_ms: float
    ratio: Ratio


@dataclass(frozen=True)
class KernelRow:
    """One kernel on one case (ratio: the peer's time over ours).

    Attributes:
        bytes: that must move at least.
        floor_ms: what these take at the bandwidth that was measured with as many threads.
    """

    kernel: str
    case: str
    level: str
    threads: int
    ours_ms: float
    bytes: int
    floor_ms: float
    peer: str
    peer_ms: float
    ratio: Ratio


@dataclass(frozen=True)
class StreamRow:
    """A video through `stream()` and through a loop that reads and predicts (ratio: loop/stream).

    Times are of the whole video.
    """

    frames: int
    frame: str
    precision: str
    stream_ms: float
    loop_ms: float
    ratio: Ratio


@dataclass(frozen=True)
class CostRow:
    """A network as the paper's Tables 1 and 2 describe it.

    Attributes:
        parameters: with the heads of training, without the text embeddings.
        macs: multiply-adds of one frame.
    """

    network: str
    classes: int
    size: str
    parameters: int
    macs: int


@dataclass(frozen=True)
class LiveRow:
    """A camera's frames, from being there to their labels, by `stream()` and by a loop, in turn.

    Attributes:
        source: how fast it is.
        latest: whether both take the newest frame and pass others over.
        period_ms: between frames.
        frame_ms: of a loop that need not wait for the camera: what one frame of latency is, where
            that is longer than the period.
        stream_ms, loop_ms: latency of every frame that was labelled.
    """

    source: str
    precision: str
    latest: bool
    period_ms: float
    frame_ms: float
    stream_ms: Times
    loop_ms: Times


@dataclass(frozen=True)
class StreamChecks:
    """What `stream()` keeps, whatever the speed.

    Attributes:
        frames: given to a consumer that is slower than the network.
        in_order: whether all of them came back, in order.
        read_ahead: most frames that had been read, but whose result the consumer did not have.
        before_drop: results given of a source that fails after `readable` frames, before its
            error was raised.
        readable: see `before_drop`.
    """

    frames: int
    in_order: bool
    read_ahead: int
    before_drop: int
    readable: int


@dataclass(frozen=True)
class AccuracyPoint:
    """mIoU of a network (`name` as the paths have it), as its engine's manifest states it."""

    network: str
    precision: str
    miou: float


@dataclass(frozen=True)
class Paths:
    """From frame to labels, by everybody."""

    run: Run
    tables: tuple[PathTable, ...]


@dataclass(frozen=True)
class Guidance:
    """What text guidance costs."""

    run: Run
    rows: tuple[GuidedRow, ...]


@dataclass(frozen=True)
class Kernels:
    """The steps around the network.

    Attributes:
        bandwidth: bytes read plus written per second by a large copy, by threads.
    """

    run: Run
    bandwidth: dict[int, float]
    rows: tuple[KernelRow, ...]


@dataclass(frozen=True)
class Streams:
    """`stream()` beside a loop."""

    run: Run
    rows: tuple[StreamRow, ...]
    live: tuple[LiveRow, ...]
    checks: StreamChecks


@dataclass(frozen=True)
class Accuracy:
    """What is counted or was stated before, not timed."""

    run: Run
    costs: tuple[CostRow, ...]
    points: tuple[AccuracyPoint, ...]


@dataclass(frozen=True)
class Results:
    """One machine's parts; None: not measured."""

    schema_version: int
    setup: Setup
    paths: Paths | None = None
    guidance: Guidance | None = None
    kernels: Kernels | None = None
    streams: Streams | None = None
    accuracy: Accuracy | None = None

    def runs(self) -> dict[Part, Run]:
        """Of the parts that there are."""
        found = {part: getattr(self, part) for part in PARTS}
        return {part: value.run for part, value in found.items() if value is not None}


def check_same(stored: Results, setup: Setup, path: Path) -> None:
    """See that parts of `setup` may be added to what stands in `path`.

    Raises:
        InputError: something differs.
    """
    there, here = _facts(stored.setup), _facts(setup)
    differing = [
        f"{name}: {there.get(name, 'none')} there, {here.get(name, 'none')} here"
        for name in there | here
        if there.get(name) != here.get(name)
    ]
    if differing:
        raise InputError(
            f"{path} holds parts that were measured otherwise ({'; '.join(differing)}); parts of "
            "one file are of one machine and commit: run all of them (without --only), or write "
            "to another file with --json"
        )


def merged(stored: Results, new: Results) -> Results:
    """The new run's parts, and the stored ones that it did not measure."""
    return replace(stored, **{part: getattr(new, part) for part in new.runs()})


def _facts(setup: Setup) -> dict[str, str]:
    """One by one, so that a difference can be named."""
    parts = {"commit": setup.commit, "threads": str(setup.threads)} | setup.versions
    for part in (setup.machine, setup.picture):
        name = type(part).__name__.lower()
        parts |= {f"{name} {key}": str(value) for key, value in asdict(part).items()}
    return parts


_RESULTS = TypeAdapter(Results)


def save(results: Results, path: Path) -> None:
    """Write a run's JSON.

    Raises:
        OutputError: the file cannot be written.
    """
    write_atomically(path, [_RESULTS.dump_json(results, indent=1) + b"\n"])


def load(path: Path) -> Results:
    """Read it again.

    Raises:
        InputError: it is not there, or not of this version.
    """
    try:
        return _RESULTS.validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise InputError(
            f"{path} cannot be read: {str(error).splitlines()[0]}; make it with "
            "'python -m benchmarks.suite run'"
        ) from error
