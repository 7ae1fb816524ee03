"""Streams, events, memory and graphs of the CUDA runtime, with types and sentences.

Whatever is made here is freed when nothing refers to it any more, or earlier by its `free`. Work is
queued on the calling thread's current device: see `on_device`.
"""

from __future__ import annotations

import ctypes
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeseg.errors import EngineError, MissingDependencyError

try:
    from cuda.bindings import runtime as _api
except ModuleNotFoundError as error:
    if error.name not in ("cuda", "cuda.bindings"):
        raise
    raise MissingDependencyError(
        "cuda-bindings is not installed, it drives the GPU; pip install 'edgeseg[gpu]'"
    ) from error

# After one of these, CUDA answers every call of the process with the same error.
_LOST = {
    "cudaErrorIllegalAddress",
    "cudaErrorIllegalInstruction",
    "cudaErrorMisalignedAddress",
    "cudaErrorInvalidAddressSpace",
    "cudaErrorInvalidPc",
    "cudaErrorHardwareStackError",
    "cudaErrorLaunchFailure",
    "cudaErrorLaunchTimeout",
    "cudaErrorAssert",
    "cudaErrorECCUncorrectable",
}
_NO_DRIVER = {
    "cudaErrorInsufficientDriver",
    "cudaErrorNoDevice",
    "cudaErrorStubLibrary",
    "cudaErrorSystemDriverMismatch",
    "cudaErrorInitializationError",
}
_COPY = _api.cudaMemcpyKind.cudaMemcpyDefault  # the addresses tell where they are


def _check(what: str, answer: tuple[Any, ...]) -> Any:
    """The values of a call's answer, or EngineError with what it was to do and why it did not."""
    code, *values = answer
    if code == _api.cudaError_t.cudaSuccess:
        return values[0] if len(values) == 1 else tuple(values)
    _api.cudaGetLastError()  # or the next call of this thread would report it again
    name = code.name
    text = bytes(_api.cudaGetErrorString(code)[1]).decode()
    said = f"CUDA could not {what}: {text} ({name})"
    if name in _NO_DRIVER:
        raise EngineError(
            f"{said}; install an NVIDIA driver, or give this container access to the GPU; "
            "device='cpu' does without"
        )
    if name == "cudaErrorMemoryAllocation":
        raise EngineError(
            f"{said}; end other programs that use the GPU ('nvidia-smi' lists them), or use fewer "
            "Runtimes, threads and frame sizes at once"
        )
    if name in _LOST:
        raise EngineError(
            f"{said}; the GPU is lost to this process, start it again; if it happens again, "
            "CUDA_LAUNCH_BLOCKING=1 shows which step fails, and device='cpu' does without"
        )
    raise EngineError(f"{said}; update the NVIDIA driver, or use device='cpu'")


# Held while a graph is captured, torch's too: torch waits for the whole device before it captures,
# which CUDA refuses while another thread's stream is captured.
capturing = threading.Lock()


@contextmanager
def _beside_captures() -> Iterator[None]:
    """Memory may be taken and given back although a graph is captured: it is no part of it.

    Otherwise CUDA refuses, and breaks the capture: one in this thread, where a finaliser may run at
    any moment, and one in any other thread of a library that captures as torch does by default.
    """
    relaxed = _api.cudaStreamCaptureMode.cudaStreamCaptureModeRelaxed
    _, before = _api.cudaThreadExchangeStreamCaptureMode(relaxed)
    try:
        yield
    finally:
        if before is not None:
            _api.cudaThreadExchangeStreamCaptureMode(before)


def _free(call: Callable[[Any], Any], handle: Any) -> None:
    with _beside_captures():
        call(handle)  # nothing can be done about an error, which is that of earlier work anyway


def device_count() -> int:
    """CUDA devices that this process sees.

    Raises:
        EngineError: there is no usable driver.
    """
    return int(_check("find a device", _api.cudaGetDeviceCount()))


@contextmanager
def on_device(index: int) -> Iterator[None]:
    """Make a device the calling thread's current one, and the earlier one again afterwards."""
    before = _check("tell the current device", _api.cudaGetDevice())
    if before == index:
        yield
        return
    _check(f"use device {index}", _api.cudaSetDevice(index))
    try:
        yield
    finally:
        _api.cudaSetDevice(before)


