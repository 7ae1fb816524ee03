"""Training, from the first line to the last checkpoint.

    edgeseg train PRESET --data ROOT --text TABLE.npy --out runs/NAME

A run is a pure function of its recipe, data, text and starting weights: everything random about
iteration ``i`` follows from the seed and ``i``, so a resumed run goes on as if it had never
stopped. A run writes ``last.pt`` (to resume), ``best.pt`` (to export) and TensorBoard curves.
Several devices, processes or nodes share each batch.
"""

from __future__ import annotations

import copy
import math
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from lightning.fabric import Fabric
from lightning.fabric.loggers.tensorboard import TensorBoardLogger
from lightning.fabric.utilities.exceptions import MisconfigurationException
from rich.console import Console
from rich.progress import Progress
from torch import Tensor, nn

from edgeseg.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from edgeseg.classes import CLASS_TABLES, ClassTable
from edgeseg.data import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    Batches,
    LabelledImages,
    load_images,
    load_synthetic,
)
from edgeseg.errors import CheckpointError, ConfigError, OutputError, TrainingError
from edgeseg.evaluate import Scores, evaluate_network
from edgeseg.files import make_folder
from edgeseg.losses import class_weights, segmentation_loss
from edgeseg.machine import cpu_computes_in_bfloat16
from edgeseg.models import STDCSeg, STDCSegConfig
from edgeseg.optimization import (
    learning_rate,
    parameter_groups,
    transfer_weights,
    update_average,
)
from edgeseg.prompts import LearnedContexts, LearnedEmbeddings, prepare
from edgeseg.recipes import TrainConfig
from edgeseg.text import TextEmbeddings
from edgeseg.text_encoder import TextEncoder

# Streets that validate: seeds that no recipe trains on.
_VALIDATION_STREETS = range(1_000_000, 1_000_060)


