"""What may be given as a frame, and how it is read.

Nothing is converted silently: pixels are used as they are, or refused with the one line of code
that would make them fit.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from edgeseg.arguments import check_choice
from edgeseg.errors import InputError
from edgeseg.images import decode_image, read_image

PixelFormat = Literal["bgr", "rgb", "nv12"]

MOST_EXTENT = 1 << 24
"""Height and width that the kernels count to (kMostExtent in csrc/include/edgeseg/types.h)."""


class SupportsArray(Protocol):
    """A PIL image, a tensor on the CPU, or anything else that NumPy can view."""

    def __array__(self, *args: Any, **kwargs: Any) -> Any:
        """NumPy's array protocol."""


class SupportsDLPack(Protocol):
    """A tensor that shares its memory by DLPack."""

    def __dlpack__(self, *args: Any, **kwargs: Any) -> Any:
        """The capsule that holds it."""


FrameLike: TypeAlias = (
    NDArray[np.uint8] | str | os.PathLike[str] | bytes | bytearray | SupportsArray | SupportsDLPack
)


@dataclass(frozen=True, eq=False)
class Frame:
    """A camera frame as the native kernels take it.

    Attributes:
        pixels: uint8, H×W×3 interleaved, or (3H/2)×W for NV12: H rows of luma, then H/2 rows of
            U, V pairs. Rows may lie any distance apart; inside a row pixels are contiguous.
        pixel_format: what `pixels` holds. NV12 is limited-range BT.601.
        height: H, in pixels.
        width: W, in pixels.
    """

    pixels: NDArray[np.uint8]
    pixel_format: PixelFormat
    height: int
    width: int


def as_frame(source: FrameLike, pixel_format: PixelFormat = "bgr") -> Frame:
    """Read a frame.

    Arrays and tensors are used in place where their rows are contiguous, and copied once where
    they are not (mirrored views, transposed ones, a slice of four channels).

    Args:
        source: H×W×3 uint8 array or CPU tensor; (3H/2)×W for "nv12"; a path or the bytes of an
            image file, decoded upright as EXIF says; or a PIL image, taken as it lies (use
            `PIL.ImageOps.exif_transpose` first where its EXIF turns it).
        pixel_format: what an array or tensor holds; files and PIL images know it themselves.

    Raises:
        InputError: the source cannot be used as it is; the message says why and what to do.
    """
    check_choice("pixel_format", pixel_format, get_args(PixelFormat))
    if isinstance(source, (str, os.PathLike)):
        return _interleaved(read_image(source), "bgr")
    if isinstance(source, (bytes, bytearray)):
        return _interleaved(decode_image(source), "bgr")
    if _is_pil_image(source):
        return _interleaved(_pil_pixels(source), "rgb")
    pixels = _as_array(source)
    if pixels.size == 0:
        raise InputError(
            f"the frame is empty (shape {pixels.shape}); "
            "check that the camera or decoder gave a picture, and the crop that made it"
        )
    check_shape(pixels.shape, pixel_format)
    _check_dtype(pixels)
    return _planar(pixels) if pixel_format == "nv12" else _interleaved(pixels, pixel_format)


def _as_array(source: Any) -> NDArray[Any]:
    if np.ma.is_masked(source):
        raise InputError(
            "the frame is an array with masked pixels, which have no grey level; "
            "give them one: frame.filled(0)"
        )
    if isinstance(source, np.ndarray):
        return source
    if source is None:
        raise InputError(
            "the frame is None, which is what cv2.imread gives for a file that it cannot read; "
            "check the path, or give the path itself"
        )
    if isinstance(source, (list, tuple)):
        raise InputError(
            f"the frame is a {type(source).__name__}, one H×W×3 uint8 array was expected; "
            "give several frames to predict_batch, nested numbers through np.array(..., np.uint8)"
        )
    kind = f"{type(source).__module__}.{type(source).__qualname__}"
    if not (hasattr(source, "__array__") or hasattr(source, "__dlpack__")):
        raise InputError(
            f"the frame is a {kind}; give an H×W×3 uint8 array, a tensor, a PIL image, or the path "
            "or bytes of an image file"
        )
    try:
        if hasattr(source, "__array__"):
            return np.asarray(source)
        return np.from_dlpack(source)
    except (TypeError, ValueError, RuntimeError, BufferError) as error:
        raise InputError(
            f"the frame, a {kind}, cannot be viewed as an array: {error}; give a uint8 tensor on "
            "the CPU: frame.detach().cpu()"
        ) from error


