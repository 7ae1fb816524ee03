"""Training, from the first line to the last checkpoint.

    edgeseg train PRESET --data ROOT --text TABLE.npy --output runs/NAME

A run is a pure function of its configuration, data, text table and starting weights: everything
random about iteration ``i`` follows from the seed and ``i``, so ``--resume`` goes on as if nothing
had happened. A run writes ``last.pt`` (to resume), ``best.pt`` (to export) and TensorBoard curves.
"""

from __future__ import annotations

import copy
import math
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.fabric import Fabric
from lightning.fabric.loggers.tensorboard import TensorBoardLogger
from rich.console import Console
from rich.progress import Progress
from torch import Tensor, nn

from edgeseg.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from edgeseg.classes import CLASS_TABLES
from edgeseg.data import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    Augmentation,
    Batches,
    LabelledImages,
    load_images,
    load_synthetic,
)
from edgeseg.errors import CheckpointError, ConfigError
from edgeseg.evaluate import Scores, evaluate_network
from edgeseg.losses import Dice, LossTerms, Ohem, class_weights, segmentation_loss
from edgeseg.models import BackboneName, STDCSeg, STDCSegConfig, TextGuidance
from edgeseg.text import TextEmbeddings


@dataclass(frozen=True)
class TrainConfig:
    """A training recipe. It names no file and no machine, and travels in the checkpoint.

    Attributes:
        dataset: Name of a known set, "folder" for one with its own ``classes.json``, or
            "synthetic" for streets that need no files.
        synthetic: How many synthetic streets are among the training images; they have CamVid's
            classes.
        augmentation: How training crops are made.
        eval_size: Height and width of the network's input in validation.
        iterations: Length of the run.
        batch_size: Crops per iteration.
        backbone: "stdc1" or "stdc2".
        text_guidance: "encoder", "decoder", or None for plain STDC-Seg.
        align_corners: How the network's logits are upsampled; stays with the model.
        ohem: Which pixels the cross-entropy counts, see :func:`edgeseg.losses.cross_entropy`.
        dice: Form of the Dice loss.
        class_balance: Weight of rare classes in the cross-entropies, an exponent from 0 (the
            paper: all pixels alike) to 1, see :func:`edgeseg.losses.class_weights`.
        lr: Peak learning rate of SGD.
        backbone_lr_scale: The backbone's learning rate, as a multiple of ``lr``.
        momentum: Of SGD.
        weight_decay: Of SGD; not applied to the BatchNorm of layers outside the backbone.
        warmup: Iterations of linear warm-up.
        poly_power: Of the polynomial decay that follows from the first iteration on.
        min_lr: Where the decay ends, for every group.
        ema_decay: Of the moving average of the weights, which is then what is evaluated and
            exported; 0 keeps none.
        seed: Of initialisation, order, augmentation and dropout.
        precision: Lightning Fabric's name.
        channels_last: Memory format of images and weights.
        eval_every: Iterations between validations.
        save_every: Iterations between writes of ``last.pt``.
        log_every: Iterations between lines of the log.
    """

    dataset: str
    augmentation: Augmentation
    eval_size: tuple[int, int]
    iterations: int
    synthetic: int = 0
    batch_size: int = 16
    backbone: BackboneName = "stdc1"
    text_guidance: TextGuidance | None = "encoder"
    align_corners: bool = True
    ohem: Ohem = "stdc"
    dice: Dice = "squared"
    class_balance: float = 0.0
    lr: float = 0.1
    backbone_lr_scale: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 5e-4
    warmup: int = 200
    poly_power: float = 0.9
    min_lr: float = 1e-6
    ema_decay: float = 0.0
    seed: int = 0
    precision: Literal["32-true", "bf16-mixed"] = "32-true"
    channels_last: bool = True
    eval_every: int = 1000
    save_every: int = 1000
    log_every: int = 50

    def __post_init__(self) -> None:
        if self.batch_size < 2:
            raise ConfigError("batch_size must be at least 2: BatchNorm sees one value per image")
        if not 0 <= self.warmup < self.iterations:
            raise ConfigError(
                f"warmup ({self.warmup}) must be shorter than the run ({self.iterations})"
            )
        if not 0 <= self.ema_decay < 1:
            raise ConfigError(f"ema_decay is {self.ema_decay}; expected 0 (none) up to below 1")


