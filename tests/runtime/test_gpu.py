"""The GPU runtime gives the CPU's labels, whatever is in flight, and keeps account of its memory.

On a fake GPU everywhere (see fake_cuda.py), once with the real kernels emulated; the tests of
`machine` run unchanged on a real one.
"""

from __future__ import annotations

import gc
import itertools
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from tests.runtime.conftest import EMULATED, REAL, FakeGpu

from edgeseg.engine_file import Input
from edgeseg.errors import EngineError, InputError
from edgeseg.runtime import Runtime

PIXELS_ALIKE = 0.999  # of kernels that round apart; where two classes are equal either is right


def picture(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    """BGR blobs of every colour."""
    small = np.random.default_rng(seed).integers(0, 256, (5, 7, 3), np.uint8)
    return cv2.resize(small, (width, height)).astype(np.uint8)


def on_cpu(path: Path) -> Runtime:
    return Runtime(path, device="cpu", precision="float32")


def assert_alike(found: NDArray[np.uint8], expected: NDArray[np.uint8]) -> None:
    assert found.shape == expected.shape
    assert np.mean(found == expected) >= PIXELS_ALIKE


@pytest.fixture
def path(machine: Any, tmp_path: Path) -> Path:
    return Path(machine.engine(tmp_path / "tiny.edgeseg"))


@pytest.fixture
def fake(fake_gpu: FakeGpu, tmp_path: Path) -> Runtime:
    """A Runtime on the fake GPU."""
    return Runtime(fake_gpu.engine(tmp_path / "tiny.edgeseg"))


# ------------------------------------------------------------------------------------------ labels


def nv12(frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
    height, width, _ = frame.shape
    yuv = cv2.cvtColor(frame, cv2.COLOR_BGR2YUV_I420)
    chroma = yuv[height:].reshape(2, -1).T.reshape(height // 2, width)
    return np.vstack([yuv[:height], chroma]).astype(np.uint8)


FRAMES = {
    "the network's size": (picture(64, 96), "bgr"),
    "odd": (picture(33, 47, 1), "bgr"),
    "one pixel": (picture(1, 1, 2), "bgr"),
    "one row": (picture(1, 50, 2), "bgr"),
    "rgb, larger than the network's": (picture(70, 101, 3), "rgb"),
    "a crop": (picture(50, 80, 4)[3:40, 5:70], "bgr"),
    "mirrored": (picture(30, 40, 5)[:, ::-1], "bgr"),
    "nv12": (nv12(picture(48, 80, 6)), "nv12"),
    "nv12 with padded rows": (nv12(picture(48, 80, 7))[:, :72], "nv12"),
}


@pytest.mark.parametrize("machine", ["fake", EMULATED, REAL], indirect=True)
@pytest.mark.parametrize("resize", ["stretch", "letterbox"])
def test_labels_are_the_cpu_s(machine: Any, tmp_path: Path, resize: Any) -> None:
    fields = Input(height=64, width=96, mean=(9.0,) * 3, std=(2.0,) * 3, resize=resize, pad=7.0)
    path = machine.engine(tmp_path / "tiny.edgeseg", input=fields)
    gpu, cpu = Runtime(path, device="cuda"), on_cpu(path)
    assert gpu.device.startswith("cuda:0")
    for frame, pixel_format in FRAMES.values():
        found, expected = (
            r.predict(frame, pixel_format, confidence=True)  # type: ignore[arg-type]
            for r in (gpu, cpu)
        )
        assert_alike(found.labels, expected.labels)
        assert found.confidence is not None
        assert expected.confidence is not None
        np.testing.assert_allclose(found.confidence, expected.confidence, atol=0.01)
        assert found.timings.preprocess > 0
        assert found.timings.inference > 0
        assert found.timings.upsample_argmax > 0


def test_a_graph_sees_new_frames_and_sizes_come_and_go(machine: Any, path: Path) -> None:
    gpu, cpu = Runtime(path), on_cpu(path)
    sizes = [(8, 9), (9, 8), (16, 24), (5, 5), (24, 16), (7, 30)]  # more than a slot keeps
    for seed in range(3):
        for size in sizes:
            frame = picture(*size, seed)
            assert_alike(gpu.predict(frame).labels, cpu.predict(frame).labels)


def test_results_stay_as_they_are(machine: Any, path: Path) -> None:
    gpu = Runtime(path)
    first = gpu.predict(picture(20, 30, 0), confidence=True)
    kept = first.labels.copy(), first.confidence.copy()  # type: ignore[union-attr]
    gpu.predict(picture(20, 30, 1), confidence=True)
    np.testing.assert_array_equal(first.labels, kept[0])
    np.testing.assert_array_equal(first.confidence, kept[1])  # type: ignore[arg-type]


def test_batch_and_stream_keep_order(machine: Any, path: Path) -> None:
    gpu, cpu = Runtime(path), on_cpu(path)
    frames = [picture(10 + i % 3, 16, i) for i in range(9)]
    expected = [cpu.predict(frame).labels for frame in frames]
    for results in (gpu.predict_batch(frames), gpu.stream(iter(frames))):
        for result, labels in zip(results, expected, strict=True):
            assert_alike(result.labels, labels)


def test_threads_and_runtimes_side_by_side(machine: Any, path: Path) -> None:
    runtimes, cpu = [Runtime(path), Runtime(path)], on_cpu(path)
    frames = [picture(12 + i % 2, 20, i) for i in range(16)]
    expected = [cpu.predict(frame).labels for frame in frames]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda i: runtimes[i % 2].predict(frames[i % 16]).labels, range(32)))
    for i, labels in enumerate(found):
        assert_alike(labels, expected[i % 16])


@pytest.mark.parametrize(("dtype", "precision"), [("FLOAT", "float32"), ("HALF", "float16")])
def test_input_and_logits_have_the_plan_s_format(
    fake_gpu: FakeGpu, tmp_path: Path, dtype: str, precision: str
) -> None:
    from tests.runtime.fake_tensorrt import plan

    path = fake_gpu.write(tmp_path / "tiny.edgeseg")
    fake_gpu.add_plan(path, content=plan(fake_gpu.model, dtype=dtype), precision=precision)
    runtime = Runtime(path)
    assert runtime.precision == precision
    frame = np.repeat(np.eye(3, dtype=np.uint8)[None] * 200, 9, 0)
    np.testing.assert_array_equal(runtime.predict(frame).labels, on_cpu(path).predict(frame).labels)


# ---------------------------------------------------------------------------------- on the device


@pytest.mark.parametrize("dlpack", [True, False])
@pytest.mark.parametrize("name", ["odd", "a crop", "nv12", "nv12 with padded rows", "one row"])
def test_frames_in_the_gpu_s_memory(machine: Any, path: Path, name: str, dlpack: bool) -> None:
    gpu = Runtime(path)
    frame, pixel_format = FRAMES[name]
    expected = on_cpu(path).predict(frame, pixel_format)  # type: ignore[arg-type]
    result = gpu.predict(machine.put(frame, dlpack=dlpack), pixel_format)  # type: ignore[arg-type]
    assert_alike(result.labels, expected.labels)
    np.testing.assert_array_equal(result.frame.pixels, frame)
    assert result.overlay().shape == expected.overlay().shape


def test_batch_and_stream_of_frames_in_the_gpu_s_memory(machine: Any, path: Path) -> None:
    gpu, cpu = Runtime(path), on_cpu(path)
    frames = [picture(10 + i % 3, 16, i) for i in range(6)]
    expected = [cpu.predict(frame).labels for frame in frames]
    batch = gpu.predict_batch([machine.put(frame) for frame in frames])
    stream = gpu.stream(machine.put(frame) for frame in frames)
    for results in (batch, stream):
        for result, labels in zip(results, expected, strict=True):
            assert_alike(result.labels, labels)


def test_labels_in_the_gpu_s_memory(machine: Any, path: Path) -> None:
    gpu, cpu = Runtime(path), on_cpu(path)
    kept = []
    for seed in range(3):
        frame = picture(21, 30, seed)
        for source in (frame, machine.put(frame)):
            result = gpu.predict_on_device(source, confidence=True)
            kept.append((result, cpu.predict(frame, confidence=True)))
    for result, expected in kept:  # each owns its memory
        assert result.labels.__dlpack_device__() == (2, 0)
        interface = result.labels.__cuda_array_interface__
        assert (interface["version"], interface["shape"]) == (3, (21, 30))
        assert_alike(machine.get(result.labels), expected.labels)
        assert result.confidence is not None
        np.testing.assert_allclose(machine.get(result.confidence), expected.confidence, atol=0.01)


def test_the_frame_has_been_read_when_the_call_returns(fake: Runtime, fake_gpu: FakeGpu) -> None:
    frame, blank = fake_gpu.put(picture(20, 30)), fake_gpu.put(picture(20, 30, 1))
    expected = fake.predict(frame).labels
    assert np.mean(expected == fake.predict(blank).labels) < 0.9
    fake.predict_on_device(frame)  # warm: nothing waits for the GPU from here on
    result = fake.predict_on_device(frame)
    _, stream = fake_gpu.cuda.cudaStreamCreateWithFlags(1)
    fake_gpu.cuda.cudaMemcpyAsync(frame.address, blank.address, 20 * 30 * 3, 4, stream)
    fake_gpu.cuda.cudaStreamSynchronize(stream)
    np.testing.assert_array_equal(fake_gpu.get(result.labels), expected)


def test_a_host_frame_may_change_once_the_call_returns(fake: Runtime, fake_gpu: FakeGpu) -> None:
    frames = [picture(20, 30, seed) for seed in range(5)]
    expected = [fake.predict(frame).labels for frame in frames]
    buffer = np.empty_like(frames[0])
    results = []
    for frame in frames:
        buffer[:] = frame
        results.append(fake.predict_on_device(buffer))
    for result, labels in zip(results, expected, strict=True):
        np.testing.assert_array_equal(fake_gpu.get(result.labels), labels)


def test_what_takes_the_labels_waits_for_them(fake: Runtime, fake_gpu: FakeGpu) -> None:
    expected = fake.predict(picture(20, 30)).labels
    result = fake.predict_on_device(picture(20, 30))
    interface = result.labels.__cuda_array_interface__
    assert interface["stream"] is None  # all is done, so nobody has to wait
    address, _ = interface["data"]
    from tests.runtime.fake_cuda import view

    np.testing.assert_array_equal(view(address, (20, 30), "uint8"), expected)


@pytest.mark.usefixtures("fake_gpu")
def test_what_dies_while_a_graph_is_captured_is_freed_and_harms_no_graph() -> None:
    from edgeseg.runtime.cuda import DeviceMemory, Stream

    stream, memory = Stream(), [DeviceMemory(16)]
    graph = stream.capture(memory.clear)  # as the garbage collector may at any moment
    graph.launch(stream)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda frame: frame[..., :2], "two channels"),
        (lambda frame: frame[:, ::2], "not contiguous"),
        (lambda frame: frame[:0], "empty"),
        (lambda frame: frame[None], "four dimensions"),
    ],
)
def test_unusable_frames_on_the_gpu_get_their_sentence(
    fake: Runtime, fake_gpu: FakeGpu, make: Callable[[Any], Any], words: str
) -> None:
    frame = picture(20, 30)
    array = fake_gpu.put(frame)
    cut = make(frame)
    changed = type(array)(**(vars(array) | {"shape": cut.shape, "strides": cut.strides}))
    with pytest.raises(InputError, match=words):
        fake.predict(changed)


