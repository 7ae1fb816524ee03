from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from edgeseg.classes import ClassTable
from edgeseg.data import LabelledImages
from edgeseg.errors import InputError
from edgeseg.evaluate import Scores, confusion_matrix, evaluate_network, evaluate_runtime
from edgeseg.runtime import Runtime

NAMES = ("a", "b", "c")


def ids(*values: int) -> np.ndarray:
    return np.array(values, np.uint8)


def test_confusion_by_hand() -> None:
    matrix = confusion_matrix(ids(0, 0, 1, 2, 2), ids(0, 1, 1, 255, 0), 3)
    assert matrix.tolist() == [[1, 0, 1], [1, 1, 0], [0, 0, 0]]
    assert matrix.dtype == np.int64


def test_scores_by_hand() -> None:
    scores = Scores(NAMES, np.array([[3, 1, 0], [0, 4, 0], [0, 0, 0]], np.int64))
    assert scores.iou[:2].tolist() == [3 / 4, 4 / 5]
    assert np.isnan(scores.iou[2])  # neither labelled nor predicted: not part of the mean
    assert scores.miou == pytest.approx((3 / 4 + 4 / 5) / 2)
    assert scores.pixel_accuracy == 7 / 8


def test_class_predicted_but_never_labelled_counts_as_zero() -> None:
    scores = Scores(NAMES, confusion_matrix(ids(0, 2), ids(0, 0), 3))
    assert scores.iou[2] == 0
    assert scores.miou == pytest.approx(0.25)


def test_nothing_labelled_gives_nan() -> None:
    scores = Scores(NAMES, confusion_matrix(ids(0, 1), ids(255, 255), 3))
    assert np.isnan(scores.miou)
    assert np.isnan(scores.pixel_accuracy)


def test_torchmetrics_agrees() -> None:
    from torchmetrics.functional.segmentation import mean_iou

    random = np.random.default_rng(0)
    predictions, labels = (random.integers(0, 3, (1, 40, 50), dtype=np.uint8) for _ in range(2))
    ours = Scores(NAMES, confusion_matrix(predictions, labels, 3)).miou
    theirs = mean_iou(
        *(torch.from_numpy(a).long() for a in (predictions, labels)), 3, input_format="index"
    )
    assert ours == pytest.approx(float(theirs))


def test_bad_inputs_are_refused() -> None:
    with pytest.raises(InputError, match="compare at the labels' size"):
        confusion_matrix(ids(0), ids(0, 1), 3)
    with pytest.raises(InputError, match="label 3"):
        confusion_matrix(ids(0), ids(3), 3)
    with pytest.raises(InputError, match="prediction 255"):
        confusion_matrix(ids(255), ids(0), 3)


class BrightestChannel(nn.Module):
    """Logits are the channels, at stride 8."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(()))
        self.sizes: list[torch.Size] = []

    def forward(self, images: Tensor) -> Tensor:
        assert not self.training
        self.sizes.append(images.shape)
        return self.gain * nn.functional.avg_pool2d(images, 8)


def test_network_is_scored_at_the_labels_size() -> None:
    # Left half red, right half blue, of two sizes; the network sees both at 32×64.
    images, labels = [], []
    for height, width in ((32, 64), (48, 96)):
        image = torch.zeros(3, height, width, dtype=torch.uint8)
        image[0, :, : width // 2] = 255
        image[2, :, width // 2 :] = 255
        label = torch.zeros(height, width, dtype=torch.uint8)
        label[:, width // 2 :] = 2
        label[0] = 255
        images.append(image)
        labels.append(label)
    table = ClassTable(NAMES, ((0, 0, 0),) * 3)
    data = LabelledImages(table, ("x", "y"), tuple(images), tuple(labels))
    network = BrightestChannel().train()
    scores = evaluate_network(network, data, (32, 64), align_corners=False)
    assert network.training
    assert [tuple(s) for s in network.sizes] == [(1, 3, 32, 64)] * 2
    assert scores.confusion.sum() == 31 * 64 + 47 * 96
    assert scores.confusion[1].sum() == 0
    assert scores.pixel_accuracy == 1


def test_runtime_is_scored_from_frame_to_labels(tiny_engine: Path) -> None:
    table = ClassTable(("red", "green", "blue"), ((255, 0, 0), (0, 255, 0), (0, 0, 255)))
    image = torch.zeros(3, 40, 60, dtype=torch.uint8)
    image[0] = 200
    labels = torch.zeros(40, 60, dtype=torch.uint8)
    labels[:10], labels[10:20] = 2, 255
    scores = evaluate_runtime(
        Runtime(tiny_engine), LabelledImages(table, ("one",), (image,), (labels,))
    )
    assert scores.confusion.tolist() == [[1200, 0, 0], [0, 0, 0], [600, 0, 0]]
    other = LabelledImages(ClassTable(NAMES, table.palette), (), (), ())
    with pytest.raises(InputError, match="the engine knows"):
        evaluate_runtime(Runtime(tiny_engine), other)