# The CPU recipes make a network from nothing on one or two cores in under two hours: a short look
# at other streets ("idd-lite-cpu"), then CamVid. Scale 1 is a 480×360 frame, scale 2 a 960×720 one.
_CAMVID_CPU = TrainConfig(
    dataset="camvid",
    augmentation=Augmentation(base=(360, 480), crop=(352, 480), scales=(0.5, 2.0)),
    eval_size=(360, 480),
    iterations=1500,
    batch_size=8,
    lr=0.05,
    backbone_lr_scale=1.0,
    warmup=50,
    ema_decay=0.99,
    precision="bf16-mixed",
    eval_every=100,
    save_every=50,
    log_every=20,
)

PRESETS: Mapping[str, TrainConfig] = {
    "idd-lite-cpu": replace(
        _CAMVID_CPU,
        dataset="idd_lite",
        augmentation=Augmentation(base=(227, 320), crop=(224, 320), scales=(0.75, 2.0)),
        eval_size=(227, 320),
        iterations=800,
        text_guidance=None,
    ),
    "camvid-cpu": _CAMVID_CPU,
    # From what "camvid-cpu" gave, with synthetic streets: small classes are frequent there.
    "camvid-finetune-cpu": replace(_CAMVID_CPU, synthetic=300, iterations=1000, lr=0.03, warmup=20),
    # The packaged engine's last leg: long, thin and rare things weighted up, larger pictures.
    "camvid-balanced-cpu": replace(
        _CAMVID_CPU,
        augmentation=Augmentation(base=(360, 480), crop=(352, 480), scales=(0.67, 2.0)),
        eval_size=(480, 640),
        synthetic=300,
        iterations=2500,
        lr=0.03,
        class_balance=0.5,
        ema_decay=0.995,
        eval_every=250,
        log_every=25,
    ),
    # No data at hand: streets from seeds.
    "synthetic-cpu": replace(
        _CAMVID_CPU, dataset="synthetic", synthetic=400, iterations=600, text_guidance=None
    ),
    # The paper's, stage 1.
    "camvid": TrainConfig(
        dataset="camvid",
        augmentation=Augmentation(
            base=(720, 960), crop=(720, 960), scales=(0.5, 2.5), scale_step=0.25
        ),
        eval_size=(720, 960),
        iterations=10_000,
    ),
}

# Streets that validate: seeds that no recipe trains on.
_VALIDATION_STREETS = range(1_000_000, 1_000_060)


def load_data(config: TrainConfig, roots: Sequence[Path]) -> tuple[LabelledImages, LabelledImages]:
    """Load a recipe's training and validation images.

    Args:
        config: The recipe.
        roots: Folders with ``train/`` and ``val/``; images of a later one take the place of an
            earlier one's of the same name, and the first one's ``val/`` validates. None for
            synthetic streets.

    Raises:
        ConfigError: Folders are missing or not wanted.
        InputError: A file cannot be used.
    """
    streets = range(config.synthetic)
    if config.dataset == "synthetic":
        if roots:
            raise ConfigError("the synthetic streets come from no folder; leave --data out")
        size = config.augmentation.base
        return load_synthetic(streets, size), load_synthetic(_VALIDATION_STREETS, size)
    if not roots:
        raise ConfigError(
            f"name the folder of {config.dataset} (with train/ and val/): --data ROOT"
        )
    table = CLASS_TABLES.get(config.dataset)
    data = load_images(roots[0], "train", table)
    for root in roots[1:]:
        data = data.updated(load_images(root, "train", table))
    if streets:
        data = data.updated(load_synthetic(streets, config.augmentation.base))
    return data, load_images(roots[0], "val", table)


@dataclass(frozen=True)
class TrainResult:
    """What a run came to: validation scores of its last and its best evaluated weights."""

    last: Scores
    best_miou: float
    best_iteration: int


