"""The file that training writes: weights, what they were trained on, and how to go on.

A checkpoint holds tensors and plain values only and is read with ``weights_only=True``.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from edgeseg.classes import ClassTable
from edgeseg.data import IMAGENET_MEAN, IMAGENET_STD
from edgeseg.errors import CheckpointError
from edgeseg.files import reason, write_atomically
from edgeseg.models import (
    BackboneName,
    STDCSeg,
    STDCSegConfig,
    load_pretrained_backbone,
    load_pretrained_stdcseg,
)
from edgeseg.models.pretrained import UNREADABLE

FORMAT = "edgeseg-checkpoint-1"


@dataclass(frozen=True)
class Checkpoint:
    """One state of one training run.

    Attributes:
        model_config: The network's shape.
        state_dict: Weights as the optimiser left them, ``text_embeddings`` among them.
        classes: Class names and palette.
        text_provenance: Where the text embeddings come from; None for the baseline.
        mean: Of R, G, B in 0..255, taken from the network's input.
        std: Of R, G, B in 0..255, dividing the network's input.
        training: Provenance: configuration, iteration, mIoU, versions. Plain values only.
        ema: Exponential moving average of the weights, when the run kept one.
        text_state: What was learned outside the network: prompts, temperature.
        resume: Optimiser state and all else that going on needs; only in a run's last checkpoint.
    """

    model_config: STDCSegConfig
    state_dict: Mapping[str, Tensor]
    classes: ClassTable
    text_provenance: str | None
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    training: Mapping[str, Any]
    ema: Mapping[str, Tensor] | None = None
    text_state: Mapping[str, Tensor] = field(default_factory=dict)
    resume: Mapping[str, Any] | None = None

    @property
    def weights(self) -> Mapping[str, Tensor]:
        """The weights to use: the average where there is one, else the last."""
        return self.state_dict if self.ema is None else self.ema

    def model(self) -> STDCSeg:
        """The network with :attr:`weights`, in evaluation mode, on the CPU.

        Raises:
            CheckpointError: The weights do not fit the network.
        """
        try:
            network = STDCSeg(self.model_config, self.weights.get("text_embeddings"))
            network.load_state_dict(self.weights)
        except (RuntimeError, ValueError) as error:
            raise CheckpointError(f"the weights do not fit {self.model_config}: {error}") from error
        return network.eval()


def save_checkpoint(path: Path | str, checkpoint: Checkpoint) -> None:
    """Write a checkpoint so that ``path`` is at any time either the old or the new one, whole.

    Raises:
        OutputError: The file cannot be written.
    """
    content = {"format": FORMAT} | {f.name: getattr(checkpoint, f.name) for f in fields(Checkpoint)}
    content["model_config"] = asdict(checkpoint.model_config)
    content["classes"] = list(checkpoint.classes.names)
    content["palette"] = [list(colour) for colour in checkpoint.classes.palette]
    content["categories"] = list(checkpoint.classes.categories)
    buffer = io.BytesIO()
    torch.save(content, buffer)
    write_atomically(path, [buffer.getbuffer()])


def load_checkpoint(path: Path | str) -> Checkpoint:
    """Read a checkpoint onto the CPU.

    Raises:
        CheckpointError: The file is missing, unreadable, damaged, or not a checkpoint of this
            version.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"{path} does not exist; expected a checkpoint that training wrote")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {reason(error)}") from error
    except UNREADABLE as error:
        # What torch says is long, and advises to run a pickle's code.
        raise CheckpointError(
            f"{path} is damaged or not a checkpoint of PyTorch ({type(error).__name__}); expected "
            "one that training or 'edgeseg convert' wrote"
        ) from error
    found = content.get("format") if isinstance(content, dict) else None
    if found != FORMAT:
        raise CheckpointError(
            f"{path} has format {found!r}; this edgeseg reads {FORMAT!r}. Convert "
            "weights of other projects first"
        )
    try:
        return Checkpoint(
            model_config=STDCSegConfig(**content["model_config"]),
            state_dict=content["state_dict"],
            classes=ClassTable(
                tuple(content["classes"]),
                tuple((r, g, b) for r, g, b in content["palette"]),
                tuple(content.get("categories", ())),
            ),
            text_provenance=content["text_provenance"],
            mean=tuple(content["mean"]),
            std=tuple(content["std"]),
            training=content["training"],
            ema=content["ema"],
            text_state=content.get("text_state", {}),
            resume=content["resume"],
        )
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path} lacks or misstates a field: {error!r}") from error


def convert_pretrained(path: Path | str, classes: ClassTable) -> Checkpoint:
    """Make a checkpoint of STDC-Seg's own or mmsegmentation's weights, ready for export.

    Args:
        path: See :func:`edgeseg.models.load_pretrained_stdcseg`.
        classes: The classes that the weights were trained for, in their order.

    Raises:
        CheckpointError: The file is not such a checkpoint, or has another number of classes.
    """
    network = load_pretrained_stdcseg(path)
    if network.config.num_classes != len(classes):
        raise CheckpointError(
            f"{path} has {network.config.num_classes} classes, {len(classes)} names were given "
            f"({', '.join(classes.names)}); name the set that it was trained on"
        )
    return Checkpoint(
        model_config=network.config,
        state_dict=network.state_dict(),
        classes=classes,
        text_provenance=None,
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        training={"dataset": f"converted from {Path(path).name}"},
    )


def convert_backbone(path: Path | str, backbone: BackboneName) -> Checkpoint:
    """Make a checkpoint of an ImageNet backbone, for training to start from.

    Args:
        path: See :func:`edgeseg.models.load_pretrained_backbone`.
        backbone: Which one it is.

    Returns:
        Weights of the backbone alone: there is no network to export yet.

    Raises:
        CheckpointError: The file is not such a backbone.
    """
    config = STDCSegConfig(backbone, num_classes=1)
    network = STDCSeg(config)
    load_pretrained_backbone(network.backbone, path)
    return Checkpoint(
        model_config=config,
        state_dict=network.backbone.state_dict(prefix="backbone."),
        classes=ClassTable(("none",), ((0, 0, 0),)),
        text_provenance=None,
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        training={"dataset": f"ImageNet, converted from {Path(path).name}"},
    )
