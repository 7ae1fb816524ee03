"""Label an archive: plan what is missing, share it out with Ray Data, record what comes back."""

from __future__ import annotations

import itertools
import logging
import os
import secrets
import time
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from edgeseg import _core, errors
from edgeseg.archive.cluster import connected, room
from edgeseg.archive.inputs import Archive, Piece, is_image, label_paths
from edgeseg.archive.plan import Plan, missing_pieces, read_plan, write_plan
from edgeseg.archive.record import Header, Line, Record, of_piece
from edgeseg.archive.worker import Job, Labeller, Loaded, probe, sha256
from edgeseg.arguments import check_integer, check_number, check_threads
from edgeseg.errors import EdgesegError, EngineError, InputError, printable
from edgeseg.files import make_folder, write_atomically
from edgeseg.runtime import packaged_engine
from edgeseg.runtime.runtime import Precision

logger = logging.getLogger("edgeseg")

_DEATHS = 3  # workers that may die over a piece
_LISTED = 20  # failures that a report names


@dataclass(frozen=True)
class Failure:
    """An input that could not be labelled, or not to its end.

    Attributes:
        input: its path below the archive.
        error: what is wrong with it.
    """

    input: str
    error: str


@dataclass(frozen=True)
class Progress:
    """How far a run is.

    Attributes:
        pieces: done in this run: images, and spans of a video's frames.
        of: how many there were to do.
        frames: labels made in this run.
    """

    pieces: int
    of: int
    frames: int


@dataclass(frozen=True)
class ArchiveReport:
    """What the folder of labels holds after a run: `labelled` + `failed` = `inputs`.

    Attributes:
        inputs: images and videos of the archive.
        labelled: those that have all their labels.
        failed: those that could not be labelled, or not to their end.
        failures: the first 20 of those by name; `labels.jsonl` has all.
        frames: labels in the folder.
        frames_now: labels that this run made.
        others: files of the archive that are neither images nor videos by name.
        gone: recorded inputs that are no longer in the archive; not in the counts above.
        abandoned: chunks of work that a worker left as it died; others did them.
        computed: target, backend and number format.
        seconds: from the first to the last label, starting the workers included.
        record: `labels.jsonl`.
    """

    inputs: int
    labelled: int
    failed: int
    failures: tuple[Failure, ...]
    frames: int
    frames_now: int
    others: int
    gone: int
    abandoned: int
    computed: str
    seconds: float
    record: str


OnProgress = Callable[[Progress], None]


def label_archive(
    archive: str | os.PathLike[str],
    out: str | os.PathLike[str],
    engine: str | os.PathLike[str] | None = None,
    *,
    address: str | None = None,
    workers: int | None = None,
    threads: int = 2,
    gpus: float = 0,
    precision: Precision = "auto",
    trust: bool = False,
    redo: bool = False,
    on_progress: OnProgress = lambda progress: None,
) -> ArchiveReport:
    """Label every image and video below a folder, on this machine or on a Ray cluster.

    Labels become PNGs in folders like the archive's: `a/0001.jpg` → `a/0001.png`, frames of
    `a/cam.mp4` → `a/cam.mp4/000000.png`, …; `labels.jsonl` has a line for each image and each
    span of a video's frames. A second run does what is missing.

    Archive, labels and engine must be under the same paths on all machines.

    Args:
        archive: the folder of inputs.
        out: the folder of labels; made if it is not there.
        engine: the engine file; None is the packaged CamVid engine.
        address: of a Ray cluster, e.g. "10.0.0.1:6379"; None starts workers on this machine. A
            process that is connected to Ray already uses that.
        workers: how many; None is as many as there are CPUs, or GPUs, for.
        threads: CPU threads, and Ray's num_cpus, of each.
        gpus: Ray's num_gpus of each, which then runs on a GPU; 0 is the CPU.
        precision: as for `Runtime`.
        trust: as for `Runtime`.
        redo: label again what changed since it was labelled, and what failed.
        on_progress: called after every chunk.

    Returns:
        Counts, and what is wrong with inputs that could not be labelled.

    Raises:
        InputError: an argument is out of range; the archive holds nothing to label; the labels in
            `out` are another engine's or archive's; inputs changed, without `redo`; a worker does
            not see the folders; the cluster cannot be reached.
        EngineError: the engine cannot be loaded by a worker.
        OutputError: something cannot be written.
        MissingDependencyError: Ray is not installed.
    """
    if workers is not None:
        check_integer("workers", workers, 1)
    check_threads(threads)
    check_number("gpus", gpus, 0)
    source, target = (Path(os.path.abspath(path)) for path in (archive, out))  # noqa: PTH100
    _check_apart(source, target)
    inputs = Archive(source)
    chosen = None if engine is None else Path(os.path.abspath(engine))  # noqa: PTH100
    job = Job(
        archive=source,
        out=target,
        engine=chosen,
        engine_sha256=sha256(chosen or packaged_engine()),
        threads=threads,
        gpus=gpus,
        precision=precision,
        trust=trust,
        edgeseg=_core.__version__,
        token=secrets.token_hex(16),
    )
    with Record(target) as record:
        _check_header(record, job)
        make_folder(record.work)
        write_atomically(record.work / "token", [job.token.encode()])
        record.take_journals()  # of a run that was killed
        plan = write_plan(_plan_path(record, job, 0), missing_pieces(inputs, record, redo=redo))
        _settle_stale(record, redo=redo)
        run = _Run(job, record, plan, on_progress)
        started = time.monotonic()
        if plan.pieces:
            cores = len(os.sched_getaffinity(0))
            with connected(address, max(cores, threads * (workers or 1))):
                run.label(workers)
        record.clean()
        totals = record.totals()
        header = record.header
        assert header is not None
        return ArchiveReport(
            inputs=totals.inputs,
            labelled=totals.inputs - totals.failed,
            failed=totals.failed,
            failures=tuple(Failure(*failure) for failure in record.failures(_LISTED)),
            frames=totals.frames,
            frames_now=run.frames,
            others=inputs.others.total(),
            gone=totals.gone,
            abandoned=run.abandoned,
            computed=header.computed,
            seconds=time.monotonic() - started,
            record=str(record.path),
        )


