"""What runs on a worker: one engine, loaded once, labels one chunk of the plan after the other."""

from __future__ import annotations

import hashlib
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from edgeseg import _core
from edgeseg.archive.inputs import SPAN, Piece, is_image, label_paths
from edgeseg.archive.plan import read_plan
from edgeseg.archive.record import WORK, Line, of_piece
from edgeseg.errors import EdgesegError, EngineError, InputError
from edgeseg.files import cannot_write, make_folder, reason
from edgeseg.images import read_image
from edgeseg.runtime import Runtime, packaged_engine
from edgeseg.runtime.runtime import Precision
from edgeseg.video import SourceFrame, VideoSource, open_source, prefetch

_READ_AHEAD = 2


@dataclass(frozen=True)
class Job:
    """What every worker of a run is told.

    Attributes:
        archive: the folder of inputs.
        out: the folder of labels.
        engine: the engine file; None is the one that is packaged with edgeseg.
        engine_sha256: of that file.
        threads: CPU threads of the worker.
        gpus: GPUs, or parts of one, of the worker; 0 is the CPU.
        precision: as of `Runtime`.
        trust: as of `Runtime`.
        edgeseg: version.
        token: what `.work/token` in `out` holds.
    """

    archive: Path
    out: Path
    engine: Path | None
    engine_sha256: str
    threads: int
    gpus: float
    precision: Precision
    trust: bool
    edgeseg: str
    token: str


@dataclass(frozen=True)
class Loaded:
    """What a worker computes with."""

    engine: str
    computed: str
    classes: tuple[str, ...]


def sha256(path: Path) -> str:
    """Of a file.

    Raises:
        EngineError: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise EngineError(f"the engine file {path} cannot be read: {reason(error)}") from error


def load(job: Job) -> Runtime:
    """Check that this machine sees what the others see, and load the engine.

    Raises:
        InputError: a folder of the job is not what it is elsewhere.
        EngineError: the engine is another one, or does not run here.
    """
    here = socket.gethostname()
    shared = "every worker needs it under that path, on a file system that all of them share"
    if _core.__version__ != job.edgeseg:
        raise EngineError(
            f"the worker on {here} has edgeseg {_core.__version__}, the run was started with "
            f"{job.edgeseg}; install the same version everywhere"
        )
    if not os.access(job.archive, os.R_OK | os.X_OK) or not job.archive.is_dir():
        raise InputError(f"the worker on {here} cannot see the archive {job.archive}; {shared}")
    try:
        token = (job.out / WORK / "token").read_text()
    except OSError:
        token = ""
    if token != job.token:
        raise InputError(f"the worker on {here} cannot see the labels in {job.out}; {shared}")
    engine = packaged_engine() if job.engine is None else job.engine
    if (found := sha256(engine)) != job.engine_sha256:
        raise EngineError(
            f"the worker on {here} finds another engine in {engine} (SHA-256 {found[:12]}…, "
            f"{job.engine_sha256[:12]}… was expected); {shared}"
        )
    cv2.setNumThreads(job.threads)
    return Runtime(
        engine,
        "cuda" if job.gpus else "cpu",  # Ray shows a worker its own GPUs alone
        job.threads,
        precision=job.precision,
        trust=job.trust,
    )


def computed(runtime: Runtime) -> str:
    """What decides the labels beside engine and frame."""
    return f"{runtime.target} target with {runtime.backend} in {runtime.precision}"


def probe(job: Job) -> Loaded | tuple[str, str]:
    """What a worker would compute with, or the class and words of the error that keeps it."""
    try:
        runtime = load(job)
    except EdgesegError as error:
        return type(error).__name__, str(error)
    return Loaded(runtime.manifest.name, computed(runtime), runtime.classes)


class Labeller:
    """Labels chunks of a plan. An actor of Ray Data, and nothing in it knows Ray.

    An error that ends the run is returned, not raised: raised ones take the actor with them.
    """

    def __init__(self, job: Job, plan: Path, computed_in: str) -> None:
        self._job = job
        self._plan = plan
        self._spans: _Spans | None = None
        self._refusal: EdgesegError | None = None
        try:
            self._runtime = load(job)
            if computed(self._runtime) != computed_in:
                raise EngineError(
                    f"the worker on {socket.gethostname()} would compute with the "
                    f"{computed(self._runtime)}, the labels are made with the {computed_in}; "
                    "name a precision that all machines have (--precision float32), or label "
                    "into another folder"
                )
        except EdgesegError as error:
            self._refusal = error

    def __call__(self, batch: dict[str, NDArray[Any]]) -> dict[str, list[str]]:
        """Label one chunk; gives its journal's file name, and the error that ends the run."""
        chunk, offset, count = (int(batch[name][0]) for name in ("chunk", "offset", "count"))
        name = f"{self._plan.stem}-{chunk}.journal"
        try:
            if self._refusal is not None:
                raise self._refusal
            with Journal(self._plan.with_name(name)) as journal:
                for piece in read_plan(self._plan, offset, count):
                    journal.begin(piece)
                    journal.done(self._label(piece))
        except EdgesegError as error:
            return {"journal": [name], "error": [type(error).__name__], "words": [str(error)]}
        return {"journal": [name], "error": [""], "words": [""]}

    def _label(self, piece: Piece) -> Line:
        """Label a piece and write its labels.

        Raises:
            OutputError: they cannot be written.
            EngineError: the GPU is lost, or has too little memory.
        """
        tally = _Tally(self._runtime.classes)
        error: str | None = None
        try:
            self._check_unchanged(piece)
            with self._frames(piece) as frames:
                for pixels, path in zip(frames, label_paths(self._job.out, piece), strict=False):
                    result = self._runtime.predict(pixels)
                    make_folder(path.parent)
                    result.save(path, "labels")
                    tally.add(result.labels, result.areas())
            self._check_unchanged(piece)
        except InputError as refused:
            error = str(refused)
        except EdgesegError:
            raise
        except Exception as unforeseen:
            error = f"{piece.input}: unforeseen {type(unforeseen).__name__}: {unforeseen}"
        return of_piece(
            piece, frames=tally.frames, size=tally.size, areas=tally.areas(), error=error
        )

    @contextmanager
    def _frames(self, piece: Piece) -> Iterator[Iterator[NDArray[np.uint8]]]:
        """The frames of a piece, decoded ahead."""
        path = self._job.archive / piece.input
        if is_image(piece.input):
            yield iter([read_image(path)])
            return
        if self._spans is None or not self._spans.leads_to(piece):
            if self._spans is not None:
                self._spans.close()
            self._spans = None
            self._spans = _Spans(path, piece)
        with prefetch(self._spans.frames(piece), _READ_AHEAD) as frames:
            yield (frame.pixels for frame in frames)

    def _check_unchanged(self, piece: Piece) -> None:
        path = self._job.archive / piece.input
        try:
            status = path.stat()
        except OSError as error:
            raise InputError(
                f"the worker on {socket.gethostname()} cannot see {path}: {reason(error)}; it was "
                "there when the run began"
            ) from error
        if (status.st_size, status.st_mtime_ns) != (piece.bytes, piece.mtime_ns):
            raise InputError(f"{path} changed while the archive was labelled; label it again")


