"""The CUDA kernels: the shared cases on a GPU and in emulation, and a build with CUDA."""

from __future__ import annotations

import ctypes
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from tests.kernels import reference
from tests.kernels.cases import (
    MEAN,
    OVERLAY_CASES,
    PREPROCESS_CASES,
    SCORE_MAP_CASES,
    STD,
    UPSAMPLE_CASES,
    DType,
    OverlayCase,
    PreprocessCase,
    ScoreMapCase,
    UpsampleCase,
    channels_last,
    decode,
    encode,
    full_size,
    small,
    storage,
)
from tests.kernels.test_overlay import inputs as overlay_inputs
from tests.kernels.test_preprocess import HALF_ULP
from tests.kernels.test_preprocess import expected as exact_input
from tests.kernels.test_score_map import inputs as score_map_inputs
from tests.kernels.test_upsample_argmax import check as check_labels
from tests.kernels.test_upsample_argmax import inputs as upsample_inputs

from edgeseg import _core

gpu, cuda, emulated = pytest.mark.gpu, pytest.mark.cuda, pytest.mark.cuda_emulation


@dataclass(frozen=True)
class Device:
    """The CUDA kernels, and the torch device whose memory they work on."""

    kernels: Any
    memory: str

    def put(self, array: NDArray[Any]) -> OnDevice:
        return OnDevice(array, self.memory)


@pytest.fixture(params=[pytest.param("gpu", marks=gpu), pytest.param("emulation", marks=emulated)])
def device(request: pytest.FixtureRequest) -> Device:
    if request.param == "gpu":
        return Device(_core.cuda, "cuda")
    return Device(request.getfixturevalue("cuda_emulation"), "cpu")


# Too much work for the emulation.
on_gpu = pytest.mark.parametrize("device", [pytest.param("gpu", marks=gpu)], indirect=True)


