"""What is to be done, on the disk: a plan may hold more pieces than fit into memory."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from edgeseg.archive.inputs import SPAN, Archive, Piece, count_pieces, is_image, pieces
from edgeseg.archive.record import Record
from edgeseg.errors import InputError
from edgeseg.files import cannot_write

_CHUNK = SPAN  # frames that a worker gets at a time, at most
_CHUNKS_PER_WORKER = 8  # at least, so that none waits long for the last one


@dataclass(frozen=True)
class Plan:
    """Pieces to be labelled, one a line of a file.

    Attributes:
        path: the file.
        pieces: how many.
        frames: about how many those are.
    """

    path: Path
    pieces: int
    frames: int

    def chunks(self, workers: int) -> Iterator[dict[str, int]]:
        """Cut it into what a worker gets at a time: places in the file."""
        least = max(1, min(_CHUNK, self.frames // (_CHUNKS_PER_WORKER * workers)))
        chunk = offset = count = frames = position = 0
        with self.path.open("rb") as file:
            for text in file:
                position += len(text)
                count += 1
                frames += _frames(Piece(**json.loads(text)))
                if frames >= least:
                    yield {"chunk": chunk, "offset": offset, "count": count}
                    chunk, offset, count, frames = chunk + 1, position, 0, 0
        if count:
            yield {"chunk": chunk, "offset": offset, "count": count}


def _frames(piece: Piece) -> int:
    return 1 if is_image(piece.input) else SPAN


def write_plan(path: Path, to_do: Iterable[Piece]) -> Plan:
    """Write pieces to a plan's file.

    Raises:
        OutputError: the disk does not take them.
    """
    count = frames = 0
    try:
        with path.open("w") as file:
            for piece in to_do:
                file.write(json.dumps(asdict(piece)) + "\n")
                count += 1
                frames += _frames(piece)
    except OSError as error:
        raise cannot_write(path, error) from error
    return Plan(path, count, frames)


def missing_pieces(archive: Archive, record: Record, *, redo: bool) -> Iterator[Piece]:
    """Pieces without a line in the record.

    Raises:
        InputError: the archive holds no input, or cannot be read.
    """
    inputs = 0
    for item in archive:
        inputs += 1
        state = record.state(item, redo=redo)
        if state is None or (state.stale and redo):
            yield from pieces(item, count_pieces(archive.root, item))
        elif not state.stale and state.missing:
            for piece in pieces(item, state.pieces):
                if piece.piece in state.missing:
                    yield piece
    if inputs == 0:
        raise InputError(
            f"the archive {archive.root} holds no image and no video "
            f"({archive.others.total()} other files); check the path"
        )


def read_plan(path: Path, offset: int = 0, count: int | None = None) -> Iterator[Piece]:
    """Pieces of a plan: `count` of them, or all, from a place in the file."""
    with path.open("rb") as file:
        file.seek(offset)
        for number, text in enumerate(file):
            if number == count:
                return
            yield Piece(**json.loads(text))