class Event:
    """A point in a stream's work."""

    def __init__(self, *, timed: bool = False) -> None:
        flags = _api.cudaEventDefault if timed else _api.cudaEventDisableTiming
        self.handle = _check("make an event", _api.cudaEventCreateWithFlags(flags))
        self.free = weakref.finalize(self, _free, _api.cudaEventDestroy, self.handle)

    def record(self, stream: Stream | int) -> None:
        """Stand for all that the stream has been given so far.

        Args:
            stream: of ours, or another library's cudaStream_t.
        """
        handle = stream if isinstance(stream, int) else stream.handle
        if isinstance(stream, Stream) and stream.capturing:
            # Recorded again whenever the graph runs, and readable outside of it.
            flags = _api.cudaEventRecordExternal
            _check("record", _api.cudaEventRecordWithFlags(self.handle, handle, flags))
        else:
            _check("record an event", _api.cudaEventRecord(self.handle, handle))

    def wait(self) -> None:
        """Wait, without the GIL, until the stream has come here."""
        _check("finish the work on the GPU", _api.cudaEventSynchronize(self.handle))

    def milliseconds_since(self, earlier: Event) -> float:
        """Time between two timed events that have passed."""
        answer = _api.cudaEventElapsedTime(earlier.handle, self.handle)
        return float(_check("tell the time between two events", answer))


class Stream:
    """Work in order, apart from all other streams, the legacy default stream included."""

    def __init__(self) -> None:
        answer = _api.cudaStreamCreateWithFlags(_api.cudaStreamNonBlocking)
        self._stream = _check("make a stream", answer)
        self.handle = int(self._stream)
        """The cudaStream_t, as other libraries take it."""
        self.capturing = False
        self.free = weakref.finalize(self, _free, _api.cudaStreamDestroy, self._stream)

    def wait_for(self, event: Event) -> None:
        """Do nothing of what follows before `event` has passed; does not block the caller."""
        order_after(self.handle, event)

    def synchronize(self) -> None:
        """Wait, without the GIL, until all work is done."""
        _check("finish the work on the GPU", _api.cudaStreamSynchronize(self.handle))

    def copy(self, target: int, source: int, size: int) -> None:
        """Copy `size` bytes between addresses of host (pinned) or device memory."""
        answer = _api.cudaMemcpyAsync(target, source, size, _COPY, self.handle)
        _check("copy", answer)

    def copy_rows(
        self, target: int, target_stride: int, source: int, source_stride: int, size: int, rows: int
    ) -> None:
        """Copy `rows` rows of `size` bytes that lie `*_stride` bytes apart."""
        _check(
            "copy rows",
            _api.cudaMemcpy2DAsync(
                target, target_stride, source, source_stride, size, rows, _COPY, self.handle
            ),
        )

    def capture(self, enqueue: Callable[[], None]) -> Graph:
        """What `enqueue` gives to this stream, as a graph; nothing of it runs yet.

        Other threads may go on using the device.

        Raises:
            EngineError: something in `enqueue` cannot be part of a graph; the stream is as before.
        """
        mode = _api.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        with capturing:
            _check("begin a graph", _api.cudaStreamBeginCapture(self.handle, mode))
            self.capturing = True
            try:
                enqueue()
            except BaseException:
                _, graph = _api.cudaStreamEndCapture(self.handle)
                if graph is not None and int(graph) != 0:
                    _api.cudaGraphDestroy(graph)
                _api.cudaGetLastError()
                raise
            finally:
                self.capturing = False
            graph = _check("make a graph", _api.cudaStreamEndCapture(self.handle))
        try:
            return Graph(_check("prepare a graph", _api.cudaGraphInstantiate(graph, 0)))
        finally:
            _api.cudaGraphDestroy(graph)


def order_after(stream: int, event: Event) -> None:
    """Make any cudaStream_t do nothing of what follows before `event` has passed."""
    _check("order two streams", _api.cudaStreamWaitEvent(stream, event.handle, 0))


class Graph:
    """Work that is launched as a whole."""

    def __init__(self, executable: Any) -> None:
        self._executable = executable
        self.free = weakref.finalize(self, _free, _api.cudaGraphExecDestroy, executable)

    def launch(self, stream: Stream) -> None:
        """Queue it all."""
        _check("launch a graph", _api.cudaGraphLaunch(self._executable, stream.handle))


class DeviceMemory:
    """Bytes on the current device; freeing waits for the work that uses them."""

    def __init__(self, size: int) -> None:
        with _beside_captures():
            answer = _api.cudaMalloc(size)
        self.address = int(_check(f"take {size / 2**20:.1f} MiB of GPU memory", answer))
        self.free = weakref.finalize(self, _free, _api.cudaFree, self.address)


class PinnedMemory:
    """Host memory that the device copies from and to by itself.

    Attributes:
        address: of its first byte.
        bytes: size uint8, valid until it is freed.
    """

    def __init__(self, size: int) -> None:
        with _beside_captures():
            answer = _api.cudaHostAlloc(size, _api.cudaHostAllocDefault)
        self.address = int(_check(f"take {size / 2**20:.1f} MiB of pinned host memory", answer))
        self.free = weakref.finalize(self, _free, _api.cudaFreeHost, self.address)
        memory = (ctypes.c_uint8 * size).from_address(self.address)
        self.bytes: NDArray[np.uint8] = np.ctypeslib.as_array(memory)
