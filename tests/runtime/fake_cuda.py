"""A CUDA runtime on host memory, as adverse as the real one may be.

Work on a stream happens when somebody waits for it, not a moment earlier: what reads too early, or
overwrites what is still to be read, shows. A graph holds the operations that were captured, and
nothing else. Memory is poisoned, fenced and accounted for.
"""

# ruff: noqa: N801, N802, N815  (the names are CUDA's own)

from __future__ import annotations

import ctypes
import enum
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

from edgeseg import _core

Operation = Callable[[], None]
_FENCE = 256
_FENCE_BYTE, _FRESH_BYTE, _FREED_BYTE = 0xA5, 0xCD, 0xDD


class cudaError_t(enum.IntEnum):
    cudaSuccess = 0
    cudaErrorInvalidValue = 1
    cudaErrorMemoryAllocation = 2
    cudaErrorInsufficientDriver = 35
    cudaErrorInvalidDevice = 101
    cudaErrorInvalidResourceHandle = 400
    cudaErrorNotReady = 600
    cudaErrorLaunchFailure = 719
    cudaErrorStreamCaptureUnsupported = 900
    cudaErrorStreamCaptureInvalidated = 901


class cudaMemcpyKind(enum.IntEnum):
    cudaMemcpyDefault = 4


class cudaStreamCaptureMode(enum.IntEnum):
    cudaStreamCaptureModeGlobal = 0
    cudaStreamCaptureModeThreadLocal = 1
    cudaStreamCaptureModeRelaxed = 2


class Handle(int):
    """What CUDA gives for a stream, an event or a graph."""


class CallError(Exception):
    def __init__(self, code: cudaError_t) -> None:
        self.code = code


@dataclass
class _Memory:
    block: Any
    address: int
    size: int
    pinned: bool
    device: int


@dataclass
class _Stream:
    device: int
    work: deque[Operation] = field(default_factory=deque)
    queued: int = 0
    done: int = 0
    captured: list[Operation] | None = None
    captured_by: int = 0
    broken: bool = False  # the capture


@dataclass
class _Event:
    timed: bool
    stream: _Stream | None = None
    position: int = 0
    time: float | None = None


def _answers(call: Callable[..., Any]) -> Callable[..., Any]:
    """Answers as cuda.bindings does: a tuple of the code and the values."""
    values = 0 if call.__annotations__["return"] == "None" else 1

    def answer(self: FakeCuda, *arguments: Any) -> tuple[Any, ...]:
        with self.lock:
            self.calls += 1
            nothing = (None,) * values
            if self.no_driver:
                return (cudaError_t.cudaErrorInsufficientDriver, *nothing)
            try:
                found = call(self, *arguments)
            except CallError as failure:
                return (failure.code, *nothing)
            if self.lost is not None:
                return (self.lost, *nothing)
            return (cudaError_t.cudaSuccess, *((found,) * values))

    return answer