def train(
    config: TrainConfig,
    *,
    data: LabelledImages,
    validation: LabelledImages,
    text: TextEmbeddings | None,
    output: Path,
    init: Checkpoint | None = None,
    resume: bool = False,
    accelerator: str = "auto",
    console: Console | None = None,
) -> TrainResult:
    """Train a network and leave ``last.pt``, ``best.pt`` and TensorBoard curves in ``output``.

    Args:
        config: The recipe.
        data: Training images.
        validation: Validation images.
        text: Embeddings that cover the data's classes; None for the baseline.
        output: Folder of the run.
        init: Network whose fitting weights this run starts from.
        resume: Go on from ``output/last.pt``.
        accelerator: Lightning Fabric's name: "cpu", "cuda", "auto".
        console: Where progress goes; None is the terminal.

    Raises:
        ConfigError: The recipe, the data and the text table contradict each other, or the folder
            holds a run and ``resume`` is not set.
        CheckpointError: The run cannot be resumed with this recipe.
    """
    console = console or Console(soft_wrap=True)
    fabric = Fabric(
        accelerator=accelerator,
        devices=1,
        precision=config.precision,
        loggers=TensorBoardLogger(output, name="curves", version=""),
    )
    last_path = output / "last.pt"
    if last_path.exists() != resume:
        raise ConfigError(
            f"{last_path} exists; resume the run or choose another folder"
            if last_path.exists()
            else f"there is no {last_path} to resume"
        )

    output.mkdir(parents=True, exist_ok=True)

    # Network, its moving average and the optimiser.
    torch.manual_seed(config.seed)
    network = _network(config, data, text)
    transferred = transfer_weights(network, init) if init is not None else 0
    if config.channels_last:
        network.to(memory_format=torch.channels_last)
    average = copy.deepcopy(network).requires_grad_(False) if config.ema_decay else None
    optimizer = torch.optim.SGD(
        parameter_groups(network, config), lr=config.lr, momentum=config.momentum
    )
    model, optimizer = fabric.setup(network, optimizer)
    if average is not None:
        average.to(fabric.device)
    first, best_miou, best_iteration = 0, -math.inf, 0
    if resume:
        saved = load_checkpoint(last_path)
        state = _resume_state(saved, config, last_path)
        network.load_state_dict(saved.state_dict)
        if average is not None and saved.ema is not None:
            average.load_state_dict(saved.ema)
        optimizer.load_state_dict(state["optimizer"])
        first = state["iteration"]
        best_miou, best_iteration = state["best_miou"], state["best_iteration"]
    evaluated = network if average is None else average
    batches = Batches(data, config.augmentation, config.batch_size, config.seed, fabric.device)
    balance = None
    if config.class_balance:
        balance = class_weights(data.labels, len(data.table), config.class_balance)
        balance = balance.to(fabric.device)
    provenance = _provenance(config, data, validation, init)

    def checkpoint(iteration: int, scores: Scores | None, *, resumable: bool) -> Checkpoint:
        training = provenance | {
            "iteration": iteration,
            "miou_best": best_miou,
            "miou_best_iteration": best_iteration,
            "miou_last": None if scores is None else scores.miou,
            "iou_last": None
            if scores is None
            else dict(zip(scores.classes, scores.iou.tolist(), strict=True)),
        }
        state = {
            "optimizer": optimizer.state_dict(),
            "iteration": iteration,
            "best_miou": best_miou,
            "best_iteration": best_iteration,
            "config": asdict(config),
        }
        return Checkpoint(
            model_config=network.config,
            state_dict=network.state_dict(),
            classes=data.table,
            text_provenance=None if text is None else text.provenance,
            mean=IMAGENET_MEAN,
            std=IMAGENET_STD,
            training=training,
            ema=None if average is None else average.state_dict(),
            resume=state if resumable else None,
        )

    def validate() -> Scores:
        return evaluate_network(
            evaluated,
            validation,
            config.eval_size,
            align_corners=config.align_corners,
            bfloat16=config.precision == "bf16-mixed",
        )

    parameters = sum(p.numel() for p in network.parameters())
    console.print(
        f"{len(data)} training and {len(validation)} validation images, {len(data.table)} classes; "
        f"{parameters:,} parameters, {transferred} tensors from the starting network; "
        f"{fabric.device}, {config.precision}; iterations {first} to {config.iterations}"
    )
    scores: Scores | None = None
    meter = _Meter()
    for iteration in _with_progress_bar(first, config.iterations, console):
        torch.manual_seed(config.seed * 1_000_003 + iteration)  # dropout
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(config, iteration) * group["lr_scale"]

        started = time.perf_counter()
        images, labels = batches[iteration]
        if config.channels_last:
            images = images.contiguous(memory_format=torch.channels_last)
        meter.waited += time.perf_counter() - started

        model.train()
        losses = segmentation_loss(
            model(images),
            labels,
            align_corners=config.align_corners,
            ohem=config.ohem,
            dice=config.dice,
            class_weights=balance,
        )
        fabric.backward(losses.total)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if average is not None:
            update_average(average, network, config.ema_decay, iteration)
        meter.add(len(images), losses)

        done = iteration + 1
        is_last = done == config.iterations
        if done % config.log_every == 0 or is_last:
            values = meter.read() | {"lr": learning_rate(config, iteration)}
            meter.reset()
            fabric.log_dict({f"train/{k}": v for k, v in values.items()}, step=done)
            left = (config.iterations - done) * config.batch_size / values["images_per_second"]
            console.print(
                f"{done:6d}/{config.iterations}  "
                + "  ".join(f"{k} {v:.3f}" for k, v in values.items())
                + f"  left {left / 60:.0f} min",
                highlight=False,
            )
        if done % config.eval_every == 0 or is_last:
            scores = validate()
            fabric.log_dict(
                {"val/miou": scores.miou, "val/pixel_accuracy": scores.pixel_accuracy}, step=done
            )
            console.print(_describe(scores, done), highlight=False)
            if scores.miou > best_miou:
                best_miou, best_iteration = scores.miou, done
                save_checkpoint(output / "best.pt", checkpoint(done, scores, resumable=False))
            meter.reset()  # validation is not training time
        if done % config.save_every == 0 or is_last:
            save_checkpoint(last_path, checkpoint(done, scores, resumable=True))
    return TrainResult(scores or validate(), best_miou, best_iteration)


