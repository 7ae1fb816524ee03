"""The C++ half of TensorRT's Python API, as far as `tensorrt.plugin` needs it, without libnvinfer.

`tensorrt.plugin` is Python on top of pybind11 classes. With these stand-ins the real one, from the
wheel `tensorrt-cu13-bindings`, validates, registers and drives a plugin on a machine without a GPU.
"""

from __future__ import annotations

import enum
import operator
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest


class DataType(enum.Enum):
    FLOAT = 0
    HALF = 1
    INT32 = 3
    BF16 = 7


class TensorFormat(enum.Enum):
    LINEAR = 0


class DimensionOperation(enum.Enum):
    SUM = 0
    PROD = 1
    SUB = 4
    EQUAL = 5
    LESS = 6
    FLOOR_DIV = 7
    CEIL_DIV = 8
    MAX = 2
    MIN = 3


_OPERATIONS: dict[DimensionOperation, Callable[[int, int], int]] = {
    DimensionOperation.SUM: operator.add,
    DimensionOperation.PROD: operator.mul,
    DimensionOperation.SUB: operator.sub,
    DimensionOperation.FLOOR_DIV: operator.floordiv,
    DimensionOperation.CEIL_DIV: lambda a, b: -(-a // b),
}


class IDimensionExpr:
    def __init__(self, value: int) -> None:
        self.value = value

    def is_constant(self) -> bool:
        return True

    def get_constant_value(self) -> int:
        return self.value


class ExprBuilder:
    def constant(self, value: int) -> IDimensionExpr:
        return IDimensionExpr(value)

    def operation(
        self, op: DimensionOperation, a: IDimensionExpr, b: IDimensionExpr
    ) -> IDimensionExpr:
        return IDimensionExpr(_OPERATIONS[op](a.value, b.value))


class ISymExpr:
    """`SymExprImpl` of the Python half sets type, dtype and expr."""

    type: Any
    dtype: Any
    expr: IDimensionExpr


class Dims(tuple[int, ...]):
    MAX_DIMS = 8


class DimsExprs(list[Any]):
    def __init__(self, length: int) -> None:
        super().__init__([None] * length)


class PluginTensorDesc:
    def __init__(self, dims: tuple[int, ...] = (), type: Any = None, format: Any = None) -> None:
        self.dims, self.type, self.format, self.scale = dims, type, format, 1.0


class DynamicPluginTensorDesc:
    def __init__(self, dims: tuple[int, ...], type: DataType) -> None:
        self.desc = PluginTensorDesc(dims, type, TensorFormat.LINEAR)


class SymExprSetter(dict[int, ISymExpr]):
    """Takes the kernel's scalar arguments."""

    nbSymExprs = 0  # noqa: N815


class Registry:
    def __init__(self) -> None:
        self.creators: dict[tuple[str, str], Any] = {}

    def register_creator(self, creator: Any, namespace: str) -> None:
        self.creators[creator.name, namespace] = creator

    def get_creator(self, name: str, version: str, namespace: str) -> Any:
        assert version == "1"
        return self.creators[name, namespace]


class _Interface:
    """An interface of TensorRT's that Python classes derive from."""

    def __init__(self) -> None:
        pass


class Logger:
    WARNING = 1

    def log(self, severity: int, text: str) -> None:
        pass


def stub() -> ModuleType:
    """A module `tensorrt` with what `tensorrt.plugin` touches, and a registry of its own."""
    module = ModuleType("tensorrt")
    registry = Registry()
    interfaces = (
        "IPluginV3",
        "IPluginV3QuickCore",
        "IPluginV3QuickBuild",
        "IPluginV3QuickRuntime",
        "IPluginV3QuickAOTBuild",
        "IPluginCreatorV3Quick",
        "ITensor",
    )
    for name in interfaces:
        setattr(module, name, type(name, (_Interface,), {}))
    for value in (
        DataType,
        TensorFormat,
        DimensionOperation,
        IDimensionExpr,
        ISymExpr,
        Dims,
        DimsExprs,
        PluginTensorDesc,
        DynamicPluginTensorDesc,
        Logger,
    ):
        setattr(module, value.__name__, value)
    for name, members in {
        "PluginFieldType": "UNKNOWN INT8 INT16 INT32 INT64 FLOAT16 FLOAT32 FLOAT64 CHAR",
        "PluginArgType": "INT",
        "PluginArgDataType": "INT8 INT16 INT32",
        "QuickPluginCreationRequest": "UNKNOWN PREFER_JIT PREFER_AOT STRICT_JIT STRICT_AOT",
        "TensorRTPhase": "BUILD RUNTIME",
    }.items():
        setattr(module, name, enum.Enum(name, members))
    module.PluginField = lambda name, data, type: SimpleNamespace(name=name, data=data, type=type)  # type: ignore[attr-defined]
    module.PluginFieldCollection = list  # type: ignore[attr-defined]
    module.get_plugin_registry = lambda: registry  # type: ignore[attr-defined]
    return module


def plugin_folder() -> Path | None:
    """Where the wheel `tensorrt-cu13-bindings` keeps `tensorrt.plugin`; None without it."""
    spec = find_spec("tensorrt_bindings")
    folder = None if spec is None or spec.origin is None else Path(spec.origin).parent / "plugin"
    return folder if folder is not None and folder.is_dir() else None


def import_plugin(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The stand-in as the module `tensorrt`, with the wheel's `tensorrt.plugin` beneath it."""
    folder = plugin_folder()
    assert folder is not None
    for name in [name for name in sys.modules if name.split(".")[0] == "tensorrt"]:
        monkeypatch.delitem(sys.modules, name)
    tensorrt = stub()
    tensorrt.__path__ = [str(folder.parent)]
    monkeypatch.setitem(sys.modules, "tensorrt", tensorrt)
    return tensorrt
