"""Frames from files, folders, cameras and streams; frames into MP4 files."""

from __future__ import annotations

import os
import re
import stat
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import TypeAlias, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from edgeseg.arguments import check_integer, check_number
from edgeseg.errors import InputError, OutputError
from edgeseg.files import cannot_write, reason, replacing
from edgeseg.images import IMAGE_SUFFIXES, read_image
from edgeseg.mp4 import picture_seconds

T = TypeVar("T")


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

    def __iter__(self) -> Iterator[SourceFrame]:
        """Give the images.

        Raises:
            InputError: one of them cannot be read; those before it have been given.
        """
        for index, path in enumerate(self.paths):
            yield SourceFrame(read_image(path), path.name, index, None)


class VideoSource:
    """An open video file, camera or stream; iterate over it once.

    Attributes:
        name: the file, URL or camera.
        length: how many frames the container declares (an estimate in Matroska, WebM and
            transport streams); None where it declares nothing.
        fps: frames per second; None if unknown.
        size: (height, width) of the first frame.
    """

    def __init__(self, capture: cv2.VideoCapture, name: str, *, file: Path | None = None) -> None:
        """Take over an opened capture.

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
        self._live = file is None and self.length is None
        self._first = self._read()
        if self._first is None:
            codec = _fourcc(capture)
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
        """Let go of the file or device."""
        self._capture.release()

    def __iter__(self) -> Iterator[SourceFrame]:
        """Give frames as they are decoded.

        MPEG transport and program streams declare no length: one that is cut off looks whole.

        Raises:
            InputError: a file ends before its container says, or a camera or live stream stops;
                the frames that could be decoded have been given.
        """
        started = time.monotonic()
        pixels, self._first = self._first, None
        index, time_s = 0, 0.0
        while pixels is not None:
            yield SourceFrame(pixels, f"{self.name} #{index}", index, time_s)
            pixels = self._read()
            if pixels is None:
                self._check_end(index + 1, time_s)
                return
            index += 1
            if self._live:
                time_s = time.monotonic() - started
            else:
                time_s = self._capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
                if time_s <= 0 and self.fps:  # raw streams carry no time
                    time_s = index / self.fps

    def _read(self) -> NDArray[np.uint8] | None:
        done, pixels = self._capture.read()
        return pixels.astype(np.uint8, copy=False) if done else None

    def _check_end(self, delivered: int, last_s: float) -> None:
        """Tell a video that is over from one that breaks off."""
        if self._live:
            raise InputError(
                f"{self.name} stopped after {delivered:,} frames; check its connection"
            )
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


Source: TypeAlias = ImageSource | VideoSource


def open_source(source: str | os.PathLike[str] | int) -> Source:
    """Open whatever gives frames.

    Args:
        source: an image file, a folder of images (others are skipped, folders in it not entered), a
            video file, a camera's index or device file, or a URL that FFmpeg knows (rtsp, http, …).

    Returns:
        A context manager to iterate over, with `name`, `length`, `fps` and `size`.

    Raises:
        InputError: it does not exist, cannot be read, or holds no frame; while iterating, see
            `ImageSource` and `VideoSource`.
    """
    if isinstance(source, int) and not isinstance(source, bool):
        return _open_camera(source)
    if not isinstance(source, (str, os.PathLike)):
        raise InputError(
            f"the source is a {type(source).__name__}; give a path, a URL or a camera's index"
        )
    text = os.fspath(source)
    if not text:  # for a path that would be the current folder
        raise InputError("the source is an empty text; give a path, a URL or a camera's index")
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", text):
        return _open_url(text)
    path = Path(text)
    try:
        mode = path.stat().st_mode
    except FileNotFoundError as error:
        raise InputError(f"the source {path} does not exist; check the path") from error
    except (OSError, ValueError) as error:  # ValueError: a null character in the name
        raise InputError(
            f"the source {path} cannot be read: {reason(error)}; check the path and its permissions"
        ) from error
    if stat.S_ISCHR(mode):
        return _open_camera(text)
    if stat.S_ISDIR(mode):
        return _open_folder(path)
    if path.suffix.lower() in IMAGE_SUFFIXES:
        return ImageSource(path.name, [path])
    return _open_video_file(path)


def _open_camera(camera: int | str) -> VideoSource:
    if isinstance(camera, int):  # OpenCV crashes on some others
        check_integer("the camera's index", camera, 0, 2**31 - 1)
    capture = cv2.VideoCapture(camera)
    if not capture.isOpened():
        raise InputError(
            f"camera {camera} cannot be opened; check that it is plugged in, that no other program "
            "holds it, and that you may read it (on Linux: ls -l /dev/video*)"
        )
    return VideoSource(capture, f"camera {camera}")


def _open_url(url: str) -> VideoSource:
    name = re.sub(r"//[^/@]*@", "//", url)  # messages and logs are no place for its password
    capture = cv2.VideoCapture(url)
    if not capture.isOpened():
        raise InputError(
            f"{name} cannot be opened; check that it can be reached, and that ffplay can play it"
        )
    return VideoSource(capture, name)


def _open_folder(folder: Path) -> ImageSource:
    try:
        entries = list(folder.iterdir())
    except OSError as error:
        raise InputError(
            f"the folder {folder} cannot be listed: {error.strerror}; check its permissions"
        ) from error
    # A leading dot: what desktop systems leave behind, such as ._0001.jpg, which is no image.
    images = [
        entry
        for entry in entries
        if entry.suffix.lower() in IMAGE_SUFFIXES and not entry.name.startswith(".")
    ]
    if not images:
        raise InputError(
            f"the folder {folder} holds no image ({len(entries)} other files); "
            f"known are {' '.join(sorted(IMAGE_SUFFIXES))}, and folders inside it are not entered"
        )
    images.sort(key=_natural_order)
    return ImageSource(folder.name, images, skipped=len(entries) - len(images))


def _natural_order(path: Path) -> tuple[list[tuple[bool, int, str]], str]:
    """Sort key that puts frame2 before frame10, and numbers before letters."""
    numbers_and_texts = re.findall(r"([0-9]+)|([^0-9]+)", path.name.casefold())
    key = [(bool(text), int(number or 0), text) for number, text in numbers_and_texts]
    return key, path.name


def _open_video_file(path: Path) -> VideoSource:
    try:
        with path.open("rb") as file:
            empty = not file.read(1)
    except OSError as error:
        raise InputError(
            f"the video {path} cannot be read: {error.strerror}; check its permissions"
        ) from error
    if empty:
        raise InputError(f"the video {path} is empty (0 bytes); copy or record it again")
    # Absolute: FFmpeg would read the start of 10:30.mp4 as a protocol.
    capture = cv2.VideoCapture(os.path.abspath(path))  # noqa: PTH100 - resolve() follows links
    if not capture.isOpened():
        raise InputError(
            f"{path} cannot be opened as a video: it is none, OpenCV does not know its format, or "
            "it was cut off before its index (an MP4 whose recording was interrupted); "
            "check it with ffprobe"
        )
    if _fourcc(capture) == "ansi":  # FFmpeg renders text as a terminal would show it
        capture.release()
        raise InputError(f"{path} is a text file, a video or image was expected; check the path")
    return VideoSource(capture, path.name, file=path)


def _fourcc(capture: cv2.VideoCapture) -> str:
    code = int(capture.get(cv2.CAP_PROP_FOURCC)) & 0xFFFFFFFF
    return code.to_bytes(4, "little").decode("ascii", "replace")


@contextmanager
def prefetch(
    items: Iterable[T], depth: int, *, newest: bool = False, patience: float | None = None
) -> Iterator[Iterator[T]]:
    """Iterate over `items` in a thread of its own, at most `depth` items ahead.

    Order is kept. An exception of `items` is raised after everything before it was taken. Leaving
    the block stops the thread.

    Args:
        items: what to iterate over.
        depth: how many items may wait, at least 1.
        newest: read on while that many wait, and drop the oldest: what a live source shows now
            counts, not what it showed.
        patience: seconds to wait, on leaving, for the item that is being read, so that what `items`
            reads from can be closed; None waits as long as it takes.
    """
    check_integer("depth", depth, 1)
    changed = threading.Condition()  # guards what follows
    waiting: deque[T] = deque(maxlen=depth)
    ending: BaseException | None = None
    over = stopped = False

    def read() -> None:
        nonlocal ending, over
        raised: BaseException | None = None
        try:
            iterator = iter(items)
            while True:
                with changed:
                    changed.wait_for(lambda: stopped or newest or len(waiting) < depth)
                    if stopped:
                        break
                item = next(iterator)
                with changed:
                    waiting.append(item)
                    changed.notify_all()
        except StopIteration:
            pass
        except BaseException as error:  # whatever it is, the consumer waits for it
            raised = error
        with changed:
            ending, over = raised, True
            changed.notify_all()

    def take() -> Iterator[T]:
        while True:
            with changed:
                changed.wait_for(lambda: waiting or over)
                if not waiting:
                    break
                item = waiting.popleft()
                changed.notify_all()
            yield item
        if ending is not None:
            raise ending

    reader = threading.Thread(target=read, name="edgeseg-prefetch", daemon=True)
    reader.start()
    try:
        yield take()
    finally:
        with changed:
            stopped = True
            changed.notify_all()
        reader.join(patience)


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
