"""Frame to labels on a GPU: staging, CUDA kernels and a network on one stream, in one graph."""

from __future__ import annotations

import logging
import queue
import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from edgeseg import _core
from edgeseg.engine_file import FloatType, Manifest
from edgeseg.errors import EngineError, InputError
from edgeseg.machine import Gpu
from edgeseg.runtime.cuda import (
    DeviceMemory,
    Event,
    Graph,
    PinnedMemory,
    Stream,
    on_device,
    order_after,
)
from edgeseg.runtime.device_arrays import DeviceArray, take
from edgeseg.runtime.frames import Frame, PixelFormat, check_shape
from edgeseg.runtime.geometry import place
from edgeseg.runtime.result import Timings

logger = logging.getLogger("edgeseg")

_SLOTS = 3  # one frame is staged, one in the network, one copied out
_SHAPES = 4  # whose buffers and graph a slot keeps; a 4K frame's take 2 × 33 MB
_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}


class CudaContext(Protocol):
    """One inference at a time of a `CudaNetwork`."""

    def enqueue(self, image: int, logits: int, stream: int) -> None:
        """Queue the network on a cudaStream_t, between device addresses.

        Raises:
            EngineError: it cannot be queued.
        """


class CudaNetwork(Protocol):
    """A network that runs on a GPU.

    Attributes:
        name: what runs it, e.g. "tensorrt".
        precision: what it computes in, e.g. "float16".
        input_dtype: of its input, 1×3×h×w, contiguous.
        logits_dtype: of its output, 1×K×h'×w', contiguous.
        logits: (K, h', w').
        capturable: whether what a context queues may become part of a CUDA graph.
    """

    name: str
    precision: str
    input_dtype: FloatType
    logits_dtype: FloatType
    logits: tuple[int, int, int]
    capturable: bool

    def context(self) -> CudaContext:
        """A context on the calling thread's current device; all share the network's weights."""


@dataclass(frozen=True, eq=False)
class DeviceFrame:
    """A camera frame in the GPU's memory, read in place.

    Attributes:
        array: its uint8 pixels, in the shapes of `Frame.pixels`; inside a row they are contiguous.
        row_stride: bytes from row to row.
        pixel_format: what they are.
        height: H, in pixels.
        width: W, in pixels.
        written: passes when its maker is done with it.
    """

    array: DeviceArray
    row_stride: int
    pixel_format: PixelFormat
    height: int
    width: int
    written: Event

    @cached_property
    def pixels(self) -> NDArray[np.uint8]:
        """A copy on the host, made when first asked for; its shape is that of `Frame.pixels`."""
        rows, row_bytes = _extent(self.height, self.width, self.pixel_format)
        with on_device(self.array.device):
            stream, memory = Stream(), PinnedMemory(rows * row_bytes)
            stream.wait_for(self.written)
            stream.copy_rows(
                memory.address,
                row_bytes,
                self.array.address,
                self.row_stride,
                row_bytes,
                rows,
            )
            stream.synchronize()
            return memory.bytes.reshape(self.array.shape).copy()


@dataclass(frozen=True, eq=False)
class DeviceResult:
    """Labels of one frame in the GPU's memory.

    Both arrays share their memory by `__dlpack__`, which orders the taker's stream after the work
    that makes them, and by `__cuda_array_interface__`, which waits for that work. They own it: it
    stays as it is while anything refers to it.

    Attributes:
        labels: H×W uint8, class ids at the frame's own size.
        confidence: H×W float32, softmax probability of each label, if it was asked for.
        classes: K class names; a label is an index into them.
    """

    labels: DeviceArray
    confidence: DeviceArray | None
    classes: tuple[str, ...]


@dataclass(frozen=True)
class _Shape:
    """What a graph and its buffers are made for."""

    height: int
    width: int
    pixel_format: PixelFormat
    confidence: bool
    from_device: bool
    to_device: bool

    @property
    def pixels(self) -> int:
        return self.height * self.width

    @property
    def rows(self) -> tuple[int, int]:
        """Number of the frame's rows, and bytes of each."""
        return _extent(self.height, self.width, self.pixel_format)


