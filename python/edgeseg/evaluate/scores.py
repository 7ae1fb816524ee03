"""Measures of a segmentation from one confusion matrix, and boundary F beside them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeseg.classes import IGNORE
from edgeseg.errors import InputError


@dataclass(frozen=True)
class Scores:
    """How well predictions match labels.

    Attributes:
        classes: K class names.
        confusion: K×K int64; rows are labels, columns predictions. Void is not in it.
        categories: For each class the coarser group that it belongs to; empty where there are none.
        boundary: N×K, boundary F of each class in each of N images, see
            :func:`edgeseg.evaluate.boundary_f`; None where it was not measured.
    """

    classes: tuple[str, ...]
    confusion: NDArray[np.int64]
    categories: tuple[str, ...] = ()
    boundary: NDArray[np.float64] | None = None

    @property
    def iou(self) -> NDArray[np.float64]:
        """Intersection over union of each class; NaN for a class neither labelled nor predicted."""
        hits = np.diag(self.confusion)
        return _ratio(hits, self.confusion.sum(0) + self.confusion.sum(1) - hits)

    @property
    def miou(self) -> float:
        """Mean IoU over the classes that occur; NaN where none does."""
        return _mean(self.iou)

    @property
    def pixel_accuracy(self) -> float:
        """Share of labelled pixels that are right; NaN where none is labelled."""
        total = int(self.confusion.sum())
        return float(np.trace(self.confusion) / total) if total else math.nan

    @property
    def class_accuracy(self) -> NDArray[np.float64]:
        """Share of each class's labelled pixels that are right; NaN for a class without any."""
        return _ratio(np.diag(self.confusion), self.confusion.sum(1))

    @property
    def mean_class_accuracy(self) -> float:
        """Mean of :attr:`class_accuracy` over the labelled classes; NaN where there is none."""
        return _mean(self.class_accuracy)

    @property
    def frequency_weighted_iou(self) -> float:
        """IoU of the labelled classes, weighted by their share of the labelled pixels."""
        labelled = self.confusion.sum(1)
        known = labelled > 0
        if not known.any():
            return math.nan
        return float(np.average(self.iou[known], weights=labelled[known]))

    @property
    def boundary_f(self) -> NDArray[np.float64] | None:
        """Boundary F of each class: its mean over the images with such a boundary, else NaN."""
        if self.boundary is None:
            return None
        return np.array([_mean(column) for column in self.boundary.T])

    @property
    def mean_boundary_f(self) -> float | None:
        """Mean of :attr:`boundary_f` over the classes with a boundary; NaN where none has one."""
        return None if self.boundary_f is None else _mean(self.boundary_f)

    def by_category(self) -> Scores | None:
        """Scores of the categories, as if each were one class (Cityscapes' category IoU).

        Confusing two classes of one category is no error. None where there are no categories.
        """
        if not self.categories:
            return None
        names = tuple(dict.fromkeys(self.categories))
        members = np.array([[c == name for c in self.categories] for name in names], np.int64)
        return Scores(names, members @ self.confusion @ members.T)

    def summary(self) -> dict[str, Any]:
        """Every measure in plain values for JSON; None where one is not defined or not measured."""
        groups = self.by_category()
        return {
            "miou": _plain(self.miou),
            "pixel_accuracy": _plain(self.pixel_accuracy),
            "mean_class_accuracy": _plain(self.mean_class_accuracy),
            "frequency_weighted_iou": _plain(self.frequency_weighted_iou),
            "mean_boundary_f": _plain(self.mean_boundary_f),
            "category_miou": None if groups is None else _plain(groups.miou),
            "iou": _named(self.classes, self.iou),
            "class_accuracy": _named(self.classes, self.class_accuracy),
            "boundary_f": _named(self.classes, self.boundary_f),
            "category_iou": None if groups is None else _named(groups.classes, groups.iou),
            "classes": list(self.classes),
            "confusion": self.confusion.tolist(),
        }


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


def _ratio(part: NDArray[np.int64], whole: NDArray[np.int64]) -> NDArray[np.float64]:
    """``part / whole``, NaN where ``whole`` is 0."""
    ratio: NDArray[np.float64] = np.full(len(whole), np.nan)
    np.divide(part, whole, out=ratio, where=whole > 0)
    return ratio


def _mean(values: NDArray[np.float64]) -> float:
    """Mean of what is not NaN; NaN, without NumPy's warning, where all is."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else math.nan


def _plain(value: float | None) -> float | None:
    """JSON knows no NaN."""
    return None if value is None or math.isnan(value) else value


def _named(
    names: Sequence[str], values: NDArray[np.float64] | None
) -> dict[str, float | None] | None:
    if values is None:
        return None
    return {name: _plain(value) for name, value in zip(names, values.tolist(), strict=True)}