# --------------------------------------------------------------------------------------- checks


def _check_apart(archive: Path, out: Path) -> None:
    source, target = archive.resolve(), out.resolve()
    if source == target or source in target.parents or target in source.parents:
        raise InputError(
            f"the labels' folder {out} and the archive {archive} lie in one another; "
            "choose a folder beside the archive"
        )


def _check_header(record: Record, job: Job) -> None:
    header = record.header
    if header is None:
        return
    labels = f"{record.folder} holds labels of"
    if header.engine_sha256 != job.engine_sha256:
        raise InputError(
            f"{labels} the engine {header.engine!r} with SHA-256 {header.engine_sha256[:12]}…, "
            f"the engine now has {job.engine_sha256[:12]}…; choose another folder for its labels"
        )
    if header.archive != _archive_name(job.archive):
        raise InputError(
            f"{labels} the archive {header.archive}, not {job.archive}; choose another folder, or "
            "correct labels.json in it if this is the same archive under a new name"
        )


def _settle_stale(record: Record, *, redo: bool) -> None:
    """Forget what is to be labelled again, or refuse to mix it with the rest."""
    stale = list(islice(record.stale(), 4))
    if stale and not redo:
        named = ", ".join(map(printable, stale[:3])) + (", …" if len(stale) > 3 else "")
        raise InputError(
            f"inputs changed since they were labelled: {named}; label them again with redo "
            "(--redo), or choose another folder for the labels"
        )
    if stale:
        record.drop_stale()


# ------------------------------------------------------------------------------------- labelling


