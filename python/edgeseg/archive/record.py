"""The record of an archive's labels: which input was labelled by which engine, exactly once.

A folder of labels holds

- `labels.json`: the archive, the engine and its SHA-256, and what it was computed in,
- `labels.jsonl`: a line per image and per `SPAN` frames of a video, in the order of completion,
- the label PNGs, in folders as the archive has them,
- while a run goes on, and after one that was killed, `.work`: the plan, and journals of the
  workers, which the next run takes into the record.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import sqlite3
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, BinaryIO

from pydantic import BaseModel, ConfigDict, ValidationError

from edgeseg.archive.inputs import Input, Piece
from edgeseg.errors import InputError, OutputError, printable
from edgeseg.files import cannot_write, make_folder, replacing, write_atomically

WORK = ".work"
_FORMAT = 1
_LOCK_S = 1.0  # a process that this one starts holds its locks, too, until it is another program
_TEMPORARY = re.compile(r"\.[^/]{1,40}-[0-9a-f]{8}\.png")  # of edgeseg.files.replacing


@dataclass(frozen=True)
class Line(Piece):
    """A piece, and what became of it.

    Attributes:
        frames: how many labels were written.
        size: (height, width) of the labels; None where there are none.
        areas: mean fraction of the pixels per class.
        error: why the piece, or what follows of it, could not be labelled; None if it was.
    """

    frames: int
    size: tuple[int, int] | None
    areas: dict[str, float]
    error: str | None


def to_json(line: Line) -> str:
    """One line of JSON in ASCII, file names that are no UTF-8 included."""
    return json.dumps(asdict(line)) + "\n"


def from_json(values: dict[str, Any]) -> Line:
    """The line that JSON holds.

    Raises:
        TypeError: its fields are others.
    """
    line = Line(**values)
    if line.size is not None:  # a list in JSON
        height, width = line.size
        line = replace(line, size=(height, width))
    return line


def of_piece(piece: Piece, **outcome: Any) -> Line:
    """The line for a piece."""
    return Line(**{field.name: getattr(piece, field.name) for field in fields(Piece)}, **outcome)


class Header(BaseModel):
    """`labels.json`: what all labels of a folder have in common.

    Attributes:
        format: version of this layout.
        archive: absolute path of the archive; bytes that are no UTF-8 are escaped.
        engine: name of the engine.
        engine_sha256: of its file.
        computed: target, backend and number format that computed the labels.
        classes: a label is an index into them.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: int = _FORMAT
    archive: str
    engine: str
    engine_sha256: str
    computed: str
    classes: tuple[str, ...]


@dataclass(frozen=True)
class State:
    """What was recorded of an input.

    Attributes:
        pieces: how many it was cut into.
        missing: those that have no line.
        stale: whether all of them have to be labelled again.
    """

    pieces: int
    missing: frozenset[int]
    stale: bool


@dataclass(frozen=True)
class Totals:
    """What a record holds.

    Attributes:
        inputs: recorded, and in the archive.
        failed: those of them with an error.
        frames: labels that were written of them.
        gone: recorded, but no longer in the archive.
    """

    inputs: int
    failed: int
    frames: int
    gone: int