def test_a_float_frame_on_the_gpu_is_refused(fake: Runtime, fake_gpu: FakeGpu) -> None:
    array = fake_gpu.put(picture(20, 30 * 4))
    floats = type(array)(
        **(vars(array) | {"typestr": "<f4", "shape": (20, 30, 3), "strides": (1440, 12, 4)})
    )
    with pytest.raises(InputError, match="is float32, uint8"):
        fake.predict(floats)


def test_a_frame_of_another_gpu_is_refused(fake: Runtime, fake_gpu: FakeGpu) -> None:
    array = fake_gpu.put(picture(20, 30))
    other = type(array)(**(vars(array) | {"device": 1}))
    with pytest.raises(InputError, match="on cuda:1, this Runtime is on cuda:0"):
        fake.predict(other)


@pytest.mark.parametrize("dlpack", [True, False])
def test_a_runtime_on_the_cpu_says_what_to_do_with_a_device_frame(
    fake_gpu: FakeGpu, tiny_engine: Path, dlpack: bool
) -> None:
    runtime = Runtime(tiny_engine)
    with pytest.raises(InputError, match=r"frame\.cpu\(\).*device='cuda'"):
        runtime.predict(fake_gpu.put(picture(8, 8), dlpack=dlpack))
    with pytest.raises(InputError, match="device='cuda'"):
        runtime.predict_on_device(picture(8, 8))