class FakeCuda:
    """Stands for `cuda.bindings.runtime`.

    Attributes:
        no_driver: every call fails as without a driver.
        fail_in: counts allocations down; the one at 0 finds no memory.
        lost: the error that every call gives since a kernel failed.
        break_launch: the next kernel fails when it runs.
        at_once: work runs when it is queued, for libraries that know nothing of the fake's streams.
        allocations: how many were ever made.
    """

    cudaError_t, cudaMemcpyKind = cudaError_t, cudaMemcpyKind
    cudaStreamCaptureMode = cudaStreamCaptureMode
    cudaStreamNonBlocking, cudaHostAllocDefault = 1, 0
    cudaEventDefault, cudaEventDisableTiming, cudaEventRecordExternal = 0, 2, 1

    def __init__(self, capability: tuple[int, int] = (8, 7), devices: int = 1) -> None:
        self.lock = threading.RLock()
        self.capability, self.devices = capability, devices
        self.no_driver = False
        self.fail_in: int | None = None
        self.lost: cudaError_t | None = None
        self.break_launch = False
        self.at_once = False
        self.allocations = self.calls = self.graphs_made = self.launches = 0
        self.memory: dict[int, _Memory] = {}
        self.streams: dict[int, _Stream] = {1: _Stream(0), 2: _Stream(0)}
        self.events: dict[int, _Event] = {}
        self.graphs: dict[int, list[Operation]] = {}
        self._last_handle = 0x1000
        self._thread = threading.local()

    # ------------------------------------------------------------------------------- inspection

    def live(self) -> dict[str, int]:
        """How much there is of what has to be given back."""
        return {
            "memory": len(self.memory),
            "streams": len(self.streams) - 2,
            "events": len(self.events),
            "graphs": len(self.graphs),
        }

    def launch(self, stream: int, operation: Operation) -> None:
        """What a library does that launches a kernel."""
        with self.lock:
            device = self.streams[int(stream)].device
            assert device == self._device, "a kernel is launched on another device's stream"
            self.queue(stream, operation)

    def queue(self, stream: int, operation: Operation) -> None:
        """Put work on a stream, or into the graph that it captures."""
        with self.lock:
            target = self.streams[int(stream)]
            if target.captured is not None:
                target.captured.append(operation)
            else:
                self._put(target, operation)

    @property
    def _device(self) -> int:
        """The calling thread's current device."""
        return int(getattr(self._thread, "device", 0))

    def check(self, address: int, size: int, *, of_stream: int | None = None) -> None:
        """Fails unless the bytes lie within one live allocation, of a stream's device if given."""
        for memory in self.memory.values():
            if memory.address <= address and address + size <= memory.address + memory.size:
                if of_stream is not None:
                    assert not memory.pinned, "a kernel works on host memory"
                    device = self.streams[int(of_stream)].device
                    assert memory.device == device, "a kernel works on another device's memory"
                return
        raise AssertionError(f"{size} bytes at {address:#x} are not within live memory")

    # ---------------------------------------------------------------------------------- devices

    @_answers
    def cudaGetDeviceCount(self) -> int:
        return self.devices

    @_answers
    def cudaDriverGetVersion(self) -> int:
        return 13000

    @_answers
    def cudaGetDeviceProperties(self, index: int) -> Any:
        major, minor = self.capability
        return SimpleNamespace(
            name=b"Fake GPU\0\0", major=major, minor=minor, totalGlobalMem=8 << 30
        )

    @_answers
    def cudaGetDevice(self) -> int:
        return self._device

    @_answers
    def cudaSetDevice(self, index: int) -> None:
        if not 0 <= index < self.devices:
            raise CallError(cudaError_t.cudaErrorInvalidDevice)
        self._thread.device = index

    def cudaGetLastError(self) -> tuple[cudaError_t]:
        return (self.lost or cudaError_t.cudaSuccess,)

    def cudaGetErrorString(self, code: cudaError_t) -> tuple[cudaError_t, bytes]:
        return cudaError_t.cudaSuccess, f"the fake's words for {code.name}".encode()

    # ----------------------------------------------------------------------------------- memory

    @_answers
    def cudaMalloc(self, size: int) -> int:
        return self._allocate(size, pinned=False)

    @_answers
    def cudaHostAlloc(self, size: int, flags: int) -> int:
        return self._allocate(size, pinned=True)

    @_answers
    def cudaFree(self, address: int) -> None:
        self._release(address, pinned=False)

    @_answers
    def cudaFreeHost(self, address: int) -> None:
        self._release(address, pinned=True)

    def _allocate(self, size: int, *, pinned: bool) -> int:
        self._unsafe_while_capturing()
        if self.fail_in is not None:
            if self.fail_in == 0:
                raise CallError(cudaError_t.cudaErrorMemoryAllocation)
            self.fail_in -= 1
        assert size > 0
        block = ctypes.create_string_buffer(size + 3 * _FENCE)
        start = ctypes.addressof(block)
        ctypes.memset(start, _FENCE_BYTE, len(block))
        address = (start + 2 * _FENCE - 1) // _FENCE * _FENCE
        ctypes.memset(address, _FRESH_BYTE, size)
        self.memory[address] = _Memory(block, address, size, pinned, self._device)
        self.allocations += 1
        return address

    def _release(self, address: int, *, pinned: bool) -> None:
        self._unsafe_while_capturing()
        self._finish_all()
        memory = self.memory.pop(address)
        assert memory.pinned == pinned, "freed as the other kind"
        before = ctypes.string_at(address - _FENCE, _FENCE)
        behind = ctypes.string_at(address + memory.size, _FENCE)
        assert before == behind == bytes([_FENCE_BYTE]) * _FENCE, "written outside the memory"
        ctypes.memset(address, _FREED_BYTE, memory.size)

    @_answers
    def cudaMemcpyAsync(self, target: int, source: int, size: int, kind: int, stream: int) -> None:
        self._copy(target, size, source, size, size, 1, kind, stream)

    @_answers
    def cudaMemcpy2DAsync(
        self,
        target: int,
        target_stride: int,
        source: int,
        source_stride: int,
        size: int,
        rows: int,
        kind: int,
        stream: int,
    ) -> None:
        if min(target_stride, source_stride) < size:
            raise CallError(cudaError_t.cudaErrorInvalidValue)
        self._copy(target, target_stride, source, source_stride, size, rows, kind, stream)

    def _copy(
        self,
        target: int,
        target_stride: int,
        source: int,
        source_stride: int,
        size: int,
        rows: int,
        kind: int,
        stream: int,
    ) -> None:
        assert kind == cudaMemcpyKind.cudaMemcpyDefault

        def copy() -> None:
            self.check(target, (rows - 1) * target_stride + size)
            self.check(source, (rows - 1) * source_stride + size)
            for row in range(rows):
                ctypes.memmove(target + row * target_stride, source + row * source_stride, size)

        self.queue(stream, copy)

    # ---------------------------------------------------------------------- streams and events

    @_answers
    def cudaStreamCreateWithFlags(self, flags: int) -> Handle:
        assert flags == self.cudaStreamNonBlocking
        handle = self._handle()
        self.streams[handle] = _Stream(self._device)
        return handle

    @_answers
    def cudaStreamDestroy(self, stream: int) -> None:
        self._finish(self.streams.pop(int(stream)))

    @_answers
    def cudaStreamSynchronize(self, stream: int) -> None:
        self._not_while_capturing()
        self._finish(self.streams[int(stream)])

    @_answers
    def cudaStreamWaitEvent(self, stream: int, event: int, flags: int) -> None:
        record = self.events[int(event)]
        if record.stream is not None:
            maker, position = record.stream, record.position
            self.queue(stream, lambda: self._finish(maker, position))

    @_answers
    def cudaEventCreateWithFlags(self, flags: int) -> Handle:
        handle = self._handle()
        self.events[handle] = _Event(timed=flags != self.cudaEventDisableTiming)
        return handle

    @_answers
    def cudaEventDestroy(self, event: int) -> None:
        del self.events[int(event)]

    @_answers
    def cudaEventRecord(self, event: int, stream: int) -> None:
        record, target = self.events[int(event)], self.streams[int(stream)]
        if target.captured is not None:
            raise CallError(
                cudaError_t.cudaErrorStreamCaptureUnsupported
            )  # nobody could wait for it
        record.stream, record.position, record.time = target, target.queued + 1, None
        self._put(target, lambda: self._mark(record))

    @_answers
    def cudaEventRecordWithFlags(self, event: int, stream: int, flags: int) -> None:
        record, target = self.events[int(event)], self.streams[int(stream)]
        if target.captured is None or flags != self.cudaEventRecordExternal:
            raise CallError(cudaError_t.cudaErrorInvalidValue)
        target.captured.append(lambda: self._mark(record))

    @_answers
    def cudaEventSynchronize(self, event: int) -> None:
        self._not_while_capturing()
        record = self.events[int(event)]
        if record.stream is not None:
            self._finish(record.stream, record.position)

    @_answers
    def cudaEventElapsedTime(self, start: int, end: int) -> float:
        first, last = self.events[int(start)], self.events[int(end)]
        if not (first.timed and last.timed):
            raise CallError(cudaError_t.cudaErrorInvalidResourceHandle)
        if first.time is None or last.time is None:
            raise CallError(cudaError_t.cudaErrorNotReady)
        return 1e3 * (last.time - first.time)

    def _mark(self, event: _Event) -> None:
        event.time = time.perf_counter()

    # ----------------------------------------------------------------------------------- graphs

    @_answers
    def cudaStreamBeginCapture(self, stream: int, mode: int) -> None:
        assert mode == cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        target = self.streams[int(stream)]
        target.captured, target.broken = [], False
        target.captured_by = self._thread.capturing = threading.get_ident()

    @_answers
    def cudaStreamEndCapture(self, stream: int) -> Handle:
        target = self.streams[int(stream)]
        assert target.captured is not None
        assert target.captured_by == threading.get_ident()
        operations, target.captured = target.captured, None
        self._thread.capturing = 0
        if target.broken:
            raise CallError(cudaError_t.cudaErrorStreamCaptureInvalidated)
        return self._graph(operations)

    @_answers
    def cudaGraphInstantiate(self, graph: int, flags: int) -> Handle:
        self.graphs_made += 1
        return self._graph(list(self.graphs[int(graph)]))

    @_answers
    def cudaGraphLaunch(self, graph: int, stream: int) -> None:
        self.launches += 1
        for operation in self.graphs[int(graph)]:
            self._put(self.streams[int(stream)], operation)

    @_answers
    def cudaGraphDestroy(self, graph: int) -> None:
        del self.graphs[int(graph)]

    @_answers
    def cudaGraphExecDestroy(self, graph: int) -> None:
        del self.graphs[int(graph)]

    def _graph(self, operations: list[Operation]) -> Handle:
        handle = self._handle()
        self.graphs[handle] = operations
        return handle

    @_answers
    def cudaThreadExchangeStreamCaptureMode(self, mode: int) -> int:
        before = self._mode
        self._thread.mode = mode
        return before

    @property
    def _mode(self) -> int:
        """How strict the calling thread is about captures."""
        return int(getattr(self._thread, "mode", cudaStreamCaptureMode.cudaStreamCaptureModeGlobal))

    def _unsafe_while_capturing(self) -> None:
        if self._mode != cudaStreamCaptureMode.cudaStreamCaptureModeRelaxed:
            self._not_while_capturing()

    def _not_while_capturing(self) -> None:
        if getattr(self._thread, "capturing", 0):
            for stream in self.streams.values():
                if stream.captured is not None and stream.captured_by == threading.get_ident():
                    stream.broken = True
            raise CallError(cudaError_t.cudaErrorStreamCaptureUnsupported)

    # ---------------------------------------------------------------------------------- running

    def _handle(self) -> Handle:
        self._last_handle += 0x10
        return Handle(self._last_handle)

    def _put(self, stream: _Stream, operation: Operation) -> None:
        stream.work.append(operation)
        stream.queued += 1
        if self.at_once:
            self._finish(stream)

    def _finish(self, stream: _Stream, position: int | None = None) -> None:
        last = stream.queued if position is None else position
        while stream.done < last:
            operation = stream.work.popleft()
            stream.done += 1
            if self.lost is None:
                operation()

    def _finish_all(self) -> None:
        for stream in self.streams.values():
            self._finish(stream)


