"""`Runtime`: right labels from every kind of frame, in order, from many threads, or a sentence."""

from __future__ import annotations

import logging
import queue
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

import edgeseg
from edgeseg.engine_file import Input, Target, add_target
from edgeseg.errors import EngineError, InputError, OutputError
from edgeseg.runtime import Runtime, verify
from edgeseg.runtime.runtime import Precision
from edgeseg.video import write_video

RED, GREEN, BLUE = 0, 1, 2


def colours(height: int, width: int, *classes: int) -> NDArray[np.uint8]:
    """BGR frame of equally wide vertical stripes, one a class of the tiny engine."""
    frame = np.zeros((height, width, 3), np.uint8)
    for stripe, label in zip(np.array_split(np.arange(width), len(classes)), classes, strict=True):
        frame[:, stripe, 2 - label] = 200
    return frame


@pytest.fixture(scope="module")
def runtime(tiny_engine: Path) -> Runtime:
    return Runtime(tiny_engine, threads=2)


@pytest.mark.parametrize("size", [(64, 96), (128, 192), (97, 131), (720, 1280), (8, 8), (1, 1)])
def test_labels_have_the_frame_size(runtime: Runtime, size: tuple[int, int]) -> None:
    result = runtime.predict(colours(*size, BLUE))
    assert result.labels.shape == size
    assert result.labels.dtype == np.uint8
    assert (result.labels == BLUE).all()


def test_labels_lie_where_the_colours_lie(runtime: Runtime) -> None:
    labels = runtime.predict(colours(240, 480, RED, GREEN, BLUE)).labels
    expected = np.repeat([RED, GREEN, BLUE], 160)[None].repeat(240, 0)
    # A border falls inside a cell of 8 network pixels, 40 frame pixels; elsewhere it is exact.
    assert (labels[:, 40:120] == expected[:, 40:120]).all()
    assert np.mean(labels == expected) > 0.95


def test_rgb_and_bgr_are_told_apart(runtime: Runtime) -> None:
    frame = colours(64, 96, RED)
    assert (runtime.predict(frame, "bgr").labels == RED).all()
    assert (runtime.predict(frame, "rgb").labels == BLUE).all()


def test_nv12(runtime: Runtime) -> None:
    yuv = cv2.cvtColor(colours(64, 96, GREEN), cv2.COLOR_BGR2YUV_I420)
    luma, chroma = yuv[:64], yuv[64:].reshape(2, -1)
    nv12 = np.vstack([luma, chroma.T.reshape(32, 96)])
    assert (runtime.predict(nv12, "nv12").labels == GREEN).all()


def test_strided_views_are_legal(runtime: Runtime) -> None:
    frame = colours(200, 300, RED, BLUE)
    for view in (frame[20:180, 30:270], frame[:, ::-1], frame[::2], frame[::-1]):
        expected = runtime.predict(np.ascontiguousarray(view)).labels
        np.testing.assert_array_equal(runtime.predict(view).labels, expected)


def test_a_very_wide_frame_is_legal(runtime: Runtime) -> None:
    result = runtime.predict(colours(40, 20_000, RED, BLUE))
    assert result.labels.shape == (40, 20_000)
    assert set(np.unique(result.labels)) == {RED, BLUE}


def test_letterbox_keeps_the_aspect_ratio(
    write_tiny_engine: Callable[..., Path], tmp_path: Path
) -> None:
    fields = Input(height=64, width=96, mean=(0.0,) * 3, std=(1.0,) * 3, resize="letterbox")
    path = write_tiny_engine(tmp_path / "letterbox.edgeseg", input=fields)
    # Twice as high as wide: the content is 32 of 96 columns, so a stripe is 16 of them.
    frame = colours(400, 200, RED, BLUE)
    labels = Runtime(path).predict(frame).labels
    assert (labels[:, :80] == RED).all()
    assert (labels[:, 120:] == BLUE).all()


