"""Frame to labels on a CPU: native kernels around a network in OpenVINO."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from edgeseg import _core
from edgeseg.engine_file import EngineFile, Target
from edgeseg.runtime.frames import Frame
from edgeseg.runtime.geometry import Placement, place
from edgeseg.runtime.openvino import OpenVINOBackend
from edgeseg.runtime.result import Timings


class CpuPipeline:
    """A `Pipeline` over OpenVINO; attributes as there."""

    def __init__(
        self,
        engine: EngineFile,
        target: Target,
        *,
        threads: int,
        precision: str | None,
        cache: Path | None = None,
    ) -> None:
        """Compile a target of kind "onnx" or "openvino".

        Args:
            engine: the open engine file.
            target: one of its targets.
            threads: CPU threads of the network and the kernels.
            precision: number format of the network; None is what OpenVINO finds fastest here.
            cache: folder for compiled networks, made if it is not there.

        Raises:
            EngineError: OpenVINO cannot run the target, or it is not what the manifest describes.
            OutputError: the cache cannot be made.
        """
        self._network = OpenVINOBackend(
            engine, target, threads=threads, precision=precision, cache=cache
        )
        self._input = engine.manifest.input
        self._align_corners = engine.manifest.architecture.align_corners
        self._threads = threads
        self._place = lru_cache(maxsize=16)(self._placement)
        self.name = self._network.name
        self.device = self._network.device
        self.precision = self._network.precision
        self.logits = self._network.logits

    def label(
        self, frame: Frame, confidence: bool
    ) -> tuple[NDArray[np.uint8], NDArray[np.float32] | None, Timings]:
        """Label one frame; see `Pipeline.label`."""
        size = (frame.height, frame.width)
        placement = self._place(size)
        labels: NDArray[np.uint8] = np.empty((1, *size), np.uint8)
        certainty = np.empty((1, *size), np.float32) if confidence else None
        with self._network.request() as request:
            started = perf_counter()
            _core.preprocess(
                frame.pixels,
                request.input,
                mean=self._input.mean,
                std=self._input.std,
                pixel_format=frame.pixel_format,
                content=placement.content,
                pad=self._input.pad,
                threads=self._threads,
            )
            prepared = perf_counter()
            with self._network.turn:
                begun = perf_counter()
                logits = request.run()
                inferred = perf_counter()
            _core.upsample_argmax(
                logits,
                labels,
                source=placement.source,
                align_corners=self._align_corners,
                confidence=certainty,
                threads=self._threads,
            )
            finished = perf_counter()
        timings = Timings(
            preprocess=1e3 * (prepared - started),
            inference=1e3 * (inferred - begun),
            upsample_argmax=1e3 * (finished - inferred),
        )
        return labels[0], None if certainty is None else certainty[0], timings

    def _placement(self, size: tuple[int, int]) -> Placement:
        return place(size, self._input, self.logits[1:], align_corners=self._align_corners)