class FakeKernels:
    """Stands for `edgeseg._core.cuda`: the kernels on a fake's streams and memory.

    Args:
        cuda: whose memory and streams they use.
        kernels: computes at once, on host memory, with the signatures of `_core.cuda`.
    """

    def __init__(self, cuda: FakeCuda, kernels: Any) -> None:
        self._cuda, self._kernels = cuda, kernels

    def device_count(self) -> int:
        return 0 if self._cuda.no_driver else self._cuda.devices

    def preprocess(self, *arguments: Any, **named: Any) -> None:
        frame, (height, _), row_stride, out = arguments[:4]
        rows = height // 2 * 3 if named["pixel_format"] == "nv12" else height
        self._queue("preprocess", arguments, named, [(frame, rows * row_stride), (out, 1)])

    def upsample_argmax(self, *arguments: Any, **named: Any) -> None:
        logits, labels, (_, height, width) = arguments[0], arguments[4], arguments[5]
        ranges = [(logits, 1), (labels, height * width)]
        if named.get("confidence"):
            ranges.append((named["confidence"], 4 * height * width))
        self._queue("upsample_argmax", arguments, named, ranges)

    def _queue(self, name: str, arguments: Any, named: dict[str, Any], ranges: Any) -> None:
        stream = named.pop("stream")
        kernel = getattr(self._kernels, name)

        def run() -> None:
            if self._cuda.break_launch:
                self._cuda.break_launch = False
                self._cuda.lost = cudaError_t.cudaErrorLaunchFailure
                return
            for address, size in ranges:
                self._cuda.check(address, size, of_stream=stream)
            kernel(*arguments, **named)

        self._cuda.launch(stream, run)


