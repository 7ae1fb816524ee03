"""The matrix, run: each arm with each seed, all arms of a seed before the next one."""

from __future__ import annotations

import functools
import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path

import openvino as ov
import torch
from benchmarks.accuracy.plan import HEADLINE, Arm, Budget, children, recipe
from benchmarks.accuracy.results import Result, load_result, save_result
from benchmarks.accuracy.schedule import RESULT, Job, work_through
from rich.console import Console

from edgeseg.checkpoint import Checkpoint, load_checkpoint
from edgeseg.data import IMAGENET_MEAN, IMAGENET_STD, LabelledImages
from edgeseg.errors import CheckpointError, ConfigError
from edgeseg.models import STDCSeg, STDCSegConfig
from edgeseg.optimization import transfer_weights
from edgeseg.recipes import TrainConfig
from edgeseg.text import TextEmbeddings
from edgeseg.text_encoder import TextEncoder, embed_classes, load_text_encoder
from edgeseg.train import git_revision, train


@dataclass(frozen=True)
class Start:
    """A network to start from, and the hash of its file."""

    checkpoint: Checkpoint
    sha256: str

    @staticmethod
    def load(path: Path) -> Start:
        """Read a checkpoint."""
        checkpoint = load_checkpoint(path)
        with path.open("rb") as file:
            return Start(checkpoint, hashlib.file_digest(file, "sha256").hexdigest())


@dataclass(frozen=True)
class Experiment:
    """Everything that the runs of one budget share.

    Attributes:
        budget: How long they train, and on what.
        arms: In order; each behind its parent.
        seeds: In order.
        out: Folder of all budgets' runs.
        data: Training images.
        validation: Validation images.
        clip: Table of CLIP embeddings; None where there is none.
        starts: By backbone; a backbone without one starts from random weights.
        keep_checkpoints: Keep those that nobody needs any more, too.
    """

    budget: Budget
    arms: tuple[Arm, ...]
    seeds: tuple[int, ...]
    out: Path
    data: LabelledImages
    validation: LabelledImages
    clip: TextEmbeddings | None = None
    starts: Mapping[str, Start] = field(default_factory=dict)
    keep_checkpoints: bool = False

    def __post_init__(self) -> None:
        lacking = [arm.name for arm in self.arms if arm.text == "clip"]
        if self.clip is None and lacking:
            raise ConfigError(
                f"{', '.join(lacking)} need a table of CLIP embeddings: --text TABLE.npy"
            )

    def folder(self, arm: str, seed: int) -> Path:
        """Where one run leaves what it makes."""
        return run_folder(self.out, self.budget.name, arm, seed)


def run_folder(out: Path, budget: str, arm: str, seed: int) -> Path:
    """Where one run leaves what it makes."""
    return out / budget / arm / f"seed-{seed}"


def run_matrix(
    experiment: Experiment, console: Console, *, poll_seconds: float = 5.0
) -> Mapping[str, str]:
    """Do all runs that are not finished, together with other processes that do the same.

    Returns:
        Name of each run that failed, with the reason.

    Raises:
        ConfigError: The folder holds runs of another recipe or from another start.
    """
    runs = {
        experiment.folder(arm.name, seed): (arm, seed)
        for seed in experiment.seeds
        for arm in experiment.arms
    }
    jobs = [
        Job(
            f"{arm.name}, seed {seed}",
            folder,
            None if arm.parent is None else experiment.folder(arm.parent, seed),
        )
        for folder, (arm, seed) in runs.items()
    ]
    for job in jobs:
        if job.finished:
            _check_same_run(experiment, *runs[job.folder], load_result(job.folder))

    def execute(job: Job) -> None:
        arm, seed = runs[job.folder]
        console.print(f"{job.name}: starts, log in {job.folder / 'train.log'}")
        result = run(experiment, arm, seed)
        finished = sum(other.finished for other in jobs)
        console.print(
            f"{job.name}: last {100 * result.scores('last').miou:.2f}, best "
            f"{100 * result.scores('best').miou:.2f} mIoU, {result.seconds:.0f} s; "
            f"{finished} of {len(jobs)} runs are finished"
        )

    return work_through(jobs, execute, poll_seconds=poll_seconds)


def run(experiment: Experiment, arm: Arm, seed: int) -> Result:
    """Train one arm with one seed, or go on where it was killed, and leave its result."""
    folder = experiment.folder(arm.name, seed)
    config = recipe(arm, experiment.budget, seed)
    names = experiment.data.table.names
    encoder = _sentence_transformer() if config.prompt == "context" else None
    text = None if arm.text is None else text_embeddings(arm, names, seed, experiment.clip)
    resumed = (folder / "last.pt").exists()

    started = time.perf_counter()
    with (folder / "train.log").open("a", encoding="utf-8") as log:
        trained = train(
            config,
            data=experiment.data,
            validation=experiment.validation,
            text=text if encoder is None else None,
            text_encoder=encoder,
            output=folder,
            init=_start(experiment, arm, config),
            resume=resumed,
            console=Console(file=log, soft_wrap=True),
        )
    result = Result(
        arm=arm.name,
        seed=seed,
        config=_plain(config),
        text=None if text is None else text.provenance,
        start=_start_name(experiment, arm, config),
        best_iteration=trained.best_iteration,
        classes=names,
        categories=experiment.data.table.categories,
        last=trained.last.confusion.tolist(),
        best=trained.best.confusion.tolist(),
        seconds=time.perf_counter() - started,
        resumed=resumed,
        provenance=_provenance(experiment),
    )
    save_result(folder, result)
    if not experiment.keep_checkpoints:
        _discard_checkpoints(experiment, arm, seed)
    return result


