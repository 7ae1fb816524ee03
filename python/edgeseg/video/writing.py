"""Frames into MP4 files."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from edgeseg.arguments import check_number
from edgeseg.errors import InputError, OutputError
from edgeseg.files import cannot_write, replacing


class VideoWriter:
    """Takes frames for an MP4 file; made by `write_video`."""

    def __init__(self, target: Path, temporary: Path, fps: float) -> None:
        self._target = target
        self._temporary = temporary
        self._fps = fps
        self._encoder: cv2.VideoWriter | None = None
        self._shape: tuple[int, ...] = ()
        self._written = 0

    def write(self, frame: NDArray[np.uint8]) -> None:
        """Add a frame.

        Args:
            frame: H×W×3 uint8 BGR, every one of the first one's size. MPEG-4 stores even sizes
                only: of an odd one the last row or column is stored twice.

        Raises:
            InputError: the frame is no such array.
            OutputError: the encoder or the disk refuses it.
        """
        if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3 or frame.size == 0:
            raise InputError(
                f"the frame is {frame.dtype} of shape {frame.shape}, H×W×3 uint8 BGR was expected"
            )
        if self._encoder is None:
            self._encoder = self._open(frame)
            self._shape = frame.shape
        if frame.shape != self._shape:
            raise InputError(
                f"frame {self._written} has shape {frame.shape}, those before it {self._shape}; "
                "resize it, a video has one size"
            )
        height, width, _ = frame.shape
        if height % 2 or width % 2:
            frame = cv2.copyMakeBorder(
                frame, 0, height % 2, 0, width % 2, cv2.BORDER_REPLICATE
            ).astype(np.uint8, copy=False)
        # OpenCV 5 tells; OpenCV 4 gives None, and `finish` finds out.
        if self._encoder.write(frame) is False:
            raise self._failed(f"frame {self._written} was not taken")
        self._written += 1

    def release(self) -> None:
        """Close the encoder, which writes the file's index."""
        if self._encoder is not None:
            self._encoder.release()

    def finish(self) -> None:
        """Prove that everything is on the disk: OpenCV does not report a failed write.

        The index comes last in the file and counts the frames, so one that can be read back and
        counts right was preceded by all of them.

        Raises:
            OutputError: no frame was given, or the file does not hold all of them.
        """
        self.release()
        if self._written == 0:
            raise OutputError(f"cannot write {self._target}: no frame was given to it")
        try:
            with self._temporary.open("rb") as file:
                os.fsync(file.fileno())
        except OSError as error:
            raise cannot_write(self._target, error) from error
        capture = cv2.VideoCapture(str(self._temporary.resolve()))
        stored = int(capture.get(cv2.CAP_PROP_FRAME_COUNT)) if capture.isOpened() else 0
        capture.release()
        if stored != self._written:
            raise self._failed(f"{stored:,} of {self._written:,} frames are in it")

    def _open(self, frame: NDArray[np.uint8]) -> cv2.VideoWriter:
        height, width = (extent + extent % 2 for extent in frame.shape[:2])
        # mp4v: the one MP4 codec that every opencv-python wheel can encode.
        codec = cv2.VideoWriter.fourcc(*"mp4v")
        encoder = cv2.VideoWriter(str(self._temporary), codec, self._fps, (width, height))
        if not encoder.isOpened():
            raise OutputError(
                f"cannot write {self._target}: the MPEG-4 encoder refuses {width}×{height} at "
                f"{self._fps:g} frames a second; it takes up to 8190×8190, resize the frames"
            )
        return encoder

    def _failed(self, found: str) -> OutputError:
        return OutputError(
            f"cannot write {self._target}: {found}, the disk is probably full; "
            "nothing was left behind, free space or choose another place"
        )


@contextmanager
def write_video(path: str | os.PathLike[str], fps: float) -> Iterator[VideoWriter]:
    """Write an MP4 file, which appears when the block ends well and not otherwise.

    Args:
        path: ends in .mp4; a file that was there before is replaced.
        fps: frames per second, 0.001 to 65,535.

    Raises:
        InputError: `fps` is out of range.
        OutputError: the file cannot be written. With OpenCV 4 a full disk is noticed at the end.
    """
    check_number("fps", fps, 0.001, 65_535)
    target = Path(path)
    if target.suffix.lower() != ".mp4":
        raise OutputError(f"cannot write {target}: only MP4 can be written; end the name in .mp4")
    with replacing(target) as temporary:
        writer = VideoWriter(target, temporary, fps)
        try:
            yield writer
        finally:
            writer.release()
        writer.finish()
