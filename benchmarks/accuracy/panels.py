"""Pictures of what the networks see: image, labels, control, treatment.

The paper's Figures 6 to 8 in form. They show frames of the data set, so they go beside the runs
and never into the repository, unless the set is the synthetic one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from benchmarks.accuracy.plan import ARMS, HEADLINE
from matplotlib.figure import Figure
from numpy.typing import NDArray

from edgeseg.checkpoint import load_checkpoint
from edgeseg.classes import IGNORE, ClassTable
from edgeseg.data import LabelledImages
from edgeseg.evaluate import Scores, Views, confusion_matrix
from edgeseg.evaluate.models import evaluation_size
from edgeseg.evaluate.views import predict_labels
from edgeseg.files import make_folder

_IMAGES = 4


@dataclass(frozen=True)
class Seen:
    """One validation image under both networks; mIoU over the classes that occur, 0 to 1."""

    index: int
    control: NDArray[np.uint8]
    treatment: NDArray[np.uint8]
    control_miou: float
    treatment_miou: float

    @property
    def gain(self) -> float:
        """Of the treatment."""
        return self.treatment_miou - self.control_miou


def draw_panels(control: Path, treatment: Path, data: LabelledImages, folder: Path) -> list[Path]:
    """Write the images with the greatest gain, the greatest loss and the least mIoU.

    Args:
        control: Checkpoint.
        treatment: Checkpoint.
        data: Validation images.
        folder: Where the pictures go.
    """
    labelled = [_predict(path, data) for path in (control, treatment)]
    seen = [
        Seen(index, a, b, _miou(a, data, index), _miou(b, data, index))
        for index, (a, b) in enumerate(zip(*labelled, strict=True))
    ]
    make_folder(folder)
    chosen = {
        "gains": sorted(seen, key=lambda item: -item.gain),
        "losses": sorted(seen, key=lambda item: item.gain),
        "limitations": sorted(seen, key=lambda item: item.treatment_miou),
    }
    paths = []
    for name, ranked in chosen.items():
        paths.append(folder / f"{name}.png")
        _draw(ranked[:_IMAGES], data, paths[-1])
    return paths


def _predict(path: Path, data: LabelledImages) -> list[NDArray[np.uint8]]:
    checkpoint = load_checkpoint(path)
    size = evaluation_size(checkpoint)
    network = checkpoint.model()
    with torch.inference_mode():
        return [
            predict_labels(
                network,
                image,
                size=size,
                views=Views(),
                align_corners=checkpoint.model_config.align_corners,
            )
            .to(torch.uint8)
            .numpy()
            for image in data.images
        ]


def _miou(predicted: NDArray[np.uint8], data: LabelledImages, index: int) -> float:
    labels = data.labels[index].numpy()
    return Scores(data.table.names, confusion_matrix(predicted, labels, len(data.table))).miou


def _draw(seen: Sequence[Seen], data: LabelledImages, path: Path) -> None:
    figure = Figure(figsize=(10, 2.1 * len(seen)), layout="constrained")
    grid = figure.subplots(len(seen), 4, squeeze=False)
    titles = [ARMS[name].title for name in HEADLINE]
    for row, item in zip(grid, seen, strict=True):
        labels = data.labels[item.index].numpy()
        mious = (100 * item.control_miou, 100 * item.treatment_miou)
        pictures = (
            (data.images[item.index].permute(1, 2, 0).numpy(), data.names[item.index]),
            (_coloured(labels, data.table), "labels"),
            (_coloured(item.control, data.table), f"{titles[0]}: {mious[0]:.1f}"),
            (
                _coloured(item.treatment, data.table),
                f"{titles[1]}: {mious[1]:.1f}",
            ),
        )
        for axes, (picture, title) in zip(row, pictures, strict=True):
            axes.imshow(picture)
            axes.set_title(title, fontsize=7)
            axes.axis("off")
    figure.savefig(path, dpi=110)


def _coloured(labels: NDArray[np.uint8], table: ClassTable) -> NDArray[np.uint8]:
    palette = np.zeros((256, 3), np.uint8)
    palette[: len(table)] = table.palette
    palette[IGNORE] = 255
    return palette[labels]