def test_confidence_on_request(runtime: Runtime) -> None:
    frame = colours(64, 96, RED)
    assert runtime.predict(frame).confidence is None
    confidence = runtime.predict(frame, confidence=True).confidence
    assert confidence is not None
    assert confidence.shape == (64, 96)
    assert confidence.min() > 0.99  # softmax of (200, 0, 0)


def test_batch_is_the_frames_one_by_one(runtime: Runtime) -> None:
    frames = [colours(40 + 8 * i, 80, i % 3) for i in range(7)]
    results = runtime.predict_batch(frames)
    assert [r.labels.shape[0] for r in results] == [40 + 8 * i for i in range(7)]
    assert [int(r.labels[0, 0]) for r in results] == [i % 3 for i in range(7)]


def test_a_bad_frame_in_a_batch_is_numbered(runtime: Runtime) -> None:
    with pytest.raises(InputError, match="frame 1 of the batch"):
        runtime.predict_batch([colours(8, 8, RED), np.zeros((8, 8, 4), np.uint8)])


def test_stream_keeps_order(runtime: Runtime) -> None:
    expected = [i % 3 for i in range(50)]
    found = [r.labels[0, 0] for r in runtime.stream(colours(32, 32, i) for i in expected)]
    assert found == expected


def test_stream_of_a_folder_and_a_video(runtime: Runtime, tmp_path: Path) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    with write_video(tmp_path / "clip.mp4", fps=10) as video:
        for i in range(6):
            cv2.imwrite(str(folder / f"{i}.png"), colours(64, 96, i % 3))
            video.write(colours(64, 96, i % 3))
    for source in (folder, str(tmp_path / "clip.mp4")):
        found = [int(np.median(r.labels)) for r in runtime.stream(source)]
        assert found == [0, 1, 2, 0, 1, 2]


def test_stream_reads_no_further_than_it_must(runtime: Runtime) -> None:
    taken = 0

    def frames() -> Iterator[NDArray[np.uint8]]:
        nonlocal taken
        while taken < 1000:
            taken += 1
            yield colours(16, 16, RED)

    stream = runtime.stream(frames())
    for _ in range(3):
        next(stream)
    assert taken <= 6
    stream.close()
    assert not [t for t in threading.enumerate() if t.name.startswith("edgeseg")]


def test_stream_gives_each_result_before_the_next_frame_comes(runtime: Runtime) -> None:
    next_frame = threading.Event()

    def camera() -> Iterator[NDArray[np.uint8]]:
        for _ in range(4):
            assert next_frame.wait(30)
            next_frame.clear()
            yield colours(32, 32, RED)

    stream = runtime.stream(camera())
    for _ in range(4):
        next_frame.set()
        assert next(stream).labels[0, 0] == RED  # would wait for ever for a frame that never comes


def test_stream_of_the_latest_passes_frames_over(runtime: Runtime) -> None:
    def camera() -> Iterator[NDArray[np.uint8]]:
        for i in range(100):
            yield np.full((32, 32, 3), i, np.uint8)
            time.sleep(0.001)

    seen = []
    for result in runtime.stream(camera(), latest=True):
        seen.append(int(result.frame.pixels[0, 0, 0]))
        time.sleep(0.02)
    assert seen == sorted(set(seen)), "in order, none twice"
    assert len(seen) < 50
    assert seen[-1] == 99, "the last one is never passed over"


def test_leaving_a_stream_does_not_wait_for_ever(runtime: Runtime) -> None:
    frames: queue.Queue[NDArray[np.uint8]] = queue.Queue()
    frames.put(colours(32, 32, RED))

    def camera() -> Iterator[NDArray[np.uint8]]:
        while True:
            yield frames.get(timeout=30)

    started = time.monotonic()
    for result in runtime.stream(camera()):
        assert result.labels[0, 0] == RED
        break
    assert time.monotonic() - started < 10
    frames.put(colours(32, 32, RED))  # lets the thread go


