"""`Runtime`: an engine file made ready to label frames."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from edgeseg.arguments import check_choice, check_threads
from edgeseg.engine_file import EngineFile, Target, open_engine
from edgeseg.errors import EngineError, InputError, MissingDependencyError
from edgeseg.runtime import gpu_targets
from edgeseg.runtime.device_arrays import is_on_device
from edgeseg.runtime.frames import Frame, FrameLike, PixelFormat, as_frame
from edgeseg.runtime.pipeline import Pipeline
from edgeseg.runtime.result import Result
from edgeseg.video import RECONNECT, TIMEOUT, open_source, prefetch

if TYPE_CHECKING:
    from edgeseg.runtime.gpu import DeviceFrame, DeviceResult, GpuPipeline

logger = logging.getLogger("edgeseg")

Precision = Literal["auto", "float32", "float16", "bfloat16", "int8"]
_IN_FLIGHT = 2  # one frame in the network, one being prepared or finished
_PATIENCE = 1.0  # seconds that leaving a stream waits for a caller's iterable


def packaged_engine() -> Path:
    """Path of the CamVid engine that comes with the package."""
    return Path(__file__).parents[1] / "engines" / "camvid.edgeseg"


class Runtime:
    """An engine, compiled for this machine.

    One Runtime may be used from many threads at once.

    Attributes:
        manifest: what the engine file says of itself.
        classes: K class names; a label is an index into them.
        palette: K×3 uint8, R, G, B.
        backend: what runs the network, e.g. "openvino".
        target: kind of the engine's target in use, e.g. "onnx".
        device: where it runs, as the backend names it.
        precision: number format of the inference, e.g. "bfloat16".
        quantization: what the quantized target in use was measured to cost; None in floating
            point.
        threads: CPU threads that the network and the native kernels use.
    """

    def __init__(
        self,
        engine: str | os.PathLike[str] | None = None,
        device: str = "auto",
        threads: int | None = None,
        strict: bool = False,
        *,
        precision: Precision = "auto",
        trust: bool = False,
        cache: str | os.PathLike[str] | None = None,
    ) -> None:
        """Load and compile an engine file.

        Args:
            engine: an engine file; None is the packaged CamVid engine.
            device: "auto" takes the best target that this machine can run, on its first GPU before
                its CPU; "cpu", "cuda" and "cuda:1" name one.
            threads: CPU threads; None is every core that this process may use.
            strict: raise where a target would otherwise be passed over for the next best one.
            precision: "auto" is the fastest that the engine is meant for on this machine; INT8
                only where the file says that it was measured to cost 0.5 mIoU at most. "int8"
                takes the quantized target whatever it costs.
            trust: also load targets that are native code (TensorRT plans, AOTInductor packages)
                and were not built by this machine: whoever made them decides what runs.
            cache: folder for networks as OpenVINO compiled them for this CPU; the second load of
                an engine then takes about half the time. It is made if it is not there; keep it
                where only you can write.

        Raises:
            EngineError: the file is missing, damaged, or none of its targets runs here.
            MissingDependencyError: what runs the only target that would fit is not installed.
            InputError: an argument is out of range.
        """
        known = r"auto|cpu|cuda(:\d{1,3})?"
        if not (isinstance(device, str) and re.fullmatch(known, device)):
            raise InputError(
                f"device {device!r} is unknown; 'auto', 'cpu', 'cuda' or 'cuda:N' was expected"
            )
        check_choice("precision", precision, get_args(Precision))
        self.threads = check_threads(len(os.sched_getaffinity(0)) if threads is None else threads)
        with open_engine(packaged_engine() if engine is None else engine) as file:
            self.manifest = file.manifest
            on_gpu = None
            if device != "cpu":
                on_gpu = _load_gpu(file, device, precision, strict=strict, trust=trust)
            self._gpu = on_gpu[0] if on_gpu else None
            self._pipeline, target = on_gpu or _load_cpu(
                file, self.threads, precision, strict, None if cache is None else Path(cache)
            )
        self.target = target.kind
        self.quantization = target.quantization
        self.classes = self.manifest.classes
        self.palette: NDArray[np.uint8] = np.array(self.manifest.palette, np.uint8)
        self.backend = self._pipeline.name
        self.device = self._pipeline.device
        self.precision = self._pipeline.precision
        logger.info("%s", self)

    def __repr__(self) -> str:
        size = self.manifest.input
        return (
            f"Runtime({self.manifest.name!r}: {len(self.classes)} classes, "
            f"{size.width}×{size.height}, {self.target} target with {self.backend} in "
            f"{self.precision} on {self.device}, {self.threads} threads)"
        )

    def predict(
        self, frame: FrameLike, pixel_format: PixelFormat = "bgr", *, confidence: bool = False
    ) -> Result:
        """Label one frame.

        Args:
            frame: H×W×3 uint8 array of any row stride, an image file's path or bytes, a PIL image,
                or a tensor; for "nv12" a (3H/2)×W uint8 array. Where the Runtime is on a GPU, an
                array in its memory (DLPack or __cuda_array_interface__) is read in place.
            pixel_format: "bgr", "rgb" or "nv12": what an array holds.
            confidence: also give the softmax probability of each pixel's label.

        Returns:
            Labels at the frame's own size, and what can be made of them.

        Raises:
            InputError: the frame cannot be used as it is; the message says why.
            EngineError: the GPU has too little memory, or is lost.
        """
        return self._label(self._frame(frame, pixel_format), confidence)

    def predict_on_device(
        self, frame: FrameLike, pixel_format: PixelFormat = "bgr", *, confidence: bool = False
    ) -> DeviceResult:
        """Label one frame and leave the labels in the GPU's memory.

        Returns once the frame has been read: whoever takes the labels waits on their own stream.

        Args:
            frame: as for `predict`.
            pixel_format: as for `predict`.
            confidence: as for `predict`.

        Raises:
            InputError: the Runtime is on a CPU, or the frame cannot be used as it is.
            EngineError: the GPU has too little memory, or is lost.
        """
        gpu = self._on_gpu("labels cannot stay in a GPU's memory")
        return gpu.label_on_device(self._frame(frame, pixel_format), confidence)

    def predict_batch(
        self,
        frames: Iterable[FrameLike],
        pixel_format: PixelFormat = "bgr",
        *,
        confidence: bool = False,
    ) -> list[Result]:
        """Label several frames, of any sizes; pre- and post-processing overlap with the network.

        Raises:
            InputError: as `predict`; the message names the frame's place in the batch.
        """
        ready = []
        for index, frame in enumerate(_several(frames)):
            try:
                ready.append(self._frame(frame, pixel_format))
            except InputError as error:
                raise InputError(f"frame {index} of the batch: {error}") from error
        return list(self._in_order(ready, confidence))

    def stream(
        self,
        source: str | os.PathLike[str] | int | Iterable[FrameLike],
        pixel_format: PixelFormat = "bgr",
        *,
        confidence: bool = False,
        latest: bool = False,
        reconnect: float = RECONNECT,
        timeout: float = TIMEOUT,
    ) -> Iterator[Result]:
        """Label a video file, a folder of images, a camera, a URL, or any iterable of frames.

        Decoding, inference and post-processing overlap; results come in the source's order, each
        as soon as it is there; at most a few frames are in memory at once. Stop by leaving the
        loop.

        Args:
            source: see `edgeseg.video.open_source`; an iterable is iterated over in a thread of its
                own.
            pixel_format: what arrays of an iterable hold.
            confidence: as for `predict`.
            latest: label what the source shows when a result is asked for, one frame at a time,
                and pass over those that came meanwhile: for cameras and other live sources. Without
                it, one that is faster than whoever takes the results falls behind, and its server
                may cut it off.
            reconnect: seconds for which to try to get a lost camera or stream back; 0 gives up at
                once, inf never.
            timeout: seconds without a frame after which a camera or stream is lost.

        Raises:
            InputError: the source cannot be opened, or ends before it should; results of the frames
                that could be read are given first.
            SourceLostError: an InputError, too: a camera or stream did not come back.
        """
        results = self._of_latest if latest else self._in_order
        if isinstance(source, (str, os.PathLike, int)):
            with open_source(source, reconnect=reconnect, timeout=timeout) as opened:
                read = (as_frame(item.pixels) for item in opened)
                yield from results(read, confidence, stop=opened.stop)
            return
        frames = (self._frame(frame, pixel_format) for frame in _several(source))
        yield from results(frames, confidence, patience=_PATIENCE)

    def _in_order(
        self,
        frames: Iterable[Frame | DeviceFrame],
        confidence: bool,
        *,
        stop: Callable[[], None] | None = None,
        patience: float | None = None,
    ) -> Iterator[Result]:
        """Results in the order of the frames, `_IN_FLIGHT` of them in work."""
        with ThreadPoolExecutor(_IN_FLIGHT, "edgeseg") as workers:
            begun = (workers.submit(self._label, frame, confidence) for frame in frames)
            with prefetch(begun, _IN_FLIGHT - 1, stop=stop, patience=patience) as pending:
                for result in pending:
                    yield result.result()

    def _of_latest(
        self,
        frames: Iterable[Frame | DeviceFrame],
        confidence: bool,
        *,
        stop: Callable[[], None] | None = None,
        patience: float | None = None,
    ) -> Iterator[Result]:
        """Results of the frames that are newest when a result is asked for; one is in work."""
        with prefetch(frames, 1, newest=True, stop=stop, patience=patience) as newest:
            for frame in newest:
                yield self._label(frame, confidence)

    def _frame(self, source: FrameLike, pixel_format: PixelFormat) -> Frame | DeviceFrame:
        if not is_on_device(source):
            return as_frame(source, pixel_format)
        check_choice("pixel_format", pixel_format, get_args(PixelFormat))
        gpu = self._on_gpu("the frame is in a GPU's memory; bring it here (frame.cpu())")
        return gpu.take(source, pixel_format)

    def _on_gpu(self, problem: str) -> GpuPipeline:
        if self._gpu is None:
            raise InputError(
                f"this Runtime runs on {self.device}: {problem}, or make a Runtime with "
                "device='cuda' of a file that has a target for GPUs"
            )
        return self._gpu

    def _label(self, frame: Frame | DeviceFrame, want_confidence: bool) -> Result:
        if isinstance(frame, Frame):
            labels, confidence, timings = self._pipeline.label(frame, want_confidence)
        else:
            assert self._gpu is not None  # which took the frame
            labels, confidence, timings = self._gpu.label(frame, want_confidence)
        return Result(
            labels=labels,
            classes=self.classes,
            palette=self.palette,
            frame=frame,
            confidence=confidence,
            timings=timings,
        )


def _several(frames: Iterable[FrameLike]) -> Iterable[FrameLike]:
    """`frames`, unless they are one frame, a file's name, or nothing to iterate over."""
    if isinstance(frames, (str, bytes, bytearray, os.PathLike)) or not isinstance(frames, Iterable):
        raise InputError(
            f"the frames are a {type(frames).__name__}, a list or another iterable of frames was "
            "expected; give one frame to predict, a file, folder or camera to stream"
        )
    if getattr(frames, "ndim", 4) < 4:
        raise InputError(
            "the frames are a single array, a list of frames was expected; give [frame], "
            "or the frame to predict"
        )
    return frames


