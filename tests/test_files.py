"""Files appear whole or not at all, and keep what they were."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from edgeseg.errors import OutputError
from edgeseg.files import make_folder, replacing, write_atomically


def test_an_exception_leaves_the_old_file_alone(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    path.write_text("old")

    def interrupted() -> None:
        with replacing(path) as temporary:
            temporary.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_permissions_stay(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    path.write_text("old")
    path.chmod(0o640)
    write_atomically(path, [b"new"])
    assert path.read_bytes() == b"new"
    assert path.stat().st_mode & 0o777 == 0o640


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    target, link = tmp_path / "target.txt", tmp_path / "link.txt"
    target.write_text("old")
    link.symlink_to(target)
    write_atomically(link, [b"new"])
    assert link.is_symlink()
    assert target.read_bytes() == b"new"


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for path, words in (
        (tmp_path, "is a folder"),
        (pipe, "a device or pipe"),
        (Path("/dev/null"), "a device or pipe"),
        (tmp_path / "none" / "file", "does not exist"),
        (Path("a\0b"), "null"),
    ):
        with pytest.raises(OutputError, match=words):
            write_atomically(path, [b"x"])
    assert list(tmp_path.iterdir()) == [pipe]


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "inside", tmp_path / "a\0b"):
        with pytest.raises(OutputError, match="cannot make the folder"):
            make_folder(folder)
