import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from benchmarks.accuracy import runner
from benchmarks.accuracy.plan import ARMS, BUDGETS, CORE, adapted, recipe, selected
from benchmarks.accuracy.results import load_result, load_results
from benchmarks.accuracy.runner import Experiment, common_start, run_matrix
from benchmarks.accuracy.schedule import RESULT, Job, claimed, work_through
from rich.console import Console

from edgeseg.classes import ClassTable
from edgeseg.data import LabelledImages
from edgeseg.errors import ConfigError
from edgeseg.evaluate import Scores
from edgeseg.models import STDCSeg, STDCSegConfig
from edgeseg.optimization import transfer_weights
from edgeseg.text import TextEmbeddings

TABLE = ClassTable(
    ("road", "car", "sky"), ((1, 1, 1), (2, 2, 2), (3, 3, 3)), ("ground", "things", "things")
)
QUIET = Console(quiet=True)


# The plan.


def test_every_arm_has_a_recipe_and_names_arms_that_come_before_it() -> None:
    names = list(ARMS)
    for index, arm in enumerate(ARMS.values()):
        before = names[:index]
        assert arm.parent is None or arm.parent in before
        assert set(arm.controls) <= set(before)
        config = recipe(arm, BUDGETS["small"], seed=3)
        assert config.seed == 3
        assert (config.text_guidance is None) == (arm.text is None)
        assert (config.backbone_lr_scale == 0) == (arm.parent is not None)


def test_runs_of_one_seed_see_the_same_crops() -> None:
    seen = {
        (config.seed, config.batch_size, config.augmentation, config.synthetic)
        for config in (recipe(arm, BUDGETS["paper"], 2) for arm in ARMS.values())
    }
    assert len(seen) == 1


def test_a_treatment_has_the_schedule_of_its_controls_of_the_same_stage() -> None:
    for arm in ARMS.values():
        if not arm.controls:
            continue
        first = ARMS[arm.controls[0]]
        if arm.parent is None or first.name != arm.parent:
            assert recipe(arm, BUDGETS["small"], 0).iterations == (
                recipe(first, BUDGETS["small"], 0).iterations
            )


def test_selection_brings_parents_and_refuses_the_unknown() -> None:
    assert [arm.name for arm in selected(["stage2-embedding"])] == ["stage1", "stage2-embedding"]
    assert selected(["core"]) == CORE
    assert len(selected(["all"])) == len(ARMS)
    with pytest.raises(ConfigError, match=r"no arm or group 'stage3'.*minilm-stage1"):
        selected(["stage3"])


def test_a_budget_is_adapted_in_both_schedules() -> None:
    budget = adapted(
        BUDGETS["small"], iterations=(50, 30), changes=["batch_size=4", "augmentation.crop=[64,96]"]
    )
    assert (budget.first.iterations, budget.first.warmup) == (50, 5)
    assert (budget.second.iterations, budget.second.warmup) == (30, 3)
    for config in (budget.first, budget.second):
        assert config.batch_size == 4
        assert config.augmentation.crop == (64, 96)
    assert budget.second.backbone_lr_scale == 0


# The schedule.

WORKER = """
import os, sys, time
from pathlib import Path
from benchmarks.accuracy.schedule import Job, work_through

out, pause = Path(sys.argv[1]), float(sys.argv[2])

def execute(job):
    with (out / "log").open("a") as log:
        log.write(f"{job.name} {os.getpid()}\\n")
    time.sleep(pause)
    (job.folder / "result.json").write_text("{}")

jobs = [
    Job(f"{arm}{seed}", out / arm / str(seed), out / "parent" / str(seed) if arm == "child" else None)
    for seed in range(6)
    for arm in ("parent", "child", "other")
]
work_through(jobs, execute, poll_seconds=0.01)
"""


def start_worker(out: Path, pause: float) -> subprocess.Popen[bytes]:
    root = Path(__file__).parents[2]
    return subprocess.Popen([sys.executable, "-c", WORKER, str(out), str(pause)], cwd=root)


