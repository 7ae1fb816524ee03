"""Whatever gives frames, opened."""

from __future__ import annotations

import math
import os
import re
import socket
import stat
from pathlib import Path
from typing import TypeAlias
from urllib.parse import urlsplit
from urllib.request import getproxies

import cv2

from edgeseg.arguments import check_integer, check_number
from edgeseg.errors import InputError
from edgeseg.files import reason
from edgeseg.images import IMAGE_SUFFIXES
from edgeseg.video.live import OPEN_S, Connection, LiveSource, Lost
from edgeseg.video.recorded import ImageSource, VideoSource, fourcc

Source: TypeAlias = ImageSource | VideoSource | LiveSource

RECONNECT = 60.0
"""Seconds for which a lost source is waited for: about what a network camera takes to restart."""
TIMEOUT = 5.0
"""Seconds without a frame after which a source is lost; many cameras send a picture that can be
decoded by itself only every second or two."""

_PORTS = {"rtsp": 554, "rtsps": 322, "rtmp": 1935, "http": 80, "https": 443, "tcp": None}
"""Of what goes over TCP."""


def open_source(
    source: str | os.PathLike[str] | int, *, reconnect: float = RECONNECT, timeout: float = TIMEOUT
) -> Source:
    """Open whatever gives frames.

    A camera is live, and so is what a URL names unless it declares a length: lost, it is opened
    anew. Two things of FFmpeg's can only be set for the whole process, in its environment and
    before its first use, as the command line does: OPENCV_FFMPEG_LOGLEVEL=-8 keeps its own lines
    off stderr (OpenCV's are, while a live source is opened), and with
    OPENCV_FFMPEG_IS_THREAD_SAFE=1 a URL that hangs while it is opened keeps no other video from
    being opened.

    Args:
        source: an image file, a folder of images (others are skipped, folders in it not entered), a
            video file, a camera's index or device file, or a URL that FFmpeg knows (rtsp, http, …).
        reconnect: seconds for which to try to get a lost live source back; 0 gives up at once,
            inf never. The first time there is one attempt.
        timeout: seconds to wait for one frame of a live source, 0.1 to 3600; opening it may take
            ten at least.

    Returns:
        A context manager to iterate over, with `name`, `length`, `fps` and `size`. `stop()` ends
        the iteration over a live source from another thread.

    Raises:
        InputError: it does not exist, cannot be read, or holds no frame, or an argument is out of
            range; while iterating, see `ImageSource`, `VideoSource` and `LiveSource`.
    """
    check_number("timeout", timeout, 0.1, 3600)
    if reconnect != math.inf:
        check_number("reconnect", reconnect, 0)
    if isinstance(source, int) and not isinstance(source, bool):
        # OpenCV crashes on some others.
        check_integer("the camera's index", source, 0, 2**31 - 1)
        return _open_camera(source, f"camera {source}", reconnect, timeout)
    if not isinstance(source, (str, os.PathLike)):
        raise InputError(
            f"the source is a {type(source).__name__}; give a path, a URL or a camera's index"
        )
    text = os.fspath(source)
    if not text:  # for a path that would be the current folder
        raise InputError("the source is an empty text; give a path, a URL or a camera's index")
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", text):
        return _open_url(text, reconnect, timeout)
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
        return _open_camera(path, str(path), reconnect, timeout)
    if stat.S_ISDIR(mode):
        return _open_folder(path)
    if path.suffix.lower() in IMAGE_SUFFIXES:
        return ImageSource(path.name, [path])
    return _open_video_file(path)


