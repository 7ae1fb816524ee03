"""Arrays in a GPU's memory, taken from other libraries and given to them without a copy.

Both ways by DLPack and by `__cuda_array_interface__` (version 3). Where both sides queue work on
streams, the one who takes an array waits for the one who gives it, and the CPU for neither; what we
give by `__cuda_array_interface__` is finished first.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from edgeseg.errors import InputError

_CUDA, _MANAGED = 2, 13  # DLPack's device types
_LEGACY_STREAM = 1
_DTYPES = {"|u1": (1, 8), "<f4": (2, 32)}  # DLPack's type code and bits
_ITEM_BYTES = {"|u1": 1, "<f4": 4}


@dataclass(frozen=True, eq=False)
class DeviceArray:
    """An array in a GPU's memory; it shares it by DLPack and `__cuda_array_interface__`.

    Attributes:
        address: of its first element.
        shape: extents.
        strides: in bytes.
        typestr: NumPy's name of its format, e.g. `|u1` for uint8.
        device: index of the CUDA device.
        owner: whatever keeps the memory.
        order: makes another cudaStream_t wait until it is made; None where it is finished.
        finish: waits until it is made.
    """

    address: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    typestr: str
    device: int
    owner: Any = field(repr=False)
    order: Callable[[int], None] | None = field(default=None, repr=False)
    finish: Callable[[], None] | None = field(default=None, repr=False)

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        """Waits until the array is finished: torch takes no notice of the interface's stream."""
        if self.finish is not None:
            self.finish()
        return {
            "version": 3,
            "data": (self.address, False),
            "shape": self.shape,
            "strides": self.strides,
            "typestr": self.typestr,
            "stream": None,
        }

    def __dlpack_device__(self) -> tuple[int, int]:
        """DLPack's number for CUDA, and the device's index."""
        return _CUDA, self.device

    def __dlpack__(
        self,
        *,
        stream: int | None = None,
        max_version: tuple[int, int] | None = None,
        dl_device: tuple[int, int] | None = None,
        copy: bool | None = None,
    ) -> Any:
        """A capsule that holds the memory; `stream` (None is the legacy default) waits for it.

        It is of DLPack's first form, which takers of any `max_version` know.

        Raises:
            BufferError: a copy is wanted, or another device, or the elements have a format that
                DLPack would need more words for.
        """
        if copy or dl_device not in (None, self.__dlpack_device__()):
            raise BufferError("the array is shared where it is, not copied; take it, then copy it")
        if self.typestr not in _DTYPES:
            raise BufferError(f"elements of {self.typestr} are not given by DLPack")
        if self.order is not None and stream != -1:
            self.order(_LEGACY_STREAM if stream is None else stream)
        return _export(self)


def is_on_device(source: Any) -> bool:
    """Whether it is an array in a GPU's memory."""
    if hasattr(source, "__dlpack_device__"):
        try:
            return source.__dlpack_device__()[0] in (_CUDA, _MANAGED)
        except (TypeError, ValueError, RuntimeError):  # a class, a tensor without memory
            return False
    return hasattr(source, "__cuda_array_interface__")


def take(source: Any, device: int, stream: int, order_after: Callable[[int], None]) -> DeviceArray:
    """View another library's array.

    Args:
        source: what `is_on_device` says yes to.
        device: where it must be.
        stream: cudaStream_t that may read the array once it has done what it is given here.
        order_after: makes `stream` wait for the work that another cudaStream_t now has.

    Raises:
        InputError: it is on another device, or cannot be shared.
    """
    kind = f"{type(source).__module__}.{type(source).__qualname__}"
    if not hasattr(source, "__dlpack_device__"):
        return _view(source.__cuda_array_interface__, device, source, order_after)
    _, found = source.__dlpack_device__()
    if found != device:
        raise InputError(
            f"the frame is on cuda:{found}, this Runtime is on cuda:{device}; copy it there, or "
            f"make a Runtime with device='cuda:{found}'"
        )
    try:
        return _import(source.__dlpack__(stream=stream), device)
    except (TypeError, ValueError, RuntimeError, BufferError) as error:
        raise InputError(
            f"the frame, a {kind} on a GPU, cannot be shared by DLPack: {error}; give a plain "
            "tensor: frame.detach()"
        ) from error


def _view(
    interface: dict[str, Any], device: int, owner: Any, order_after: Callable[[int], None]
) -> DeviceArray:
    shape = tuple(int(extent) for extent in interface["shape"])
    item = int(interface["typestr"][2:])
    strides = interface.get("strides") or _packed(shape, item)
    if interface.get("mask") is not None:
        raise InputError("the frame has masked pixels, which have no grey level; give them one")
    # From version 3 on, no stream says that the array is finished; before, nobody could tell.
    stream = interface.get("stream") if interface["version"] >= 3 else _LEGACY_STREAM
    if stream:
        order_after(int(stream))
    return DeviceArray(
        address=int(interface["data"][0]),
        shape=shape,
        strides=tuple(int(stride) for stride in strides),
        typestr=interface["typestr"],
        device=device,
        owner=owner,
    )


