from pathlib import Path

import pytest

from edgeseg.data.memory import available_memory


@pytest.fixture
def system(tmp_path: Path) -> Path:
    path = tmp_path / "meminfo"
    path.write_text("MemTotal: 9000 kB\nMemFree: 100 kB\nMemAvailable: 4000 kB\n")
    return path


def write_group(folder: Path, limit: str) -> None:
    (folder / "memory.max").write_text(f"{limit}\n")
    (folder / "memory.current").write_text("600000\n")
    (folder / "memory.stat").write_text("anon 1\nactive_file 2\ninactive_file 100000\n")


@pytest.mark.parametrize(
    ("limit", "expected"),
    [("max", 4_096_000), ("1000000", 500_000), ("99999999999", 4_096_000)],
)
def test_a_container_may_allow_less(
    system: Path, tmp_path: Path, limit: str, expected: int
) -> None:
    write_group(tmp_path, limit)
    assert available_memory(system, tmp_path) == expected


def test_without_a_container_the_system_counts(system: Path, tmp_path: Path) -> None:
    assert available_memory(system, tmp_path) == 4_096_000


def test_unknown_where_the_system_does_not_tell(tmp_path: Path) -> None:
    assert available_memory(tmp_path / "nothing", tmp_path) is None
