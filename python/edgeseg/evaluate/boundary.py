"""How well the outlines of classes are met, which IoU, an area, hardly feels.

Boundary F-score of Csurka, Larlus and Perronnin, *What is a good evaluation measure for semantic
segmentation?*, BMVC 2013: the F-measure of contour pixels with a tolerance in distance.
"""

from __future__ import annotations

import math
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from edgeseg.classes import IGNORE
from edgeseg.errors import InputError

BOUNDARY_TOLERANCE = 0.0075
"""Distance up to which contour pixels match, as a share of the image diagonal (the paper's)."""

_NEIGHBOURS = np.array([[0, 1, 0], [1, 1, 1], [0, 1, 0]], np.uint8)


def boundary_f(
    predictions: NDArray[np.uint8],
    labels: NDArray[np.uint8],
    num_classes: int,
    tolerance: float = BOUNDARY_TOLERANCE,
) -> NDArray[np.float64]:
    """Boundary F-score of each class in one image.

    A pixel is on its class's boundary where one of its four neighbours has another class; the
    image's border and void make no boundary. Precision is the share of the predicted boundary with
    labelled boundary of that class nearer than the tolerance, recall the share of the labelled
    boundary with predicted boundary so near, F their harmonic mean.

    Void, and a pixel beside void, may be on a boundary that nobody labelled: pixels nearer than the
    tolerance to such are counted in neither share.

    Args:
        predictions: Class ids uint8, H×W.
        labels: Class ids uint8, H×W; 255 = void.
        num_classes: K.
        tolerance: As a share of the image diagonal.

    Returns:
        K values in 0..1; NaN for a class without a boundary pixel to count in either map.

    Raises:
        InputError: Shapes differ.
    """
    if predictions.shape != labels.shape:
        raise InputError(
            f"predictions are {predictions.shape} but labels are {labels.shape}; compare at the "
            "labels' size"
        )
    disc = _disc(tolerance * math.hypot(*labels.shape))
    known = ~_widened(_widened(labels == IGNORE, _NEIGHBOURS), disc)
    predicted_edges, labelled_edges = _edges(predictions), _edges(labels)
    scores = np.full(num_classes, np.nan)
    for class_id in range(num_classes):
        predicted = predicted_edges & (predictions == class_id)
        labelled = labelled_edges & (labels == class_id)
        counted_predicted, counted_labelled = predicted & known, labelled & known
        if not (counted_predicted.any() or counted_labelled.any()):
            continue
        precision = _share_within(counted_predicted, _widened(labelled, disc))
        recall = _share_within(counted_labelled, _widened(predicted, disc))
        both = precision + recall
        scores[class_id] = 2 * precision * recall / both if both else 0.0
    return scores


def _edges(ids: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Pixels with a neighbour above, below, left or right of another class; void is none."""
    edges = np.zeros(ids.shape, np.bool_)
    for here, there in ((np.s_[1:], np.s_[:-1]), (np.s_[:, 1:], np.s_[:, :-1])):
        a, b = ids[here], ids[there]
        change = (a != b) & (a != IGNORE) & (b != IGNORE)
        edges[here] |= change
        edges[there] |= change
    return edges


def _disc(radius: float) -> NDArray[np.uint8]:
    """Structuring element of the pixels nearer than ``radius``."""
    reach = math.ceil(radius) - 1 if radius > 1 else 0
    y, x = np.ogrid[-reach : reach + 1, -reach : reach + 1]
    return (np.hypot(y, x) < radius).astype(np.uint8)


def _widened(mask: NDArray[np.bool_], disc: NDArray[np.uint8]) -> NDArray[np.bool_]:
    # Faster than a distance transform up to a tolerance of some twenty pixels.
    widened: NDArray[Any] = cv2.dilate(mask.view(np.uint8), disc)
    return widened.view(np.bool_)


def _share_within(counted: NDArray[np.bool_], region: NDArray[np.bool_]) -> float:
    """Share of the counted pixels inside the region; of none, all are."""
    total = np.count_nonzero(counted)
    return float(np.count_nonzero(counted & region) / total) if total else 1.0
