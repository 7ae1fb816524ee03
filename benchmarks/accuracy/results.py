"""What a run leaves behind: one small JSON file, whole or not there."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from benchmarks.accuracy.schedule import RESULT

from edgeseg.errors import InputError
from edgeseg.evaluate import Scores
from edgeseg.files import write_atomically


@dataclass(frozen=True)
class Result:
    """One finished run.

    Attributes:
        arm: Name of its arm.
        seed: Pairs it with the other arms' runs.
        config: The recipe's fields.
        text: Where its text embeddings come from; None for the baseline.
        start: What the weights started from: the parent arm, or the SHA-256 of ``--init``'s file;
            None for random weights.
        best_iteration: After how many iterations the best checkpoint was written.
        classes: K class names.
        categories: For each class its coarser group; empty where the set knows none.
        last: K×K confusion matrix of the last weights on the validation images; rows are labels.
        best: The same of the best checkpoint, chosen on those very images.
        seconds: Wall-clock time of the process that finished the run.
        resumed: Whether it had been begun by another process before.
        provenance: Machine, versions, and what the command line changed in the budget.
    """

    arm: str
    seed: int
    config: Mapping[str, Any]
    text: str | None
    start: str | None
    best_iteration: int
    classes: Sequence[str]
    categories: Sequence[str]
    last: Sequence[Sequence[int]]
    best: Sequence[Sequence[int]]
    seconds: float
    resumed: bool
    provenance: Mapping[str, Any]

    def scores(self, which: str) -> Scores:
        """Scores of the ``"last"`` or the ``"best"`` weights."""
        confusion = np.array(getattr(self, which), np.int64)
        return Scores(tuple(self.classes), confusion, tuple(self.categories))


def save_result(folder: Path, result: Result) -> None:
    """Write a run's result; from then on the run is finished."""
    write_atomically(folder / RESULT, [json.dumps(asdict(result)).encode() + b"\n"])


def load_result(folder: Path) -> Result:
    """Read a run's result.

    Raises:
        InputError: The file is damaged or of another version.
    """
    path = folder / RESULT
    try:
        return Result(**json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise InputError(
            f"{path} is no result of this version: {error}; remove it to repeat the run"
        ) from error


def load_results(folder: Path) -> tuple[Result, ...]:
    """All finished runs of one budget, whatever is missing.

    Raises:
        InputError: There is none, or a file is damaged.
    """
    found = sorted(folder.glob(f"*/seed-*/{RESULT}"))
    if not found:
        raise InputError(
            f"{folder} holds no finished run; `python -m benchmarks.accuracy run` makes them"
        )
    return tuple(load_result(path.parent) for path in found)
