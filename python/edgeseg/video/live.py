"""Cameras and streams: waited for no longer than said, and opened anew when they are lost."""

from __future__ import annotations

import atexit
import logging
import math
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, InvalidStateError, wait
from contextlib import contextmanager, suppress
from queue import SimpleQueue
from typing import Any, TypeVar
from weakref import WeakSet, finalize

import cv2
import numpy as np
from numpy.typing import NDArray

from edgeseg.errors import InputError, SourceLostError
from edgeseg.video.recorded import SourceFrame

logger = logging.getLogger("edgeseg")

T = TypeVar("T")

OPEN_S = 10.0
"""Seconds for opening, at least: RTSP takes four requests, and FFmpeg looks at some video."""
_PAUSES_S = (0.2, 0.5, 1.0, 2.0, 5.0)  # before the first attempt, the second, …
_STEADY_S = 10.0  # a connection that held so long starts with the first pause again
_MOST_FPS = 1000.0  # of RTSP, FFmpeg may take the clock's 90,000 ticks for the rate
_RELEASE_S = 0.5  # that closing waits for the call under way
_TEARDOWN_S = 1.0  # that an interpreter may take to end


class Lost(Exception):  # noqa: N818 - it never leaves this package
    """There is no frame; the message says why, in words that go on after a colon."""


class _Stopped(Exception):  # noqa: N818
    """Somebody stopped the connection."""


class Connection:
    """A cv2.VideoCapture whose calls run in a thread of their own: one that hangs is left behind.

    A call that hangs is the last to be made until it returns: a device is never opened twice.

    Attributes:
        timeout: seconds to wait for a frame.
        frames: how many the source declares, as OpenCV says it.
        fps: frames per second, as OpenCV says it.
    """

    def __init__(
        self, connect: Callable[[], cv2.VideoCapture], explain: Callable[[], str], timeout: float
    ) -> None:
        """Nothing is opened yet.

        Args:
            connect: makes a capture, open or not.
            explain: says why one is not open, and what to do.
            timeout: seconds to wait for a frame; for opening it is at least ten.
        """
        self.timeout = timeout
        self.frames = self.fps = 0.0
        self._connect = connect
        self._explain = explain
        self._capture: cv2.VideoCapture | None = None
        self._calls: SimpleQueue[tuple[Callable[[], Any], Future[Any]] | None] = SimpleQueue()
        self._stopped: Future[None] = Future()
        self._due = 0.0  # when the call under way is over at the latest, if OpenCV keeps its word
        _connections.add(self)
        self._thread = threading.Thread(target=self._run, name="edgeseg-live", daemon=True)
        self._thread.start()

    def open(self, seconds: float = math.inf) -> None:
        """Open the source, anew if it was open.

        Args:
            seconds: wait no longer than that, either.

        Raises:
            Lost: it cannot be opened.
        """
        allowed = max(self.timeout, OPEN_S)
        self._due = time.monotonic() + allowed
        if seconds < allowed:
            self._call(self._open, seconds, "it was still being opened")
        else:
            self._call(self._open, allowed, f"it did not open within {allowed:g} s")

    def read(self) -> NDArray[np.uint8]:
        """The next frame.

        Raises:
            Lost: there is none.
        """
        self._due = time.monotonic() + self.timeout
        return self._call(self._read, self.timeout, f"no frame came for {self.timeout:g} s")

    def pause(self, seconds: float) -> None:
        """Wait, unless stopped."""
        wait((self._stopped,), seconds)
        if self._stopped.done():
            raise _Stopped

    def stop(self) -> None:
        """End whoever waits for a frame, now or later; from any thread, or a signal's handler."""
        with suppress(InvalidStateError):
            self._stopped.set_result(None)

    def let_go(self) -> None:
        """Stop, and have the capture released as soon as the call under way returns."""
        self.stop()
        self._calls.put((self._release, Future()))
        self._calls.put(None)

    def close(self) -> None:
        """Let go, and wait a moment for it: whoever opens a device next would find it busy."""
        self.let_go()
        self._thread.join(_RELEASE_S)

    def leave(self) -> None:
        """Let go, and wait for a call that would return while the interpreter is torn down."""
        self.let_go()
        left = self._due - time.monotonic()
        if left < _TEARDOWN_S:
            self._thread.join(max(left, 0) + _RELEASE_S)

    def hand_over(self) -> cv2.VideoCapture:
        """The open capture, for others to use; this connection is over."""
        assert self._capture is not None
        self._calls.put(None)
        return self._capture

    def _call(self, function: Callable[[], T], seconds: float, otherwise: str) -> T:
        """What the function returns in the connection's thread, in time."""
        future: Future[T] = Future()
        self._calls.put((function, future))
        either: tuple[Future[Any], ...] = (future, self._stopped)
        wait(either, seconds, FIRST_COMPLETED)
        if self._stopped.done():
            raise _Stopped
        if not future.done():
            future.cancel()  # if it has not begun, because another one hangs
            raise Lost(otherwise)
        self._due = 0.0
        return future.result()

    def _run(self) -> None:
        while (call := self._calls.get()) is not None:
            function, future = call
            if not future.set_running_or_notify_cancel():
                continue
            try:
                future.set_result(function())
            except BaseException as error:  # the caller's
                future.set_exception(error)

    def _open(self) -> None:
        self._release()
        with _opencv_silenced():
            capture = self._connect()
            if not capture.isOpened():
                raise Lost(self._explain())
        self.frames = capture.get(cv2.CAP_PROP_FRAME_COUNT)
        self.fps = capture.get(cv2.CAP_PROP_FPS)
        self._capture = capture

    def _read(self) -> NDArray[np.uint8]:
        assert self._capture is not None
        try:
            done, pixels = self._capture.read()
        except cv2.error as error:
            raise Lost(f"OpenCV cannot decode it ({error.err})") from error
        if not done:
            raise Lost("it broke off")
        return pixels.astype(np.uint8, copy=False)

    def _release(self) -> None:
        if self._capture is not None:
            self._capture.release()
            self._capture = None


