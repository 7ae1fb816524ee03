"""The two steps around the network, against what others do there and against memory's speed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from time import perf_counter

import cv2
import numpy as np
from benchmarks.suite.counts import preprocess_bytes, upsample_bytes
from benchmarks.suite.peers import blob_parameters, with_upsampling
from benchmarks.suite.results import KernelRow, Ratio
from benchmarks.timing import interleaved
from numpy.typing import NDArray

from edgeseg import _core
from edgeseg.engine_file import Input
from edgeseg.errors import EdgesegError
from edgeseg.synthetic import street

FRAMES = ((640, 480), (1280, 720), (1920, 1080), (2048, 1024), (3840, 2160))
"""Width and height."""
_COPY_BYTES = 1 << 28  # beyond any cache
_COPIES = 7
_GREY_LEVELS = {"bgr": 1.01, "rgb": 1.01, "nv12": 2.5}  # colour conversion rounds in between
_LABELS_AGREE = 0.999


def bandwidth(threads: int, size: int = _COPY_BYTES) -> float:
    """Bytes per second, read plus written, of the fastest of some large copies."""
    source, target = np.ones((2, size), np.uint8)
    parts = list(zip(np.array_split(source, threads), np.array_split(target, threads), strict=True))
    seconds = []
    with ThreadPoolExecutor(threads) as workers:
        for _ in range(_COPIES):
            started = perf_counter()
            list(workers.map(lambda pair: np.copyto(pair[1], pair[0]), parts))
            seconds.append(perf_counter() - started)
    return 2 * size / min(seconds)


@dataclass(frozen=True)
class Setting:
    """What every kernel is measured with.

    Attributes:
        threads: numbers of threads, each measured.
        rounds: of each comparison.
        bandwidth: bytes per second, by threads.
    """

    threads: Sequence[int]
    rounds: int
    bandwidth: dict[int, float]


def measure_preprocess(
    network: Input, setting: Setting, frames: Sequence[tuple[int, int]] = FRAMES
) -> Iterator[KernelRow]:
    """`preprocess` into float32 NCHW at every dispatch level, against OpenCV's blob.

    NV12 is what cv2.cvtColor makes of it first: OpenCV's blob does not read it.
    """
    size = (network.width, network.height)
    blobs = {
        kind: blob_parameters(network.mean, network.std, size, swap=kind != "rgb")
        for kind in ("bgr", "rgb", "nv12")
    }
    out = np.empty((3, network.height, network.width), np.float32)
    for width, height in frames:
        bgr = street(1, height, width).frame
        for kind, pixels in (("bgr", bgr), ("rgb", bgr[..., ::-1].copy()), ("nv12", nv12(bgr))):

            def by_opencv(
                kind: str = kind, pixels: NDArray[np.uint8] = pixels
            ) -> cv2.typing.MatLike:
                image = pixels
                if kind == "nv12":
                    image = cv2.cvtColor(pixels, cv2.COLOR_YUV2BGR_NV12)
                return cv2.dnn.blobFromImageWithParams(image, blobs[kind])

            def by_us(
                threads: int, kind: str = kind, pixels: NDArray[np.uint8] = pixels
            ) -> NDArray[np.float32]:
                _core.preprocess(
                    pixels,
                    out,
                    mean=network.mean,
                    std=network.std,
                    pixel_format=kind,
                    threads=threads,
                )
                return out

            off = np.abs(by_us(1) - by_opencv()[0]).max(axis=(1, 2)) * np.array(network.std)
            if off.max() > _GREY_LEVELS[kind]:
                raise EdgesegError(
                    f"preprocess and OpenCV's blob differ by {off.max():.2f} grey levels on a "
                    f"{width}×{height} frame in {kind}, {_GREY_LEVELS[kind]} were expected"
                )
            moved = preprocess_bytes((height, width), (network.height, network.width), kind)
            case = f"{width}×{height} {kind} → {size[0]}×{size[1]}"
            peer = "cv2.dnn.blobFromImage" + (" behind cv2.cvtColor" if kind == "nv12" else "")
            yield from _by_level("preprocess", case, by_us, peer, by_opencv, moved, setting)


def nv12(bgr: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """H×W×3 BGR with even sides to a camera's (3H/2)×W, full chroma rows behind the luma."""
    height, width = bgr.shape[:2]
    planar = cv2.cvtColor(bgr, cv2.COLOR_BGR2YUV_I420)
    chroma = planar[height:].reshape(2, height // 2, width // 2)
    pairs = chroma.transpose(1, 2, 0).reshape(height // 2, width)
    return np.ascontiguousarray(np.concatenate([planar[:height], pairs])).astype(np.uint8)


def measure_upsample(
    logits: NDArray[np.float32],
    frame: tuple[int, int],
    setting: Setting,
    *,
    align_corners: bool,
) -> Iterator[KernelRow]:
    """`upsample_argmax` on real, random and 254-class logits, against OpenVINO's in-graph form.

    Args:
        logits: 1×K×h×w of a real frame.
        frame: (H, W) of the labels; of 254 classes half of each, since the in-graph form keeps all
            of K×H×W.
        setting: as for every kernel.
        align_corners: as of the network.
    """
    random = np.random.default_rng(0)
    many = random.standard_normal((1, 254, *logits.shape[2:]), np.float32)
    half = (frame[0] // 2, frame[1] // 2)
    for name, values, size in (
        ("a street's logits", logits, frame),
        ("random logits", random.standard_normal(logits.shape, np.float32), frame),
        ("random logits", many, half),
    ):
        labels = np.empty((1, *size), np.uint8)

        def by_us(
            threads: int,
            values: NDArray[np.float32] = values,
            labels: NDArray[np.uint8] = labels,
        ) -> NDArray[np.uint8]:
            _core.upsample_argmax(values, labels, align_corners=align_corners, threads=threads)
            return labels

        _, classes, *grid = values.shape
        moved = upsample_bytes(classes, (grid[0], grid[1]), size)
        case = f"{name}, K = {classes}, {grid[1]}×{grid[0]} → {size[1]}×{size[0]}"
        for threads in setting.threads:
            in_graph = _in_graph(values, size, align_corners=align_corners, threads=threads)
            share = float(np.mean(in_graph()[0, 0] == by_us(threads)[0]))
            if share < _LABELS_AGREE:
                raise EdgesegError(
                    f"upsample_argmax and OpenVINO agree on {share:.2%} of the labels of {case}, "
                    f"{_LABELS_AGREE:.1%} were expected"
                )
            one = Setting((threads,), setting.rounds, setting.bandwidth)
            yield from _by_level(
                "upsample_argmax", case, by_us, "OpenVINO Interpolate + TopK", in_graph, moved, one
            )


def _in_graph(
    values: NDArray[np.float32], size: tuple[int, int], *, align_corners: bool, threads: int
) -> Callable[[], NDArray[np.uint8]]:
    import openvino as ov
    from openvino import opset13

    taken = opset13.parameter(values.shape, np.float32)
    labelled = with_upsampling(taken.output(0), size, align_corners=align_corners)
    options = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": str(threads),
        "INFERENCE_PRECISION_HINT": "f32",
    }
    compiled = ov.Core().compile_model(ov.Model([labelled], [taken]), "CPU", options)
    request = compiled.create_infer_request()
    request.set_input_tensor(ov.Tensor(values, shared_memory=True))
    found: NDArray[np.uint8] = request.get_output_tensor().data

    def run() -> NDArray[np.uint8]:
        request.infer()
        return found

    return run


def _by_level(
    kernel: str,
    case: str,
    by_us: Callable[[int], object],
    peer: str,
    by_peer: Callable[[], object],
    moved: int,
    setting: Setting,
) -> Iterator[KernelRow]:
    best = _core.dispatch_level()
    for threads in setting.threads:
        cv2.setNumThreads(threads)

        def at(level: str, threads: int = threads) -> Callable[[], object]:
            def run() -> None:
                _core.set_dispatch_level(level)
                by_us(threads)

            return run

        contenders = {level: at(level) for level in _core.dispatch_levels()}
        try:
            times = interleaved({**contenders, peer: by_peer}, setting.rounds, lead=1, pause=0.002)
        finally:
            _core.set_dispatch_level(best)
        for level in contenders:
            yield KernelRow(
                kernel=kernel,
                case=case,
                level=level,
                threads=threads,
                ours_ms=times[level].p50,
                bytes=moved,
                floor_ms=1e3 * moved / setting.bandwidth[threads],
                peer=peer,
                peer_ms=times[peer].p50,
                ratio=Ratio.of(times[peer], times[level]),
            )
