"""The GPU that everything runs on, or what stands in for it in the tests: kernels emulated on the
host, a clock of the host, no compiler."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from benchmarks.gpu.clocks import Clock, GraphClock, HostClock, Launch, capture
from torch import Tensor

from edgeseg import _core

_DTYPE_NAMES = {
    torch.float32: "float32",
    torch.float16: "float16",
    torch.bfloat16: "bfloat16",
    torch.uint8: "uint8",
}


@dataclass(frozen=True)
class Device:
    """Where the contenders run.

    Attributes:
        memory: PyTorch's name of the device.
        cuda_kernels: `edgeseg._core.cuda`.
        stream: address of the stream that kernels go to.
        kernel_clock: for single kernels and engines without their host's overhead.
        latency_clock: for what a caller waits for.
        compile: `torch.compile`, or less.
        cache_bytes: L2; inputs of twice that size are cold.
        graph: makes a CUDA graph of one launch.
    """

    memory: str
    cuda_kernels: Any
    stream: Callable[[], int]
    kernel_clock: Clock
    latency_clock: Clock
    compile: Callable[[Callable[..., Any]], Callable[..., Any]]
    cache_bytes: int
    graph: Callable[[Launch], Callable[[], object]]

    @staticmethod
    def gpu(index: int = 0) -> Device:
        """The real thing, PyTorch allowed to choose among cuDNN's algorithms by measuring."""
        torch.backends.cudnn.benchmark = True
        name = f"cuda:{index}"
        torch.cuda.set_device(index)
        return Device(
            memory=name,
            cuda_kernels=_core.cuda,
            stream=lambda: torch.cuda.current_stream().cuda_stream,
            kernel_clock=GraphClock(name),
            latency_clock=HostClock(torch.cuda.synchronize),
            compile=lambda function: torch.compile(function, dynamic=False),
            cache_bytes=torch.cuda.get_device_properties(index).L2_cache_size,
            graph=lambda launch: capture(launch, 1, torch.cuda.Stream()),
        )

    # The kernels, on tensors in this device's memory.

    def score_map_concat(self, features: Tensor, text: Tensor, out: Tensor) -> None:
        """`edgeseg._core.cuda.score_map_concat`."""
        self.cuda_kernels.score_map_concat(
            features.data_ptr(),
            features.shape,
            features.stride(),
            text.data_ptr(),
            len(text),
            out.data_ptr(),
            out.stride(),
            _DTYPE_NAMES[features.dtype],
            stream=self.stream(),
        )

    def preprocess(
        self, frame: Tensor, size: tuple[int, int], pixel_format: str, out: Tensor, **rest: Any
    ) -> None:
        """`edgeseg._core.cuda.preprocess` of a frame of (H, W) pixels into 3×h×w."""
        self.cuda_kernels.preprocess(
            frame.data_ptr(),
            size,
            frame.stride(0),
            out.data_ptr(),
            out.shape,
            out.stride(),
            _DTYPE_NAMES[out.dtype],
            pixel_format=pixel_format,
            stream=self.stream(),
            **rest,
        )

    def upsample_argmax(
        self, logits: Tensor, labels: Tensor, confidence: Tensor | None, *, align_corners: bool
    ) -> None:
        """`edgeseg._core.cuda.upsample_argmax`."""
        self.cuda_kernels.upsample_argmax(
            logits.data_ptr(),
            logits.shape,
            logits.stride(),
            _DTYPE_NAMES[logits.dtype],
            labels.data_ptr(),
            labels.shape,
            labels.stride(),
            align_corners=align_corners,
            confidence=0 if confidence is None else confidence.data_ptr(),
            stream=self.stream(),
        )

    def overlay(
        self, frame: Tensor, labels: Tensor, palette: Tensor, out: Tensor, alpha: int
    ) -> None:
        """`edgeseg._core.cuda.overlay`."""
        self.cuda_kernels.overlay(
            frame.data_ptr(),
            frame.shape[:2],
            frame.stride(0),
            labels.data_ptr(),
            labels.stride(0),
            palette.data_ptr(),
            out.data_ptr(),
            out.stride(0),
            alpha=alpha,
            stream=self.stream(),
        )
