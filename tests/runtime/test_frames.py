from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from edgeseg import _core
from edgeseg.errors import InputError
from edgeseg.runtime.frames import MOST_EXTENT, as_frame, check_shape


def picture(height: int = 48, width: int = 64) -> NDArray[np.uint8]:
    """Smooth, so that it survives JPEG, and different in every corner and channel."""
    corners = np.random.default_rng(0).integers(0, 256, (4, 4, 3), np.uint8)
    return cv2.resize(corners, (width, height), interpolation=cv2.INTER_LINEAR)


def encoded(suffix: str = ".png", pixels: NDArray[Any] | None = None) -> bytes:
    done, data = cv2.imencode(suffix, picture() if pixels is None else pixels)
    assert done
    return data.tobytes()


# ------------------------------------------------------------------------------------- arrays


@pytest.mark.parametrize("pixel_format", ["bgr", "rgb"])
def test_array_is_used_in_place(pixel_format: Any) -> None:
    pixels = picture()
    frame = as_frame(pixels, pixel_format)
    assert frame.pixels is pixels
    assert (frame.height, frame.width, frame.pixel_format) == (48, 64, pixel_format)


def test_crop_and_readonly_are_used_in_place() -> None:
    pixels = picture()
    pixels.flags.writeable = False
    for view in (pixels[3:20, 5:30], pixels[::2], pixels[:1, :1]):
        assert as_frame(view).pixels is view


def test_wide_frame() -> None:
    frame = as_frame(np.zeros((4, 20_000, 3), np.uint8))
    assert (frame.height, frame.width) == (4, 20_000)


@given(
    rows=st.sampled_from([1, 2, -1]),
    columns=st.sampled_from([1, 2, -1]),
    channels=st.sampled_from([1, -1]),
    swap=st.booleans(),
    height=st.integers(1, 6),
    width=st.integers(1, 6),
)
def test_any_view_becomes_whole_rows(
    rows: int, columns: int, channels: int, swap: bool, height: int, width: int
) -> None:
    view = picture(12, 12)[::rows, ::columns, ::channels][:height, :width]
    if swap:
        view = view.transpose(1, 0, 2)
    frame = as_frame(view)
    np.testing.assert_array_equal(frame.pixels, view)
    row, column, channel = frame.pixels.strides
    assert (column, channel) == (3, 1)
    assert row >= 3 * frame.width


def test_broadcast_rows_are_copied() -> None:
    row = np.arange(30, dtype=np.uint8).reshape(1, 10, 3)
    frame = as_frame(np.broadcast_to(row, (5, 10, 3)))
    assert frame.pixels.strides == (30, 3, 1)
    assert (frame.pixels == row).all()


def test_nv12() -> None:
    buffer = np.arange(12 * 20, dtype=np.uint8).reshape(12, 20)
    frame = as_frame(buffer[:, :16], "nv12")
    assert (frame.height, frame.width, frame.pixel_format) == (8, 16, "nv12")
    assert np.shares_memory(frame.pixels, buffer)
    flipped = as_frame(buffer[:, ::-1], "nv12")
    assert flipped.pixels.flags.c_contiguous
    np.testing.assert_array_equal(flipped.pixels, buffer[:, ::-1])


FLOATS = np.ones((4, 4, 3), np.float32)


@pytest.mark.parametrize(
    ("frame", "words"),
    [
        (FLOATS * 0.5, "float32 0..1 (frame * 255).round().astype(np.uint8)"),
        (FLOATS.astype(np.float64) * 200, "float64 200..200 frame.round().clip(0, 255)"),
        (FLOATS - 2, "float32 -1..-1 normalised"),
        (FLOATS * np.nan, "float32 not finite"),
        (FLOATS.astype(np.uint16), "uint16 bit depth (frame >> 8)"),
        (FLOATS.astype(np.int64), "int64 frame.clip(0, 255).astype(np.uint8)"),
        (FLOATS.astype(bool), "bool uint8 in 0..255"),
        (np.zeros((4, 5), np.uint8), "greyscale (4×5) COLOR_GRAY2BGR nv12"),
        (np.zeros((4, 5, 1), np.uint8), "greyscale (4×5×1)"),
        (np.zeros((4, 5, 2), np.uint8), "two channels (4×5×2) YUYV"),
        (np.zeros((4, 5, 4), np.uint8), "four channels frame[..., :3]"),
        (np.zeros((6, 5, 7), np.uint8), "7 channels (6×5×7)"),
        (np.zeros((3, 5, 6), np.uint8), "channels-first frame.permute(1, 2, 0)"),
        (np.zeros((1, 4, 5, 3), np.uint8), "four dimensions (1×4×5×3) predict_batch"),
        (np.zeros(5, np.uint8), "one dimension (5) frame.tobytes()"),
        (np.uint8(3), "shape (), H×W×3"),
        (np.zeros((0, 5, 3), np.uint8), "empty (0, 5, 3)"),
        (np.zeros((0,), np.uint8), "empty camera"),
        (None, "None cv2.imread"),
        ([[1, 2, 3]], "list predict_batch"),
        (3.5, "builtins.float path"),
    ],
)
def test_unusable_frame_gets_its_own_sentence(frame: Any, words: str) -> None:
    with pytest.raises(InputError) as raised:
        as_frame(frame)
    missing = [word for word in words.split() if word not in str(raised.value)]
    assert not missing, str(raised.value)