class _Spans:
    """One video, kept open while spans of it come that lie ahead.

    Frames before a span are decoded and let go: seeking is exact for some formats only.
    """

    def __init__(self, path: Path, piece: Piece) -> None:
        self._identity = (piece.input, piece.bytes, piece.mtime_ns)
        source = open_source(path)
        assert isinstance(source, VideoSource)
        self._source = source
        self._decoded = iter(source)
        self._next = 0
        self._ending: InputError | None = None
        self._over = False

    def leads_to(self, piece: Piece) -> bool:
        same = (piece.input, piece.bytes, piece.mtime_ns) == self._identity
        return same and self._next <= piece.first_frame

    def close(self) -> None:
        self._source.close()

    def frames(self, piece: Piece) -> Iterator[SourceFrame]:
        """Frames of a piece.

        Raises:
            InputError: the video breaks off, in this piece or before it.
        """
        last = piece.piece == piece.pieces - 1
        end = None if last else piece.first_frame + SPAN
        while not self._over and (end is None or self._next < end):
            try:
                frame = next(self._decoded)
            except StopIteration:
                self._over = True
            except InputError as error:
                self._over, self._ending = True, error
            else:
                self._next = frame.index + 1
                if frame.index >= piece.first_frame:
                    yield frame
        if self._ending is not None:
            raise self._ending


class _Tally:
    """Adds up what is recorded of a piece's labels."""

    def __init__(self, classes: tuple[str, ...]) -> None:
        self.frames = 0
        self.size: tuple[int, int] | None = None
        self._areas = dict.fromkeys(classes, 0.0)

    def add(self, labels: NDArray[np.uint8], areas: dict[str, float]) -> None:
        self.frames += 1
        self.size = (labels.shape[0], labels.shape[1])
        for name, area in areas.items():
            self._areas[name] += area

    def areas(self) -> dict[str, float]:
        return {name: round(area / max(self.frames, 1), 6) for name, area in self._areas.items()}


class Journal:
    """What one worker did of one chunk, on the disk as it is done; a context manager.

    Its methods raise OutputError where the disk does not take it.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._file = path.open("w")
        except OSError as error:
            raise cannot_write(path, error) from error

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):  # of what `_write` could not write, and told
            self._file.close()

    def begin(self, piece: Piece) -> None:
        """Say who is at a piece, before it is begun."""
        self._write(begin=asdict(piece), host=socket.gethostname(), pid=os.getpid())

    def done(self, line: Line) -> None:
        """Say what became of it."""
        self._write(done=asdict(line))

    def _write(self, **entry: object) -> None:
        try:
            self._file.write(json.dumps(entry) + "\n")
            self._file.flush()
        except OSError as error:
            raise cannot_write(self._path, error) from error
