"""Instruction-set levels, threads, processes."""

from __future__ import annotations

import os
import platform
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from numpy.typing import NDArray
from tests.kernels.cases import ScoreMapCase, UpsampleCase
from tests.kernels.levels import at_level

import edgeseg
from edgeseg import _core

CASE = UpsampleCase("dispatch", (1, 9, 20, 30), (160, 240), smooth=True)


def labels_of(logits: NDArray[np.float32], threads: int) -> NDArray[np.uint8]:
    labels = np.empty((1, *CASE.size), np.uint8)
    _core.upsample_argmax(logits, labels, align_corners=True, threads=threads)
    return labels


def test_levels_are_what_the_processor_offers() -> None:
    levels = _core.dispatch_levels()
    assert _core.dispatch_level() == levels[-1]
    if platform.machine() != "x86_64":
        assert levels == (["neon"] if platform.machine() == "aarch64" else ["baseline"])
        return
    with open("/proc/cpuinfo") as file:  # noqa: PTH123
        flags = next(line for line in file if line.startswith("flags")).split()
    needed = {
        "avx2": {"avx2", "fma", "f16c"},
        "avx512": {"avx512f", "avx512bw", "avx512dq", "avx512vl"},
    }
    assert levels == ["baseline"] + [name for name in needed if needed[name] <= set(flags)]


def test_a_chosen_level_stays_until_another_is_chosen(level: str) -> None:
    assert _core.dispatch_level() == level


@pytest.mark.skipif(len(_core.dispatch_levels()) == 1, reason="one level")
@pytest.mark.parametrize("kernel", ["preprocess", "score_map_concat", "upsample_argmax"])
def test_the_level_is_the_one_that_runs(kernel: str) -> None:
    """The wider levels multiply and add in one rounding, the baseline in two: last bits tell."""
    results = {}
    for name in _core.dispatch_levels():
        with at_level(name):
            results[name] = _KERNELS[kernel]()
    baseline, *wider = results.values()
    for result in wider:
        np.testing.assert_allclose(result, baseline, rtol=1e-4, atol=1e-5)
        assert (result != baseline).mean() > 0.01


def _preprocessed() -> NDArray[np.float32]:
    frame = np.random.default_rng(0).integers(0, 256, (40, 61, 3), dtype=np.uint8)
    out = np.empty((3, 30, 50), np.float32)
    _core.preprocess(frame, out, mean=(100.0,) * 3, std=(57.0,) * 3)
    return out


def _scores() -> NDArray[np.float32]:
    case = ScoreMapCase("dispatch", (1, 256, 5, 40), 5)
    out = np.empty((1, 261, 5, 40), np.float32)
    _core.score_map_concat(case.make_features(), case.make_text(), out)
    return out[:, 256:]


def _confidence() -> NDArray[np.float32]:
    labels = np.empty((1, *CASE.size), np.uint8)
    confidence = np.empty((1, *CASE.size), np.float32)
    _core.upsample_argmax(CASE.make_logits(), labels, align_corners=True, confidence=confidence)
    return confidence


_KERNELS = {
    "preprocess": _preprocessed,
    "score_map_concat": _scores,
    "upsample_argmax": _confidence,
}


def test_an_unknown_level_is_refused() -> None:
    before = _core.dispatch_level()
    with pytest.raises(ValueError, match=r'name: found "sse9", expected .*baseline|neon'):
        _core.set_dispatch_level("sse9")
    assert _core.dispatch_level() == before


def test_build_info() -> None:
    info = edgeseg.build_info()
    assert info["version"] == edgeseg.__version__
    assert info["dispatch_levels"] == _core.dispatch_levels()
    assert info["cuda"] == hasattr(_core, "cuda")
    assert (info["cuda_architectures"] is not None) == info["cuda"]


def test_many_threads_call_at_once() -> None:
    rng = np.random.default_rng(0)
    inputs = [rng.normal(size=CASE.shape).astype(np.float32) for _ in range(40)]
    want = [labels_of(logits, 1) for logits in inputs]
    with ThreadPoolExecutor(8) as pool:
        got = list(pool.map(labels_of, inputs, [1 + i % 5 for i in range(40)]))
    for one, other in zip(want, got, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_child_has_a_pool_of_its_own() -> None:
    logits = CASE.make_logits()
    want = labels_of(logits, 4)  # the parent's pool is running
    child = os.fork()
    if child == 0:
        signal.alarm(30)  # a child that waits for its parent's threads would wait for ever
        os._exit(0 if np.array_equal(labels_of(logits, 4), want) else 1)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    np.testing.assert_array_equal(labels_of(logits, 4), want)


def test_the_gil_is_released() -> None:
    # While the kernel works in another thread, this one must get to run more than once.
    logits = np.random.default_rng(0).normal(size=(1, 254, 30, 40)).astype(np.float32)
    labels = np.empty((1, 400, 600), np.uint8)
    confidence = np.empty(labels.shape, np.float32)
    times: list[float] = []

    def work() -> None:
        times.append(time.perf_counter())
        _core.upsample_argmax(logits, labels, align_corners=True, confidence=confidence)
        times.append(time.perf_counter())

    worker = threading.Thread(target=work)
    ticks = []
    worker.start()
    while worker.is_alive():
        ticks.append(time.perf_counter())
    start, end = times
    during = [tick for tick in ticks if start < tick < end]
    assert np.diff([start, *during, end]).max() < 0.5 * (end - start)