class OnDevice:
    """A NumPy array's memory on a device, the gaps between its elements included."""

    def __init__(self, array: NDArray[Any], memory: str) -> None:
        self.shape, self.byte_strides, self.dtype = array.shape, array.strides, array.dtype
        self.strides = tuple(stride // array.itemsize for stride in array.strides)
        last = sum((n - 1) * stride for n, stride in zip(array.shape, array.strides, strict=True))
        span = (ctypes.c_uint8 * (last + array.itemsize)).from_address(array.ctypes.data)
        self.memory = torch.from_numpy(np.array(span)).to(memory)
        self.pointer = self.memory.data_ptr()

    def host(self) -> NDArray[Any]:
        return np.ndarray(
            self.shape, self.dtype, self.memory.cpu().numpy().data, strides=self.byte_strides
        )


# --- preprocess -----------------------------------------------------------------------------------


def check_preprocess(device: Device, case: PreprocessCase) -> None:
    host_frame = case.make_frame()
    frame = device.put(host_frame)
    planar = np.empty((3, *case.size), storage(case.dtype))
    interleaved = np.empty((*case.size, 3), storage(case.dtype)).transpose(2, 0, 1)
    out = device.put(planar if case.layout == "nchw" else interleaved)
    device.kernels.preprocess(
        frame.pointer,
        case.frame,
        frame.strides[0],
        out.pointer,
        out.shape,
        out.strides,
        case.dtype,
        mean=MEAN,
        std=STD,
        pixel_format=case.pixel_format,
        content=case.content,
        pad=case.pad,
    )
    exact = exact_input(case, host_frame)
    error = np.abs(decode(out.host(), case.dtype) - exact)
    if case.dtype == "uint8":
        assert error.max() <= 0.5 + 1e-4
    else:
        arithmetic = 2.0**-21 * 255 / min(STD)
        assert (error <= arithmetic + HALF_ULP[case.dtype] * np.abs(exact) * 1.001).all()


@pytest.mark.parametrize("case", small(PREPROCESS_CASES), ids=lambda case: case.name)
def test_preprocess_equals_the_twin(case: PreprocessCase, device: Device) -> None:
    check_preprocess(device, case)


@on_gpu
@pytest.mark.parametrize("case", full_size(PREPROCESS_CASES), ids=lambda case: case.name)
def test_full_size_preprocess_equals_the_twin(case: PreprocessCase, device: Device) -> None:
    check_preprocess(device, case)


# --- score_map_concat -----------------------------------------------------------------------------

# Where blocks of 8 or 16 pixels, 8 channels a thread, 16 channels a product, 1024 channels and
# 16, 31 or 32 classes begin and end.
BLOCK_CASES = (
    ScoreMapCase("one-full-block", (1, 1024, 2, 4), 31),
    ScoreMapCase("one-class-more", (1, 1024, 2, 4), 32, "float16"),
    ScoreMapCase("full-products", (2, 32, 4, 4), 32, "bfloat16"),
    ScoreMapCase("one-more-than-products", (1, 33, 1, 17), 17, "float16"),
    ScoreMapCase("one-more-than-products-last", (1, 33, 1, 17), 33, "bfloat16", channels_last=True),
    ScoreMapCase("batch", (8, 64, 2, 4), 19, "float16"),
    ScoreMapCase("150-classes", (1, 256, 3, 3), 150, "bfloat16"),
    ScoreMapCase("one-channel-more", (1, 1025, 2, 5), 5),
    ScoreMapCase("three-passes", (1, 2056, 1, 9), 33, "float16", channels_last=True),
    ScoreMapCase("aligned-rows", (2, 40, 3, 16), 7, "float16"),
    ScoreMapCase("aligned-channels", (1, 48, 3, 5), 16, "bfloat16", channels_last=True),
)


def run_score_map(
    device: Device, features: NDArray[Any], text: NDArray[np.float32], dtype: DType
) -> NDArray[Any]:
    """The kernel's output in the memory format of `features`."""
    n, c, h, w = features.shape
    host_out = np.zeros((n, c + len(text), h, w), storage(dtype))
    if not features.flags.c_contiguous:
        host_out = channels_last(host_out)
    source, rows, out = device.put(features), device.put(text), device.put(host_out)
    device.kernels.score_map_concat(
        source.pointer,
        source.shape,
        source.strides,
        rows.pointer,
        len(text),
        out.pointer,
        out.strides,
        dtype,
    )
    return out.host()


def check_scores(
    device: Device, features: NDArray[Any], text: NDArray[np.float32], dtype: DType
) -> None:
    out = run_score_map(device, features, text, dtype)
    channels = features.shape[1]
    np.testing.assert_array_equal(out[:, :channels], features)
    exact = reference.score_map(decode(features, dtype), text)
    error = np.abs(decode(out[:, channels:], dtype) - exact)
    assert (error <= 1e-6 + HALF_ULP[dtype] * np.abs(exact) * 1.001).all()


@pytest.mark.parametrize(
    "case", [*small(SCORE_MAP_CASES), *BLOCK_CASES], ids=lambda case: case.name
)
def test_score_map_equals_the_twin(case: ScoreMapCase, device: Device) -> None:
    check_scores(device, *score_map_inputs(case), case.dtype)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_score_map_of_views(dtype: DType, device: Device) -> None:
    case = ScoreMapCase("views", (2, 48, 6, 10), 11, dtype)
    wide = np.zeros((2, 97, 12, 13), storage(dtype))
    view = wide[:, 1::2, ::2, 1:11]
    view[...] = score_map_inputs(case)[0]
    check_scores(device, view, case.make_text(), dtype)


@emulated
@pytest.mark.parametrize(
    "case",
    [case for case in BLOCK_CASES if case.dtype != "float32"],
    ids=lambda case: case.name,
)
def test_score_map_without_tensor_cores(case: ScoreMapCase, cuda_emulation: ModuleType) -> None:
    library = ctypes.CDLL(str(cuda_emulation.__file__))
    library.set_ptx_version(75)
    try:
        check_scores(Device(cuda_emulation, "cpu"), *score_map_inputs(case), case.dtype)
    finally:
        library.set_ptx_version(80)


@emulated
@pytest.mark.parametrize(
    ("dtype", "terms", "channels"),
    [("bfloat16", 1, 1024), ("float16", 1, 1024), ("float16", 2, 8192)],
)
def test_text_keeps_its_precision_on_tensor_cores(
    dtype: DType, terms: int, channels: int, cuda_emulation: ModuleType
) -> None:
    """A pixel along what so many terms of the storage type leave of the text, score nearly 0."""
    case = ScoreMapCase("precision", (1, channels, 1, 16), 1, dtype)
    text = case.make_text()
    row = text[0].astype(np.float64)
    left = row
    for _ in range(terms):
        left = left - decode(encode(left.astype(np.float32), dtype), dtype)
    pixel = left - (left @ row) / (row @ row) * row
    pixel = np.repeat(pixel.reshape(1, -1, 1, 1) / np.abs(pixel).max(), 16, axis=3)
    check_scores(
        Device(cuda_emulation, "cpu"), encode(pixel.astype(np.float32), dtype), text, dtype
    )


@on_gpu
@pytest.mark.parametrize("case", full_size(SCORE_MAP_CASES), ids=lambda case: case.name)
def test_full_size_score_map_equals_the_twin(case: ScoreMapCase, device: Device) -> None:
    check_scores(device, *score_map_inputs(case), case.dtype)


@pytest.mark.parametrize(
    ("dtype", "value"),
    [
        ("float32", 1.4e-45),
        ("float32", 1e-20),
        ("float32", 3.4028234e38),
        ("bfloat16", 9.2e-41),
        ("float16", 6e-8),
        ("float16", 65504.0),
    ],
)
def test_score_map_at_any_magnitude(dtype: DType, value: float, device: Device) -> None:
    case = ScoreMapCase("magnitude", (1, 1024, 2, 5), 3, dtype)
    features = np.sign(case.make_features()) * np.float32(value)
    features[:, :, 1, 3] = 0
    features[:, 7, 1, 4] = 1e4  # one loud channel
    check_scores(device, encode(features, dtype), case.make_text(), dtype)


# --- upsample_argmax ------------------------------------------------------------------------------


def run_upsample(
    device: Device,
    case: UpsampleCase,
    logits: NDArray[Any],
    confidence: OnDevice | None = None,
    host_labels: NDArray[np.uint8] | None = None,
) -> NDArray[np.uint8]:
    if host_labels is None:
        host_labels = np.full((len(logits), *case.size), 255, np.uint8)
    source, labels = device.put(logits), device.put(host_labels)
    device.kernels.upsample_argmax(
        source.pointer,
        source.shape,
        source.strides,
        case.dtype,
        labels.pointer,
        labels.shape,
        labels.strides,
        align_corners=case.align_corners,
        source=case.source,
        confidence=confidence.pointer if confidence else 0,
    )
    return labels.host()


FULL_SIZE = [case for case in UPSAMPLE_CASES if case.name in ("camvid", "cityscapes-half-pixel")]


@pytest.mark.parametrize("case", small(UPSAMPLE_CASES), ids=lambda case: case.name)
def test_upsample_equals_the_twin(case: UpsampleCase, device: Device) -> None:
    logits = upsample_inputs(case)
    check_labels(case, logits, run_upsample(device, case, logits))


@on_gpu
@pytest.mark.parametrize("case", FULL_SIZE, ids=lambda case: case.name)
def test_full_size_upsample_equals_the_twin(case: UpsampleCase, device: Device) -> None:
    logits = upsample_inputs(case)
    check_labels(case, logits, run_upsample(device, case, logits))


@pytest.mark.parametrize("case", small(UPSAMPLE_CASES), ids=lambda case: case.name)
def test_confidence_is_the_softmax_of_the_label(case: UpsampleCase, device: Device) -> None:
    logits = upsample_inputs(case)
    confidence = device.put(np.full((len(logits), *case.size), np.nan, np.float32))
    labels = run_upsample(device, case, logits, confidence)
    np.testing.assert_array_equal(labels, run_upsample(device, case, logits))
    twin = reference.upsample(
        decode(logits, case.dtype), case.size, align_corners=case.align_corners, source=case.source
    )
    exact = reference.softmax_confidence(twin.values, labels)
    np.testing.assert_allclose(confidence.host(), exact, rtol=4e-6)


@pytest.mark.parametrize("align_corners", [True, False])
@pytest.mark.parametrize("value", [0.0, -1.5, 65504.0, 3e38])
def test_a_tie_at_all_corners_goes_to_the_lowest_id(
    align_corners: bool, value: float, device: Device
) -> None:
    case = UpsampleCase("tie", (1, 40, 7, 5), (50, 33), align_corners)
    logits = case.make_logits() - 10
    logits[:, 3] = logits[:, 6] = logits[:, 38] = value * np.sign(case.make_logits()[:, 0])
    logits[:, [3, 6, 38]] = np.maximum(logits[:, [3, 6, 38]], -5)
    assert (run_upsample(device, case, logits) == 3).all()


@pytest.mark.parametrize("size", [(61, 67), (4, 5)], ids=["tiled", "direct"])
def test_classes_an_ulp_apart_are_told_apart(size: tuple[int, int], device: Device) -> None:
    # What float32 interpolation cannot order: the kernel then decides in double precision.
    case = UpsampleCase("ulp", (1, 3, 4, 4), size)
    logits = case.make_logits()
    up = np.indices((4, 4)).sum(axis=0) % 3 == 0
    logits[0, 1] = np.nextafter(logits[0, 0], np.where(up, 9, -9).astype(np.float32))
    logits[0, 2] = -9
    values = reference.upsample(logits.astype(np.float64), size, align_corners=True).values
    decided = np.abs(values[:, 0] - values[:, 1]) > 1e-12  # by double precision
    assert decided.mean() > 0.9
    labels, want = run_upsample(device, case, logits)[decided], values.argmax(axis=1)[decided]
    assert set(np.unique(want)) == {0, 1}
    np.testing.assert_array_equal(labels, want)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("size", [(40, 50), (6, 7)], ids=["tiled", "direct"])
def test_non_finite_logits_give_some_class(
    bad: float, size: tuple[int, int], device: Device
) -> None:
    case = UpsampleCase("bad", (1, 5, 6, 7), size)
    logits = case.make_logits()
    logits[0, :, 2:4, 3] = bad
    logits[0, 1, 0, 0] = bad
    assert run_upsample(device, case, logits).max() < 5
    assert run_upsample(device, case, np.full(case.shape, bad, np.float32)).max() < 5


def test_labels_inside_a_larger_picture(device: Device) -> None:
    case = UpsampleCase("views", (2, 5, 7, 9), (44, 51))
    logits = upsample_inputs(case)
    picture = np.full((2, 46, 60), 255, np.uint8)
    window = picture[:, 1:45, 3:54]
    np.testing.assert_array_equal(
        run_upsample(device, case, logits, host_labels=window), run_upsample(device, case, logits)
    )


# --- overlay --------------------------------------------------------------------------------------


def check_overlay(device: Device, case: OverlayCase, in_place: bool) -> None:
    host_frame, host_labels, host_palette = overlay_inputs(case)
    frame, labels, palette = map(device.put, (host_frame, host_labels, host_palette))
    out = frame if in_place else device.put(np.zeros(host_frame.shape, np.uint8))
    device.kernels.overlay(
        frame.pointer,
        case.size,
        frame.strides[0],
        labels.pointer,
        labels.strides[0],
        palette.pointer,
        out.pointer,
        out.strides[0],
        alpha=case.alpha,
    )
    want = reference.overlay(host_frame, host_labels, host_palette, case.alpha)
    np.testing.assert_array_equal(out.host(), want)


@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize("case", small(OVERLAY_CASES), ids=lambda case: case.name)
def test_overlay_equals_the_twin(case: OverlayCase, in_place: bool, device: Device) -> None:
    check_overlay(device, case, in_place)


@on_gpu
@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize("case", full_size(OVERLAY_CASES), ids=lambda case: case.name)
def test_full_size_overlay_equals_the_twin(
    case: OverlayCase, in_place: bool, device: Device
) -> None:
    check_overlay(device, case, in_place)


# --- A build with CUDA, any machine ---------------------------------------------------------------

ADDRESS = 1 << 20  # never dereferenced: arguments are checked first

PREPROCESS = {
    "frame": ADDRESS,
    "frame_shape": (8, 10),
    "frame_row_stride": 30,
    "out": ADDRESS,
    "out_shape": (3, 4, 6),
    "out_strides": (24, 6, 1),
    "out_dtype": "float32",
    "mean": MEAN,
    "std": STD,
}
SCORE_MAP = {
    "features": ADDRESS,
    "shape": (1, 8, 2, 3),
    "strides": (48, 6, 3, 1),
    "text": ADDRESS,
    "classes": 4,
    "out": ADDRESS,
    "out_strides": (72, 6, 3, 1),
    "dtype": "float16",
}
UPSAMPLE = {
    "logits": ADDRESS,
    "shape": (1, 5, 2, 3),
    "strides": (30, 6, 3, 1),
    "dtype": "float32",
    "labels": ADDRESS,
    "labels_shape": (1, 8, 9),
    "labels_strides": (72, 9, 1),
    "align_corners": True,
}
OVERLAY = {
    "frame": ADDRESS,
    "frame_shape": (8, 9),
    "frame_row_stride": 27,
    "labels": ADDRESS,
    "labels_row_stride": 9,
    "palette": ADDRESS,
    "out": ADDRESS,
    "out_row_stride": 27,
    "alpha": 128,
}
GOOD = {
    "preprocess": PREPROCESS,
    "score_map_concat": SCORE_MAP,
    "upsample_argmax": UPSAMPLE,
    "overlay": OVERLAY,
}

BAD = [
    ("preprocess", {"frame": 0}, "frame: found address 0, expected a device pointer"),
    ("preprocess", {"frame_shape": (0, 10)}, r"frame: found shape \(0, 10\)"),
    ("preprocess", {"frame_shape": (2**24 + 1, 10)}, "frame: .* width of 1 to 16777216"),
    ("preprocess", {"frame_row_stride": 29}, "frame_row_stride: found 29, .* 30 bytes"),
    ("preprocess", {"pixel_format": "yuv"}, 'pixel_format: found "yuv"'),
    ("preprocess", {"pixel_format": "nv12", "frame_shape": (7, 10)}, "frame: .* even"),
    ("preprocess", {"out_shape": (4, 4, 6)}, r"out: found shape \(4, 4, 6\), expected \(3, h, w\)"),
    ("preprocess", {"out_strides": (24, 6, 0)}, "out: found strides .* positive"),
    ("preprocess", {"out": ADDRESS + 2}, "out: found address .* multiple of the element size 4"),
    ("preprocess", {"out_dtype": "float64"}, 'out_dtype: found "float64", .*"uint8"'),
    ("preprocess", {"std": (1.0, 0.0, 1.0)}, "std: found 0"),
    ("preprocess", {"pad": -1.0}, "pad: found -1"),
    ("preprocess", {"content": (0, 1, 4, 6)}, "content: .* inside the 4×6 output"),
    ("score_map_concat", {"dtype": "uint8"}, 'dtype: found "uint8"'),
    ("score_map_concat", {"classes": 0}, "classes: found 0, expected at least 1"),
    ("score_map_concat", {"classes": 2**31}, "classes: "),
    ("score_map_concat", {"text": ADDRESS + 2}, "text: found address"),
    ("score_map_concat", {"shape": (1, 8, -2, 3)}, "features: found shape"),
    ("score_map_concat", {"shape": (1, 8, 2**24 + 1, 3)}, "features: .* of 1 to 16777216"),
    ("score_map_concat", {"strides": (48, 6, -3, 1)}, "features: found strides"),
    ("upsample_argmax", {"shape": (1, 255, 2, 3)}, "logits: found 255 classes"),
    ("upsample_argmax", {"labels_shape": (1, 8, 2**24 + 1)}, "labels: .* of 1 to 16777216"),
    ("upsample_argmax", {"labels_shape": (2, 8, 9)}, "labels: .* one image for each"),
    ("upsample_argmax", {"labels_strides": (144, 18, 2)}, "labels: .* contiguous rows"),
    ("upsample_argmax", {"source": (0.0, 0.0, -1.0, 2.0)}, "source: .*not negative"),
    ("upsample_argmax", {"source": (0.0, float("nan"), 1.0, 2.0)}, "source: .*finite"),
    ("upsample_argmax", {"confidence": ADDRESS + 1}, "confidence: found address"),
    ("overlay", {"labels_row_stride": 8}, "labels_row_stride: found 8"),
    ("overlay", {"out_row_stride": 26}, "out_row_stride: found 26"),
    ("overlay", {"palette": 0}, "palette: found address 0"),
    ("overlay", {"alpha": 257}, "alpha: found 257, expected 0..256"),
]


@cuda
@pytest.mark.parametrize(("kernel", "changes", "message"), BAD)
def test_bad_arguments_are_named(kernel: str, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        getattr(_core.cuda, kernel)(**(GOOD[kernel] | changes))


@cuda
def test_without_a_device_the_module_loads_and_kernels_say_what_is_missing() -> None:
    script = f"""
from edgeseg import _core
for kernel, arguments in {GOOD!r}.items():
    assert _core.cuda.device_count() == 0
    try:
        getattr(_core.cuda, kernel)(**arguments)
    except RuntimeError as error:
        print(error)
"""
    result = subprocess.run(
        [sys.executable, "-c", script],
        env=os.environ | {"CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        check=True,
    )
    messages = result.stdout.splitlines()
    assert [message.partition(":")[0] for message in messages] == list(GOOD)
    assert all("no usable NVIDIA driver and GPU" in message for message in messages)


@cuda
def test_build_info_names_architectures_and_runtime() -> None:
    info = _core.build_info()
    assert info["cuda"] is True
    assert info["cuda_runtime"] >= 12000
    architectures = info["cuda_architectures"].split()
    assert architectures
    for architecture in architectures:
        assert re.fullmatch(r"\d{2,3}[af]?(-real|-virtual)?", architecture)


def test_build_info_and_module_agree() -> None:
    assert _core.build_info()["cuda"] == hasattr(_core, "cuda")
