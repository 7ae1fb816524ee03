"""Native kernels on NumPy arrays; their contracts stand in csrc/include/edgeseg/kernels.h.

Every function releases the GIL, gives results that do not depend on ``threads``, and raises
ValueError with the argument's name, what was found and what was expected. bfloat16, which NumPy
does not have, travels as its bits in uint16 arrays, said by ``bfloat16=True``.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

__version__: str

def preprocess(
    frame: NDArray[np.uint8],
    out: NDArray[Any],
    *,
    mean: Sequence[float],
    std: Sequence[float],
    pixel_format: str = "bgr",
    content: tuple[int, int, int, int] | None = None,
    pad: float = 0.0,
    layout: str = "nchw",
    bfloat16: bool = False,
    threads: int = 1,
) -> None:
    """Resize and normalise a frame into a network input, channels R, G, B.

    Args:
        frame: H×W×3 ("bgr", "rgb"), or 3H/2×W for "nv12" with H and W even; any row stride.
        out: 3×h×w ("nchw") or h×w×3 ("nhwc"), any strides. float32, float16 and bfloat16 receive
            (grey - mean) / std; uint8 receives grey levels.
        mean: Of R, G, B, in 0..255.
        std: Of R, G, B, in 0..255, positive.
        pixel_format: "bgr", "rgb" or "nv12".
        content: (y, x, height, width) inside ``out`` that the frame is resized to; default all.
        pad: Grey level (0..255) of every channel outside ``content``.
        layout: "nchw" or "nhwc".
        bfloat16: ``out`` is uint16 holding bfloat16.
        threads: Threads that work, the calling one included.
    """

def score_map_concat(
    features: NDArray[Any],
    text: NDArray[np.float32],
    out: NDArray[Any],
    *,
    bfloat16: bool = False,
    threads: int = 1,
) -> None:
    """Write features and, behind them, every pixel's cosine with every class.

    Args:
        features: N×C×H×W float32, float16 or bfloat16, finite, any strides.
        text: K×C contiguous, rows of unit length.
        out: N×(C+K)×H×W, dtype of ``features``, any strides. A pixel of zeros scores 0.
        bfloat16: ``features`` and ``out`` are uint16 holding bfloat16.
        threads: Threads that work, the calling one included.
    """

def upsample_argmax(
    logits: NDArray[Any],
    labels: NDArray[np.uint8],
    *,
    source: tuple[float, float, float, float] | None = None,
    align_corners: bool,
    confidence: NDArray[np.float32] | None = None,
    bfloat16: bool = False,
    threads: int = 1,
) -> None:
    """Interpolate logits bilinearly to the size of ``labels`` and write the best class.

    Args:
        logits: N×K×h×w float32, float16 or bfloat16, 1 <= K <= 254, any strides.
        labels: N×H×W, contiguous rows; receives class ids, the lowest on a tie.
        source: (y, x, height, width), the part of the logit grid that ``labels`` covers, in its
            continuous coordinates; default all. See kernels.h.
        align_corners: As in torch.nn.functional.interpolate.
        confidence: N×H×W contiguous; receives the softmax probability of each label.
        bfloat16: ``logits`` is uint16 holding bfloat16.
        threads: Threads that work, the calling one included.
    """

def overlay(
    frame: NDArray[np.uint8],
    labels: NDArray[np.uint8],
    palette: NDArray[np.uint8],
    out: NDArray[np.uint8],
    *,
    alpha: int,
    threads: int = 1,
) -> None:
    """Blend class colours over a frame.

    Args:
        frame: H×W×3, any row stride.
        labels: H×W; 255 leaves the frame's pixel as it is.
        palette: 256×3 in the frame's channel order.
        out: H×W×3; may be ``frame`` itself.
        alpha: 0..256, weight of the colour.
        threads: Threads that work, the calling one included.
    """

def place(
    frame: tuple[int, int],
    input: tuple[int, int],
    *,
    resize: str,
    logits: tuple[int, int],
    align_corners: bool,
) -> tuple[tuple[int, int, int, int], tuple[float, float, float, float]]:
    """Where a frame lies in a network's input, and where its labels lie in the logits.

    Args:
        frame: (height, width).
        input: (height, width) of the network's input.
        resize: "stretch" or "letterbox".
        logits: (height, width) of the logit grid.
        align_corners: How logits relate to input pixels: corner centres coincide, or edges do.

    Returns:
        ``content`` as ``preprocess`` and ``source`` as ``upsample_argmax`` take them.
    """

def dispatch_levels() -> list[str]:
    """Instruction-set levels that this machine can run, slowest first."""

def dispatch_level() -> str:
    """The level in use; the best one unless `set_dispatch_level` chose another."""

def set_dispatch_level(name: str) -> None:
    """Choose the level for the whole process, for tests and benchmarks."""

def build_info() -> dict[str, Any]:
    """What was compiled in.

    Returns:
        version, compiler, dispatch_levels (list), cuda (bool), cuda_architectures (str) and
        cuda_runtime (int, e.g. 13000), the last two None without CUDA.
    """

class cuda:  # noqa: N801  (stands for a module)
    """The same kernels on CUDA; a submodule, absent from a build without CUDA.

    Memory is given as device addresses, shapes and strides in elements: what `data_ptr()`,
    `shape` and `stride()` of a tensor say. Work is queued on ``stream`` (a cudaStream_t as an
    integer) of the calling thread's current device, and nothing waits for it: keep the memory
    until the stream has passed. ValueError names a bad argument; RuntimeError says why a kernel
    could not be launched.
    """

    @staticmethod
    def device_count() -> int:
        """Devices that the driver shows; 0 without a driver."""

    @staticmethod
    def preprocess(
        frame: int,
        frame_shape: Sequence[int],
        frame_row_stride: int,
        out: int,
        out_shape: Sequence[int],
        out_strides: Sequence[int],
        out_dtype: str,
        *,
        mean: Sequence[float],
        std: Sequence[float],
        pixel_format: str = "bgr",
        content: tuple[int, int, int, int] | None = None,
        pad: float = 0.0,
        stream: int = 0,
    ) -> None:
        """Resize and normalise a frame into a network input.

        Args:
            frame: uint8 pixels.
            frame_shape: (H, W) of the picture, for "nv12" too.
            frame_row_stride: Bytes from row to row.
            out: Network input.
            out_shape: (3, h, w), channels R, G, B.
            out_strides: Of ``out_shape``'s axes; NHWC is (1, 3*w, 3).
            out_dtype: "float32", "float16", "bfloat16" or "uint8".
            mean: As in `edgeseg._core.preprocess`, like all that follow.
            std: Positive.
            pixel_format: "bgr", "rgb" or "nv12".
            content: (y, x, height, width) inside ``out``.
            pad: 0..255.
            stream: cudaStream_t.
        """

    @staticmethod
    def score_map_concat(
        features: int,
        shape: Sequence[int],
        strides: Sequence[int],
        text: int,
        classes: int,
        out: int,
        out_strides: Sequence[int],
        dtype: str,
        *,
        stream: int = 0,
    ) -> None:
        """Write features and, behind them, every pixel's cosine with every class.

        Args:
            features: N×C×H×W, finite.
            shape: (N, C, H, W).
            strides: Of ``features``.
            text: K×C float32, contiguous, rows of unit length.
            classes: K.
            out: N×(C+K)×H×W, apart from ``features``.
            out_strides: Of ``out``.
            dtype: Of features and out: "float32", "float16" or "bfloat16".
            stream: cudaStream_t.
        """

    @staticmethod
    def upsample_argmax(
        logits: int,
        shape: Sequence[int],
        strides: Sequence[int],
        dtype: str,
        labels: int,
        labels_shape: Sequence[int],
        labels_strides: Sequence[int],
        *,
        align_corners: bool,
        source: tuple[float, float, float, float] | None = None,
        confidence: int = 0,
        stream: int = 0,
    ) -> None:
        """Interpolate logits bilinearly to the size of ``labels`` and write the best class.

        Args:
            logits: N×K×h×w, 1 <= K <= 254.
            shape: (N, K, h, w).
            strides: Of ``logits``.
            dtype: Of logits: "float32", "float16" or "bfloat16".
            labels: N×H×W uint8, contiguous rows.
            labels_shape: (N, H, W).
            labels_strides: Of ``labels``; the last is 1.
            align_corners: As in `edgeseg._core.upsample_argmax`, like ``source``.
            source: (y, x, height, width) in the grid's continuous coordinates.
            confidence: 0, or N×H×W float32, contiguous.
            stream: cudaStream_t.
        """

    @staticmethod
    def overlay(
        frame: int,
        frame_shape: Sequence[int],
        frame_row_stride: int,
        labels: int,
        labels_row_stride: int,
        palette: int,
        out: int,
        out_row_stride: int,
        *,
        alpha: int,
        stream: int = 0,
    ) -> None:
        """Blend class colours over a frame.

        Args:
            frame: H×W×3 uint8.
            frame_shape: (H, W).
            frame_row_stride: Bytes from row to row.
            labels: H×W uint8; 255 leaves the frame's pixel as it is.
            labels_row_stride: Bytes from row to row.
            palette: 256×3 uint8 in the frame's channel order.
            out: H×W×3 uint8; may be ``frame`` itself.
            out_row_stride: Bytes from row to row.
            alpha: 0..256, weight of the colour.
            stream: cudaStream_t.
        """