@pytest.mark.parametrize(("around", "pixel_format"), [((1, 3), "rgb"), ((3,), "nv12")])
def test_a_side_beyond_what_the_kernels_count_to(
    around: tuple[int, ...], pixel_format: Any
) -> None:
    """The limit is the kernels' own."""
    rows, *channels = around
    check_shape((rows, MOST_EXTENT, *channels), pixel_format)
    shape = (rows, MOST_EXTENT + 2, *channels)
    with pytest.raises(InputError, match=f"{MOST_EXTENT + 2}.* at most {MOST_EXTENT} .* tiles"):
        check_shape(shape, pixel_format)
    frame = np.lib.stride_tricks.as_strided(np.zeros(1, np.uint8), shape, (0,) * len(shape))
    out = np.zeros((3, 1, 1), np.float32)
    with pytest.raises(ValueError, match=f"at most {MOST_EXTENT} a dimension"):
        _core.preprocess(frame, out, mean=(0.0,) * 3, std=(1.0,) * 3, pixel_format=pixel_format)


@pytest.mark.parametrize(
    ("shape", "words"),
    [
        ((8, 6, 3), "NV12 8×6×3 (3H/2)×W 'bgr'"),
        ((10, 6), "10 rows of 6"),
        ((12, 5), "12 rows of 5"),
        ((0, 6), "empty"),
    ],
)
def test_unusable_nv12(shape: tuple[int, ...], words: str) -> None:
    with pytest.raises(InputError) as raised:
        as_frame(np.zeros(shape, np.uint8), "nv12")
    assert all(word in str(raised.value) for word in words.split()), str(raised.value)


def test_unknown_pixel_format() -> None:
    with pytest.raises(InputError, match="'yuyv' is unknown; use 'bgr', 'rgb' or 'nv12'"):
        as_frame(picture(), "yuyv")  # type: ignore[arg-type]


# --------------------------------------------------------------------------------------- files


