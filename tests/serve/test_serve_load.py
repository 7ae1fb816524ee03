"""The load run of `python -m tests.stress serve`, seconds long."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.stress import serve


def test_only_clean_answers(
    tiny_engine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serve, "TIMEOUT", 1.5)
    for kind in ("head that drips", "stalled watcher"):  # these take their time
        monkeypatch.delitem(serve._KINDS, kind)
    made = serve.load(tiny_engine, clients=8, seconds=3, folder=tmp_path)
    assert made.clean, str(made) + made.output
    assert made.answers["labels"]["200"] > 0
    assert 0 < made.course[0] <= made.peak  # whether it is flat, minutes tell
