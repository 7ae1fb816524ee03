import json
import math
import os
import signal
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from benchmarks.accuracy import panels, runner
from benchmarks.accuracy.plan import ARMS, BUDGETS, CORE, adapted, recipe, selected
from benchmarks.accuracy.report import load_measured, make_report, write_report
from benchmarks.accuracy.results import Result, load_result, load_results
from benchmarks.accuracy.runner import Experiment, common_start, run_matrix
from benchmarks.accuracy.schedule import RESULT, Job, claimed, work_through
from benchmarks.accuracy.statistics import PairedDifference, Spread
from benchmarks.accuracy.text_geometry import geometry
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
    changes = ["warmup=40", "batch_size=4", "augmentation.crop=[64,96]"]
    share = 40 / BUDGETS["small"].first.iterations
    budget = adapted(BUDGETS["small"], iterations=(100, 50), changes=changes)
    assert (budget.first.iterations, budget.first.warmup) == (100, round(100 * share))
    assert (budget.second.iterations, budget.second.warmup) == (50, round(50 * share))
    assert budget.options == (
        "--iterations 100 50 --set warmup=40 --set batch_size=4 --set 'augmentation.crop=[64,96]'"
    )
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
    Job(f"{arm}{seed}", out / arm / str(seed), out / parent / str(seed) if parent else None)
    for seed in range(6)
    for arm, parent in (("parent", None), ("child", "parent"), ("other", None))
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
    assert all(later >= earlier - 1 for earlier, later in pairwise(seeds))


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
    encoder = object()
    monkeypatch.setattr(runner, "train", fake)
    monkeypatch.setattr(runner, "load_checkpoint", lambda path: f"from {path.read_text()}")
    monkeypatch.setattr(runner, "common_start", lambda _, backbone, seed, **__: (backbone, seed))
    monkeypatch.setattr(runner, "_sentence_transformer", lambda: encoder)
    monkeypatch.setattr(
        runner,
        "embed_classes",
        lambda _, names: TextEmbeddings(
            tuple(names), np.eye(len(names), 1024, dtype=np.float32), "a stand-in"
        ),
    )
    return fake


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
    assert options["minilm-stage2-contexts"]["text_encoder"] is runner._sentence_transformer()
    assert options["minilm-stage2-contexts"]["text"] is None
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


# Statistics, by hand.


def test_a_paired_difference_is_what_the_book_says() -> None:
    treatment = {0: 52.0, 1: 53.0, 2: 56.0, 7: 99.0}
    control = {0: 50.0, 1: 52.0, 2: 53.0, 8: 1.0}
    found = PairedDifference.of(treatment, control)  # 2, 1, 3
    assert found.differences == {0: 2.0, 1: 1.0, 2: 3.0}
    assert (found.n, found.mean, found.sd) == (3, 2.0, 1.0)
    margin = 4.302653 / 3**0.5  # t(0.975, 2 degrees)
    assert found.low == pytest.approx(2 - margin, abs=1e-5)
    assert found.high == pytest.approx(2 + margin, abs=1e-5)
    assert found.p == 2 / 8  # all of one sign: only it and its mirror image are as far from 0


def test_sign_flips_are_counted_exactly() -> None:
    # 3, 2, -1: |sum| = 4; as far from zero: ±(3+2-1) and ±(3+2+1), 4 of 8.
    values = {0: 3.0, 1: 2.0, 2: -1.0}
    assert PairedDifference.of(values, dict.fromkeys(values, 0.0)).p == 0.5
    # Differences of zero say nothing.
    assert PairedDifference.of({0: 1.0, 1: 2.0}, {0: 1.0, 1: 2.0}).p == 1.0


def test_what_too_few_pairs_cannot_give_is_left_open() -> None:
    one = PairedDifference.of({3: 2.0}, {3: 1.0})
    assert (one.n, one.mean, one.low, one.high, one.p) == (1, 1.0, None, None, None)
    none = PairedDifference.of({3: 2.0}, {4: 1.0})
    assert (none.n, none.mean, none.low, none.p) == (0, None, None, None)
    nan = PairedDifference.of({0: math.nan, 1: 2.0}, {0: 1.0, 1: 1.0})
    assert nan.differences == {1: 1.0}
    assert Spread.of([1.0, math.nan, 4.0]) == Spread(2, 2.5, pytest.approx(2.1213203))


# The report.


def result(arm: str, seed: int, last: list[list[int]], dataset: str = "camvid") -> Result:
    best = (np.array(last) + 10 * np.eye(3, dtype=np.int64)).tolist()
    return Result(
        arm=arm,
        seed=seed,
        config={"dataset": dataset, "iterations": 10, "seed": seed, "text_guidance": None},
        text=None,
        start="baseline" if arm == "baseline-longer" else None,
        best_iteration=5,
        classes=TABLE.names,
        categories=TABLE.categories,
        last=last,
        best=best,
        seconds=60,
        resumed=False,
        provenance={"options": "--iterations 10 5", "device": "a machine"},
    )


def confusion(car_as_sky: int, road_as_car: int) -> list[list[int]]:
    """100 pixels of each class."""
    return [[100 - road_as_car, road_as_car, 0], [0, 100 - car_as_sky, car_as_sky], [0, 0, 100]]


RESULTS = [
    result("baseline", 0, confusion(50, 0)),
    result("baseline", 1, confusion(20, 0)),
    result("stage1", 0, confusion(25, 0)),
    result("stage1", 1, confusion(20, 20)),
    result("stage1", 2, confusion(0, 0)),
]