def _load_gpu(
    engine: EngineFile, device: str, precision: Precision, *, strict: bool, trust: bool
) -> tuple[GpuPipeline, Target] | None:
    """The best target that runs on the GPU; None where "auto" may go on to the CPU."""
    named = device != "auto"
    _, _, index = device.partition(":")
    manifest = engine.manifest
    has_targets = any(gpu_targets.of_kinds(manifest, precision))
    if not has_targets and not named:
        return None
    try:
        gpu = gpu_targets.find_gpu(int(index or 0))
    except EngineError as error:
        if named:
            raise
        logger.info("its targets for GPUs are passed over: %s", error)
        return None
    if not has_targets:
        raise EngineError(
            f"{engine.path} has no target for GPUs in precision {precision!r}; build one on "
            f"this machine: edgeseg build {engine.path} --target tensorrt"
        )
    errors: list[EngineError | MissingDependencyError] = []
    for target in gpu_targets.best_first(manifest, precision, gpu):
        try:
            return gpu_targets.load(engine, target, gpu, trusted=trust), target
        except (EngineError, MissingDependencyError) as error:
            if strict:
                raise
            # As text: a record that somebody keeps would keep the GPU's streams with the error.
            logger.warning("falling back from the %s target: %s", target.kind, str(error))
            errors.append(error)
    if named:
        raise errors[0]
    return None


