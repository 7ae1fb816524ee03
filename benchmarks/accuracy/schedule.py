"""Who does which run, and when: any number of processes, none of them in charge.

A run is a folder. It is finished when its result file exists, and somebody's while that process
holds a lock on a file in it. The kernel gives a dead process's locks back, so a run that was
killed is free again at once and is resumed by whoever comes next.
"""

from __future__ import annotations

import fcntl
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from edgeseg.errors import EdgesegError

RESULT = "result.json"
_CLAIM = "claim"


@dataclass(frozen=True)
class Job:
    """One run, as the schedule sees it.

    Attributes:
        name: For messages; distinct.
        folder: Where it leaves what it makes, the result last.
        parent: Folder of the run that must be finished before; None if it needs none.
    """

    name: str
    folder: Path
    parent: Path | None = None

    @property
    def finished(self) -> bool:
        """Whether there is a result."""
        return (self.folder / RESULT).exists()


def work_through(
    jobs: Sequence[Job], execute: Callable[[Job], None], *, poll_seconds: float = 5.0
) -> Mapping[str, str]:
    """Do the jobs, together with whoever else is at them, until all that can be done are.

    A job is taken as early in the list as possible. One that fails is left to others, as are
    those that build on it.

    Args:
        jobs: In order of preference.
        execute: Does one job and leaves its result; called while the job is claimed.
        poll_seconds: How often to look whether others have finished what this process waits for.

    Returns:
        Name of each job that cannot be done, with the reason. Errors that edgeseg did not raise
        on purpose pass through.
    """
    failures: dict[Path, str] = {}
    while True:
        for job in jobs:
            if job.parent in failures:
                failures.setdefault(job.folder, "the run that it starts from failed")
        remaining = [job for job in jobs if not job.finished and job.folder not in failures]
        if not remaining:
            return {job.name: failures[job.folder] for job in jobs if job.folder in failures}
        for job in remaining:
            if job.parent is not None and not (job.parent / RESULT).exists():
                continue
            with claimed(job.folder) as mine:
                # Another process may have finished it between the two looks.
                if not mine or job.finished:
                    continue
                try:
                    execute(job)
                except EdgesegError as error:
                    failures[job.folder] = str(error)
            break
        else:
            time.sleep(poll_seconds)


@contextmanager
def claimed(folder: Path) -> Iterator[bool]:
    """Claim a run for this process; False if another one holds it."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / _CLAIM).open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True  # closing the file gives the lock back