class _Run:
    """Labels what a plan holds, in rounds: what a dead worker left is the next round's.

    Attributes:
        frames: labels that were made.
        abandoned: chunks whose worker died.
    """

    def __init__(self, job: Job, record: Record, plan: Plan, on_progress: OnProgress) -> None:
        self.frames = 0
        self.abandoned = 0
        self._job = job
        self._record = record
        self._plan = plan
        self._on_progress = on_progress
        self._of = plan.pieces
        self._pieces = 0

    def label(self, workers: int | None) -> None:
        """Go on until every piece has its line. Ray is running.

        Raises:
            EngineError, InputError, OutputError: see `label_archive`.
        """
        workers = workers or room(self._job.threads, self._job.gpus)
        if self._record.header is None:
            self._record.write_header(self._ask_worker())
        self._on_progress(Progress(0, self._of, 0))
        died_at: Counter[Piece] = Counter()
        idle = 0
        for number in itertools.count(1):
            before = self._pieces
            self._share_out(workers)
            new, unfinished = self._record.take_journals()
            self._count(new)
            died_at.update(unfinished)
            for piece in unfinished:
                logger.warning("a worker died at %s, others do its work", printable(_name(piece)))
                if died_at[piece] == _DEATHS:
                    _discard_labels(self._job.out, piece)
                    self._count(self._record.add([_deadly(piece)]))
            left = (p for p in read_plan(self._plan.path) if not self._record.contains(p))
            self._plan = write_plan(_plan_path(self._record, self._job, number), left)
            if self._plan.pieces == 0:
                return
            idle = 0 if unfinished or self._pieces > before else idle + 1
            if idle == _DEATHS:
                raise EngineError(
                    "the workers die before they have labelled anything; look into Ray's logs on "
                    "their machines (/tmp/ray/session_latest/logs), there may be too little memory"
                )

    def _ask_worker(self) -> Header:
        """Let a worker say what labels are computed with."""
        import ray

        try:
            task = ray.remote(num_cpus=self._job.threads, num_gpus=self._job.gpus)(probe)
            loaded = ray.get(task.remote(self._job))
        except ray.exceptions.RayError as error:
            raise _failed(error) from error
        if not isinstance(loaded, Loaded):
            raise _error(*loaded)
        return Header(
            archive=_archive_name(self._job.archive),
            engine=loaded.engine,
            engine_sha256=self._job.engine_sha256,
            computed=loaded.computed,
            classes=loaded.classes,
        )

    def _share_out(self, workers: int) -> None:
        """Let the workers go once through the plan; chunks of those that die are left undone."""
        import ray

        header = self._record.header
        assert header is not None
        chunks = list(self._plan.chunks(workers))
        pool = ray.data.ActorPoolStrategy(
            size=min(workers, len(chunks)), max_tasks_in_flight_per_actor=2
        )
        with warnings.catch_warnings():
            # Deprecated, with nothing yet in its place: pyproject.toml names the versions.
            warnings.simplefilter("ignore")
            done = ray.data.from_items(chunks, override_num_blocks=len(chunks)).map_batches(
                Labeller,
                fn_constructor_args=(self._job, self._plan.path, header.computed),
                batch_size=1,
                compute=pool,
                num_cpus=self._job.threads,
                num_gpus=self._job.gpus,
                # Dead workers are started again, but nothing waits for that: Ray would keep their
                # chunks for them, for ever where nothing is left to start them on.
                ray_remote_args_fn=lambda: {"max_restarts": -1, "max_task_retries": 0},
            )
        done.context.max_errored_blocks = -1  # a chunk whose worker died
        done.context.enable_progress_bars = False
        done.context.print_on_execution_start = False
        returned = 0
        try:
            for batch in done.iter_batches(batch_size=None, prefetch_batches=0):
                columns = (batch[name].tolist() for name in ("journal", "error", "words"))
                for journal, error, words in zip(*columns, strict=True):
                    if error:
                        raise _error(error, words)
                    returned += 1
                    self._count(self._record.take_journal(self._record.work / journal)[0])
                    self._on_progress(Progress(self._pieces, self._of, self.frames))
        except ray.exceptions.RayError as error:
            raise _failed(error) from error
        self.abandoned += len(chunks) - returned

    def _count(self, lines: list[Line]) -> None:
        self._pieces += len(lines)
        self.frames += sum(line.frames for line in lines)


def _plan_path(record: Record, job: Job, number: int) -> Path:
    """A plan of this run alone: a worker of one that was killed may still be at its own."""
    return record.work / f"{job.token[:8]}-{number}.plan"


def _discard_labels(out: Path, piece: Piece) -> None:
    """Remove what workers made of a piece before they died: no line speaks of it."""
    for path in label_paths(out, piece):
        if not path.exists():
            return
        path.unlink()


def _deadly(piece: Piece) -> Line:
    """The line of a piece that killed its workers."""
    error = (
        f"{_DEATHS} workers died while they labelled {_name(piece)}: decoding it crashes, or it "
        "takes more memory than there is"
    )
    return of_piece(piece, frames=0, size=None, areas={}, error=error)


def _name(piece: Piece) -> str:
    if is_image(piece.input):
        return piece.input
    return f"{piece.input} from frame {piece.first_frame}"


def _error(kind: str, words: str) -> EdgesegError:
    """The error that a worker gave back."""
    error: EdgesegError = getattr(errors, kind)(words)
    return error


def _failed(error: Exception) -> EngineError:
    """The error for what Ray, or an environment without edgeseg, brings up."""
    last = str(error).strip().splitlines()[-1:] or [type(error).__name__]
    return EngineError(
        f"the workers cannot go on: {printable(last[0])}; what was labelled stays, start again "
        "when the cluster is well. Every machine needs the same edgeseg, Python and Ray"
    )


def _archive_name(path: Path) -> str:
    return os.fsencode(path).decode(errors="backslashreplace")