def _packed(shape: tuple[int, ...], item: int) -> tuple[int, ...]:
    strides = []
    for extent in reversed(shape):
        strides.append(item)
        item *= extent
    return tuple(reversed(strides))


# ------------------------------------------------------------------------------------------ DLPack


class _Tensor(ctypes.Structure):
    """DLTensor of dlpack.h."""

    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device_type", ctypes.c_int32),
        ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    )


_Deleter = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


class _Managed(ctypes.Structure):
    """DLManagedTensor of dlpack.h."""

    _fields_ = (
        ("tensor", _Tensor),
        ("context", ctypes.c_void_p),
        ("deleter", _Deleter),
    )


_python = ctypes.pythonapi
_python.PyCapsule_New.restype = ctypes.py_object
_python.PyCapsule_New.argtypes = (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)
_python.PyCapsule_IsValid.argtypes = (ctypes.py_object, ctypes.c_char_p)
_python.PyCapsule_GetPointer.restype = ctypes.c_void_p
_python.PyCapsule_GetPointer.argtypes = (ctypes.py_object, ctypes.c_char_p)
_python.PyCapsule_SetName.argtypes = (ctypes.py_object, ctypes.c_char_p)
# For a capsule that dies, and must not become a Python object once more: by its address.
_dying_is_valid = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_char_p)(
    ("PyCapsule_IsValid", _python)
)
_dying_pointer = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_char_p)(
    ("PyCapsule_GetPointer", _python)
)
_NAME, _USED = b"dltensor", b"used_dltensor"
_CODES = {0: "i", 1: "u", 2: "f"}

# What is given away, by the address of its DLManagedTensor, until its taker is done.
_given: dict[int, tuple[_Managed, Any]] = {}


def _delete(address: int) -> None:
    _given.pop(address, None)


def _destroy_capsule(capsule: int) -> None:
    """A capsule that nobody took gives its array back."""
    if _dying_is_valid(capsule, _NAME):
        _delete(_dying_pointer(capsule, _NAME))


_deleter = _Deleter(_delete)
_capsule_destructor = ctypes.PYFUNCTYPE(None, ctypes.c_void_p)(_destroy_capsule)


def _export(array: DeviceArray) -> Any:
    ndim = len(array.shape)
    shape = (ctypes.c_int64 * ndim)(*array.shape)
    item = _ITEM_BYTES[array.typestr]
    strides = (ctypes.c_int64 * ndim)(*(stride // item for stride in array.strides))
    code, bits = _DTYPES[array.typestr]
    managed = _Managed(
        _Tensor(array.address, _CUDA, array.device, ndim, code, bits, 1, shape, strides, 0),
        None,
        _deleter,
    )
    address = ctypes.addressof(managed)
    _given[address] = (managed, (array, shape, strides))
    return _python.PyCapsule_New(address, _NAME, ctypes.cast(_capsule_destructor, ctypes.c_void_p))


class _Taken:
    """Another library's DLManagedTensor, given back when it is no longer needed."""

    def __init__(self, managed: _Managed, address: int) -> None:
        self._managed, self._address = managed, address

    def __del__(self) -> None:
        if self._managed.deleter:
            self._managed.deleter(self._address)


def _import(capsule: Any, device: int) -> DeviceArray:
    address = _python.PyCapsule_GetPointer(capsule, _NAME)
    managed = _Managed.from_address(address)
    _python.PyCapsule_SetName(capsule, _USED)  # from here on ours to give back
    owner = _Taken(managed, address)
    tensor = managed.tensor
    if tensor.lanes != 1 or tensor.bits % 8 or tensor.code not in _CODES:
        raise InputError(
            f"the frame's elements have DLPack type {tensor.code} of {tensor.bits} bits, uint8 was "
            "expected"
        )
    item = tensor.bits // 8
    shape = tuple(tensor.shape[: tensor.ndim])
    strides = _packed(shape, item)
    if tensor.strides:
        strides = tuple(stride * item for stride in tensor.strides[: tensor.ndim])
    return DeviceArray(
        address=(tensor.data or 0) + tensor.byte_offset,
        shape=shape,
        strides=strides,
        typestr=f"{'|' if item == 1 else '<'}{_CODES[tensor.code]}{item}",
        device=device,
        owner=owner,
    )
