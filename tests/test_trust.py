"""The local record of code that this machine built."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from edgeseg import trust

HASH = "a" * 64


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    return tmp_path


def test_only_what_was_remembered_was_built_here(state: Path) -> None:
    assert not trust.built_here(HASH)
    assert trust.remember(HASH)
    assert trust.remember(HASH)  # twice is not an error
    assert trust.built_here(HASH)
    assert not trust.built_here("b" * 64)
    folder = state / "edgeseg" / "built"
    assert [path.name for path in folder.iterdir()] == [HASH]
    assert folder.stat().st_mode & 0o777 == 0o700


def test_the_default_is_in_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for relative in ("", "relative/path"):
        monkeypatch.setenv("XDG_STATE_HOME", relative)
        assert trust.record() == tmp_path / ".local" / "state" / "edgeseg" / "built"


def test_a_record_that_cannot_be_written_is_a_warning(
    state: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (state / "edgeseg").write_text("a file where a folder was wanted")
    with caplog.at_level(logging.WARNING, "edgeseg"):
        assert not trust.remember(HASH)
    assert "trust=True" in caplog.text
    assert not trust.built_here(HASH)


@pytest.mark.parametrize("mode", [0o770, 0o707])
def test_a_record_that_others_may_write_proves_nothing(
    state: Path, mode: int, caplog: pytest.LogCaptureFixture
) -> None:
    trust.remember(HASH)
    (state / "edgeseg" / "built").chmod(mode)
    with caplog.at_level(logging.WARNING, "edgeseg"):
        assert not trust.built_here(HASH)
    assert "chmod 700" in caplog.text


def test_a_folder_or_a_link_is_no_record(state: Path) -> None:
    trust.remember("b" * 64)
    folder = state / "edgeseg" / "built"
    (folder / HASH).mkdir()
    (folder / ("c" * 64)).symlink_to(folder / ("b" * 64))
    assert not trust.built_here(HASH)
    assert not trust.built_here("c" * 64)


@pytest.mark.parametrize("name", ["", "../../etc/passwd", "A" * 64, "a" * 63])
def test_only_hashes_are_names(state: Path, name: str) -> None:
    with pytest.raises(ValueError, match="SHA-256"):
        trust.remember(name)
    with pytest.raises(ValueError, match="SHA-256"):
        trust.built_here(name)
