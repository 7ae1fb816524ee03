"""What a run leaves behind: one JSON file, from which the report is made."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from benchmarks.timing import Times, ratio_interval
from pydantic import TypeAdapter, ValidationError

from edgeseg.bench import Machine
from edgeseg.errors import InputError
from edgeseg.files import write_atomically

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Ratio:
    """A quotient of two medians with its 95 % interval."""

    value: float
    low: float
    high: float

    @staticmethod
    def of(over: Times, under: Times) -> Ratio:
        """Of rounds in which both took their turn."""
        return Ratio(*ratio_interval(over, under))


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
    """The network alone, and what `predict` takes beside it (ratio: predict over engine)."""

    precision: str
    ms: Times
    predict_to_engine: Ratio
    stages_ms: dict[str, float]


@dataclass(frozen=True)
class Left:
    """A contender that was not timed, and why."""

    name: str
    precision: str
    reason: str


@dataclass(frozen=True)
class PathTable:
    """All contenders on one network and one size of frames ("WIDTH×HEIGHT")."""

    network: str
    frame: str
    rows: tuple[PathRow, ...]
    engines: tuple[EngineOnly, ...]
    left_out: tuple[Left, ...]


@dataclass(frozen=True)
class GuidedRow:
    """Text-guided over baseline, engines alone."""

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
class AccuracyPoint:
    """mIoU of the packaged engine as its manifest has it, and how fast it labelled here."""

    precision: str
    miou: float
    fps: float


@dataclass(frozen=True)
class Results:
    """One run on one machine."""

    schema_version: int
    commit: str
    machine: Machine
    versions: dict[str, str]
    threads: int
    rounds: int
    bandwidth: dict[int, float]
    """Bytes read plus written per second by a large copy, by threads."""
    paths: tuple[PathTable, ...]
    guided: tuple[GuidedRow, ...]
    kernels: tuple[KernelRow, ...]
    streams: tuple[StreamRow, ...]
    costs: tuple[CostRow, ...]
    accuracy: tuple[AccuracyPoint, ...]


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
