"""The routes: a page, its live stream, and labels for a picture that is posted."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, get_args

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from edgeseg.runtime import Runtime
from edgeseg.serve.guard import Guard
from edgeseg.serve.labelling import CONTENT_TYPES, Answer, Desk, Output, RefusedError, stages
from edgeseg.serve.live import Live

_MAX_WATCHERS = 64
_HELD_BODIES = 4  # as many of the largest may be in memory
_HEARTBEAT = 10.0  # seconds without anything new
_BOUNDARY = "edgeseg-frame"
_ACCEPTED: dict[str, Output] = {
    "application/json": "json",
    "image/png": "labels",
    "image/jpeg": "overlay",
    "application/geo+json": "geojson",
    "application/*": "json",
    "*/*": "json",
    "image/*": "labels",
}
_PAGE = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/style.css": ("style.css", "text/css; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
}


@dataclass(frozen=True)
class Limits:
    """What one request may ask for.

    Attributes:
        max_megapixels: of a picture, in millions of pixels.
        max_body: of a picture's file, in megabytes.
        timeout: seconds for the body to come, and again for its labels.
    """

    max_megapixels: float = 25.0
    max_body: float = 16.0
    timeout: float = 10.0

    @property
    def pixels(self) -> int:
        """The most pixels of a picture."""
        return int(self.max_megapixels * 1e6)

    @property
    def body(self) -> int:
        """The most bytes of a body."""
        return int(self.max_body * 1e6)


def make_app(
    runtime: Runtime, live: Live | None = None, *, host: str = "127.0.0.1", limits: Limits
) -> Starlette:
    """The application for `Server`.

    Args:
        runtime: the engine.
        live: the source to show; without one, pictures are dropped into the page.
        host: where it will listen; decides which Host headers are right.
        limits: of one request.
    """
    service = _Service(runtime, live, limits)
    page = [
        Route(path, _static(name, media_type), methods=["GET"])
        for path, (name, media_type) in _PAGE.items()
    ]
    app = Starlette(
        routes=[
            *page,
            Route("/health", service.health, methods=["GET"]),
            Route("/engine", service.engine, methods=["GET"]),
            Route("/predict", service.predict, methods=["POST"]),
            Route("/live", service.events, methods=["GET"]),
            Route("/live.mjpg", service.frames, methods=["GET"]),
        ],
        middleware=[Middleware(Guard, host=host)],
        exception_handlers={
            HTTPException: _http_error,
            RefusedError: _refused,
            ClientDisconnect: _gone,
            Exception: _broken,
        },
    )
    app.state.service = service
    return app


class _Service:
    """What the routes share; all of it belongs to the event loop."""

    def __init__(self, runtime: Runtime, live: Live | None, limits: Limits) -> None:
        self._runtime = runtime
        self._live = live
        self._limits = limits
        self._desk = Desk(runtime, limits.pixels)
        self._held = 0  # bytes of bodies in memory
        self._stopping = asyncio.Event()

    def stop(self) -> None:
        """End what has no end of its own, and what waits."""
        self._stopping.set()
        self._desk.close()
        if self._live is not None:
            self._live.stop()

    # ------------------------------------------------------------------------------ what it is

    async def health(self, request: Request) -> Response:
        """That it answers, and how busy it is."""
        live = self._live
        return JSONResponse(
            {
                "status": "ok",
                "pending": self._desk.pending,
                "source": None if live is None else live.state,
                "watchers": 0 if live is None else live.watchers,
            }
        )

    async def engine(self, request: Request) -> Response:
        """What the engine file says of itself, and how it runs here."""
        runtime, manifest = self._runtime, self._runtime.manifest
        return JSONResponse(
            {
                "name": manifest.name,
                "classes": manifest.classes,
                "palette": manifest.palette,
                "input": {
                    "width": manifest.input.width,
                    "height": manifest.input.height,
                    "resize": manifest.input.resize,
                },
                "backbone": manifest.architecture.backbone,
                "text_guidance": manifest.architecture.text_guidance,
                "miou": manifest.training.miou,
                "validation": manifest.training.validation,
                "license": manifest.license,
                "target": runtime.target,
                "backend": runtime.backend,
                "device": runtime.device,
                "precision": runtime.precision,
                "threads": runtime.threads,
                "source": None if self._live is None else self._live.name,
                "limits": {
                    "max_body": self._limits.body,
                    "max_pixels": self._limits.pixels,
                    "timeout_s": self._limits.timeout,
                },
            }
        )

    # --------------------------------------------------------------------------------- a picture

    async def predict(self, request: Request) -> Response:
        """Label the picture in the body."""
        output = _output(request)
        body = bytearray()
        try:
            await self._read(request, body)
            answer = await self._answer(request, body, output)
        finally:
            self._held -= len(body)
        timing = ", ".join(f"{name};dur={ms}" for name, ms in stages(answer.timings).items())
        headers = {"Server-Timing": timing, "Vary": "Accept"}
        return Response(answer.body, media_type=answer.media_type, headers=headers)

    async def _read(self, request: Request, body: bytearray) -> None:
        """Fill `body`, within the limits of size, time, and what is held for others."""
        limit = self._limits.body
        too_large = RefusedError(
            413,
            f"the body has more than {self._limits.max_body:g} MB (--max-body); "
            "send a smaller picture",
        )
        kind = request.headers.get("content-type", "").split(";")[0].strip().lower()
        if kind not in CONTENT_TYPES:
            raise RefusedError(
                415,
                f"Content-Type is {kind[:60]!r}; send the picture's file itself as "
                f"{', '.join(CONTENT_TYPES)}",
            )
        if request.headers.get("content-encoding", "identity").lower() != "identity":
            raise RefusedError(
                415, "the body has a Content-Encoding; send the picture's file as it is"
            )
        declared = request.headers.get("content-length", "")
        if declared.isascii() and declared.isdigit() and int(declared) > limit:
            raise too_large
        try:
            async with asyncio.timeout(self._limits.timeout):
                async for chunk in request.stream():
                    if len(body) + len(chunk) > limit:
                        raise too_large
                    if self._held + len(chunk) > _HELD_BODIES * limit:
                        raise RefusedError(
                            429, "other pictures fill the memory; try again in a second", 1
                        )
                    self._held += len(chunk)
                    body += chunk
        except TimeoutError:
            raise RefusedError(
                408,
                f"the body did not come within {self._limits.timeout:g} s (--timeout); send it "
                "faster, or a smaller picture",
            ) from None
        if not body:
            raise RefusedError(400, "the body is empty; send a picture's file")

    async def _answer(self, request: Request, body: bytearray, output: Output) -> Answer:
        """Labels in time, or not at all where the client hangs up."""
        ending = RefusedError(503, "the server is ending; try again once it runs", 10)
        if self._stopping.is_set():
            raise ending
        work = self._desk.submit(body, output)
        gone = asyncio.create_task(_hung_up(request))
        stopping = asyncio.create_task(self._stopping.wait())
        first: set[asyncio.Future[Any]] = {work, gone, stopping}
        try:
            await asyncio.wait(
                first, timeout=self._limits.timeout, return_when=asyncio.FIRST_COMPLETED
            )
            if stopping.done():
                raise ending
            if work.done():
                return work.result()
            if gone.done():
                raise ClientDisconnect
        finally:
            for future in first:
                future.cancel()
        raise RefusedError(
            503,
            f"the picture was not labelled within {self._limits.timeout:g} s (--timeout); this "
            "machine is busy, try again later",
            math.ceil(self._limits.timeout),
        )

    # ------------------------------------------------------------------------------- the source

    async def events(self, request: Request) -> Response:
        """Server-sent events: state, rate, stage times and class areas of every frame."""
        return self._stream(request, self._events, "text/event-stream")

    async def _events(self, live: Live) -> AsyncIterator[str]:
        yield ":\n\n"  # the page knows that it is connected
        with live.watching():
            seen = 0
            while not live.stopped:
                view = await live.after(seen, _HEARTBEAT)
                if view is None:
                    yield ":\n\n"  # finds watchers that are gone
                else:
                    seen = view.number
                    yield f"data: {json.dumps(view.facts)}\n\n"

    async def frames(self, request: Request) -> Response:
        """Overlays as motion JPEG, for the page, or for any player."""
        return self._stream(
            request, self._frames, f"multipart/x-mixed-replace; boundary={_BOUNDARY}"
        )

    async def _frames(self, live: Live) -> AsyncIterator[bytes]:
        boundary = f"\r\n--{_BOUNDARY}\r\n".encode()
        yield boundary
        with live.watching():
            seen = 0
            while not live.stopped:
                view = await live.after(seen, _HEARTBEAT)
                if view is None:
                    continue
                seen = view.number
                if view.jpeg is not None:
                    # The boundary at once: browsers show a part when the next one begins.
                    yield b"Content-Type: image/jpeg\r\n\r\n" + view.jpeg + boundary

    def _stream(
        self, request: Request, parts: Callable[[Live], AsyncIterator[str | bytes]], kind: str
    ) -> Response:
        if self._live is None:
            raise RefusedError(404, "no source is shown here; start the server with one")
        if self._live.watchers >= _MAX_WATCHERS:
            raise RefusedError(503, f"{_MAX_WATCHERS} are watching already; try again later", 10)
        if request.method == "HEAD":
            return Response(media_type=kind)
        return StreamingResponse(parts(self._live), media_type=kind)


async def _hung_up(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _output(request: Request) -> Output:
    """What is asked for: by ?output=, else by the Accept header."""
    accept = request.headers.get("accept", "*/*")
    wanted = request.query_params.get("output")
    kinds = [part.split(";")[0].strip().lower() for part in accept.split(",")]
    if wanted is None:
        known = [_ACCEPTED[kind] for kind in kinds if kind in _ACCEPTED]
        if not known:
            raise RefusedError(
                406,
                "nothing that Accept names can be made; there are application/json, image/png "
                "(labels), image/jpeg (overlay) and application/geo+json",
            )
        return known[0]
    if wanted not in ("json", "labels", "overlay", "geojson"):
        raise RefusedError(
            400, f"output {wanted[:60]!r} is unknown; use json, labels, overlay or geojson"
        )
    if wanted == "overlay" and "image/png" in kinds and "image/jpeg" not in kinds:
        return "overlay.png"
    return next(output for output in get_args(Output) if output == wanted)


def _static(name: str, media_type: str) -> Callable[[Request], Awaitable[Response]]:
    body = files("edgeseg.serve").joinpath("page", name).read_bytes()

    async def send(request: Request) -> Response:
        return Response(body, media_type=media_type, headers={"Cache-Control": "no-cache"})

    return send


# --------------------------------------------------------------------------- errors, as sentences


def _error(status: int, sentence: str, headers: dict[str, str] | None = None) -> Response:
    return JSONResponse({"error": sentence}, status_code=status, headers=headers)


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    sentences = {
        404: "there is nothing here; see /, /predict, /health, /engine, /live and /live.mjpg",
        405: "this method is not for this address; POST is for /predict, GET for all others",
    }
    sentence = sentences.get(error.status_code, error.detail)
    return _error(error.status_code, sentence, dict(error.headers or {}))


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, RefusedError)
    retry = {} if error.retry_after is None else {"Retry-After": str(error.retry_after)}
    return _error(error.status, error.sentence, retry)


async def _gone(request: Request, error: Exception) -> Response:
    return Response(status_code=400)  # nobody is there to read it


async def _broken(request: Request, error: Exception) -> Response:
    # The traceback goes to the terminal where the server runs.
    return _error(500, "the server failed to answer; its terminal says why")
