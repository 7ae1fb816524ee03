from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from types import ModuleType

import pytest
from tests.kernels.cuda_emulation import build

from edgeseg import _core


@pytest.fixture(params=_core.dispatch_levels())
def level(request: pytest.FixtureRequest) -> Iterator[str]:
    """Runs the test once with every instruction-set level of this machine."""
    before = _core.dispatch_level()
    _core.set_dispatch_level(request.param)
    yield request.param
    _core.set_dispatch_level(before)


@pytest.fixture(scope="session")
def cuda_emulation(tmp_path_factory: pytest.TempPathFactory) -> ModuleType:
    """What `edgeseg._core.cuda` is, from the same sources, computing on the host in its memory."""
    library = tmp_path_factory.mktemp("cuda") / "cuda_emulation.so"
    sources = (*build.KERNELS, build.HERE / "plugin.cu", build.HERE / "module.cpp")
    build.build(sources, library)
    spec = importlib.util.spec_from_file_location("cuda_emulation", library)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
