"""Frames that lie somewhere: images, folders of them, videos of a known length."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import isfinite
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from edgeseg.errors import InputError
from edgeseg.images import read_image
from edgeseg.mp4 import picture_seconds


@dataclass(frozen=True, eq=False)
class SourceFrame:
    """One frame of a source.

    Attributes:
        pixels: H×W×3 uint8 BGR.
        name: an image's file name; for video the source's name and the frame's index.
        index: 0, 1, 2, …
        time_s: seconds since the first frame; None for images.
    """

    pixels: NDArray[np.uint8]
    name: str
    index: int
    time_s: float | None


class ImageSource:
    """Image files, in natural order; each is opened only while it is read.

    Attributes:
        name: the file or folder.
        paths: the images.
        skipped: how many other things the folder holds.
        length: number of images.
        fps: None.
        size: None; every image has its own.
    """

    fps: None = None
    size: None = None

    def __init__(self, name: str, paths: list[Path], skipped: int = 0) -> None:
        self.name = name
        self.paths = paths
        self.skipped = skipped
        self.length = len(paths)

    def __enter__(self) -> ImageSource:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing is open."""

    def stop(self) -> None:
        """Nothing to do: an image never makes anybody wait."""

    def __iter__(self) -> Iterator[SourceFrame]:
        """Give the images.

        Raises:
            InputError: one of them cannot be read; those before it have been given.
        """
        for index, path in enumerate(self.paths):
            yield SourceFrame(read_image(path), path.name, index, None)


class VideoSource:
    """An open video, a file or behind a URL; iterate over it once.

    Attributes:
        name: the file, or the URL without its secrets.
        length: how many frames the container declares (an estimate in Matroska, WebM and
            transport streams); None where it declares nothing.
        fps: frames per second; None if unknown.
        size: (height, width) of the first frame.
    """

    def __init__(self, capture: cv2.VideoCapture, name: str, *, file: Path | None = None) -> None:
        """Take over an open capture.

        Args:
            capture: released by `close`, and here if there is no frame.
            name: what messages call it.
            file: where it is read from, if that is a file.

        Raises:
            InputError: not one frame can be had.
        """
        self.name = name
        self._capture = capture
        self._file = file
        count, fps = capture.get(cv2.CAP_PROP_FRAME_COUNT), capture.get(cv2.CAP_PROP_FPS)
        # Unknown is 0, negative or enormous, as the backend likes.
        self.length = int(count) if 0 < count < 2**31 else None
        self.fps = fps if isfinite(fps) and fps > 0 else None
        self._first = self._read()
        if self._first is None:
            codec = fourcc(capture)
            self.close()
            if file is None:
                raise InputError(f"{name} opens, but delivers no frame; try it in another program")
            raise InputError(
                f"{name} opens, but not one frame of it can be decoded (codec {codec!r}): it holds "
                "none, or this OpenCV lacks the decoder; re-encode it, for instance "
                "ffmpeg -i IN -c:v libx264 OUT.mp4"
            )
        height, width, _ = self._first.shape
        self.size = (height, width)

    def __enter__(self) -> VideoSource:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the file."""
        self._capture.release()

    def stop(self) -> None:
        """Nothing to do: a frame comes at once, or within the time that OpenCV was given."""

    def __iter__(self) -> Iterator[SourceFrame]:
        """Give frames as they are decoded.

        MPEG transport and program streams declare no length: one that is cut off looks whole.

        Raises:
            InputError: it ends before its container says; the frames that could be decoded have
                been given.
        """
        pixels, self._first = self._first, None
        index, time_s = 0, 0.0
        while pixels is not None:
            yield SourceFrame(pixels, f"{self.name} #{index}", index, time_s)
            pixels = self._read()
            if pixels is None:
                self._check_end(index + 1, time_s)
                return
            index += 1
            time_s = self._capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
            if time_s <= 0 and self.fps:  # raw streams carry no time
                time_s = index / self.fps

    def _read(self) -> NDArray[np.uint8] | None:
        done, pixels = self._capture.read()
        return pixels.astype(np.uint8, copy=False) if done else None

    def _check_end(self, delivered: int, last_s: float) -> None:
        """Tell a video that is over from one that breaks off."""
        if self.length is None or self.fps is None:
            return
        declared_s = self.length / self.fps
        shown_s = picture_seconds(self._file) if self._file else None
        if shown_s is not None:
            declared_s = min(declared_s, shown_s)
        # MP4 and AVI store a table of frames. Elsewhere the count is duration × rate, where the
        # duration is that of the longest track: sound often goes on for a moment.
        counted = shown_s is not None or (self._file and self._file.suffix.lower() == ".avi")
        slack_s = 2 / self.fps if counted else max(2 / self.fps, 0.5)
        # Either will do: with a variable rate the estimated count is wrong, the time is not.
        enough_frames = delivered >= self.length - slack_s * self.fps
        reached_end = last_s + 1 / self.fps >= declared_s - slack_s
        if not (enough_frames or reached_end):
            raise InputError(
                f"{self.name} ends early: {delivered:,} of {round(declared_s * self.fps):,} frames "
                "could be decoded; the file is cut off or damaged, copy or record it again"
            )


def fourcc(capture: cv2.VideoCapture) -> str:
    """Four letters that name the codec."""
    code = int(capture.get(cv2.CAP_PROP_FOURCC)) & 0xFFFFFFFF
    return code.to_bytes(4, "little").decode("ascii", "replace")
