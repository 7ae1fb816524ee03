"""The stress runs, seconds long."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.fuzz import native
from tests.stress import processes, sanitizers, soak, threads
from tests.stress.engines import engine


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return engine("tiny", tmp_path_factory.mktemp("engine"))


def test_memory_is_flat_over_predicts(tiny: Path) -> None:
    growth = soak.predicts(tiny, 100)
    assert growth.relative <= 0.02, growth


def test_memory_is_flat_over_loads(tiny: Path) -> None:
    growth = soak.loads(tiny, 30)
    assert growth.relative <= 0.02, growth


def test_sixteen_threads_share_a_runtime(tiny: Path) -> None:
    agreement = threads.agreement(tiny, 16, 25)
    assert agreement.different == 0, agreement


def test_another_thread_goes_on_during_predict(tiny: Path) -> None:
    progress = threads.progress(tiny, 20)
    assert progress.woken > progress.predicts / 2, progress


def test_spawned_children_come_to_the_same(tiny: Path) -> None:
    assert processes.spawn(tiny) == 0


def test_a_forked_child_is_told_to_make_its_own_runtime(tiny: Path) -> None:
    parents, own = processes.fork_after_use(tiny)
    assert "made before the process was forked" in parents
    assert own == "works"


@pytest.mark.parametrize("interrupt", [processes.interrupt_pictures, processes.interrupt_video])
def test_ctrl_c_ends_at_once_and_leaves_only_whole_files(
    interrupt: processes.Interrupt, tiny: Path, tmp_path: Path
) -> None:
    ending = interrupt(tiny, tmp_path)
    assert ending.code == 130, ending.output
    assert ending.seconds < 5
    assert ending.broken == ()
    assert "Traceback" not in ending.output


@pytest.mark.skipif(native.compiler() is None, reason="no C++ compiler")
@pytest.mark.parametrize("names", sanitizers.THREADS)
def test_the_native_core_is_clean_under_sanitizers(names: str, tmp_path: Path) -> None:
    calls = 150 if names == "address,undefined" else 40
    assert sanitizers.sanitize(names, calls, tmp_path).endswith("clean")