_connections: WeakSet[Connection] = WeakSet()


@atexit.register
def _leave_all() -> None:
    # A call of OpenCV's that comes back to an interpreter that is gone aborts the process, before
    # Python 3.14 at least.
    for connection in list(_connections):
        connection.leave()


class LiveSource:
    """A camera or stream, which is opened anew when it is lost; iterate over it once.

    Attributes:
        name: the URL without its secrets, or the camera.
        length: None.
        fps: frames per second, as the source said first; None if unknown, or above 1,000.
        size: (height, width) of the first frame; another connection may bring another size.
    """

    length: None = None

    def __init__(self, connection: Connection, name: str, *, reconnect: float) -> None:
        """Take over an open connection.

        Args:
            connection: closed by `close`, and here if there is no frame.
            name: what messages call it.
            reconnect: seconds for which to try after a loss; 0 gives up at once, inf never.

        Raises:
            InputError: not one frame comes.
        """
        self.name = name
        self.fps = connection.fps if 0 < connection.fps <= _MOST_FPS else None
        self._connection = connection
        self._reconnect = reconnect
        finalize(self, connection.let_go)  # nobody closed it: its thread would live on
        self._connected = time.monotonic()
        self._attempts = 0  # since a connection held
        try:
            self._first = connection.read()
        except Lost as loss:
            connection.close()
            raise InputError(
                f"{name} opens, but delivers no frame: {loss}; try it in another program"
            ) from None
        except BaseException:  # Ctrl-C, for instance
            connection.close()
            raise
        height, width, _ = self._first.shape
        self.size = (height, width)

    def __enter__(self) -> LiveSource:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def stop(self) -> None:
        """End the iteration; from any thread, or from a signal's handler."""
        self._connection.stop()

    def close(self) -> None:
        """Let go of the device or stream; one that hangs is let go of when its driver returns."""
        self._connection.close()

    def __iter__(self) -> Iterator[SourceFrame]:
        """Give frames as they come; the log tells of a loss, and of the return.

        Raises:
            SourceLostError: the source was lost, and did not come back in time.
        """
        started = time.monotonic()
        pixels, index, time_s = self._first, 0, 0.0
        while True:
            yield SourceFrame(pixels, f"{self.name} #{index}", index, time_s)
            index += 1
            try:
                pixels = self._next(index, pixels.shape)
            except _Stopped:
                return
            time_s = time.monotonic() - started

    def _next(self, delivered: int, shape: tuple[int, ...]) -> NDArray[np.uint8]:
        try:
            return self._connection.read()
        except Lost as loss:
            reason = str(loss)
        if self._reconnect == 0:
            raise SourceLostError(
                f"{self.name} stopped after {delivered:,} frames: {reason}; check its connection"
            )
        lost = time.monotonic()
        if lost - self._connected > _STEADY_S:
            self._attempts = 0
        patience = "" if math.isinf(self._reconnect) else f" for {self._reconnect:g} s"
        logger.warning(
            "%s is lost after %s frames: %s; trying to reconnect%s",
            self.name,
            f"{delivered:,}",
            reason,
            patience,
        )
        give_up = lost + self._reconnect
        while (left := give_up - time.monotonic()) > 0:
            pause = min(_PAUSES_S[min(self._attempts, len(_PAUSES_S) - 1)], self._reconnect / 4)
            self._attempts += 1
            self._connection.pause(min(pause, left))
            left = give_up - time.monotonic()
            if left <= 0:
                break
            try:
                self._connection.open(left)
                pixels = self._connection.read()
            except Lost as loss:
                reason = str(loss)
                continue
            self._connected = time.monotonic()
            size = "{1}×{0}".format(*pixels.shape)
            change = "" if pixels.shape == shape else f", now {size}"
            logger.warning("%s is back after %.1f s%s", self.name, self._connected - lost, change)
            return pixels
        raise SourceLostError(
            f"{self.name} was lost after {delivered:,} frames and did not come back in "
            f"{self._reconnect:g} s: {reason}"
        )


_silence = threading.Lock()
_silent = 0  # how many want it
_level = 0  # OpenCV's own, for afterwards


@contextmanager
def _opencv_silenced() -> Iterator[None]:
    """No log of OpenCV: every backend that fails would warn, and may quote the URL's password."""
    global _silent, _level
    with _silence:
        if _silent == 0:
            _level = cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
        _silent += 1
    try:
        yield
    finally:
        with _silence:
            _silent -= 1
            if _silent == 0:
                cv2.utils.logging.setLogLevel(_level)
