"""Arrays go from library to library without a copy, in the right order, and are given back.

DLPack knows no fake GPU, so torch and NumPy here take and give memory of the CPU, through the same
structures; with a GPU, test_gpu.py does it with torch's CUDA tensors.
"""

from __future__ import annotations

import gc
import weakref
from typing import Any

import numpy as np
import pytest
import torch

from edgeseg.errors import InputError
from edgeseg.runtime import device_arrays
from edgeseg.runtime.device_arrays import DeviceArray, is_on_device, take


class Memory:
    """Something to own."""


@pytest.fixture
def as_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let what is given away say that it is memory of the CPU."""
    monkeypatch.setattr(device_arrays, "_CUDA", 1)


def shared(array: Any, owner: Any = None, **fields: Any) -> DeviceArray:
    return DeviceArray(
        address=array.ctypes.data,
        shape=array.shape,
        strides=array.strides,
        typestr=array.dtype.str,
        device=0,
        owner=owner,
        **fields,
    )


def never(stream: int) -> None:
    raise AssertionError("nothing to wait for")


@pytest.mark.usefixtures("as_cpu")
@pytest.mark.parametrize("importer", [torch.from_dlpack, np.from_dlpack])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_others_see_the_same_memory(importer: Any, dtype: Any) -> None:
    array = np.arange(5 * 8, dtype=dtype).reshape(5, 8)[:, :6]
    view = importer(shared(array))
    assert tuple(view.shape) == (5, 6)
    np.testing.assert_array_equal(np.asarray(view), array)
    array[2, 3] = 200
    assert view[2, 3] == 200


@pytest.mark.usefixtures("as_cpu")
def test_the_memory_lives_as_long_as_its_taker() -> None:
    owner = Memory()
    alive = weakref.ref(owner)
    array = np.zeros((2, 3), np.uint8)
    tensor = torch.from_dlpack(shared(array, owner))
    del owner
    gc.collect()
    assert alive() is not None
    del tensor
    gc.collect()
    assert alive() is None
    assert not device_arrays._given


def test_a_capsule_that_nobody_takes_gives_its_memory_back() -> None:
    owner = Memory()
    alive = weakref.ref(owner)
    capsule = shared(np.zeros(3, np.uint8), owner).__dlpack__()
    del owner
    assert alive() is not None
    del capsule
    gc.collect()
    assert alive() is None


def test_the_taker_s_stream_waits() -> None:
    waiting: list[int] = []
    array = shared(np.zeros(3, np.uint8), order=waiting.append, finish=lambda: waiting.append(0))
    array.__dlpack__(stream=32, max_version=(1, 0), copy=False)
    array.__dlpack__()
    array.__dlpack__(stream=-1)
    assert waiting == [32, 1]  # none given is the legacy default; -1 waits for nothing
    assert array.__cuda_array_interface__["stream"] is None
    assert waiting == [32, 1, 0]  # finished, as not everybody waits for a stream named there


@pytest.mark.parametrize("wanted", [{"copy": True}, {"dl_device": (1, 0)}, {"dl_device": (2, 1)}])
def test_an_array_is_shared_where_it_is_or_not_at_all(wanted: dict[str, Any]) -> None:
    array = shared(np.zeros(3, np.uint8))
    array.__dlpack__(copy=False, dl_device=(2, 0))
    with pytest.raises(BufferError, match="not copied"):
        array.__dlpack__(**wanted)


def test_elements_that_dlpack_has_no_name_for() -> None:
    with pytest.raises(BufferError, match="<c8"):
        shared(np.zeros(3, np.complex64)).__dlpack__()


class FromTorch:
    """A CPU tensor that says that it is on a GPU."""

    def __init__(self, tensor: torch.Tensor, device: int = 0) -> None:
        self.tensor, self.device = tensor, device
        self.streams: list[int] = []

    def __dlpack_device__(self) -> tuple[int, int]:
        return 2, self.device

    def __dlpack__(self, *, stream: int) -> Any:
        self.streams.append(stream)
        return self.tensor.__dlpack__()


def test_a_tensor_of_torch_is_read_in_place_and_given_back() -> None:
    tensor = torch.arange(4 * 10, dtype=torch.uint8).reshape(4, 10)[1:, 2:8]
    source = FromTorch(tensor)
    assert is_on_device(source)
    array = take(source, 0, 96, never)
    assert source.streams == [96]
    assert (array.address, array.shape) == (tensor.data_ptr(), (3, 6))
    assert (array.strides, array.typestr) == ((10, 1), "|u1")
    del array  # torch's deleter runs once; a second time would end the process
    gc.collect()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.complex64, torch.bool])
def test_elements_that_no_frame_has(dtype: torch.dtype) -> None:
    with pytest.raises(InputError, match="uint8 was expected"):
        take(FromTorch(torch.zeros(3, dtype=dtype)), 0, 96, never)


def test_a_tensor_that_cannot_be_shared() -> None:
    with pytest.raises(InputError, match=r"give a plain tensor: frame\.detach\(\)"):
        take(FromTorch(torch.zeros(3, requires_grad=True)), 0, 96, never)


class Interface:
    def __init__(self, **changes: Any) -> None:
        self.__cuda_array_interface__: dict[str, Any] = {
            "version": 3,
            "data": (4096, True),
            "shape": (4, 5, 3),
            "strides": None,
            "typestr": "|u1",
        } | changes


@pytest.mark.parametrize(
    ("changes", "waited_for"),
    [
        ({"stream": 1}, [1]),
        ({"stream": 2}, [2]),
        ({"stream": 640}, [640]),
        ({"stream": None}, []),
        ({}, []),
        ({"version": 2}, [1]),  # as torch has it: no word about streams
    ],
)
def test_the_interface_s_stream_is_waited_for(
    changes: dict[str, Any], waited_for: list[int]
) -> None:
    waiting: list[int] = []
    source = Interface(**changes)
    assert is_on_device(source)
    array = take(source, 0, 96, waiting.append)
    assert waiting == waited_for
    assert (array.address, array.strides, array.owner) == (4096, (15, 3, 1), source)


@pytest.mark.parametrize("source", [np.zeros(3), torch.zeros(3), "name.png", b"bytes", None, 3])
def test_what_is_not_on_a_gpu(source: Any) -> None:
    assert not is_on_device(source)