# -------------------------------------------------------------------------------- memory and errors


def test_ten_thousand_frames_take_no_more_memory(fake: Runtime, fake_gpu: FakeGpu) -> None:
    cuda = fake_gpu.cuda
    frames = [picture(8, 12, seed) for seed in range(4)]
    expected = [fake.predict(frame).labels for frame in frames]
    live, made, graphs = cuda.live(), cuda.allocations, cuda.graphs_made
    for i in range(10_000):
        labels = fake.predict(frames[i % 4]).labels
        if i % 500 == 0:
            np.testing.assert_array_equal(labels, expected[i % 4])
    assert (cuda.live(), cuda.allocations, cuda.graphs_made) == (live, made, graphs)
    assert cuda.launches >= 10_000


def test_memory_is_bounded_over_many_sizes_and_all_of_it_goes(
    fake_gpu: FakeGpu, tmp_path: Path
) -> None:
    cuda = fake_gpu.cuda
    runtime = Runtime(fake_gpu.engine(tmp_path / "tiny.edgeseg"))
    most = 0
    for i in range(30):
        runtime.predict(picture(4 + i, 8), confidence=True)
        most = max(most, cuda.live()["memory"])
    assert most <= 2 + 4 * 6  # image and logits; six buffers of each of four sizes
    assert cuda.live()["graphs"] == 4
    result = runtime.predict_on_device(picture(8, 8))
    del runtime
    gc.collect()
    assert fake_gpu.get(result.labels).shape == (8, 8)
    del result
    gc.collect()
    assert set(cuda.live().values()) == {0}