def test_stream_waits_for_a_slow_consumer(runtime: Runtime) -> None:
    taken = 0

    def frames() -> Iterator[NDArray[np.uint8]]:
        nonlocal taken
        for i in range(12):
            taken += 1
            yield colours(16, 16, i % 3)

    for done, result in enumerate(runtime.stream(frames()), start=1):
        time.sleep(0.02)
        assert result.labels[0, 0] == (done - 1) % 3
        assert taken <= done + 3


def test_stream_delivers_what_came_before_a_bad_frame(runtime: Runtime) -> None:
    frames = [colours(16, 16, RED), colours(16, 16, BLUE), np.zeros((0, 0, 3), np.uint8)]
    stream = runtime.stream(frames)
    assert [next(stream).labels[0, 0] for _ in range(2)] == [RED, BLUE]
    with pytest.raises(InputError, match="empty"):
        next(stream)


def test_a_frame_asks_the_system_for_no_memory_after_warm_up(runtime: Runtime) -> None:
    frame = np.zeros((1024, 2048, 3), np.uint8)  # its labels are 512 pages
    for _ in range(10):
        result = runtime.predict(frame)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(50):
        result = runtime.predict(frame)  # the last labels make room for the next
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
    assert result.labels.shape == (1024, 2048)
    assert faults / 50 < 100


def test_many_threads_share_one_runtime(runtime: Runtime) -> None:
    frames = [colours(60 + i, 90, i % 3) for i in range(9)]
    expected = [runtime.predict(frame).labels for frame in frames]
    with ThreadPoolExecutor(16) as pool:
        found = list(pool.map(lambda i: runtime.predict(frames[i % 9]).labels, range(200)))
    for i, labels in enumerate(found):
        np.testing.assert_array_equal(labels, expected[i % 9])


def test_the_first_frames_of_a_process_may_come_at_once(tiny_engine: Path) -> None:
    """OpenVINO's bindings once deadlocked here, now and then; see runtime/openvino.py."""
    code = (
        "import sys, numpy as np\n"
        "from concurrent.futures import ThreadPoolExecutor\n"
        "from edgeseg import Runtime\n"
        "sys.setswitchinterval(1e-6)\n"
        f"runtime = Runtime({str(tiny_engine)!r})\n"
        "frame = np.zeros((8, 8, 3), np.uint8)\n"
        "with ThreadPoolExecutor(8) as pool:\n"
        "    list(pool.map(lambda _: runtime.predict(frame), range(16)))\n"
    )
    for _ in range(3):
        subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