def learning_rate(config: TrainConfig, iteration: int) -> float:
    """Polynomial decay from ``lr`` to ``min_lr``, times a linear warm-up."""
    decay = math.pow(1 - iteration / config.iterations, config.poly_power)
    warmup = min(1.0, (iteration + 1) / max(1, config.warmup))
    return (config.min_lr + (config.lr - config.min_lr) * decay) * warmup


def parameter_groups(network: STDCSeg, config: TrainConfig) -> list[dict[str, Any]]:
    """Three groups for SGD: the backbone, the new layers, and the new layers' BatchNorm."""
    new_layers = [child for child in network.children() if child is not network.backbone]
    norms = [m for child in new_layers for m in child.modules() if isinstance(m, nn.BatchNorm2d)]
    norm_parameters = [p for norm in norms for p in norm.parameters()]
    without_decay = {id(p) for p in norm_parameters}
    others = [p for child in new_layers for p in child.parameters() if id(p) not in without_decay]
    return [
        {
            "params": list(network.backbone.parameters()),
            "weight_decay": config.weight_decay,
            "lr_scale": config.backbone_lr_scale,
        },
        {"params": others, "weight_decay": config.weight_decay, "lr_scale": 1.0},
        {"params": norm_parameters, "weight_decay": 0.0, "lr_scale": 1.0},
    ]


@torch.no_grad()
def update_average(average: nn.Module, network: nn.Module, decay: float, iteration: int) -> None:
    """Move the average of weights and BatchNorm statistics towards the network's.

    The first iterations move it faster, so that the initial weights are soon forgotten.
    """
    decay = min(decay, (1 + iteration) / (10 + iteration))
    for mean, value in zip(
        average.state_dict().values(), network.state_dict().values(), strict=True
    ):
        if mean.is_floating_point():
            mean.lerp_(value, 1 - decay)
        else:
            mean.copy_(value)


@torch.no_grad()
def transfer_weights(network: STDCSeg, start: Checkpoint) -> int:
    """Copy the weights of another network that fit this one, whatever its classes.

    A tensor of the same name and shape is copied. Where this network's convolution has more input
    channels (the score map beside F4), the ones it shares with the other are copied.

    Returns:
        How many tensors were copied.

    Raises:
        CheckpointError: Not even one tensor of the backbone fits.
    """
    copied = 0
    backbone = 0
    for name, target in network.state_dict().items():
        source = start.weights.get(name)
        if source is None or name == "text_embeddings":
            continue
        if source.shape == target.shape:
            target.copy_(source)
        elif _is_narrower(source, target):
            target[:, : source.shape[1]] = source
        else:
            continue
        copied += 1
        backbone += name.startswith("backbone.")
    if not backbone:
        raise CheckpointError(
            f"no weight of the starting {start.model_config.backbone} fits this "
            f"{network.config.backbone}; start from a network with the same backbone"
        )
    return copied