class HostKernels:
    """The CPU's kernels with the signatures of `_core.cuda`; fast, for thousands of frames."""

    @staticmethod
    def preprocess(
        frame: int,
        shape: tuple[int, int],
        row_stride: int,
        out: int,
        out_shape: tuple[int, ...],
        out_strides: tuple[int, ...],
        out_dtype: str,
        *,
        pixel_format: str,
        **named: Any,
    ) -> None:
        height, width = shape
        nv12 = pixel_format == "nv12"
        extents = (height // 2 * 3, width) if nv12 else (height, width, 3)
        strides = (row_stride, 1) if nv12 else (row_stride, 3, 1)
        _core.preprocess(
            view(frame, extents, "uint8", strides),
            view(out, out_shape, out_dtype),
            pixel_format=pixel_format,
            **named,
        )

    @staticmethod
    def upsample_argmax(
        logits: int,
        shape: tuple[int, ...],
        strides: tuple[int, ...],
        dtype: str,
        labels: int,
        labels_shape: tuple[int, ...],
        labels_strides: tuple[int, ...],
        *,
        confidence: int,
        **named: Any,
    ) -> None:
        _core.upsample_argmax(
            view(logits, shape, dtype),
            view(labels, labels_shape, "uint8"),
            confidence=view(confidence, labels_shape, "float32") if confidence else None,
            **named,
        )


def view(
    address: int, shape: tuple[int, ...], dtype: str, strides: tuple[int, ...] | None = None
) -> NDArray[Any]:
    """The array at an address; `strides` in bytes."""
    kind = np.dtype(dtype)
    if strides is None:
        size = int(np.prod(shape)) * kind.itemsize
    else:
        size = sum((n - 1) * s for n, s in zip(shape, strides, strict=True)) + kind.itemsize
    flat = np.frombuffer((ctypes.c_uint8 * size).from_address(address), np.uint8)
    if strides is None:
        return flat.view(kind).reshape(shape)
    return as_strided(flat.view(kind), shape, strides)
