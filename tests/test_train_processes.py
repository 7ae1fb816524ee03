"""Several processes share a batch and come to what one process comes to."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from edgeseg.checkpoint import load_checkpoint

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    outputs = {}
    for processes in (1, 2):
        outputs[processes] = tmp_path_factory.mktemp(f"{processes}-processes")
        command = ["-m", "tests.train_processes", str(processes), str(outputs[processes])]
        done = subprocess.run(
            [sys.executable, *command], cwd=ROOT, capture_output=True, text=True, timeout=240
        )
        assert done.returncode == 0, done.stderr
        assert f"{processes} × cpu" in done.stdout
        for rank in range(processes if processes > 1 else 0):  # whatever ends one ends all
            assert f"process {rank}: NaN told" in done.stdout
            assert f"process {rank}: full disk told" in done.stdout
        assert done.stdout.count("  6/6") == 2  # one log, whatever the number of processes
    return outputs


def curve(run: Path, tag: str) -> np.ndarray:
    events = EventAccumulator(str(run / "curves"))
    events.Reload()
    return np.array([event.value for event in events.Scalars(tag)])


@pytest.mark.parametrize("term", ["head", "auxiliary", "score", "detail"])
def test_same_loss_curve(runs: dict[int, Path], term: str) -> None:
    one, two = (curve(runs[n] / "pinned", f"train/{term}") for n in (1, 2))
    assert len(one) == 6
    np.testing.assert_allclose(two, one, rtol=2e-4)
    # As a user runs it, each process's BatchNorm sees its own share of the batch.
    one, two = (curve(runs[n] / "free", f"train/{term}") for n in (1, 2))
    assert two.mean() == pytest.approx(one.mean(), rel=0.15)


def test_same_weights_and_scores(runs: dict[int, Path]) -> None:
    one, two = (load_checkpoint(runs[n] / "pinned" / "last.pt") for n in (1, 2))
    for name, value in one.weights.items():
        torch.testing.assert_close(two.weights[name], value, rtol=1e-3, atol=1e-4, msg=name)
    assert two.training["miou_last"] == pytest.approx(one.training["miou_last"], abs=0.01)