def _is_narrower(source: Tensor, target: Tensor) -> bool:
    """Whether two convolution weights differ in input channels only, the source having fewer."""
    return (
        source.ndim == target.ndim == 4
        and source.shape[0] == target.shape[0]
        and source.shape[1] < target.shape[1]
        and source.shape[2:] == target.shape[2:]
    )


def _network(config: TrainConfig, data: LabelledImages, text: TextEmbeddings | None) -> STDCSeg:
    if (text is None) != (config.text_guidance is None):
        raise ConfigError(
            f"text_guidance is {config.text_guidance!r} but "
            + ("no text table is given" if text is None else "a text table is given")
        )
    vectors = None
    if text is not None:
        vectors = torch.from_numpy(text.select(data.table.names).vectors)
    shape = STDCSegConfig(
        backbone=config.backbone,
        num_classes=len(data.table),
        text_guidance=config.text_guidance,
        align_corners=config.align_corners,
    )
    return STDCSeg(shape, vectors)


def _resume_state(saved: Checkpoint, config: TrainConfig, path: Path) -> Mapping[str, Any]:
    if saved.resume is None:
        raise CheckpointError(f"{path} cannot be resumed: it holds no optimiser state")
    was, now = saved.resume["config"], asdict(config)
    if changed := [name for name in now if was.get(name) != now[name]]:
        raise CheckpointError(
            f"{path} was written by another recipe; these fields differ: "
            + ", ".join(f"{name} (was {was.get(name)!r}, is {now[name]!r})" for name in changed)
        )
    return saved.resume


def _provenance(
    config: TrainConfig, data: LabelledImages, validation: LabelledImages, init: Checkpoint | None
) -> dict[str, Any]:
    sizes = [sorted({tuple(label.shape) for label in part.labels}) for part in (data, validation)]
    return {
        "dataset": config.dataset,
        "config": asdict(config),
        "train_images": len(data),
        "train_sizes": sizes[0],
        "validation_images": len(validation),
        "validation_sizes": sizes[1],
        "start": None if init is None else dict(init.training),
        "edgeseg": version("edgeseg"),
        "torch": str(torch.__version__),
        "git": _git_revision(),
    }


def _git_revision() -> str | None:
    """Commit of the source tree this file lies in; None for an installed package."""
    try:
        described = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=12"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return described.stdout.strip()


def _describe(scores: Scores, iteration: int) -> str:
    per_class = "  ".join(
        f"{name} {100 * iou:.1f}" for name, iou in zip(scores.classes, scores.iou, strict=True)
    )
    return (
        f"{iteration:6d}  mIoU {100 * scores.miou:.2f}  pixel accuracy "
        f"{100 * scores.pixel_accuracy:.2f}  {per_class}"
    )


def _with_progress_bar(first: int, end: int, console: Console) -> Iterator[int]:
    """Count from ``first`` to ``end``, with a bar where someone watches."""
    with Progress(console=console, disable=not console.is_terminal) as progress:
        bar = progress.add_task("training", total=end, completed=first)
        for iteration in range(first, end):
            yield iteration
            progress.advance(bar)


class _Meter:
    """Means of the losses, images per second and share of time spent on data, since last reset."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self.waited = 0.0
        self._started = time.perf_counter()
        self._images = 0
        self._iterations = 0
        self._sums: dict[str, Tensor | float] = {}

    def add(self, images: int, losses: LossTerms) -> None:
        self._images += images
        self._iterations += 1
        for name, value in vars(losses).items():  # kept as tensors: reading one waits for the GPU
            self._sums[name] = self._sums.get(name, 0.0) + value.detach()

    def read(self) -> dict[str, float]:
        means = {name: float(total) / self._iterations for name, total in self._sums.items()}
        passed = time.perf_counter() - self._started
        return means | {
            "images_per_second": self._images / passed,
            "data_share": self.waited / passed,
        }