def _extent(height: int, width: int, pixel_format: PixelFormat) -> tuple[int, int]:
    """Number of a frame's rows, and bytes of each."""
    return (height // 2 * 3, width) if pixel_format == "nv12" else (height, 3 * width)


class _Buffers:
    """Memory of one shape of frame, and the graph over it."""

    def __init__(self, shape: _Shape) -> None:
        rows, row_bytes = shape.rows
        self._owned: list[DeviceMemory | PinnedMemory] = []
        self.graph: Graph | None = None
        self.warm = False
        try:
            self.frame = self._device(rows * row_bytes)
            self.labels = self._device(shape.pixels)
            self.confidence = self._device(4 * shape.pixels) if shape.confidence else 0
            self.staging = None if shape.from_device else self._pinned(rows * row_bytes)
            self.host_labels = None if shape.to_device else self._pinned(shape.pixels)
            self.host_confidence = (
                self._pinned(4 * shape.pixels) if shape.confidence and not shape.to_device else None
            )
        except BaseException:
            self.free()  # the traceback would keep what there is already
            raise

    def _device(self, size: int) -> int:
        memory = DeviceMemory(size)
        self._owned.append(memory)
        return memory.address

    def _pinned(self, size: int) -> PinnedMemory:
        memory = PinnedMemory(size)
        self._owned.append(memory)
        return memory

    def free(self) -> None:
        if self.graph is not None:
            self.graph.free()
        for memory in self._owned:
            memory.free()


class _Slot:
    """All that one frame needs on its way; used by one thread at a time."""

    def __init__(self, network: CudaNetwork, manifest: Manifest) -> None:
        size = manifest.input
        self._network = network
        self._manifest = manifest
        self._shapes: OrderedDict[_Shape, _Buffers] = OrderedDict()
        self._owned: list[DeviceMemory] = []
        try:
            self.stream = Stream()
            self._marks = [Event(timed=True) for _ in range(4)]
            self._context = network.context()
            self._image = self._device(3 * size.height * size.width * _BYTES[network.input_dtype])
            classes, height, width = network.logits
            self._logits = self._device(classes * height * width * _BYTES[network.logits_dtype])
        except BaseException:
            self.free()
            raise

    def _device(self, size: int) -> int:
        memory = DeviceMemory(size)
        self._owned.append(memory)
        return memory.address

    def free(self) -> None:
        """Give the memory back; the stream stays for results that still name it."""
        for buffers in self._shapes.values():
            buffers.free()
        self._shapes.clear()
        for memory in self._owned:
            memory.free()

    def run(self, shape: _Shape, frame: Frame | DeviceFrame) -> _Buffers:
        """Queue a frame's whole way; what it needs of host frames is read before this returns."""
        buffers = self._buffers(shape)
        if isinstance(frame, Frame):
            assert buffers.staging is not None
            self.stream.synchronize()  # the staging memory may still be read for an earlier frame
            np.copyto(buffers.staging.bytes.reshape(frame.pixels.shape), frame.pixels)
        else:
            rows, row_bytes = shape.rows
            self.stream.wait_for(frame.written)
            self.stream.copy_rows(
                buffers.frame,
                row_bytes,
                frame.array.address,
                frame.row_stride,
                row_bytes,
                rows,
            )
        if not buffers.warm:
            self._warm_up(shape, buffers)
        if buffers.graph is None:
            self._enqueue(shape, buffers)
        else:
            buffers.graph.launch(self.stream)
        return buffers

    def timings(self) -> Timings:
        """Of the last frame, which has passed."""
        started, prepared, inferred, finished = self._marks
        return Timings(
            preprocess=prepared.milliseconds_since(started),
            inference=inferred.milliseconds_since(prepared),
            upsample_argmax=finished.milliseconds_since(inferred),
        )

    def _buffers(self, shape: _Shape) -> _Buffers:
        if shape in self._shapes:
            self._shapes.move_to_end(shape)
            return self._shapes[shape]
        while len(self._shapes) >= _SHAPES:
            _, oldest = self._shapes.popitem(last=False)
            self.stream.synchronize()
            oldest.free()
        buffers = self._shapes[shape] = _Buffers(shape)
        return buffers

    def _warm_up(self, shape: _Shape, buffers: _Buffers) -> None:
        # Libraries load kernels and take memory when they first run, which no graph can hold.
        self._enqueue(shape, buffers)
        self.stream.synchronize()
        buffers.warm = True
        if self._network.capturable:
            try:
                buffers.graph = self.stream.capture(lambda: self._enqueue(shape, buffers))
            except EngineError as error:
                logger.warning("launching step by step, without a CUDA graph: %s", error)

    def _enqueue(self, shape: _Shape, buffers: _Buffers) -> None:
        """Queue all steps; every address is that of a buffer that stays, as a graph needs it."""
        manifest, network, stream = self._manifest, self._network, self.stream
        size, align_corners = manifest.input, manifest.architecture.align_corners
        classes, grid_height, grid_width = network.logits
        placement = place(
            (shape.height, shape.width),
            size,
            (grid_height, grid_width),
            align_corners=align_corners,
        )
        rows, row_bytes = shape.rows
        started, prepared, inferred, finished = self._marks
        try:
            started.record(stream)
            if buffers.staging is not None:
                stream.copy(buffers.frame, buffers.staging.address, rows * row_bytes)
            _core.cuda.preprocess(
                buffers.frame,
                (shape.height, shape.width),
                row_bytes,
                self._image,
                (3, size.height, size.width),
                (size.height * size.width, size.width, 1),
                network.input_dtype,
                mean=size.mean,
                std=size.std,
                pixel_format=shape.pixel_format,
                content=placement.content,
                pad=size.pad,
                stream=stream.handle,
            )
            prepared.record(stream)
            self._context.enqueue(self._image, self._logits, stream.handle)
            inferred.record(stream)
            _core.cuda.upsample_argmax(
                self._logits,
                (1, *network.logits),
                (
                    classes * grid_height * grid_width,
                    grid_height * grid_width,
                    grid_width,
                    1,
                ),
                network.logits_dtype,
                buffers.labels,
                (1, shape.height, shape.width),
                (shape.pixels, shape.width, 1),
                align_corners=align_corners,
                source=placement.source,
                confidence=buffers.confidence,
                stream=stream.handle,
            )
            if buffers.host_labels is not None:
                stream.copy(buffers.host_labels.address, buffers.labels, shape.pixels)
            if buffers.host_confidence is not None:
                stream.copy(buffers.host_confidence.address, buffers.confidence, 4 * shape.pixels)
            finished.record(stream)
        except RuntimeError as error:  # of the kernels, which say what to do
            raise EngineError(str(error)) from error


class GpuPipeline:
    """A `Pipeline` over a `CudaNetwork`; attributes as there.

    Each of a few slots has a stream, buffers and a graph for each of the latest frame sizes; a
    frame borrows one, so that the copies of one overlap with another's network. Once a size is
    known to all slots, a frame allocates only what its result keeps.

    Timings are the GPU's own; preprocessing includes the copy of a host frame to the device,
    upsampling that of the labels back.
    """

    def __init__(self, network: CudaNetwork, manifest: Manifest, gpu: Gpu) -> None:
        """Make the first slot.

        Raises:
            EngineError: the GPU cannot be used, or has too little memory.
        """
        self._network = network
        self._manifest = manifest
        self._index = gpu.index
        self.name = network.name
        self.device = f"cuda:{gpu.index} ({gpu.name})"
        self.precision = network.precision
        self.logits = network.logits
        self._making = threading.Lock()
        self._idle: queue.LifoQueue[_Slot | None] = queue.LifoQueue()
        for _ in range(_SLOTS - 1):
            self._idle.put(None)  # a place; the slot is made when first needed
        with on_device(self._index):
            self._arrivals = Stream()
            self._idle.put(self._new_slot())

    def label(
        self, frame: Frame | DeviceFrame, confidence: bool
    ) -> tuple[NDArray[np.uint8], NDArray[np.float32] | None, Timings]:
        """Label one frame; see `Pipeline.label`.

        Raises:
            EngineError: the GPU is out of memory, or lost.
        """
        shape = _shape_of(frame, confidence, to_device=False)
        size = (shape.height, shape.width)
        certainty = np.empty(size, np.float32) if confidence else None
        with self._slot() as slot:
            buffers = slot.run(shape, frame)
            slot.stream.synchronize()
            assert buffers.host_labels is not None
            labels = buffers.host_labels.bytes.reshape(size).copy()
            if certainty is not None:
                assert buffers.host_confidence is not None
                np.copyto(certainty, buffers.host_confidence.bytes.view(np.float32).reshape(size))
            return labels, certainty, slot.timings()

    def label_on_device(self, frame: Frame | DeviceFrame, confidence: bool) -> DeviceResult:
        """Queue one frame; returns once the frame has been read.

        Raises:
            EngineError: the GPU is out of memory, or lost.
        """
        shape = _shape_of(frame, confidence, to_device=True)
        with self._slot() as slot:
            # Taken first: should there be no memory, nothing has been queued yet.
            labels = DeviceMemory(shape.pixels)
            certainty = DeviceMemory(4 * shape.pixels) if confidence else None
            buffers = slot.run(shape, frame)
            slot.stream.copy(labels.address, buffers.labels, shape.pixels)
            if certainty is not None:
                slot.stream.copy(certainty.address, buffers.confidence, 4 * shape.pixels)
            made = Event()
            made.record(slot.stream)
            if isinstance(frame, DeviceFrame):
                made.wait()  # its owner may overwrite it as soon as this returns
            return DeviceResult(
                labels=self._shared(labels, shape, "|u1", slot.stream, made),
                confidence=(
                    None
                    if certainty is None
                    else self._shared(certainty, shape, "<f4", slot.stream, made)
                ),
                classes=self._manifest.classes,
            )

    def take(self, source: Any, pixel_format: PixelFormat) -> DeviceFrame:
        """A frame in this GPU's memory; its maker's stream is that of the calling thread.

        Args:
            source: uint8, H×W×3 or (3H/2)×W for "nv12", with DLPack or __cuda_array_interface__.
            pixel_format: what it holds.

        Raises:
            InputError: it cannot be used as it is; the message says why and what to do.
        """
        with on_device(self._index):
            written = Event()

            def arrive_after(stream: int) -> None:
                marker = Event()
                marker.record(stream)
                self._arrivals.wait_for(marker)

            array = take(source, self._index, self._arrivals.handle, arrive_after)
            written.record(self._arrivals)
        if 0 in array.shape:
            raise InputError(
                f"the frame is empty (shape {array.shape}); check the decoder, and the crop"
            )
        check_shape(array.shape, pixel_format)
        if array.typestr != "|u1":
            raise InputError(
                f"the frame on the GPU is {np.dtype(array.typestr).name}, uint8 in 0..255 was "
                "expected; convert it there: frame.round().clamp(0, 255).byte()"
            )
        rows, width = array.shape[:2]
        height = rows // 3 * 2 if pixel_format == "nv12" else rows
        _, row_bytes = _extent(height, width, pixel_format)
        inner = (1,) if pixel_format == "nv12" else (3, 1)
        row_stride = array.strides[0] if rows > 1 else row_bytes
        if array.strides[1:] != inner or row_stride < row_bytes:
            raise InputError(
                "the frame on the GPU has rows that are not contiguous (strides "
                f"{array.strides}); copy it there: frame.contiguous()"
            )
        return DeviceFrame(array, row_stride, pixel_format, height, width, written)

    def _shared(
        self, memory: DeviceMemory, shape: _Shape, typestr: str, stream: Stream, made: Event
    ) -> DeviceArray:
        item = int(typestr[2:])

        def order(taker: int) -> None:
            with on_device(self._index):  # whose default streams 1 and 2 stand for
                order_after(taker, made)

        return DeviceArray(
            address=memory.address,
            shape=(shape.height, shape.width),
            strides=(item * shape.width, item),
            typestr=typestr,
            device=self._index,
            owner=(memory, stream, made),
            order=order,
            finish=made.wait,
        )

    def _new_slot(self) -> _Slot:
        with self._making:  # not every library makes contexts from several threads at once
            return _Slot(self._network, self._manifest)

    @contextmanager
    def _slot(self) -> Iterator[_Slot]:
        """Borrow a slot, its device current; waits while all of them are in use."""
        slot = self._idle.get()
        try:
            with on_device(self._index):
                if slot is None:
                    slot = self._new_slot()
                try:
                    yield slot
                except BaseException:
                    slot.free()  # whatever state it is in, the next frame starts with a new one
                    slot = None
                    raise
        finally:
            self._idle.put(slot)


def _shape_of(frame: Frame | DeviceFrame, confidence: bool, *, to_device: bool) -> _Shape:
    return _Shape(
        frame.height,
        frame.width,
        frame.pixel_format,
        confidence,
        isinstance(frame, DeviceFrame),
        to_device,
    )