def _load_cpu(
    engine: EngineFile, threads: int, precision: Precision, strict: bool, cache: Path | None
) -> tuple[Pipeline, Target]:
    from edgeseg.runtime.cpu import CpuPipeline

    # Quantized, what is not integer arithmetic runs in what is fastest here.
    of_floats = None if precision in ("auto", "int8") else precision

    def load(target: Target) -> tuple[Pipeline, Target]:
        pipeline = CpuPipeline(engine, target, threads=threads, precision=of_floats, cache=cache)
        if of_floats is not None and pipeline.precision != of_floats:
            raise EngineError(
                f"this CPU computes in {pipeline.precision} what is to be {of_floats}; choose "
                "another precision, or a GPU (device='cuda')"
            )
        return pipeline, target

    *preferred, last = _targets(engine, precision)
    for target in preferred:
        try:
            return load(target)
        except EngineError as error:
            if strict:
                raise
            logger.warning("falling back from the %s target: %s", target.kind, error)
    return load(last)


def _targets(engine: EngineFile, precision: Precision) -> list[Target]:
    """Targets that this machine may run in that precision, best first."""
    quantized = engine.manifest.target("openvino", quantized=True)
    if precision == "int8":
        # The ONNX form is for TensorRT; here it is only simulated, which is slow but exact.
        quantized = quantized or engine.manifest.target("onnx", quantized=True)
        if quantized is None:
            raise EngineError(
                f"{engine.path} has no INT8 target; make one with 'edgeseg quantize', or run it in "
                "another precision"
            )
        return [quantized]
    # An OpenVINO part is there because it was measured to be faster.
    targets = [t for kind in ("openvino", "onnx") if (t := engine.manifest.target(kind))]
    measured = None if quantized is None else quantized.quantization
    if precision == "auto" and quantized and measured and measured.harmless:
        targets.insert(0, quantized)
    if not targets:
        found = ", ".join(f"{target.kind} ({target.weights})" for target in engine.manifest.targets)
        raise EngineError(
            f"{engine.path} has only the targets {found}, this machine runs 'onnx' or 'openvino' "
            f"in {precision}; export the engine again with one of these"
        )
    return targets
