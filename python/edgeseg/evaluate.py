"""Measures of a segmentation: mIoU, IoU per class, pixel accuracy, from one confusion matrix.

The measures need NumPy only; :func:`evaluate_network` imports torch when it is called, and
:func:`evaluate_runtime` measures what is shipped.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from edgeseg.classes import IGNORE
from edgeseg.errors import InputError

if TYPE_CHECKING:
    from torch import nn

    from edgeseg.data import LabelledImages
    from edgeseg.runtime import Runtime


@dataclass(frozen=True)
class Scores:
    """How well predictions match labels.

    Attributes:
        classes: K class names.
        confusion: K×K int64; rows are labels, columns predictions. Void is not in it.
    """

    classes: tuple[str, ...]
    confusion: NDArray[np.int64]

    @property
    def iou(self) -> NDArray[np.float64]:
        """Intersection over union of each class; NaN for a class neither labelled nor predicted."""
        hits = np.diag(self.confusion).astype(np.float64)
        union = self.confusion.sum(0) + self.confusion.sum(1) - hits
        iou: NDArray[np.float64] = np.full(len(hits), np.nan)
        np.divide(hits, union, out=iou, where=union > 0)
        return iou

    @property
    def miou(self) -> float:
        """Mean IoU over the classes that occur; NaN where none does."""
        iou = self.iou
        return float(np.nanmean(iou)) if np.isfinite(iou).any() else float("nan")

    @property
    def pixel_accuracy(self) -> float:
        """Share of labelled pixels that are right; NaN where none is labelled."""
        total = int(self.confusion.sum())
        return float(np.trace(self.confusion) / total) if total else float("nan")


def confusion_matrix(
    predictions: NDArray[np.uint8], labels: NDArray[np.uint8], num_classes: int
) -> NDArray[np.int64]:
    """Count pixels by label (row) and prediction (column).

    Args:
        predictions: Class ids uint8, any shape.
        labels: Class ids uint8, same shape; 255 is not counted.
        num_classes: K.

    Returns:
        K×K int64.

    Raises:
        InputError: Shapes differ, or an id is out of range.
    """
    if predictions.shape != labels.shape:
        raise InputError(
            f"predictions are {predictions.shape} but labels are {labels.shape}; compare at the "
            "labels' size"
        )
    known = labels != IGNORE
    rows, columns = labels[known].astype(np.int64), predictions[known].astype(np.int64)
    for name, ids in (("label", rows), ("prediction", columns)):
        if ids.size and ids.max() >= num_classes:
            raise InputError(f"{name} {ids.max()} is not one of {num_classes} classes")
    counts = np.bincount(rows * num_classes + columns, minlength=num_classes**2)
    return counts.reshape(num_classes, num_classes)


def evaluate_network(
    network: nn.Module,
    data: LabelledImages,
    size: tuple[int, int],
    *,
    align_corners: bool,
    bfloat16: bool = False,
) -> Scores:
    """Score a network at each label map's own size.

    Args:
        network: Images N×3×h×w → logits N×K×h'×w'; evaluated in evaluation mode, left in its own.
        data: Images and labels.
        size: Height and width to which every image is resized for the network.
        align_corners: How logits are upsampled to the labels' size.
        bfloat16: Run the network in autocast.
    """
    import torch
    import torch.nn.functional as F

    from edgeseg.data import normalise, resize_image

    device = next(network.parameters()).device
    num_classes = len(data.table)
    confusion = np.zeros((num_classes, num_classes), np.int64)
    was_training = network.training
    network.eval()
    with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=bfloat16):
        for image, labels in zip(data.images, data.labels, strict=True):
            pixels = normalise(resize_image(image.to(device), size)[None])
            logits = F.interpolate(
                network(pixels).float(),
                size=labels.shape,
                mode="bilinear",
                align_corners=align_corners,
            )
            predicted = logits[0].argmax(0).to("cpu", torch.uint8)
            confusion += confusion_matrix(predicted.numpy(), labels.numpy(), num_classes)
    network.train(was_training)
    return Scores(data.table.names, confusion)


def evaluate_runtime(runtime: Runtime, data: LabelledImages) -> Scores:
    """Score what is shipped: frame in, labels at the frame's size out.

    Raises:
        InputError: Engine and data have different classes.
    """
    if data.table.names != runtime.classes:
        raise InputError(
            f"the engine knows {list(runtime.classes)}, the data {list(data.table.names)}; "
            "evaluate on data with the engine's classes, in its order"
        )
    confusion = np.zeros((len(runtime.classes),) * 2, np.int64)
    frames = (image.permute(1, 2, 0).contiguous() for image in data.images)
    for result, labels in zip(runtime.stream(frames, "rgb"), data.labels, strict=True):
        confusion += confusion_matrix(result.labels, labels.numpy(), len(runtime.classes))
    return Scores(runtime.classes, confusion)