@pytest.mark.parametrize(
    "name", ["frame.png", "Straße – 道路 🚗.png", "with space.PNG", "10:30.bmp"]
)
def test_path(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(encoded(path.suffix.lower()))
    for source in (path, str(path)):
        frame = as_frame(source, "rgb")
        assert frame.pixel_format == "bgr", "a file knows its own order"
        np.testing.assert_array_equal(frame.pixels, picture())


@pytest.mark.parametrize("kind", [bytes, bytearray])
def test_encoded_bytes(kind: Any) -> None:
    np.testing.assert_array_equal(as_frame(kind(encoded())).pixels, picture())


@pytest.mark.parametrize(
    ("pixels", "expected"),
    [
        (picture()[..., 0], np.repeat(picture()[..., :1], 3, axis=2)),
        (np.dstack([picture(), picture()[..., 0]]), picture()),
        (picture().astype(np.uint16) * 257, picture()),
    ],
    ids=["grey", "transparent", "16-bit"],
)
def test_other_kinds_of_image_file(pixels: NDArray[Any], expected: NDArray[np.uint8]) -> None:
    np.testing.assert_array_equal(as_frame(encoded(pixels=pixels)).pixels, expected)


@pytest.mark.parametrize(
    ("orientation", "upright"),
    [
        (1, lambda stored: stored),
        (3, lambda stored: stored[::-1, ::-1]),
        (6, lambda stored: np.rot90(stored, -1)),
        (8, lambda stored: np.rot90(stored)),
    ],
)
def test_exif_orientation(orientation: int, upright: Any) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = io.BytesIO()
    Image.fromarray(picture()[..., ::-1]).save(file, "JPEG", quality=95, exif=exif)
    frame = as_frame(file.getvalue())
    expected = upright(picture())
    assert frame.pixels.shape == expected.shape
    assert np.abs(frame.pixels.astype(int) - expected).mean() < 3


def jpeg_with_thumbnail() -> bytes:
    """A JPEG whose EXIF part holds a whole small JPEG, end marker included."""
    file = io.BytesIO()
    thumbnail = encoded(".jpg", picture(8, 8))
    Image.fromarray(picture()).save(file, "JPEG", exif=b"Exif\0\0" + thumbnail)
    assert file.getvalue().count(b"\xff\xd9") == 2
    return file.getvalue()


@pytest.mark.parametrize("keep", [0.3, 0.7, 0.99])
@pytest.mark.parametrize("jpeg", [encoded(".jpg"), jpeg_with_thumbnail()], ids=["bare", "exif"])
def test_truncated_jpeg(tmp_path: Path, jpeg: bytes, keep: float) -> None:
    path = tmp_path / "cut.jpg"
    path.write_bytes(jpeg)
    as_frame(path)
    path.write_bytes(jpeg[: int(keep * len(jpeg))])
    with pytest.raises(InputError, match=r"cut\.jpg is a truncated JPEG.*copy the whole file"):
        as_frame(path)


def test_jpeg_with_zeroed_tail() -> None:
    jpeg = encoded(".jpg")
    with pytest.raises(InputError, match="truncated JPEG"):
        as_frame(jpeg[: len(jpeg) // 2] + bytes(len(jpeg) - len(jpeg) // 2))


def test_jpeg_with_padding_and_trailer() -> None:
    jpeg = encoded(".jpg")
    padded = jpeg[:2] + b"\xff" * 5 + jpeg[2:] + b"appended by the phone"
    np.testing.assert_array_equal(as_frame(padded).pixels, as_frame(jpeg).pixels)


@pytest.mark.parametrize("suffix", [".png", ".webp", ".bmp", ".tiff"])
def test_truncated_file(suffix: str) -> None:
    with pytest.raises(InputError, match=r"cannot be decoded.*damaged, cut off, or in a format"):
        as_frame(encoded(suffix)[:200])


def test_unusable_files(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nothing\.png does not exist"):
        as_frame(tmp_path / "nothing.png")
    with pytest.raises(InputError, match="is a folder"):
        as_frame(tmp_path)
    (tmp_path / "empty.jpg").touch()
    with pytest.raises(InputError, match=r"empty\.jpg is empty \(0 bytes\)"):
        as_frame(str(tmp_path / "empty.jpg"))
    (tmp_path / "text.jpg").write_text("no picture")
    with pytest.raises(InputError, match=r"text\.jpg cannot be decoded: 10 bytes"):
        as_frame(tmp_path / "text.jpg")
    with pytest.raises(InputError, match="cannot be read"):
        as_frame(tmp_path / "text.jpg" / "below.png")
    for name in ("a" * 5000, "a\0b"):
        with pytest.raises(InputError, match="cannot be read"):
            as_frame(name)


# ----------------------------------------------------------------------- PIL images and tensors


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "P", "1", "CMYK", "YCbCr", "HSV"])
def test_pil_image(mode: str) -> None:
    image = Image.fromarray(picture()).convert(mode)
    frame = as_frame(image)
    assert (frame.pixel_format, frame.height, frame.width) == ("rgb", 48, 64)
    np.testing.assert_array_equal(frame.pixels, np.asarray(image.convert("RGB")))


@pytest.mark.parametrize("mode", ["I", "F", "I;16"])
def test_deep_pil_image(mode: str) -> None:
    with pytest.raises(InputError, match=rf"mode '{mode}', more than 8 bits"):
        as_frame(Image.new(mode, (4, 4)))


def test_empty_and_truncated_pil_image() -> None:
    with pytest.raises(InputError, match="PIL image is empty"):
        as_frame(Image.new("RGB", (0, 4)))
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    png = encoded(pixels=noise)
    with pytest.raises(InputError, match=r"PIL image cannot be decoded.*truncated"):
        as_frame(Image.open(io.BytesIO(png[: len(png) // 2])))


class Viewable:
    def __init__(self, pixels: NDArray[np.uint8]) -> None:
        self.pixels = pixels

    def __array__(self, *args: Any, **kwargs: Any) -> NDArray[np.uint8]:
        return self.pixels


class Capsule:
    def __init__(self, pixels: NDArray[np.uint8]) -> None:
        self.pixels = pixels

    def __dlpack__(self, **kwargs: Any) -> Any:
        return self.pixels.__dlpack__()

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.pixels.__dlpack_device__()


@pytest.mark.parametrize("kind", [Viewable, Capsule])
def test_foreign_array_is_used_in_place(kind: Any) -> None:
    pixels = picture()
    frame = as_frame(kind(pixels))
    assert np.shares_memory(frame.pixels, pixels)


def test_array_out_of_reach() -> None:
    class OnDevice:
        def __array__(self, *args: Any, **kwargs: Any) -> Any:
            raise TypeError("can't convert cuda:0 device type tensor to numpy")

    with pytest.raises(InputError, match=r"OnDevice.*cuda:0.*frame\.detach\(\)\.cpu\(\)"):
        as_frame(OnDevice())


def test_torch_tensor() -> None:
    torch = pytest.importorskip("torch")
    tensor = torch.from_numpy(picture())
    assert np.shares_memory(as_frame(tensor).pixels, tensor.numpy())
    with pytest.raises(InputError, match=r"channels-first.*frame\.permute\(1, 2, 0\)"):
        as_frame(tensor.permute(2, 0, 1))
    back = as_frame(tensor.permute(2, 0, 1).contiguous().permute(1, 2, 0))
    np.testing.assert_array_equal(back.pixels, picture())
    with pytest.raises(InputError, match=r"0\.\.1.*\.byte\(\)"):
        as_frame(tensor.float() / 255)
    with pytest.raises(InputError, match="cannot be viewed as an array"):
        as_frame(tensor.float().requires_grad_())


def test_frames_need_neither_pil_nor_torch() -> None:
    code = (
        "import sys, numpy as np; from edgeseg.runtime.frames import as_frame;"
        "as_frame(np.zeros((2, 2, 3), np.uint8));"
        "sys.exit(bool({'PIL', 'torch'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