def test_out_of_memory_anywhere_leaks_nothing_and_the_next_frame_works(
    fake_gpu: FakeGpu, tmp_path: Path
) -> None:
    cuda = fake_gpu.cuda
    path = fake_gpu.engine(tmp_path / "tiny.edgeseg")
    expected = on_cpu(path).predict(picture(20, 30), confidence=True).labels
    said: list[str] = []
    for failing in itertools.count():
        runtime = Runtime(path)
        runtime.predict(picture(9, 9))
        cuda.fail_in = failing
        try:
            runtime.predict(picture(20, 30), confidence=True)
            break  # nothing is allocated any more
        except EngineError as error:
            said.append(str(error))
        cuda.fail_in = None
        assert cuda.live()["memory"] == 0  # the slot is given up as a whole
        found = runtime.predict(picture(20, 30), confidence=True)
        np.testing.assert_array_equal(found.labels, expected)
        del runtime, found
        gc.collect()
        assert set(cuda.live().values()) == {0}
    assert len(said) == 6  # three buffers on the device, three pinned ones
    for sentence in said:
        assert "MiB of GPU memory" in sentence or "MiB of pinned host memory" in sentence
        assert "nvidia-smi" in sentence


def test_out_of_memory_on_the_way_to_labels_that_stay(fake: Runtime, fake_gpu: FakeGpu) -> None:
    cuda = fake_gpu.cuda
    expected = fake.predict(picture(20, 30)).labels
    for failing in range(2 + 3):  # what the result owns, and the buffers
        cuda.fail_in = failing
        with pytest.raises(EngineError, match="nvidia-smi"):
            fake.predict_on_device(picture(20, 30), confidence=True)
        cuda.fail_in = None
        gc.collect()
        assert cuda.live()["memory"] == 0
    result = fake.predict_on_device(picture(20, 30), confidence=True)
    np.testing.assert_array_equal(fake_gpu.get(result.labels), expected)


def test_out_of_memory_at_load_falls_back_to_the_cpu(
    fake_gpu: FakeGpu, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = fake_gpu.engine(tmp_path / "tiny.edgeseg")
    for failing in range(3):
        fake_gpu.cuda.fail_in = failing
        assert Runtime(path).backend == "openvino"
        assert "falling back from the tensorrt target" in caplog.text
        assert "'nvidia-smi' lists them" in caplog.text
        gc.collect()
        assert set(fake_gpu.cuda.live().values()) == {0}
        with pytest.raises(EngineError, match="nvidia-smi"):
            Runtime(path, device="cuda")
        gc.collect()
        assert set(fake_gpu.cuda.live().values()) == {0}


def test_a_lost_gpu_is_said_and_the_process_lives(fake: Runtime, fake_gpu: FakeGpu) -> None:
    fake.predict(picture(8, 8))
    fake_gpu.cuda.break_launch = True
    with pytest.raises(EngineError, match="lost to this process") as caught:
        fake.predict(picture(8, 8))
    assert fake_gpu.cuda.live()["memory"] == 0  # also while somebody keeps the error
    del caught
    with pytest.raises(EngineError, match="lost to this process"):
        fake.predict(picture(8, 8))


def test_a_network_that_no_graph_can_hold_is_launched_step_by_step(
    fake_gpu: FakeGpu, tmp_path: Path
) -> None:
    from tests.runtime.fake_tensorrt import plan

    path = fake_gpu.write(tmp_path / "tiny.edgeseg")
    fake_gpu.add_plan(path, "tensorrt-rtx", content=plan(fake_gpu.model, capturable=False))
    runtime, cpu = Runtime(path), on_cpu(path)
    for seed in range(3):
        frame = picture(20, 30, seed)
        np.testing.assert_array_equal(runtime.predict(frame).labels, cpu.predict(frame).labels)
    assert fake_gpu.cuda.launches == 0


def test_without_a_driver_the_real_bindings_give_a_sentence() -> None:
    """In a process of its own, as CUDA sees no device there."""
    code = (
        "from edgeseg.runtime import cuda\n"
        "from edgeseg.errors import EngineError\n"
        "try:\n    cuda.Stream()\n"
        "except EngineError as error:\n    print(error)\n"
    )
    environment = {"CUDA_VISIBLE_DEVICES": "", "PATH": ""}
    ran = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert "install an NVIDIA driver" in ran.stdout