class Record:
    """A folder of labels, opened by the one run that writes it; a context manager.

    What is done already is looked up in a temporary database on the disk, not in memory.
    """

    def __init__(self, folder: Path) -> None:
        """Open a folder, or make it.

        Raises:
            InputError: another run writes into it, or it holds something else.
            OutputError: it cannot be written.
        """
        make_folder(folder)
        self.folder = folder
        self.path = folder / "labels.jsonl"
        self.work = folder / WORK
        try:
            self._file = self.path.open("r+b" if self.path.exists() else "w+b")
        except OSError as error:
            raise cannot_write(self.path, error) from error
        if not (_lock(self._file) and _is_at(self._file, self.path)):
            self._file.close()
            raise InputError(f"another run writes into {folder}; wait for it, or stop it")
        self.header = self._read_header()
        self._index = sqlite3.connect("")  # on the disk, gone when it is closed
        self._index.executescript(
            "pragma synchronous = off;"
            "create table line (input blob, piece int, pieces int, bytes int, mtime_ns int,"
            " labels blob, frames int, error text, primary key (input, piece)) without rowid;"
            "create table seen (input blob primary key) without rowid;"
            "create table stale (input blob primary key, labels blob) without rowid;"
            "create table label (labels blob primary key, input blob) without rowid;"
        )
        try:
            self._load()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Record:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the folder."""
        self._index.close()
        with suppress(OSError):  # of what `add` could not write, and told
            self._file.close()

    # ------------------------------------------------------------------------------ the files

    def _read_header(self) -> Header | None:
        path = self.folder / "labels.json"
        try:
            return Header.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValidationError) as error:
            raise InputError(
                f"{path} is no description of labels that this edgeseg knows; choose another "
                "folder for the labels"
            ) from error

    def write_header(self, header: Header) -> None:
        """Say what the labels have in common, once.

        Raises:
            OutputError: it cannot be written.
        """
        text = header.model_dump_json(indent=1) + "\n"
        write_atomically(self.folder / "labels.json", [text.encode()])
        self.header = header

    def _load(self) -> None:
        whole = 0
        for number, text in enumerate(self._file, 1):
            if not text.endswith(b"\n"):  # the writer was killed
                break
            self._insert(_parse(self.path, number, text))
            whole += len(text)
        self._file.truncate(whole)
        self._file.seek(whole)

    def add(self, lines: Iterable[Line]) -> list[Line]:
        """Append lines, on the disk when this returns; those that are there already are left out.

        Returns:
            The new ones.

        Raises:
            OutputError: the disk does not take them; the next run drops what is cut off.
        """
        new = [line for line in lines if self._insert(line)]
        try:
            self._file.write("".join(map(to_json, new)).encode())
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            raise OutputError(
                f"cannot write {self.path}: {error.strerror}; free space and start again, what "
                "was recorded until now stays"
            ) from error
        return new

    def _insert(self, line: Line) -> bool:
        values = (os.fsencode(line.input), line.piece, line.pieces, line.bytes, line.mtime_ns)
        outcome = (os.fsencode(line.labels), line.frames, line.error)
        done = self._index.execute(
            "insert or ignore into line values (?, ?, ?, ?, ?, ?, ?, ?)", values + outcome
        )
        self._index.execute(
            "insert or ignore into label values (?, ?)", (os.fsencode(line.labels), values[0])
        )
        return done.rowcount == 1

    # --------------------------------------------------------------------------- what is done

    def contains(self, piece: Piece) -> bool:
        """Whether the piece has its line."""
        key = (os.fsencode(piece.input), piece.piece)
        found = self._index.execute("select 1 from line where input = ? and piece = ?", key)
        return found.fetchone() is not None

    def state(self, found: Input, *, redo: bool) -> State | None:
        """What was recorded of an input; None of a new one.

        It is stale if it is not what was recorded, and with `redo` if it failed.

        Raises:
            InputError: its label would take the place of another input's.
        """
        key, labels = os.fsencode(found.path), os.fsencode(found.labels)
        self._index.execute("insert or ignore into seen values (?)", (key,))
        rows = self._index.execute(
            "select piece, pieces, bytes, mtime_ns, labels, error from line where input = ?", (key,)
        ).fetchall()
        if not rows:
            owner = self._index.execute("select input from label where labels = ?", (labels,))
            if (taken := owner.fetchone()) is not None and taken[0] != key:
                raise InputError(
                    f"the label of {printable(found.path)} would be {printable(found.labels)}, "
                    f"which is that of {printable(os.fsdecode(taken[0]))}; rename one of them"
                )
            return None
        changed = any(row[2:4] != (found.bytes, found.mtime_ns) for row in rows)
        stale = changed or (redo and any(row[5] is not None for row in rows))
        if stale:
            self._index.execute("insert or ignore into stale values (?, ?)", (key, rows[0][4]))
        pieces = rows[0][1]
        return State(pieces, frozenset(range(pieces)) - {row[0] for row in rows}, stale)

    def stale(self) -> Iterator[str]:
        """Inputs that `missing` found to be stale."""
        for (path,) in self._index.execute("select input from stale order by input"):
            yield os.fsdecode(path)

    def drop_stale(self) -> None:
        """Take the stale inputs' lines out of the record, and remove their labels.

        Raises:
            OutputError: a file cannot be written or removed.
        """
        self._index.execute("delete from line where input in (select input from stale)")
        with replacing(self.path) as temporary:
            with temporary.open("wb") as file:
                self._file.seek(0)
                for number, text in enumerate(self._file, 1):
                    if self.contains(_parse(self.path, number, text)):
                        file.write(text)
                file.flush()
                os.fsync(file.fileno())
            replacement = temporary.open("r+b")
            _lock(replacement)
        self._file.close()
        self._file = replacement
        self._file.seek(0, os.SEEK_END)
        for (labels,) in self._index.execute("select labels from stale"):
            _remove(self.folder / os.fsdecode(labels))
        self._index.execute("delete from stale")

    def totals(self) -> Totals:
        """Counts over those inputs that `state` was asked about, and the others."""
        known = "from line where input in (select input from seen)"
        (inputs, failed, frames, gone) = self._index.execute(
            f"select (select count(distinct input) {known}),"
            f" (select count(distinct input) {known} and error is not null),"
            f" (select coalesce(sum(frames), 0) {known}),"
            " (select count(distinct input) from line where input not in (select input from seen))"
        ).fetchone()
        return Totals(inputs, failed, frames, gone)

    def failures(self, limit: int) -> list[tuple[str, str]]:
        """Inputs with an error, and the error of each; the first `limit` by name."""
        rows = self._index.execute(
            "select input, error, min(piece) from line"
            " where error is not null and input in (select input from seen)"
            " group by input order by input limit ?",
            (limit,),
        )
        return [(os.fsdecode(path), error) for path, error, _ in rows]

    # ------------------------------------------------------------------------------ journals

    def take_journals(self) -> tuple[list[Line], list[Piece]]:
        """Take all journals into the record.

        Returns:
            The new lines, and the pieces that workers were at when they ended.
        """
        new, left = [], []
        for journal in sorted(self.work.glob("*.journal")):
            lines, unfinished = self.take_journal(journal)
            new += lines
            if unfinished is not None:
                left.append(unfinished)
        return new, left

    def take_journal(self, journal: Path) -> tuple[list[Line], Piece | None]:
        """Take what a worker left in its journal into the record, and remove the journal.

        Returns:
            The new lines, and the piece that was begun and not done.
        """
        begun: Piece | None = None
        lines = []
        for text in journal.read_bytes().splitlines(keepends=True):
            if not text.endswith(b"\n"):  # the worker was killed
                break
            entry = json.loads(text)
            if "begin" in entry:
                begun = Piece(**entry["begin"])
            else:
                lines.append(from_json(entry["done"]))
                begun = None
        new = self.add(lines)
        journal.unlink()
        return new, begun

    def clean(self) -> None:
        """Remove the work folder, and the temporary files of workers that were killed."""
        shutil.rmtree(self.work, ignore_errors=True)
        for folder, _, names in os.walk(self.folder):
            for name in names:
                if name.startswith(".") and _TEMPORARY.fullmatch(name):
                    Path(folder, name).unlink(missing_ok=True)


def _lock(file: BinaryIO) -> bool:
    """Whether this process now is the only one to write the file."""
    patience = time.monotonic() + _LOCK_S
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > patience:
                return False
            time.sleep(0.05)
        except OSError:  # a file system without locks: the caller's word has to do
            return True
        else:
            return True


def _is_at(file: BinaryIO, path: Path) -> bool:
    """Whether a path still leads to an open file: `drop_stale` may have put another one there."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _parse(path: Path, number: int, text: bytes) -> Line:
    try:
        return from_json(json.loads(text))
    except (ValueError, TypeError) as error:
        raise InputError(
            f"line {number} of {path} is damaged; repair or remove it, its input is then labelled "
            "again"
        ) from error


def _remove(labels: Path) -> None:
    """Remove a label, or a folder of them."""
    try:
        if labels.is_dir():
            for label in labels.glob("*.png"):
                label.unlink()
        else:
            labels.unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(
            f"cannot remove the old label {labels}: {error.strerror}; check its permissions"
        ) from error
