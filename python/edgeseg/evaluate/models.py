"""Scores of a network, of a checkpoint, and of an engine as it is shipped."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, cast

import numpy as np
from numpy.typing import NDArray

from edgeseg.arguments import check_integer
from edgeseg.errors import InputError
from edgeseg.evaluate.boundary import boundary_f
from edgeseg.evaluate.scores import Scores, confusion_matrix
from edgeseg.evaluate.views import Views, predict_labels

if TYPE_CHECKING:
    from torch import nn

    from edgeseg.checkpoint import Checkpoint
    from edgeseg.data import LabelledImages
    from edgeseg.runtime import Runtime

MAX_SIZE = 8192
OnImage = Callable[[int, int], None]
"""Called with the number of images done and of all, for a progress bar."""


def evaluate_network(
    network: nn.Module,
    data: LabelledImages,
    size: tuple[int, int],
    *,
    align_corners: bool,
    bfloat16: bool = False,
    views: Views | None = None,
    boundary: bool = False,
    on_image: OnImage | None = None,
) -> Scores:
    """Score a network at each label map's own size.

    Args:
        network: Images N×3×h×w → logits N×K×h'×w'; evaluated in evaluation mode, left in its own.
        data: Images and labels.
        size: Height and width to which every image is resized for the network.
        align_corners: How logits are upsampled to the labels' size.
        bfloat16: Run the network in autocast.
        views: What the network sees of an image; None is the whole of it, once.
        boundary: Also measure boundary F.
        on_image: See :data:`OnImage`.

    Raises:
        InputError: The size is out of range.
    """
    import torch

    for side, pixels in zip(("height", "width"), size, strict=True):
        check_integer(side, pixels, 1, MAX_SIZE)
    device = next(network.parameters()).device
    seen = Views() if views is None else views

    def predict(image: torch.Tensor) -> NDArray[np.uint8]:
        labels = predict_labels(
            network, image.to(device), size=size, views=seen, align_corners=align_corners
        )
        return cast(NDArray[np.uint8], labels.to("cpu", torch.uint8).numpy())

    was_training = network.training
    network.eval()
    with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=bfloat16):
        scores = _score(map(predict, data.images), data, boundary, on_image)
    network.train(was_training)
    return scores


def evaluate_checkpoint(
    checkpoint: Checkpoint,
    data: LabelledImages,
    size: tuple[int, int] | None = None,
    *,
    views: Views | None = None,
    boundary: bool = False,
    on_image: OnImage | None = None,
) -> Scores:
    """Score what training saved, in float32, on a GPU where there is one.

    Args:
        checkpoint: Its averaged weights are taken where it has some.
        data: Images and labels, of the checkpoint's classes.
        size: As for :func:`evaluate_network`; None is :func:`evaluation_size`.
        views: As for :func:`evaluate_network`.
        boundary: As for :func:`evaluate_network`.
        on_image: As for :func:`evaluate_network`.

    Raises:
        InputError: Checkpoint and data have different classes, or no size is known.
        CheckpointError: The weights do not fit the network.
    """
    import torch

    _check_classes("checkpoint", checkpoint.classes.names, data)
    network = checkpoint.model().to("cuda" if torch.cuda.is_available() else "cpu")
    return evaluate_network(
        network,
        data,
        evaluation_size(checkpoint) if size is None else size,
        align_corners=checkpoint.model_config.align_corners,
        views=views,
        boundary=boundary,
        on_image=on_image,
    )


def describe_checkpoint(checkpoint: Checkpoint) -> str:
    """One line: the network, and what it was trained on for how long."""
    shape, training = checkpoint.model_config, checkpoint.training
    guidance = f"text guidance in the {shape.text_guidance}" if shape.text_guidance else "no text"
    weights = "last weights" if checkpoint.ema is None else "averaged weights"
    return (
        f"{shape.backbone}, {guidance}, {len(checkpoint.classes)} classes, {weights}; "
        f"{training.get('dataset', 'unknown data')}, iteration {training.get('iteration', '?')}"
    )


def evaluation_size(checkpoint: Checkpoint) -> tuple[int, int]:
    """Height and width of the network's input in the validations of the checkpoint's training.

    Raises:
        InputError: The checkpoint does not say.
    """
    try:
        height, width = checkpoint.training["config"]["eval_size"]
    except KeyError:
        raise InputError(
            "the checkpoint does not say at which size it was evaluated in training; name the "
            "network's input size"
        ) from None
    return int(height), int(width)


def evaluate_runtime(
    runtime: Runtime,
    data: LabelledImages,
    *,
    boundary: bool = False,
    on_image: OnImage | None = None,
) -> Scores:
    """Score what is shipped: frame in, labels at the frame's size out.

    Args:
        runtime: The engine.
        data: Images and labels, of the engine's classes.
        boundary: Also measure boundary F.
        on_image: See :data:`OnImage`.

    Raises:
        InputError: Engine and data have different classes.
    """
    _check_classes("engine", runtime.classes, data)
    frames = (image.permute(1, 2, 0).contiguous() for image in data.images)
    predictions = (result.labels for result in runtime.stream(frames, "rgb"))
    return _score(predictions, data, boundary, on_image)


def _check_classes(model: str, classes: tuple[str, ...], data: LabelledImages) -> None:
    if data.table.names != classes:
        raise InputError(
            f"the {model} knows {list(classes)}, the data {list(data.table.names)}; "
            f"evaluate on data with the {model}'s classes, in its order"
        )


def _score(
    predictions: Iterable[NDArray[np.uint8]],
    data: LabelledImages,
    boundary: bool,
    on_image: OnImage | None,
) -> Scores:
    """Compare label maps with the data's, in its order."""
    num_classes = len(data.table)
    confusion = np.zeros((num_classes, num_classes), np.int64)
    outlines = []
    for done, (predicted, tensor) in enumerate(zip(predictions, data.labels, strict=True), start=1):
        labels = tensor.numpy()
        confusion += confusion_matrix(predicted, labels, num_classes)
        if boundary:
            outlines.append(boundary_f(predicted, labels, num_classes))
        if on_image is not None:
            on_image(done, len(data))
    return Scores(
        data.table.names,
        confusion,
        data.table.categories,
        np.array(outlines).reshape(-1, num_classes) if boundary else None,
    )