def text_embeddings(
    arm: Arm, classes: Sequence[str], seed: int, clip: TextEmbeddings | None
) -> TextEmbeddings:
    """The embeddings that guide a text-guided arm, or from which its prompts start."""
    if arm.text == "random":
        return TextEmbeddings.random(classes, seed=seed)
    if arm.text == "minilm":
        return sentence_embeddings(classes)
    assert clip is not None  # the experiment was refused without it
    return clip.select(classes)


def sentence_embeddings(classes: Sequence[str]) -> TextEmbeddings:
    """The bare class names through the sentence transformer."""
    return embed_classes(_sentence_transformer(), classes)


@functools.cache
def _sentence_transformer() -> TextEncoder:
    return load_text_encoder("minilm")


def common_start(
    experiment: Experiment, backbone: str, seed: int, *, align_corners: bool
) -> Checkpoint:
    """The weights that all arms of a seed without a parent start from.

    A plain network made from the seed, with what fits of ``--init``. Were each arm to draw its own
    weights, text guidance would shift the random numbers, and its heads would start elsewhere.
    """
    torch.manual_seed(seed)
    table = experiment.data.table
    network = STDCSeg(
        STDCSegConfig(
            backbone="stdc2" if backbone == "stdc2" else "stdc1",
            num_classes=len(table),
            text_guidance=None,
            align_corners=align_corners,
        )
    )
    start = experiment.starts.get(backbone)
    if start is not None:
        transfer_weights(network, start.checkpoint)
    return Checkpoint(
        model_config=network.config,
        state_dict=network.state_dict(),
        classes=table,
        text_provenance=None,
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        training={
            "dataset": f"common start of seed {seed}",
            "start": None if start is None else dict(start.checkpoint.training),
        },
    )


def _start(experiment: Experiment, arm: Arm, config: TrainConfig) -> Checkpoint:
    if arm.parent is None:
        return common_start(
            experiment, config.backbone, config.seed, align_corners=config.align_corners
        )
    path = experiment.folder(arm.parent, config.seed) / "best.pt"
    if not path.exists():
        raise CheckpointError(
            f"{path} is gone, and {arm.name} starts from it; remove the {RESULT} beside it, so "
            "that the run is repeated"
        )
    return load_checkpoint(path)


def _start_name(experiment: Experiment, arm: Arm, config: TrainConfig) -> str | None:
    if arm.parent is not None:
        return arm.parent
    start = experiment.starts.get(config.backbone)
    return None if start is None else start.sha256


def _plain(config: TrainConfig) -> dict[str, object]:
    """A recipe as JSON gives it back: lists for tuples."""
    plain: dict[str, object] = json.loads(json.dumps(asdict(config)))
    return plain


def _check_same_run(experiment: Experiment, arm: Arm, seed: int, found: Result) -> None:
    config = recipe(arm, experiment.budget, seed)
    was = dict(found.config) | {"start": found.start}
    now = _plain(config) | {"start": _start_name(experiment, arm, config)}
    # A field that a later version of edgeseg added is no difference.
    if changed := [name for name in now if name in was and was[name] != now[name]]:
        raise ConfigError(
            f"{experiment.folder(arm.name, seed)} holds a run of another recipe: "
            + ", ".join(f"{name} was {was[name]!r}, is {now[name]!r}" for name in changed)
            + "; choose another --out, or the same --budget, --init and --set as then"
        )


def _discard_checkpoints(experiment: Experiment, arm: Arm, seed: int) -> None:
    """Remove what nobody needs any more: checkpoints are large, and the runs are many."""
    (experiment.folder(arm.name, seed) / "last.pt").unlink(missing_ok=True)  # was for resuming
    for name in (arm.name, arm.parent):
        if name is not None and not _is_best_needed(experiment, name, seed):
            (experiment.folder(name, seed) / "best.pt").unlink(missing_ok=True)


def _is_best_needed(experiment: Experiment, arm: str, seed: int) -> bool:
    """Whether a run's best network is still to be started from, or to be pictured.

    Also by arms that this command was not asked for: another one may be.
    """
    if arm in HEADLINE and seed == experiment.seeds[0]:
        return True
    return not all(
        (experiment.folder(child.name, seed) / RESULT).exists() for child in children(arm)
    )


def _provenance(experiment: Experiment) -> dict[str, object]:
    labels = experiment.validation.labels
    return {
        "options": experiment.budget.options,
        "git": git_revision(Path(__file__)),
        "edgeseg": version("edgeseg"),
        "torch": str(torch.__version__),
        "train_images": len(experiment.data),
        "validation_images": len(experiment.validation),
        "validation_sizes": sorted({f"{w}×{h}" for h, w in (label.shape for label in labels)}),
        "device": torch.cuda.get_device_name()
        if torch.cuda.is_available()
        else ov.Core().get_property("CPU", "FULL_DEVICE_NAME"),
        "threads": torch.get_num_threads(),
    }