def load_data(
    config: TrainConfig,
    roots: Sequence[Path],
    classes: ClassTable | None = None,
    *,
    max_side: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[LabelledImages, LabelledImages]:
    """Load a recipe's training and validation images.

    Args:
        config: The recipe.
        roots: Folders with a "train" and a "val" split; images of a later one take the place of an
            earlier one's of the same name, and the first one's "val" validates. None for
            synthetic streets.
        classes: Of folders that do not say their classes themselves.
        max_side: Decode the training images so much smaller, see :func:`edgeseg.data.load_images`.
        progress: Called with the number of images of a split that are done and of all.

    Raises:
        ConfigError: Folders or class names are missing or not wanted.
        InputError: Files cannot be used.
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
    table = CLASS_TABLES.get(config.dataset, classes)
    if classes is not None and table is not None and table.names != classes.names:
        raise ConfigError(
            f"this recipe is for the classes of {config.dataset}; for others take a recipe "
            "for folders, or --set dataset=folder"
        )
    data = load_images(roots[0], "train", table, max_side=max_side, progress=progress)
    for root in roots[1:]:
        more = load_images(root, "train", table, max_side=max_side, progress=progress)
        data = data.updated(more)
    if streets:
        data = data.updated(load_synthetic(streets, config.augmentation.base))
    return data, load_images(roots[0], "val", table, progress=progress)


class Trainee(nn.Module):
    """All that is trained, and its loss: the network and where its text embeddings come from.

    Args:
        network: With text embeddings to start from, unless it is a baseline.
        prompt: Gives K×1024 embeddings that are learned; None where they are fixed.
        config: The recipe.
        class_weights: K float32, of the cross-entropies; None weighs all classes alike.
    """

    class_weights: Tensor | None

    def __init__(
        self,
        network: STDCSeg,
        prompt: nn.Module | None,
        config: TrainConfig,
        class_weights: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.network = network
        self.prompt = prompt
        self.config = config
        self.log_temperature = nn.Parameter(
            torch.tensor(math.log(config.temperature)), requires_grad=config.learn_temperature
        )
        self.register_buffer("class_weights", class_weights, persistent=False)
        network.backbone.requires_grad_(config.backbone_lr_scale > 0)

    def train(self, mode: bool = True) -> Trainee:
        """Training mode; a frozen backbone's statistics stay where the recipe says so."""
        super().train(mode)
        if self.config.backbone_lr_scale == 0 and self.config.frozen_statistics:
            self.network.backbone.eval()
        return self

    def text_embeddings(self) -> Tensor | None:
        """K×1024 unit rows with gradient; None where the network's own are fixed."""
        if self.prompt is None:
            return None
        return prepare(self.prompt(), self.config.text_preparation)

    @torch.no_grad()
    def store_text_embeddings(self) -> None:
        """Copy what the prompts give now into the network, which is all that it needs of them."""
        if (text := self.text_embeddings()) is not None:
            assert self.network.text_embeddings is not None
            self.network.text_embeddings.copy_(text)

    def prompts(self) -> list[nn.Parameter]:
        """What is learned of the text embeddings."""
        return [] if self.prompt is None else list(self.prompt.parameters())

    def temperatures(self) -> list[nn.Parameter]:
        """The temperature's logarithm, where it is learned."""
        return [self.log_temperature] if self.log_temperature.requires_grad else []

    def text_state(self) -> dict[str, Tensor]:
        """What is kept of the part outside the network: prompts and temperature."""
        prompt = {} if self.prompt is None else self.prompt.state_dict(prefix="prompt.")
        return {**prompt, "log_temperature": self.log_temperature.detach()}

    def load_text_state(self, state: Mapping[str, Tensor]) -> None:
        """Take over what :meth:`text_state` gave."""
        self.log_temperature.data.copy_(state["log_temperature"])
        if self.prompt is not None:
            prefix = "prompt."
            self.prompt.load_state_dict(
                {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
            )

    def forward(self, images: Tensor, labels: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss of a batch.

        Args:
            images: N×3×H×W float32, normalised.
            labels: N×H×W int64, 255 = no class.

        Returns:
            The total, and its terms without gradient; "score" only where there is a score map.
        """
        with torch.autocast(images.device.type, enabled=False):
            text = self.text_embeddings()
        output = self.network(images, text)
        with torch.autocast(images.device.type, enabled=False):
            losses = segmentation_loss(
                output,
                labels,
                align_corners=self.config.align_corners,
                ohem=self.config.ohem,
                dice=self.config.dice,
                class_weights=self.class_weights,
                temperature=self.log_temperature.exp(),
            )
        terms = {name: value.detach() for name, value in vars(losses).items()}
        if output.score_map is None:
            del terms["score"]
        return losses.total, terms


@dataclass(frozen=True)
class TrainResult:
    """What a run came to: validation scores of its last and its best evaluated weights."""

    last: Scores
    best: Scores
    best_iteration: int


def train(
    config: TrainConfig,
    *,
    data: LabelledImages,
    validation: LabelledImages,
    output: Path,
    text: TextEmbeddings | None = None,
    text_encoder: TextEncoder | None = None,
    init: Checkpoint | None = None,
    resume: bool = False,
    accelerator: str = "auto",
    devices: int = 1,
    nodes: int = 1,
    console: Console | None = None,
) -> TrainResult:
    """Train a network and leave ``last.pt``, ``best.pt`` and TensorBoard curves in ``output``.

    Args:
        config: The recipe.
        data: Training images.
        validation: Validation images.
        output: Folder of the run.
        text: Embeddings that cover the data's classes, for a text-guided network whose prompts are
            "fixed" or "embedding"; None takes those of ``init``.
        text_encoder: What learned contexts go through.
        init: Network whose fitting weights this run starts from.
        resume: Go on from ``output/last.pt``.
        accelerator: Lightning Fabric's name: "cpu", "cuda", "auto".
        devices: Processes on this machine; each runs the calling script from its start.
        nodes: Machines; start the script on each, as Lightning Fabric or torchrun ask for.
        console: Where progress goes; None is the terminal.

    Raises:
        ConfigError: The recipe, the data and the text contradict each other, the machine lacks the
            devices, or the folder holds a run and ``resume`` is not set.
        CheckpointError: The run cannot be resumed with this recipe, data and text.
        OutputError: The folder cannot be written.
        TrainingError: The loss became infinite or NaN.
    """
    last_path = check_run_folder(output, resume=resume)
    if config.backbone_lr_scale == 0 and init is None and not resume:
        raise ConfigError(
            "the recipe freezes the backbone, but no network is given to start from, so it would "
            "stay random; name stage 1's best checkpoint (--init), or train it, too "
            "(--set backbone_lr_scale=0.1)"
        )
    _check_shares(config.batch_size, devices * nodes)
    precision = _fastest(accelerator) if config.precision == "auto" else config.precision
    config = replace(config, precision=precision)  # which the checkpoints then tell
    try:
        fabric = Fabric(
            accelerator=accelerator,
            devices=devices,
            num_nodes=nodes,
            precision=precision,
            loggers=TensorBoardLogger(output, name="curves", version=""),
        )
    except (MisconfigurationException, RuntimeError, ValueError) as error:
        raise ConfigError(
            f"cannot train on {nodes} × {devices} devices of kind {accelerator!r}: {error}"
        ) from error
    fabric.launch()
    console = (console or Console()) if fabric.is_global_zero else Console(quiet=True)
    make_folder(output)

    # Network, prompts, the network's moving average, and the optimiser.
    torch.manual_seed(config.seed)
    trainee, text_provenance = _trainee(config, data, text, text_encoder, init)
    network = trainee.network
    transferred = transfer_weights(network, init) if init is not None else 0
    if config.channels_last:
        network.to(memory_format=torch.channels_last)
    if fabric.world_size > 1 and fabric.device.type == "cuda":
        network = nn.SyncBatchNorm.convert_sync_batchnorm(network)  # type: ignore[no-untyped-call]
        trainee.network = network
    average = copy.deepcopy(network).requires_grad_(False) if config.ema_decay else None
    optimizer = torch.optim.SGD(
        parameter_groups(network, trainee.prompts(), trainee.temperatures(), config),
        lr=config.lr,
        momentum=config.momentum,
    )
    model, optimizer = fabric.setup(trainee, optimizer)
    if average is not None:
        average.to(fabric.device)
    provenance = _provenance(config, data, validation, init)
    first, best, best_iteration = 0, None, 0
    if resume:
        saved = load_checkpoint(last_path)
        state = _resume_state(saved, provenance, data.table, text_provenance, last_path)
        provenance["start"] = saved.training["start"]  # need not be named again
        network.load_state_dict(saved.state_dict)
        trainee.load_text_state(saved.text_state)
        if average is not None and saved.ema is not None:
            average.load_state_dict(saved.ema)
        optimizer.load_state_dict(state["optimizer"])
        first, best_iteration = state["iteration"], state["best_iteration"]
        if state["best_confusion"] is not None:
            best = Scores(data.table.names, np.array(state["best_confusion"], np.int64))
    evaluated = network if average is None else average
    batches = Batches(
        data,
        config.augmentation,
        config.batch_size,
        config.seed,
        fabric.device,
        rank=fabric.global_rank,
        processes=fabric.world_size,
    )

    def checkpoint(iteration: int, scores: Scores | None, *, resumable: bool) -> Checkpoint:
        training = provenance | {
            "iteration": iteration,
            "temperature": float(trainee.log_temperature.detach().exp()),
            "miou_best": None if best is None else best.miou,
            "miou_best_iteration": best_iteration,
            "miou_last": None if scores is None else scores.miou,
            "iou_last": None
            if scores is None
            else dict(zip(scores.classes, scores.iou.tolist(), strict=True)),
        }
        state = {
            "optimizer": optimizer.state_dict(),
            "iteration": iteration,
            "best_iteration": best_iteration,
            "best_confusion": None if best is None else best.confusion.tolist(),
        }
        return Checkpoint(
            model_config=network.config,
            state_dict=network.state_dict(),
            classes=data.table,
            text_provenance=text_provenance,
            mean=IMAGENET_MEAN,
            std=IMAGENET_STD,
            training=training,
            ema=None if average is None else average.state_dict(),
            text_state=trainee.text_state(),
            resume=state if resumable else None,
        )

    def save(name: str, state: Checkpoint) -> None:
        failure = None
        if fabric.is_global_zero:
            try:
                save_checkpoint(output / name, state)
            except OutputError as error:
                failure = error
        if (failure := fabric.broadcast(failure)) is not None:  # all stop: none waits for ever
            raise failure

    def validate() -> Scores:
        if fabric.world_size > 1:  # BatchNorm statistics differ from process to process
            for buffer in evaluated.buffers():
                torch.distributed.broadcast(buffer, src=0)
        scores = evaluate_network(
            evaluated,
            _share(validation, fabric.global_rank, fabric.world_size),
            config.eval_size,
            align_corners=config.align_corners,
            bfloat16=config.precision == "bf16-mixed",
        )
        confusion = torch.from_numpy(scores.confusion).to(fabric.device)
        summed: Any = fabric.all_reduce(confusion, reduce_op="sum")
        return Scores(scores.classes, summed.cpu().numpy())

    console.print(
        f"{len(data)} training and {len(validation)} validation images, {len(data.table)} classes; "
        f"{sum(p.numel() for p in network.parameters()):,} parameters, {transferred} tensors from "
        f"the starting network; {fabric.world_size} × {fabric.device.type}, {config.precision}; "
        f"iterations {first} to {config.iterations}",
        soft_wrap=True,
    )
    scores: Scores | None = None
    meter = _Meter()
    for iteration in _with_progress_bar(first, config.iterations, console):
        dropout_seed = (config.seed * 1_000_003 + iteration) * 64 + fabric.global_rank
        torch.manual_seed(dropout_seed)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(config, iteration) * group["lr_scale"]

        if fabric.device.type == "cuda":  # what is left of the last step is no waiting for data
            torch.cuda.synchronize(fabric.device)
        started = time.perf_counter()
        images, labels = batches[iteration]
        if config.channels_last:
            images = images.contiguous(memory_format=torch.channels_last)
        meter.waited += time.perf_counter() - started

        model.train()
        loss, terms = model(images, labels)
        fabric.backward(loss)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        meter.add(config.batch_size, terms)

        done = iteration + 1
        is_last = done == config.iterations
        due = {
            task: is_last or done % every == 0
            for task, every in (
                ("log", config.log_every),
                ("evaluate", config.eval_every),
                ("save", config.save_every),
            )
        }
        if average is not None or any(due.values()):  # costs a pass through the text encoder
            trainee.store_text_embeddings()
        if average is not None:
            update_average(average, network, config.ema_decay, iteration)
        if any(due.values()):  # before anything is written, and in all processes or none
            reduced: Any = fabric.all_reduce(meter.read(), reduce_op="mean")
            values = {k: float(v) for k, v in reduced.items()}
            norms = torch.stack([p.detach().norm() for p in network.parameters()])
            _check_finite(values | {"weights": float(norms.norm())}, done, last_path)
        if due["log"]:
            values["lr"] = learning_rate(config, iteration)
            meter.reset()
            fabric.log_dict({f"train/{k}": v for k, v in values.items()}, step=done)
            left = (config.iterations - done) * config.batch_size / values["images_per_second"]
            console.print(
                f"{done:6d}/{config.iterations}  "
                + "  ".join(f"{k} {v:.3g}" for k, v in values.items())
                + f"  left {left / 60:.0f} min",
                highlight=False,
                soft_wrap=True,
            )
        scores = validate() if due["evaluate"] else None
        if scores is not None:
            fabric.log_dict(
                {"val/miou": scores.miou, "val/pixel_accuracy": scores.pixel_accuracy}, step=done
            )
            console.print(_describe(scores, done), highlight=False, soft_wrap=True)
            if best is None or scores.miou > best.miou:
                best, best_iteration = scores, done
                save("best.pt", checkpoint(done, scores, resumable=False))
            meter.reset()  # validation is not training time
        if due["save"]:
            save("last.pt", checkpoint(done, scores, resumable=True))
    last = scores or validate()
    return TrainResult(last, best or last, best_iteration)


def check_run_folder(output: Path, *, resume: bool) -> Path:
    """Where a run saves itself to be resumed, if the folder fits what is asked for.

    Raises:
        ConfigError: It is no folder, holds a run that is not to be resumed, or none that could be.
    """
    if output.exists() and not output.is_dir():
        raise ConfigError(f"{output} is a file, a folder for the run was expected; choose another")
    last_path = output / "last.pt"
    if last_path.exists() != resume:
        raise ConfigError(
            f"{last_path} exists; resume that run (--resume) or choose another folder"
            if last_path.exists()
            else f"there is no {last_path} to resume; start the run without --resume"
        )
    return last_path


def _check_shares(batch_size: int, processes: int) -> None:
    if batch_size % processes or batch_size // processes < 2:
        raise ConfigError(
            f"a batch of {batch_size} cannot be shared by {processes} processes: it must be a "
            "multiple of their number, at least two images each (BatchNorm); change batch_size"
        )


def _share(data: LabelledImages, rank: int, processes: int) -> LabelledImages:
    mine = slice(rank, None, processes)
    return replace(data, names=data.names[mine], images=data.images[mine], labels=data.labels[mine])


def _check_finite(values: Mapping[str, float], done: int, last_path: Path) -> None:
    terms = {name: value for name, value in values.items() if not math.isfinite(value)}
    if terms:
        left = f"{last_path} holds an earlier state" if last_path.exists() else "nothing was saved"
        raise TrainingError(
            f"the training is no longer finite after iteration {done} "
            f"({', '.join(f'{name} {value}' for name, value in terms.items())}); {left}. Start "
            "again with a lower lr, a longer warmup or precision 32-true"
        )


def _trainee(
    config: TrainConfig,
    data: LabelledImages,
    text: TextEmbeddings | None,
    text_encoder: TextEncoder | None,
    init: Checkpoint | None,
) -> tuple[Trainee, str | None]:
    """The network with its prompts, and where its text embeddings come from, in words."""
    names = data.table.names
    prompt: nn.Module | None = None
    provenance: str | None = None
    vectors: Tensor | None = None
    if config.prompt == "context":
        if text_encoder is None or text is not None:
            raise ConfigError(
                "learned contexts go through a text encoder and need no table of embeddings; name "
                "an encoder (--encoder) instead of a table (--text)"
            )
        prompt = LearnedContexts(
            text_encoder, names, config.contexts, config.unified_contexts, seed=config.seed
        )
        kind = "shared" if config.unified_contexts else "class-specific"
        provenance = (
            f"{text_encoder.provenance}; {config.contexts} {kind} contexts learned on "
            f"{config.dataset}"
        )
    elif config.text_guidance is not None:
        if text_encoder is not None:
            raise ConfigError(
                f"prompt is {config.prompt!r}, which uses no text encoder; give a table of "
                'embeddings (--text) or set prompt="context"'
            )
        text = (text or _text_of(init)).select(names)
        provenance = text.provenance
        if config.prompt == "embedding":
            prompt = LearnedEmbeddings(torch.from_numpy(text.vectors))
            provenance += f"; then learned on {config.dataset}"
        vectors = torch.from_numpy(text.vectors)
    elif text is not None or text_encoder is not None:
        raise ConfigError(
            "text_guidance is null, so the network takes no text: leave the table or encoder out, "
            "or have it guided (--set text_guidance=encoder)"
        )
    if prompt is not None:
        vectors = prompt().detach()
    if vectors is not None:
        vectors = prepare(vectors, config.text_preparation)
        if config.text_preparation != "none":
            provenance = f"{provenance}; {config.text_preparation}"
    shape = STDCSegConfig(
        backbone=config.backbone,
        num_classes=len(names),
        text_guidance=config.text_guidance,
        align_corners=config.align_corners,
    )
    weights = None
    if config.class_balance:
        weights = class_weights(data.labels, len(names), config.class_balance)
    return Trainee(STDCSeg(shape, vectors), prompt, config, weights), provenance


def _fastest(accelerator: str) -> Literal["32-true", "bf16-mixed"]:
    if accelerator != "cpu" and torch.cuda.is_available():
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        native = cpu_computes_in_bfloat16()
    return "bf16-mixed" if native else "32-true"


def _text_of(init: Checkpoint | None) -> TextEmbeddings:
    if init is None or (vectors := init.weights.get("text_embeddings")) is None:
        raise ConfigError(
            "the network is to be guided by text, but no text table is given and there is no "
            "starting checkpoint that holds one; give one (--text), or train the baseline with "
            "--set text_guidance=null"
        )
    return TextEmbeddings.normalised(
        init.classes.names, vectors.numpy(), init.text_provenance or "unknown"
    )


def _resume_state(
    saved: Checkpoint,
    provenance: Mapping[str, Any],
    classes: ClassTable,
    text: str | None,
    path: Path,
) -> Mapping[str, Any]:
    if saved.resume is None:
        raise CheckpointError(f"{path} cannot be resumed: it holds no optimiser state")

    def facts(training: Mapping[str, Any], classes: ClassTable, text: str | None) -> dict[str, Any]:
        sets = {k: v for k, v in training.items() if k.startswith(("train_", "validation_"))}
        return {**training["config"], **sets, "classes": classes.names, "text": text}

    was = facts(saved.training, saved.classes, saved.text_provenance)
    now = facts(provenance, classes, text)
    if changed := [name for name in now if was.get(name) != now[name]]:
        raise CheckpointError(
            f"{path} was written with another recipe, other data or another text; these differ: "
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
        "git": git_revision(Path(__file__)),
    }


def git_revision(source: Path) -> str | None:
    """Commit of the source tree whose ROOT/FOLDER/FOLDER holds a file; None for installed ones."""
    root = source.parents[2]
    if not (root / ".git").exists():  # else git would find what a virtual environment lies in
        return None
    try:
        described = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=12"],
            cwd=root,
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
        self._sums: dict[str, Tensor] = {}

    def add(self, images: int, terms: Mapping[str, Tensor]) -> None:
        self._images += images
        self._iterations += 1
        for name, value in terms.items():  # kept as tensors: reading one waits for the GPU
            self._sums[name] = self._sums[name] + value if name in self._sums else value

    def means(self) -> dict[str, float]:
        return {name: float(total) / self._iterations for name, total in self._sums.items()}

    def read(self) -> dict[str, float]:
        passed = time.perf_counter() - self._started
        return self.means() | {
            "images_per_second": self._images / passed,
            "data_share": self.waited / passed,
        }