def test_two_processes_share_the_jobs_and_do_none_twice(tmp_path: Path) -> None:
    workers = [start_worker(tmp_path, 0.05) for _ in range(2)]
    assert [worker.wait(60) for worker in workers] == [0, 0]
    lines = [line.split() for line in (tmp_path / "log").read_text().splitlines()]
    order = [name for name, _ in lines]
    assert len(order) == len(set(order)) == 18
    assert {int(pid) for _, pid in lines} == {worker.pid for worker in workers}
    for seed in range(6):
        assert order.index(f"parent{seed}") < order.index(f"child{seed}")
    seeds = [int(name[-1]) for name in order]
    assert all(later >= earlier - 1 for earlier, later in zip(seeds, seeds[1:], strict=False))


def test_a_killed_process_leaves_its_job_to_others(tmp_path: Path) -> None:
    worker = start_worker(tmp_path, 60)
    deadline = time.monotonic() + 30
    while not (tmp_path / "log").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    job = Job("parent0", tmp_path / "parent" / "0")
    with claimed(job.folder) as mine:
        assert not mine
    os.kill(worker.pid, signal.SIGKILL)
    worker.wait(10)
    with claimed(job.folder) as mine:
        assert mine


def test_what_builds_on_a_failure_is_left_out_and_the_rest_is_done(tmp_path: Path) -> None:
    parent = Job("parent", tmp_path / "parent")
    child = Job("child", tmp_path / "child", parent.folder)
    other = Job("other", tmp_path / "other")

    def execute(job: Job) -> None:
        if job is parent:
            raise ConfigError("the loss is NaN")
        (job.folder / RESULT).touch()

    failures = work_through([parent, child, other], execute)
    assert list(failures) == ["parent", "child"]
    assert failures["parent"] == "the loss is NaN"
    assert other.finished
    assert not child.finished


# Runs, with a stand-in for training.