def _open_camera(camera: int | Path, name: str, reconnect: float, timeout: float) -> LiveSource:
    def device() -> int | str:
        # By number V4L2 reads it, by name FFmpeg would. A link (/dev/v4l/by-id/…) may lead to
        # another device after the camera was plugged in again.
        if isinstance(camera, int):
            return camera
        found = re.fullmatch(r"/dev/video(\d+)", str(camera.resolve()))
        return int(found[1]) if found else str(camera)

    def connect() -> cv2.VideoCapture:
        return cv2.VideoCapture(device())

    def explain() -> str:
        path = Path(f"/dev/video{camera}") if isinstance(camera, int) else camera
        if not path.exists():
            others = ", ".join(sorted(str(other) for other in Path("/dev").glob("video*")))
            return f"{path} does not exist; check that it is plugged in (found: {others or 'none'})"
        if not os.access(path, os.R_OK | os.W_OK):
            return f"you may not read {path}; join the group that owns it (ls -l {path})"
        return f"{path} is there, but gives no video; check that no other program holds it"

    connection = Connection(connect, explain, timeout)
    _open_first(connection, name)
    return LiveSource(connection, name, reconnect=reconnect)


def _open_url(url: str, reconnect: float, timeout: float) -> VideoSource | LiveSource:
    name = public_name(url)
    later = 200  # than our own timeouts, which tell more
    settings = [
        cv2.CAP_PROP_OPEN_TIMEOUT_MSEC,
        round(1000 * max(timeout, OPEN_S)) + later,
        cv2.CAP_PROP_READ_TIMEOUT_MSEC,
        round(1000 * timeout) + later,
    ]

    def connect() -> cv2.VideoCapture:
        return cv2.VideoCapture(url, cv2.CAP_ANY, settings)

    connection = Connection(connect, lambda: _why_closed(url), timeout)
    _open_first(connection, name)
    if 0 < connection.frames < 2**31:  # unknown is 0, negative or enormous
        return VideoSource(connection.hand_over(), name)
    return LiveSource(connection, name, reconnect=reconnect)


def _open_first(connection: Connection, name: str) -> None:
    try:
        connection.open()
    except Lost as loss:
        connection.close()
        raise InputError(f"{name} cannot be opened: {loss}") from None
    except BaseException:  # Ctrl-C, for instance
        connection.close()
        raise


def public_name(url: str) -> str:
    """A URL for messages and logs, without what may be secret in it.

    Cameras are given passwords before the host, in the query, and in the path
    (`/user=admin&password=…`).
    """
    scheme, _, rest = url.partition("://")
    authority, path = re.fullmatch(r"([^/?#]*)(.*)", rest, re.DOTALL).groups()  # type: ignore[union-attr]
    host = authority.rpartition("@")[2]
    if not re.fullmatch(r"([\w.-]*|\[[\w:.%]+\])(:\d*)?", host):
        host, path = "…", ""  # such as a password with a slash in it
    path = re.sub(r"[?#].*", "?…", path, flags=re.DOTALL)
    path = re.sub(r"=[^/?]*", "=…", path)
    return f"{scheme}://{host}{path}"


def _why_closed(url: str) -> str:
    """Why FFmpeg cannot open it: OpenCV tells nobody, but the connection can be tried."""
    advice = "check that it can be reached, and that ffplay can play it"
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port or _PORTS.get(parts.scheme)
    except ValueError:
        return "it is no valid URL; check how it is written"
    if parts.scheme not in _PORTS or parts.scheme in getproxies() or not host or not port:
        return advice
    try:
        socket.create_connection((host, port), timeout=3).close()
    except socket.gaierror:
        return f"the host {host} is not known; check its name"
    except OSError as error:
        why = error.strerror or "it does not answer"
        return f"{host} port {port}: {why}; check the address, and that the camera or server runs"
    return (
        f"{host} port {port} answers, but not with a video; check path, user name and password, "
        "for instance with ffplay"
    )


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
        folders = sum(entry.is_dir() for entry in entries)
        raise InputError(
            f"the folder {folder} holds no image ({len(entries) - folders} other files, {folders} "
            f"folders, which are not entered); known are {' '.join(sorted(IMAGE_SUFFIXES))}"
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
    if fourcc(capture) == "ansi":  # FFmpeg renders text as a terminal would show it
        capture.release()
        raise InputError(f"{path} is a text file, a video or image was expected; check the path")
    return VideoSource(capture, path.name, file=path)
