"""`edgeseg bench`: exact about missed frames, complete, and only of engines that compute right."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from edgeseg.bench import Latency, bench, live_source, markdown, read_frames
from edgeseg.engine_file import Golden
from edgeseg.errors import EngineError, InputError


@pytest.mark.parametrize(
    ("durations", "hz", "offered", "missed"),
    [
        ([50, 50, 50], 10, 3, 0),
        ([100, 100, 100], 10, 3, 0),  # done exactly when the next one comes
        ([100.5, 10, 10], 10, 4, 1),  # half a millisecond late: frame 1 is missed, 2 and 3 are not
        ([250, 10, 10], 10, 5, 2),  # done at 250: frames 1 and 2 are missed, 3 and 4 taken
        ([150, 150, 150], 10, 5, 2),  # every other one
        ([40] * 10, 60, 28, 18),  # 16.7 ms apart: one of three is taken, the last is number 27
        ([1000], 60, 1, 0),  # what comes after the last one taken is not counted
    ],
)
def test_missed_frames(durations: list[float], hz: float, offered: int, missed: int) -> None:
    source = live_source(durations, hz)
    assert (source.offered, source.missed) == (offered, missed)
    assert source.offered - source.missed == len(durations)


def test_jitter_is_of_the_time_between_results() -> None:
    assert live_source([30, 30, 30], 10).jitter_ms == 0.0
    # Done at 10, 130, 210: 120 and 80 apart.
    assert live_source([10, 30, 10], 10).jitter_ms == pytest.approx(20.0)
    assert live_source([10], 10).jitter_ms == 0.0


def test_latency() -> None:
    row = Latency.of([float(ms) for ms in range(1, 102)])
    assert (row.p50, row.p90, row.p99, row.max) == (51.0, 91.0, 100.0, 101.0)
    assert row.fps == pytest.approx(1000 / 51)


def test_two_rows_and_all_that_surrounds_them(tiny_engine: Path) -> None:
    frames = [np.full((90, 130, 3), grey, np.uint8) for grey in (10, 200)]
    report = bench(tiny_engine, frames=frames, seconds=0.05, threads=1)
    assert report.engine_only.clock == "outside"
    assert len(report.engine_only.ms) == len(report.frame_to_labels.ms) >= 3
    assert (report.network, report.frame, report.threads) == ("96×64", "130×90", 1)
    assert [source.hz for source in report.sources] == [10, 30, 60]
    assert report.golden == 1.0
    assert min(report.load_ms, report.first_frame_ms, report.peak_memory_mb) > 0
    assert sum(report.stages_ms.values()) <= report.frame_to_labels.max
    assert report.versions.keys() >= {"edgeseg", "Python", "openvino", "opencv-python"}
    page = markdown(report)
    for expected in ("A engine only", "B frame to labels", "60 Hz", "CPU flags", "peak memory"):
        assert expected in page


def test_an_engine_that_computes_something_else_is_not_timed(
    write_tiny_engine: Callable[..., Path], tmp_path: Path
) -> None:
    path = write_tiny_engine(
        tmp_path / "wrong.edgeseg",
        golden=Golden(frame="golden/labels.png", labels="golden/frame.png"),
    )
    with pytest.raises(EngineError, match="too little for its times"):
        bench(path, seconds=0.01)


def test_what_frames_may_be(tmp_path: Path) -> None:
    assert read_frames("130x90")[0].shape == (90, 130, 3)
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((20, 30, 3), np.uint8))
    assert [frame.shape for frame in read_frames(str(tmp_path / "a.png"))] == [(20, 30, 3)]
    with pytest.raises(InputError, match="16 to 8192"):
        read_frames("9x9999999")
    with pytest.raises(InputError, match=r"nothing\.png"):
        read_frames(str(tmp_path / "nothing.png"))


def test_frames_of_several_sizes_are_refused(tiny_engine: Path) -> None:
    frames = [np.zeros((h, 32, 3), np.uint8) for h in (16, 32)]
    with pytest.raises(InputError, match="differ in size"):
        bench(tiny_engine, frames=frames)


def edgeseg(*arguments: object) -> subprocess.CompletedProcess[str]:
    code = "import sys; sys.modules['torch'] = None; from edgeseg.cli import main; main()"
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True)


def test_command_line_without_torch(tiny_engine: Path, tmp_path: Path) -> None:
    page = tmp_path / "bench.md"
    arguments = ("bench", tiny_engine, "--seconds", 0.05, "--frame", "130x90")
    done = edgeseg(*arguments, "--json", "--out", page)
    assert done.returncode == 0, done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    assert report["frame"] == "130×90"
    assert "B frame to labels" in page.read_text()
    shown = edgeseg(*arguments)
    assert shown.returncode == 0, shown.stderr
    assert "missed" in shown.stdout
    nowhere = edgeseg(*arguments, "--out", tmp_path / "none" / "bench.md")
    assert nowhere.returncode == 1
    assert "none" in nowhere.stderr
