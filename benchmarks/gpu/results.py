"""What a run leaves behind: one JSON file for each GPU."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Literal

from benchmarks.gpu.counts import Ceilings
from benchmarks.timing import Times, ratio_interval
from pydantic import TypeAdapter, ValidationError

from edgeseg.errors import InputError
from edgeseg.files import write_atomically

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Environment:
    """What was measured, and on what. Results of two different ones are never mixed."""

    gpu: str
    compute_capability: str
    multiprocessors: int
    l2_bytes: int
    memory_bytes: int
    driver: str
    versions: dict[str, str]
    build: dict[str, str]
    commit: str


@dataclass(frozen=True)
class Check:
    """Something that had to hold, and what was seen."""

    name: str
    passed: bool
    detail: str


@dataclass(frozen=True)
class Ratio:
    """Another contender's time over ours (or as said), medians, with its 95 % interval."""

    name: str
    value: float
    low: float
    high: float

    @staticmethod
    def of(name: str, over: Times, under: Times) -> Ratio:
        """Of rounds in which both took their turn."""
        return Ratio(name, *ratio_interval(over, under))


@dataclass(frozen=True)
class KernelRow:
    """One kernel on one case, inputs from device memory ("cold") or from L2 ("warm").

    Attributes:
        us: median time of one launch by contender, "ours" first.
        ratios: of each other contender's time to ours.
    """

    kernel: str
    case: str
    cache: Literal["cold", "warm"]
    bytes: int
    operations: int
    floor_us: float
    us: dict[str, float]
    ratios: tuple[Ratio, ...]

    @property
    def share(self) -> float:
        """Of the floor: 1 would be as fast as a copy of the same bytes."""
        return self.floor_us / self.us["ours"]


@dataclass(frozen=True)
class Latency:
    """Milliseconds of one frame."""

    p50: float
    p90: float
    p99: float

    @staticmethod
    def of(times: Times) -> Latency:
        """Percentiles of all rounds."""
        return Latency(*(times.percentile(q) for q in (50, 90, 99)))


@dataclass(frozen=True)
class EngineRow:
    """One contender on one network.

    Attributes:
        network: e.g. "text-guided, K = 19, 1024×512".
        contender: what runs it.
        precision: what it computes in.
        span: "engine" (tensor to logits) or "frame 1024×512" (host frame to host labels).
        error: relative error of its logits against float32; of a frame, the share of labels that
            differ from those of float32.
        floor_ms: of the network's multiply-adds at the GPU's measured rate; None if not measured.
    """

    network: str
    contender: str
    precision: str
    span: str
    latency: Latency
    error: float
    floor_ms: float | None = None


@dataclass(frozen=True)
class Engines:
    """Engines, and ratios between those that took turns.

    Attributes:
        over_engine: by contender of ours, frame to labels over engine only, from a host frame of
            the network's own size.
        over_ours: of PyTorch's engines over each of ours.
        guided_over_baseline: by contender, text-guided over baseline network.
    """

    rows: tuple[EngineRow, ...] = ()
    over_engine: tuple[Ratio, ...] = ()
    over_ours: tuple[Ratio, ...] = ()
    guided_over_baseline: tuple[Ratio, ...] = ()

    def __add__(self, other: Engines) -> Engines:
        """Both, one behind the other."""
        return Engines(
            *(getattr(self, field.name) + getattr(other, field.name) for field in fields(self))
        )


@dataclass(frozen=True)
class Results:
    """Everything of one GPU; a part that was not run is None.

    Attributes:
        clocks: what the driver said of clocks, power and temperature before and after.
        paper: text-guided beside baseline networks.
        not_measured: by part, what could not be run and why.
    """

    environment: Environment
    ceilings: Ceilings
    clocks: tuple[str, ...] = ()
    tests: tuple[Check, ...] | None = None
    sanitizer: tuple[Check, ...] | None = None
    kernels: tuple[KernelRow, ...] | None = None
    paper: Engines | None = None
    engines: Engines | None = None
    runtime: tuple[Check, ...] | None = None
    not_measured: dict[str, tuple[str, ...]] = field(default_factory=dict)
    schema_version: int = SCHEMA_VERSION


def default_path(gpu: str) -> Path:
    """benchmarks/results/gpu_<name>.json, e.g. gpu_h100-80gb-hbm3.json."""
    slug = "-".join(re.findall(r"[a-z0-9]+", gpu.lower().replace("nvidia", "")))
    return Path("benchmarks/results") / f"gpu_{slug}.json"


def save(path: Path, results: Results) -> None:
    """Write the file, whole or not at all.

    Raises:
        OutputError: it cannot be written.
    """
    write_atomically(path, [json.dumps(asdict(results), indent=1).encode() + b"\n"])


def load(path: Path) -> Results:
    """Read a file that `save` wrote.

    Raises:
        InputError: there is none, or it is of another version.
    """
    try:
        results = TypeAdapter(Results).validate_json(path.read_bytes())
    except OSError as error:
        raise InputError(
            f"cannot read {path}: {error.strerror}; `python -m benchmarks.gpu` on a machine with "
            "an NVIDIA GPU writes it"
        ) from error
    except ValidationError as error:
        raise InputError(
            f"{path} is no result of this version: {error.errors()[0]['msg']}; "
            "remove it and measure again"
        ) from error
    if results.schema_version != SCHEMA_VERSION:
        raise InputError(
            f"{path} has schema version {results.schema_version}, this is version "
            f"{SCHEMA_VERSION}; remove it and measure again"
        )
    return results


def one_line(error: BaseException) -> str:
    """An error as a line of a report."""
    text = str(error).strip() or "no message"
    return f"{type(error).__name__}: {text.splitlines()[0][:300]}"
