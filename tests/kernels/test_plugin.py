"""The kernel for TensorRT's plugin: what it computes, and the PTX that a build with CUDA has."""

from __future__ import annotations

import ctypes
import re
import shutil
import subprocess
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tests.kernels import reference
from tests.kernels.cases import SCORE_MAP_CASES, ScoreMapCase, decode, encode, small, storage
from tests.kernels.test_cuda import BLOCK_CASES
from tests.kernels.test_preprocess import HALF_ULP

from edgeseg import _core, plugin
from edgeseg.engine_file import FloatType
from edgeseg.errors import EngineError

CASES = [case for case in (*small(SCORE_MAP_CASES), *BLOCK_CASES) if not case.channels_last]
DTYPES: tuple[FloatType, ...] = ("float32", "float16", "bfloat16")
C_TYPES: dict[str, Any] = {"u64": ctypes.c_void_p, "u32": ctypes.c_int32}


def call(
    library: ctypes.CDLL, case: ScoreMapCase, features: NDArray[Any], text: NDArray[np.float32]
) -> NDArray[Any]:
    """The output of the plugin's kernel, launched as `edgeseg.plugin` says."""
    n, c, h, w = case.shape
    out = np.zeros((n, c + case.classes, h, w), storage(case.dtype))
    launch = plugin.launch(case.shape, case.classes, case.dtype)
    values = (features.ctypes.data, text.ctypes.data, *launch.scalars, out.ctypes.data)
    arguments = [
        C_TYPES[kind](value) for value, (_, kind) in zip(values, plugin.ARGUMENTS, strict=True)
    ]
    addresses = (ctypes.c_void_p * len(arguments))(*map(ctypes.addressof, arguments))
    run = library.launch_plugin
    run.restype = ctypes.c_char_p
    three = ctypes.c_uint * 3
    error = run(
        launch.entry.encode(),
        three(*launch.grid),
        three(*launch.block),
        launch.shared_memory,
        addresses,
    )
    assert error == b"no error"
    return out


@pytest.mark.cuda_emulation
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_plugin_equals_the_twin(case: ScoreMapCase, cuda_emulation: ModuleType) -> None:
    library = ctypes.CDLL(str(cuda_emulation.__file__))
    features, text = encode(case.make_features(), case.dtype), case.make_text()
    out = call(library, case, features, text)
    channels = case.shape[1]
    np.testing.assert_array_equal(out[:, :channels], features)
    exact = reference.score_map(decode(features, case.dtype), text)
    error = np.abs(decode(out[:, channels:], case.dtype) - exact)
    assert (error <= 1e-6 + HALF_ULP[case.dtype] * np.abs(exact) * 1.001).all()


def test_the_scalars_are_those_of_the_arguments() -> None:
    launch = plugin.launch((2, 1024, 16, 32), 40, "float16")
    names = [name for name, kind in plugin.ARGUMENTS if kind == "u32"]
    scalars = dict(zip(names, launch.scalars, strict=True))
    assert scalars == {"n": 2, "channels": 1024, "pixels": 512, "classes": 40}


def test_a_build_without_cuda_says_how_to_get_the_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(_core, "cuda", raising=False)
    with pytest.raises(EngineError, match=r"built without CUDA.*pip install .*EDGESEG_CUDA=ON"):
        plugin.ptx()


@pytest.mark.cuda
def test_the_ptx_has_an_entry_for_every_type_with_these_arguments() -> None:
    text = plugin.ptx().decode().rstrip("\0")
    entries = dict(re.findall(r"\.visible \.entry (\w+)\(([^)]*)\)", text))
    assert set(entries) == {plugin.launch((1, 1, 1, 1), 1, dtype).entry for dtype in DTYPES}
    for parameters in entries.values():
        assert re.findall(r"\.param \.(\w+)", parameters) == [kind for _, kind in plugin.ARGUMENTS]


@pytest.mark.cuda_toolkit
@pytest.mark.cuda
@pytest.mark.parametrize("architecture", [80, 86, 87, 89, 90, 100, 110, 120])
def test_the_ptx_assembles_for_every_gpu(architecture: int, tmp_path: Path) -> None:
    ptx = tmp_path / "plugin.ptx"
    ptx.write_bytes(plugin.ptx().rstrip(b"\0"))
    ptxas = shutil.which("ptxas")
    assert ptxas is not None
    command = (ptxas, "-v", f"-arch=sm_{architecture}", ptx, "-o", tmp_path / "plugin.cubin")
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert result.stderr.count("0 bytes spill stores, 0 bytes spill loads") == len(DTYPES)
