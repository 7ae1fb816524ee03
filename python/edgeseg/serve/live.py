"""One source, labelled once, for everybody who watches."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from edgeseg.errors import EdgesegError, InputError
from edgeseg.images import read_image
from edgeseg.runtime import Result, Runtime
from edgeseg.serve.labelling import stages
from edgeseg.video import ImageSource, Source, VideoSource, open_source

logger = logging.getLogger("edgeseg")

_LONGER_SIDE = 1280  # of the pictures that are sent, at most
_JPEG_QUALITY = 80
_SLIDE = 1.0  # seconds that each picture of a folder is shown
_LINGER = 5.0  # seconds that the source stays open after the last watcher left
_RETRY = (0.5, 1.0, 2.0, 5.0)  # seconds before a lost source is opened again, then always the last


@dataclass(frozen=True)
class View:
    """What watchers are shown.

    Attributes:
        number: 1, 2, 3, …
        facts: for JSON: "state" ("live" or "lost"), and what the page says of it.
        jpeg: the overlay; None where the source is lost.
    """

    number: int
    facts: dict[str, Any]
    jpeg: bytes | None


class Live:
    """Labels a source while somebody watches.

    All watchers see the same labelled frames; one that is slow misses some. Video files play at
    their own pace and over again; a folder is a slide show; of cameras and streams the newest frame
    counts. A source that ends or fails is opened again.

    Attributes:
        name: of the source, without path or password.
        watchers: how many there are.
        state: "idle", "opening", "live" or "lost".
    """

    def __init__(self, runtime: Runtime, source: str | int) -> None:
        """Open the source once, so that a wrong one is told at once.

        Raises:
            InputError: it does not open, or gives no frame.
        """
        with open_source(source) as opened:
            self.name = Path(opened.name).name if opened.name.startswith("/") else opened.name
        self._runtime = runtime
        self._source = source
        self.watchers = 0
        self.state = "idle"
        self._opened: Source | None = None
        self._number = 0
        self._view: View | None = None
        self._news = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._lock = threading.Lock()  # guards the three below
        self._thread: threading.Thread | None = None
        self._watched = False
        self._left = 0.0
        self._stopped = threading.Event()

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Keeps the source open; to be entered in an event loop."""
        self._loop = asyncio.get_running_loop()
        self.watchers += 1
        self._watch(True)
        try:
            yield
        finally:
            self.watchers -= 1
            self._watch(self.watchers > 0)

    async def after(self, seen: int, seconds: float) -> View | None:
        """The newest view if it is not number `seen`, else the next; None if none comes in time."""
        if self._view is None or self._view.number == seen:
            try:
                async with asyncio.timeout(seconds):
                    await self._news.wait()
            except TimeoutError:
                return None
        return None if self.stopped else self._view

    @property
    def stopped(self) -> bool:
        """Whether there will be nothing new."""
        return self._stopped.is_set()

    def stop(self) -> None:
        """Send the watchers home; to be called in their event loop."""
        self._stopped.set()
        self._news.set()
        if self._opened is not None:
            self._opened.stop()

    # ------------------------------------------------------------------ in the labelling thread

    def _watch(self, watched: bool) -> None:
        with self._lock:
            self._watched, self._left = watched, time.monotonic()
            if watched and self._thread is None and not self._stopped.is_set():
                self.state, self._view = "opening", None
                self._thread = threading.Thread(target=self._run, name="edgeseg-live", daemon=True)
                self._thread.start()

    def _over(self) -> bool:
        """Whether nobody needs the source any more."""
        return self._stopped.is_set() or (
            not self._watched and time.monotonic() - self._left > _LINGER
        )

    def _run(self) -> None:
        failures = 0
        recent: deque[float] = deque(maxlen=30)
        while True:
            with self._lock:
                if self._over():
                    self._thread, self.state = None, "idle"
                    return
            try:
                for result in self._runtime.stream(self._frames(), latest=True):
                    if self._over():
                        break
                    if failures:
                        logger.warning("%s is back", self.name)
                    failures = 0
                    recent.append(time.monotonic())
                    self.state = "live"
                    self._publish(*self._show(result, recent))
            except Exception as error:  # whatever it is, watchers wait
                if not failures:  # then it is known
                    known = isinstance(error, EdgesegError)
                    logger.warning("%s", error, exc_info=None if known else error)
                recent.clear()
                self.state = "lost"
                self._publish(self._lost(), None)
                self._wait(_RETRY[min(failures, len(_RETRY) - 1)])
                failures += 1

    def _lost(self) -> dict[str, Any]:
        # In our words: an error of the source may quote a path.
        return {"state": "lost", "message": f"{self.name} is lost; trying to open it again"}

    def _wait(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until and not self._over():
            self._stopped.wait(0.1)

    def _frames(self) -> Iterator[NDArray[np.uint8]]:
        """The source's frames, at its pace; opened and closed by whoever iterates."""
        started = time.monotonic()
        # A loss is shown at once, and `_run` opens the source again.
        with open_source(self._source, reconnect=0) as source:
            self._opened = source
            if isinstance(source, ImageSource):
                yield from self._slides(source)
                return
            for frame in source:
                if isinstance(source, VideoSource) and frame.time_s is not None:
                    self._stopped.wait(max(started + frame.time_s - time.monotonic(), 0))
                if self.stopped:
                    return
                yield frame.pixels

    def _slides(self, source: ImageSource) -> Iterator[NDArray[np.uint8]]:
        shown, problem = 0, None
        for path in source.paths:
            try:
                pixels = read_image(path)
            except InputError as error:  # the others can still be shown
                logger.warning("%s", error)
                problem = error
                continue
            yield pixels
            shown += 1
            if self._stopped.wait(_SLIDE):
                return
        if not shown and problem is not None:
            raise problem

    def _show(self, result: Result, recent: deque[float]) -> tuple[dict[str, Any], bytes]:
        seconds = recent[-1] - recent[0]
        shown = {
            "state": "live",
            "fps": round((len(recent) - 1) / seconds, 1) if seconds > 0 else None,
            "timings_ms": stages(result.timings),
            "areas": [round(area, 4) for area in result.areas().values()],
        }
        picture: cv2.typing.MatLike = result.overlay()
        scale = _LONGER_SIDE / max(picture.shape)
        if scale < 1:
            picture = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        _, jpeg = cv2.imencode(".jpg", picture, (cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY))
        return shown, jpeg.tobytes()

    def _publish(self, facts: dict[str, Any], jpeg: bytes | None) -> None:
        loop = self._loop
        assert loop is not None  # of the watcher who started this thread
        self._number += 1
        view = View(self._number, facts, jpeg)

        def show() -> None:
            self._view = view
            self._news.set()  # wakes all who wait
            if not self.stopped:
                self._news.clear()

        if not loop.is_closed():
            loop.call_soon_threadsafe(show)