class FakeTraining:
    """Stands in for `train`: writes the files, and gives scores that follow from arm and seed."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, int, dict[str, Any]]] = []
        self.killed_once: set[str] = set()

    def __call__(self, config: Any, *, output: Path, **options: Any) -> SimpleNamespace:
        name = output.parent.name
        self.calls.append((name, config.seed, options | {"config": config}))
        (output / "last.pt").write_text(name)
        if name in self.killed_once:
            self.killed_once.remove(name)
            raise KeyboardInterrupt
        (output / "best.pt").write_text(name)
        right = 50 + 10 * list(ARMS).index(name) + config.seed
        confusion = np.diag([right, right, right]) + np.eye(3, k=1, dtype=np.int64) * 20
        return SimpleNamespace(
            last=Scores(TABLE.names, confusion, TABLE.categories),
            best=Scores(TABLE.names, confusion + np.eye(3, dtype=np.int64), TABLE.categories),
            best_iteration=7,
        )


@pytest.fixture
def training(monkeypatch: pytest.MonkeyPatch) -> FakeTraining:
    fake = FakeTraining()
    encoder = FakeEncoder()
    monkeypatch.setattr(runner, "train", fake)
    monkeypatch.setattr(runner, "load_checkpoint", lambda path: f"from {path.read_text()}")
    monkeypatch.setattr(runner, "common_start", lambda _, backbone, seed, **__: (backbone, seed))
    monkeypatch.setattr(runner, "_sentence_transformer", lambda: encoder)
    return fake


class FakeEncoder:
    provenance = "a stand-in"

    def __call__(self, names: tuple[str, ...]) -> torch.Tensor:
        return torch.eye(len(names), 1024)


def experiment(out: Path, **changes: Any) -> Experiment:
    pixels = torch.zeros(3, 8, 8, dtype=torch.uint8)
    images = LabelledImages(TABLE, ("a",), (pixels,), (pixels[0],))
    fields: dict[str, Any] = {
        "budget": BUDGETS["smoke"],
        "arms": CORE,
        "seeds": (0, 1),
        "out": out,
        "data": images,
        "validation": images,
        "clip": TextEmbeddings.random(TABLE.names, seed=9),
    }
    return Experiment(**(fields | changes))


def test_the_matrix_runs_seed_by_seed_and_a_second_time_does_nothing(
    tmp_path: Path, training: FakeTraining
) -> None:
    assert run_matrix(experiment(tmp_path), QUIET) == {}
    done = [(name, seed) for name, seed, _ in training.calls]
    assert done == [(arm.name, seed) for seed in (0, 1) for arm in CORE]
    assert run_matrix(experiment(tmp_path), QUIET) == {}
    assert len(training.calls) == len(done)
    assert len(load_results(tmp_path / "smoke")) == len(done)


def test_runs_start_where_the_plan_says_with_the_text_it_names(
    tmp_path: Path, training: FakeTraining
) -> None:
    run_matrix(experiment(tmp_path, seeds=(4,)), QUIET)
    options = {name: given for name, _, given in training.calls}
    assert options["baseline"]["init"] == options["stage1"]["init"] == ("stdc1", 4)
    assert options["stage2-embedding"]["init"] == "from stage1"
    assert options["baseline-longer"]["init"] == "from baseline"
    assert options["baseline"]["text"] is options["baseline"]["text_encoder"] is None
    random = TextEmbeddings.random(TABLE.names, seed=4).vectors
    np.testing.assert_array_equal(options["random"]["text"].vectors, random)
    np.testing.assert_array_equal(options["random-longer"]["text"].vectors, random)
    assert options["minilm-stage1"]["text"].vectors[2, 2] == 1
    assert isinstance(options["minilm-stage2-contexts"]["text_encoder"], FakeEncoder)
    assert options["minilm-stage2-contexts"]["config"].prompt == "context"
    result = load_result(experiment(tmp_path).folder("minilm-stage2-contexts", 4))
    assert (result.text, result.start) == ("a stand-in", "minilm-stage1")


def test_a_killed_run_is_resumed(tmp_path: Path, training: FakeTraining) -> None:
    training.killed_once = {"stage1"}
    with pytest.raises(KeyboardInterrupt):
        run_matrix(experiment(tmp_path, seeds=(0,)), QUIET)
    before = len(training.calls)
    assert run_matrix(experiment(tmp_path, seeds=(0,)), QUIET) == {}
    name, _, options = training.calls[before]
    assert (name, options["resume"]) == ("stage1", True)
    assert training.calls[before + 1][2]["resume"] is False
    assert load_result(experiment(tmp_path).folder("stage1", 0)).resumed


def test_checkpoints_that_nobody_needs_are_removed(tmp_path: Path, training: FakeTraining) -> None:
    run_matrix(experiment(tmp_path), QUIET)
    left = {str(path.relative_to(tmp_path / "smoke")) for path in tmp_path.rglob("*.pt")}
    assert left == {
        "baseline-longer/seed-0/best.pt",  # pictures
        "stage2-embedding/seed-0/best.pt",
        "stage1/seed-0/best.pt",  # an arm outside the core starts from it
        "stage1/seed-1/best.pt",
    }


def test_runs_of_another_recipe_or_start_are_refused(
    tmp_path: Path, training: FakeTraining
) -> None:
    run_matrix(experiment(tmp_path), QUIET)
    longer = adapted(BUDGETS["smoke"], iterations=(5, 4))
    with pytest.raises(ConfigError, match="iterations was 4, is 5"):
        run_matrix(experiment(tmp_path, budget=longer), QUIET)
    starts = {"stdc1": SimpleNamespace(sha256="abc")}
    with pytest.raises(ConfigError, match="start was None, is 'abc'"):
        run_matrix(experiment(tmp_path, starts=starts), QUIET)


def test_clip_arms_need_a_table(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"stage1, stage2-embedding need a table.*--text"):
        experiment(tmp_path, clip=None)


def test_arms_of_a_seed_start_from_the_same_weights(tmp_path: Path) -> None:
    start = common_start(experiment(tmp_path), "stdc1", 5, align_corners=True)
    again = common_start(experiment(tmp_path), "stdc1", 5, align_corners=True)
    guided = STDCSeg(
        STDCSegConfig(backbone="stdc1", num_classes=3, text_guidance="encoder"), torch.eye(3, 1024)
    )
    transfer_weights(guided, start)
    for name, weights in guided.state_dict().items():
        if name == "text_embeddings":
            continue
        expected = start.state_dict[name]
        torch.testing.assert_close(expected, again.state_dict[name], rtol=0, atol=0)
        shared = weights[:, : expected.shape[1]] if weights.ndim == 4 else weights
        torch.testing.assert_close(shared, expected, rtol=0, atol=0)
