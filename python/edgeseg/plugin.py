"""`score_map_concat` as TensorRT's ahead-of-time plugin: the kernel, its arguments and its launch.

TensorRT calls a kernel with the inputs, then the extra scalars, then the outputs; tensors are
linear (NCHW) device pointers. csrc/cuda/score_map_concat_plugin.cu is the other side.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edgeseg import _core
from edgeseg.engine_file import FloatType
from edgeseg.errors import EngineError

# Every argument of the kernel in order, with its type in PTX.
ARGUMENTS = (
    ("features", "u64"),  # N×C×H×W
    ("text", "u64"),  # K×C float32
    ("n", "u32"),
    ("channels", "u32"),
    ("pixels", "u32"),  # H*W
    ("classes", "u32"),
    ("out", "u64"),  # N×(C+K)×H×W
)

# What a block of the kernel takes. float32: a thread takes 8 channels.
_WARP = 32
_FLOAT_PIXELS, _FLOAT_CLASSES, _FLOAT_CHANNELS, _FLOAT_THREADS = 8, 31, 8, 128
# float16 and bfloat16, on tensor cores.
_HALF_PIXELS, _HALF_CLASSES, _HALF_THREADS = 16, 32, 256


@dataclass(frozen=True)
class Launch:
    """One call of the kernel, but for its tensors.

    Attributes:
        entry: the kernel's name in the PTX.
        scalars: int32 arguments between the inputs and the output.
        grid: blocks along x, y, z.
        block: threads along x, y, z.
        shared_memory: dynamic shared memory, bytes.
    """

    entry: str
    scalars: tuple[int, ...]
    grid: tuple[int, int, int]
    block: tuple[int, int, int]
    shared_memory: int


def launch(shape: tuple[int, ...], classes: int, dtype: FloatType) -> Launch:
    """How the kernel is launched.

    Args:
        shape: (N, C, H, W) of the features.
        classes: K, rows of the text matrix.
        dtype: of features and output.
    """
    n, channels, height, width = shape
    pixels = height * width
    block_pixels, block_classes, threads = _HALF_PIXELS, _HALF_CLASSES, _HALF_THREADS
    if dtype == "float32":
        block_pixels, block_classes = _FLOAT_PIXELS, _FLOAT_CLASSES
        warps = _ceil_div(channels, _FLOAT_CHANNELS * _WARP)
        threads = min(warps * _WARP, _FLOAT_THREADS)
    return Launch(
        entry=f"edgeseg_score_map_concat_{dtype}",
        scalars=(n, channels, pixels, classes),
        grid=(_ceil_div(n * pixels, block_pixels), _ceil_div(classes, block_classes), 1),
        block=(threads, 1, 1),
        shared_memory=0,
    )


def ptx() -> bytes:
    """The kernel's PTX, which the driver compiles for the GPU: compute capability 8.0 or later.

    Raises:
        EngineError: edgeseg was built without CUDA.
    """
    if not hasattr(_core, "cuda"):
        raise EngineError(
            "this edgeseg was built without CUDA and has no kernel for TensorRT's plugin: with "
            "nvcc on PATH, build it from source by 'pip install . -C cmake.define.EDGESEG_CUDA=ON'"
        )
    return Path(_core.__file__).with_name("score_map_concat.ptx").read_bytes()


def _ceil_div(a: int, b: int) -> int:
    return -(-a // b)