def check_shape(extents: tuple[int, ...], pixel_format: PixelFormat) -> None:
    """Raises InputError, with what to do, unless a frame of that format has such a shape."""
    shape = "×".join(str(extent) for extent in extents)
    if len(extents) in (2, 3) and max(extents) > MOST_EXTENT:
        raise InputError(
            f"the frame is {shape}, at most {MOST_EXTENT} pixels a side were expected; "
            "cut it into tiles"
        )
    if len(extents) == 4:
        raise InputError(
            f"the frame has four dimensions ({shape}), one frame was expected; "
            "give a batch to predict_batch, frame by frame"
        )
    if pixel_format == "nv12":
        _check_nv12_shape(extents, shape)
        return
    if len(extents) == 2 or (len(extents) == 3 and extents[2] == 1):
        raise InputError(
            f"the frame is greyscale ({shape}), H×W×3 was expected; "
            "convert it: cv2.cvtColor(frame, cv2.COLOR_GRAY2BGR), "
            "or say pixel_format='nv12' if it is a camera's NV12 buffer"
        )
    if len(extents) == 1:
        raise InputError(
            f"the frame has one dimension ({shape}), H×W×3 was expected; "
            "if it holds an encoded image file, give frame.tobytes()"
        )
    if len(extents) != 3:
        raise InputError(f"the frame has shape {shape or '()'}, H×W×3 was expected")
    channels = extents[2]
    if channels == 3:
        return
    if extents[0] in (1, 3, 4) and channels > 4:
        raise InputError(
            f"the frame is channels-first ({shape}), H×W×3 was expected; "
            "permute it: frame.permute(1, 2, 0) for a tensor, frame.transpose(1, 2, 0) for an array"
        )
    if channels == 2:
        raise InputError(
            f"the frame has two channels ({shape}), H×W×3 was expected; "
            "if it is a camera's YUYV: cv2.cvtColor(frame, cv2.COLOR_YUV2BGR_YUYV)"
        )
    if channels == 4:
        raise InputError(
            f"the frame has four channels ({shape}), H×W×3 was expected; "
            "drop the transparency: frame[..., :3]"
        )
    raise InputError(f"the frame has {channels} channels ({shape}), H×W×3 was expected")


def _check_nv12_shape(extents: tuple[int, ...], shape: str) -> None:
    if len(extents) != 2:
        raise InputError(
            f"the NV12 frame has shape {shape}, (3H/2)×W was expected: H rows of luma, then H/2 "
            "rows of U, V pairs; say pixel_format='bgr' or 'rgb' if it is H×W×3"
        )
    rows, width = extents
    if rows % 3 or width % 2:
        raise InputError(
            f"the NV12 frame has {rows} rows of {width}, which no even height and width give "
            "((3H/2)×W was expected); cut off the rows or columns that the camera pads with"
        )


def _check_dtype(pixels: NDArray[Any]) -> None:
    dtype = pixels.dtype
    if dtype == np.uint8:
        return
    found = f"the frame is {dtype}, uint8 in 0..255 was expected"
    if dtype.kind == "f":
        low, high = float(pixels.min()), float(pixels.max())
        values = f"{found}; its values lie in {low:.4g}..{high:.4g}"
        if not np.isfinite(low + high):
            raise InputError(f"{values}, so some are not finite; find out where they come from")
        if low < 0:
            raise InputError(f"{values}, as if it were normalised; give the frame before that")
        if high <= 1:
            raise InputError(
                f"{values}, which looks like 0..1; convert it: "
                "(frame * 255).round().astype(np.uint8), for a tensor (frame * 255).round().byte()"
            )
        raise InputError(
            f"{values}; if they are grey levels, convert it: "
            "frame.round().clip(0, 255).astype(np.uint8)"
        )
    if dtype == np.uint16:
        raise InputError(
            f"{found}; bring it to 8 bits by its own bit depth, for one of 16 bits: "
            "(frame >> 8).astype(np.uint8)"
        )
    raise InputError(
        f"{found}; if its values are grey levels, convert it: frame.clip(0, 255).astype(np.uint8)"
    )


def _interleaved(pixels: NDArray[np.uint8], pixel_format: PixelFormat) -> Frame:
    height, width, _ = pixels.shape
    return Frame(_with_whole_rows(pixels, (3, 1)), pixel_format, height, width)


def _planar(pixels: NDArray[np.uint8]) -> Frame:
    rows, width = pixels.shape
    return Frame(_with_whole_rows(pixels, (1,)), "nv12", rows // 3 * 2, width)


def _with_whole_rows(
    pixels: NDArray[np.uint8], inner_strides: tuple[int, ...]
) -> NDArray[np.uint8]:
    """The same array, or a copy if a row is not contiguous or rows overlap or run backwards."""
    row_stride, *strides = pixels.strides
    row_bytes = pixels.shape[1] * inner_strides[0]
    if tuple(strides) == inner_strides and row_stride >= row_bytes:
        return pixels
    return pixels.copy()  # unlike ascontiguousarray, also where a single row has odd strides


def _is_pil_image(source: Any) -> bool:
    # Whoever made a PIL image has imported PIL; edgeseg itself does without it.
    pil = sys.modules.get("PIL.Image")
    return pil is not None and isinstance(source, pil.Image)


def _pil_pixels(image: Any) -> NDArray[np.uint8]:
    width, height = image.size
    if not (width and height):
        raise InputError(f"the PIL image is empty ({width}×{height} pixels); check how it was made")
    if image.mode[0] in "IF":
        raise InputError(
            f"the PIL image has mode {image.mode!r}, more than 8 bits a pixel; scale its values to "
            "0..255 yourself, PIL would clip them: Image.fromarray((values / peak * 255)"
            ".astype(np.uint8)).convert('RGB')"
        )
    try:
        return np.asarray(image.convert("RGB"))
    except (OSError, ValueError) as error:  # PIL decodes files late
        raise InputError(
            f"the PIL image cannot be decoded: {error}; the file it came from is damaged or cut off"
        ) from error