@pytest.mark.parametrize(
    ("frame", "words"),
    [
        (np.zeros((8, 8, 3), np.float32), "0..1"),
        (np.zeros((8, 8, 2), np.uint8), "two channels"),
        (np.zeros((8, 8, 4), np.uint8), "four channels"),
        (np.zeros((0, 8, 3), np.uint8), "empty"),
        (np.zeros((8, 8), np.uint8), "greyscale"),
        ("no-such-file.png", "does not exist"),
    ],
)
def test_unusable_frames_get_their_sentence(runtime: Runtime, frame: Any, words: str) -> None:
    with pytest.raises(InputError, match=words):
        runtime.predict(frame)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"device": "tpu"}, "device 'tpu' is unknown"),
        ({"threads": 0}, "threads is 0"),
        ({"precision": "int3"}, "precision 'int3' is unknown"),
    ],
)
def test_bad_arguments(tiny_engine: Path, arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        Runtime(tiny_engine, **arguments)


def test_a_model_that_is_not_onnx(write_tiny_engine: Callable[..., Path], tmp_path: Path) -> None:
    path = write_tiny_engine(tmp_path / "bad.edgeseg", model=b"\x08\x01 this is no model")
    with pytest.raises(EngineError, match="cannot run the onnx target"):
        Runtime(path)


def test_a_model_of_another_shape(write_tiny_engine: Callable[..., Path], tmp_path: Path) -> None:
    fields = Input(height=128, width=96, mean=(0.0,) * 3, std=(1.0,) * 3)
    path = write_tiny_engine(tmp_path / "bad.edgeseg", input=fields)
    with pytest.raises(EngineError, match="its manifest says"):
        Runtime(path)


def test_a_model_with_other_classes(write_tiny_engine: Callable[..., Path], tmp_path: Path) -> None:
    path = write_tiny_engine(
        tmp_path / "bad.edgeseg", classes=("a", "b"), palette=((0, 0, 0), (1, 1, 1))
    )
    with pytest.raises(EngineError, match="2 classes"):
        Runtime(path)


def test_fall_back_is_said_and_strict_forbids_it(
    write_tiny_engine: Callable[..., Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = write_tiny_engine(tmp_path / "two.edgeseg")
    names = ("openvino/model.xml", "openvino/model.bin")
    add_target(
        path,
        Target(kind="openvino", parts=names, weights="float16"),
        {names[0]: b"<net>", names[1]: b"0"},
    )
    with caplog.at_level(logging.WARNING, "edgeseg"):
        assert Runtime(path).target == "onnx"
    assert "falling back from the openvino target" in caplog.text
    with pytest.raises(EngineError, match="openvino target"):
        Runtime(path, strict=True)


def test_verify_recomputes_the_golden_sample(tiny_engine: Path) -> None:
    verification = verify(tiny_engine)
    assert verification.ok
    assert verification.agreement == 1.0
    assert verification.parts == 3


def test_verify_notices_a_network_that_computes_something_else(
    write_tiny_engine: Callable[..., Path], tmp_path: Path
) -> None:
    swapped = Input(height=64, width=96, mean=(255.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    verification = verify(write_tiny_engine(tmp_path / "other.edgeseg", input=swapped))
    assert not verification.ok
    assert verification.agreement == pytest.approx(0.5, abs=0.05)


def test_it_says_what_it_is(runtime: Runtime) -> None:
    assert runtime.backend == "openvino"
    assert runtime.device.startswith("CPU")
    assert runtime.precision in ("float32", "bfloat16")
    assert "3 classes" in repr(runtime)


def test_the_packaged_engine_computes_what_was_trained() -> None:
    verification = verify()
    assert verification.ok
    assert edgeseg.Runtime().classes[3] == "road"


@pytest.mark.parametrize("precision", ["float16", "bfloat16", "float32"])
def test_a_precision_is_had_or_refused(tiny_engine: Path, precision: Precision) -> None:
    try:
        assert Runtime(tiny_engine, device="cpu", precision=precision).precision == precision
    except EngineError as error:
        if precision == "float32" or f"what is to be {precision}" not in str(error):
            raise


@pytest.mark.parametrize("frames", ["photo.jpg", b"bytes", 3, colours(8, 8, RED)])
def test_one_frame_is_not_a_batch(runtime: Runtime, frames: Any) -> None:
    with pytest.raises(InputError, match="the frames are"):
        runtime.predict_batch(frames)


def test_the_cache_gives_the_same_network(tiny_engine: Path, tmp_path: Path) -> None:
    cache = tmp_path / "deep" / "cache"
    frame = colours(64, 96, BLUE)
    first = Runtime(tiny_engine, cache=cache).predict(frame).labels
    kept = {path.name: path.read_bytes() for path in cache.iterdir()}
    assert kept, "OpenVINO keeps what it compiled"
    second = Runtime(tiny_engine, cache=str(cache)).predict(frame).labels
    np.testing.assert_array_equal(first, second)
    assert {path.name: path.read_bytes() for path in cache.iterdir()} == kept


def test_a_damaged_cache_is_made_anew(tiny_engine: Path, tmp_path: Path) -> None:
    Runtime(tiny_engine, cache=tmp_path)
    for path in tmp_path.iterdir():
        path.write_bytes(b"damaged")
    assert Runtime(tiny_engine, cache=tmp_path).predict(colours(64, 96, RED)).labels[0, 0] == RED


def test_a_cache_that_cannot_be_made(tiny_engine: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError, match="file"):
        Runtime(tiny_engine, cache=tmp_path / "file" / "cache")
