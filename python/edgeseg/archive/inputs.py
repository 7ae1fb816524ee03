"""What an archive holds, and the pieces in which it is labelled."""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from edgeseg.errors import InputError
from edgeseg.files import reason
from edgeseg.images import IMAGE_SUFFIXES
from edgeseg.video import open_source

VIDEO_SUFFIXES = frozenset(
    {
        ".avi", ".h264", ".h265", ".m2ts", ".m4v", ".mjpeg", ".mjpg", ".mkv", ".mov", ".mp4",
        ".mpeg", ".mpg", ".mts", ".ts", ".webm", ".wmv",
    }
)  # fmt: skip
"""File names ending so, in any case, are taken for videos."""

SPAN = 256
"""Frames of a video that one worker labels at a time; the last of them takes the rest, too."""

_BYTES_PER_FRAME = 8  # no container spends less, whatever number of frames it declares


def is_image(name: str) -> bool:
    """Whether a file's name says that it is an image."""
    return os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES  # noqa: PTH122 - much faster


@dataclass(frozen=True)
class Input:
    """An image or video of the archive.

    Attributes:
        path: below the archive, with slashes.
        bytes: size of the file.
        mtime_ns: when it was last modified; with `bytes` it tells whether it changed.
        labels: below the output folder: the label PNG of an image, the folder of a video's.
    """

    path: str
    bytes: int
    mtime_ns: int
    labels: str


@dataclass(frozen=True)
class Piece:
    """What is labelled, and recorded, at a time: an image, or `SPAN` frames of a video.

    Attributes:
        input: path of the input below the archive.
        piece: 0, 1, … of its `pieces`; the last one of a video goes on to its end.
        pieces: how many the input has.
        first_frame: index of the first frame; 0 for images.
        bytes: as of the input.
        mtime_ns: as of the input.
        labels: as of the input.
    """

    input: str
    piece: int
    pieces: int
    first_frame: int
    bytes: int
    mtime_ns: int
    labels: str


def pieces(found: Input, number: int) -> Iterator[Piece]:
    """All pieces of an input that has so many of them."""
    for index in range(number):
        yield Piece(
            input=found.path,
            piece=index,
            pieces=number,
            first_frame=index * SPAN,
            bytes=found.bytes,
            mtime_ns=found.mtime_ns,
            labels=found.labels,
        )


def label_paths(out: Path, piece: Piece) -> Iterator[Path]:
    """Where the labels of a piece go, frame after frame; those of a video's last have no end."""
    if is_image(piece.input):
        yield out / piece.labels
        return
    last = piece.piece == piece.pieces - 1
    for frame in count() if last else range(SPAN):
        yield out / piece.labels / f"{piece.first_frame + frame:06d}.png"


def count_pieces(archive: Path, found: Input) -> int:
    """In how many pieces to label an input; opens a video to ask how long it says it is.

    A file that cannot be opened is one piece: the worker that comes to it says what is wrong.
    """
    if is_image(found.path):
        return 1
    try:
        with open_source(archive / found.path) as video:
            declared = video.length or 1
    except InputError:
        return 1
    return max(1, min(declared, found.bytes // _BYTES_PER_FRAME) // SPAN)


class Archive:
    """A tree of images and videos; iterate over it, folder by folder, as often as needed.

    Files and folders whose names begin with a dot are left alone, links are followed. Only the
    names of one folder, and of those above it, are in memory at a time.

    Attributes:
        root: the folder.
        others: how many files were passed over because their suffix is neither an image's nor a
            video's, by suffix; counted anew by each iteration.
    """

    def __init__(self, root: Path) -> None:
        """Take a folder.

        Raises:
            InputError: it is none.
        """
        if not root.is_dir():
            raise InputError(
                f"the archive {root} is no folder that can be seen here; name a folder of images "
                "and videos"
            )
        self.root = root
        self.others: Counter[str] = Counter()

    def __iter__(self) -> Iterator[Input]:
        """Give the inputs.

        Raises:
            InputError: a folder or file cannot be looked at.
        """
        self.others.clear()
        yield from self._folder("", ())

    def _folder(self, relative: str, above: tuple[tuple[int, int], ...]) -> Iterator[Input]:
        folder = self.root / relative
        try:
            status = folder.stat()
            names = sorted(path.name for path in folder.iterdir() if path.name[0] != ".")
        except OSError as error:
            raise InputError(
                f"the folder {folder} cannot be listed: {reason(error)}; check its permissions"
            ) from error
        identity = (status.st_dev, status.st_ino)
        if identity in above:  # a link to a folder that it lies in
            return
        images = [name for name in names if is_image(name)]
        whole_names = set(images)
        stems = Counter(Path(name).stem for name in images)
        for name in names:
            path = f"{relative}/{name}" if relative else name
            try:
                status = (self.root / path).stat()
            except FileNotFoundError:  # a link to nowhere, or deleted meanwhile
                self.others[Path(name).suffix.lower()] += 1
                continue
            except OSError as error:
                raise InputError(
                    f"{self.root / path} cannot be looked at: {reason(error)}; "
                    "check its permissions"
                ) from error
            if stat.S_ISDIR(status.st_mode):
                yield from self._folder(path, (*above, identity))
                continue
            suffix = Path(name).suffix.lower()
            if not stat.S_ISREG(status.st_mode) or suffix not in VIDEO_SUFFIXES | IMAGE_SUFFIXES:
                self.others[suffix] += 1
                continue
            labels = path
            if is_image(name):
                # 0001.jpg becomes 0001.png, as training expects it; where that would be another
                # one's label too, 0001.jpg.png.
                stem = Path(name).stem
                alone = stems[stem] == 1 and stem not in whole_names
                labels = str(Path(relative, f"{stem if alone else name}.png"))
            yield Input(path, status.st_size, status.st_mtime_ns, labels)
