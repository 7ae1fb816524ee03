"""The emulation that test_cuda.py runs the kernels on finds the mistakes it is there to find."""

from __future__ import annotations

import ctypes

import numpy as np
import pytest
from numpy.typing import NDArray
from tests.kernels.cuda_emulation import build

pytestmark = pytest.mark.cuda_emulation

THREADS = 64


@pytest.fixture(scope="module")
def faults(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    library = tmp_path_factory.mktemp("faults") / "faults.so"
    return ctypes.CDLL(str(build.build((build.HERE / "faults.cu",), library)))


def run(faults: ctypes.CDLL, name: str) -> tuple[NDArray[np.float32], str]:
    """What the kernel writes over zeros, and the error text of its launch."""
    out = np.zeros(THREADS, np.float32)
    kernel = faults[name]
    kernel.restype, kernel.argtypes = ctypes.c_char_p, [ctypes.c_void_p]
    return out, kernel(out.ctypes.data).decode()


def test_a_barrier_orders_the_threads_of_a_block(faults: ctypes.CDLL) -> None:
    out, error = run(faults, "with_barrier")
    assert error == "no error"
    np.testing.assert_array_equal(out, np.roll(np.arange(THREADS), -1))


def test_a_missing_barrier_gives_wrong_values(faults: ctypes.CDLL) -> None:
    run(faults, "with_barrier")  # leaves nothing behind in shared memory that would help
    out, _ = run(faults, "without_barrier")
    assert np.isnan(out).any()


def test_unwritten_shared_memory_is_nan(faults: ctypes.CDLL) -> None:
    for _ in range(2):
        out, _ = run(faults, "unwritten")
        assert np.isnan(out).all()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("divergent_barrier", "a __syncthreads that not all threads reach"),
        ("divergent_warp", "a warp intrinsic that not all lanes reach"),
    ],
)
def test_a_rendezvous_that_some_miss_fails_the_launch(
    faults: ctypes.CDLL, name: str, message: str
) -> None:
    assert run(faults, name)[1] == message
    assert run(faults, "with_barrier")[1] == "no error"