def test_report_equals_hand_computation() -> None:
    report = make_report(RESULTS, budget="small")
    rows = {row.arm: row for row in report.arms}
    # Car as sky x: IoU of car (100-x)/100, of sky 100/(100+x).
    first, second = (100 + 50 + 200 / 3) / 3, (100 + 80 + 1000 / 12) / 3
    assert rows["baseline"].last.mean == pytest.approx((first + second) / 2)
    assert rows["baseline"].last.sd == pytest.approx(abs(first - second) / 2**0.5)
    assert rows["baseline"].accuracy.mean == pytest.approx(100 * (250 + 280) / 600)
    assert rows["stage1"].seeds == (0, 1, 2)
    assert rows["stage1"].published == 76.6

    (last,) = [c for c in report.comparisons if (c.treatment, c.which) == ("stage1", "last")]
    # Seed 1 of stage 1: road 80/100, car 80/120, sky 100/120.
    gains = [(100 + 75 + 80) / 3 - first, (80 + 200 / 3 + 1000 / 12) / 3 - second]
    assert last.control == "baseline"
    assert list(last.difference.differences) == [0, 1]
    assert list(last.difference.differences.values()) == pytest.approx(gains)
    assert last.published == pytest.approx(1.3)

    (classes,) = [t for t in report.classes if t.which == "last"]
    car = classes.rows[1]
    assert car.gain.differences == pytest.approx({0: 25.0, 1: 200 / 3 - 80})
    assert car.treatment.n == 3
    (categories,) = [t for t in report.categories if t.which == "last"]
    assert [row.name for row in categories.rows] == ["ground", "things"]
    things = categories.rows[1]  # cars taken for sky are things still
    assert things.gain.differences == pytest.approx({0: 0.0, 1: 100 * 200 / 220 - 100})


def test_missing_arms_do_not_stop_the_report(tmp_path: Path) -> None:
    report = make_report(RESULTS[:1], budget="small")
    assert "stage2-embedding" in report.missing
    assert not report.comparisons
    paths = write_report(report, tmp_path / "new")
    assert [path.name for path in paths] == ["accuracy.json", "accuracy.md", "accuracy-speed.png"]
    assert "There is no pair of runs yet" in paths[1].read_text(encoding="utf-8")


def test_report_is_written_as_json_markdown_and_figures(tmp_path: Path) -> None:
    point = tmp_path / "point.json"
    point.write_text(
        json.dumps(
            {
                "network": "ours",
                "miou": 60.0,
                "fps": 33.0,
                "resolution": "360×480",
                "hardware": "2 cores",
                "split": "val",
                "source": "here",
            }
        ),
        encoding="utf-8",
    )
    never = [*RESULTS, result("random", 0, [[0, 0, 0], [0, 90, 10], [0, 0, 100]])]
    report = make_report(
        never,
        budget="small",
        texts={"random": TextEmbeddings.random(TABLE.names, seed=0)},
        measured=[load_measured(point)],
    )
    written = {path.name: path for path in write_report(report, tmp_path)}
    content = json.loads(written["accuracy.json"].read_text(encoding="utf-8"))
    assert content["runs"][0]["last"] == confusion(50, 0)
    assert content["published"]["speed"]["CamVid"]
    text = written["accuracy.md"].read_text(encoding="utf-8")
    assert (
        "python -m benchmarks.accuracy run --budget small --iterations 10 5 --data DATA "
        "--text TABLE.npy --arms baseline random stage1 --seeds 0 1 2\n"
    ) in text
    assert "| ours | 60.0 | 33.0 |" in text
    assert "NaN" not in written["accuracy.json"].read_text(encoding="utf-8")
    assert "nan" not in text
    for name in ("accuracy-differences.png", "accuracy-classes.png", "accuracy-speed.png"):
        assert 5_000 < written[name].stat().st_size < 300_000


def test_published_figures_stand_beside_camvid_only() -> None:
    report = make_report([result("baseline", 0, confusion(1, 1), "synthetic")], budget="smoke")
    assert report.arms[0].published is None
    assert "--data" not in report.command


def test_geometry_of_known_vectors() -> None:
    rows = np.zeros((3, 1024), np.float32)
    rows[0, 0] = rows[1, 1] = 1
    rows[2, :2] = (0.6, 0.8)
    found = geometry("known", "none", TextEmbeddings(TABLE.names, rows, "by hand"))
    assert (found.low, found.mean, found.high) == pytest.approx((0, 1.4 / 3, 0.8))
    assert found.closest == ("car", "sky")


def test_panels_show_gains_losses_and_limitations(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    labels = torch.zeros(4, 8, dtype=torch.uint8)
    image = torch.zeros(3, 4, 8, dtype=torch.uint8)
    data = LabelledImages(TABLE, ("a", "b", "c"), (image,) * 3, (labels,) * 3)
    wrong = {"control.pt": (4, 7, 1), "treatment.pt": (5, 2, 1)}  # columns that are no road

    def predict(path: Path, _: LabelledImages) -> list[np.ndarray]:
        return [
            np.repeat(np.arange(8, dtype=np.uint8)[None] < count, 4, 0).astype(np.uint8)
            for count in wrong[path.name]
        ]

    drawn = {}
    draw = panels._draw
    monkeypatch.setattr(panels, "_predict", predict)
    monkeypatch.setattr(
        panels, "_draw", lambda seen, *rest: (drawn.update({rest[1].stem: seen}), draw(seen, *rest))
    )
    paths = panels.draw_panels(
        tmp_path / "control.pt", tmp_path / "treatment.pt", data, tmp_path / "panels"
    )
    assert all(path.stat().st_size > 1000 for path in paths)
    order = {name: [item.index for item in seen] for name, seen in drawn.items()}
    assert order == {"gains": [1, 2, 0], "losses": [0, 2, 1], "limitations": [0, 1, 2]}
