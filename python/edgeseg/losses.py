"""Training losses: cross-entropy with OHEM on logits and score map, detail loss on F2.

All losses are computed in float32, ignore label 255, and are 0 (never NaN) where every label is.
Sources: Lin et al., APSIPA Trans. SIP 13, 2024, e400; Fan et al., CVPR 2021 (STDC-Seg).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from edgeseg.classes import IGNORE
from edgeseg.models import SegmentationOutput

Ohem = Literal["stdc", "reference"]
Dice = Literal["squared", "linear"]

SCORE_TEMPERATURE = 0.07
"""The score map's cosines are divided by this before the softmax (CLIP's initial temperature)."""

_OHEM_THRESHOLD = -math.log(0.7)  # a pixel whose own class has a probability below 0.7 is hard
_OHEM_MIN_SHARE = 16  # at least one pixel in 16 is kept
_DETAIL_WEIGHTS = (0.6, 0.3, 0.1)  # of the edges at strides 1, 2, 4
_EDGE_THRESHOLD = 0.1
_DICE_EPSILON = 1.0
_LARGEST_CLASS_WEIGHT = 10.0


@dataclass(frozen=True)
class LossTerms:
    """The terms of one iteration's loss, scalars; each has weight 1."""

    head: Tensor
    auxiliary: Tensor
    score: Tensor
    detail: Tensor

    @property
    def total(self) -> Tensor:
        """Sum of the terms: what is minimised."""
        return self.head + self.auxiliary + self.score + self.detail


def segmentation_loss(
    output: SegmentationOutput,
    labels: Tensor,
    *,
    align_corners: bool,
    ohem: Ohem = "stdc",
    dice: Dice = "squared",
    class_weights: Tensor | None = None,
) -> LossTerms:
    """All losses of one batch.

    Args:
        output: What the network gives in training mode.
        labels: N×H×W int64 class ids, 255 = no class.
        align_corners: How logits and score map are upsampled to H×W; a property of the model.
        ohem: Which pixels count, see :func:`cross_entropy`.
        dice: Form of the Dice loss, see :func:`detail_loss`.
        class_weights: Of the cross-entropies, see :func:`class_weights`.
    """

    def upsampled(logits: Tensor) -> Tensor:
        return cross_entropy(
            logits, labels, align_corners=align_corners, ohem=ohem, weights=class_weights
        )

    score = labels.new_zeros((), dtype=torch.float32)
    if output.score_map is not None:
        score = upsampled(output.score_map.float() / SCORE_TEMPERATURE)
    return LossTerms(
        head=upsampled(output.logits),
        auxiliary=sum((upsampled(logits) for logits in output.auxiliary), torch.zeros_like(score)),
        score=score,
        detail=detail_loss(output.detail, labels, dice=dice),
    )


def cross_entropy(
    logits: Tensor,
    labels: Tensor,
    *,
    align_corners: bool,
    ohem: Ohem = "stdc",
    weights: Tensor | None = None,
) -> Tensor:
    """Cross-entropy with online hard example mining, at the labels' size.

    Args:
        logits: N×K×h×w, any float dtype; upsampled bilinearly to H×W.
        labels: N×H×W int64, 255 = no class.
        align_corners: Of the upsampling.
        ohem: ``"stdc"``: mean over the pixels whose loss exceeds −log 0.7, or over the N·H·W/16
            hardest where those are fewer. ``"reference"``: every labelled pixel counts, and the
            sum is divided by all N·H·W pixels.
        weights: K float32, how much a pixel of each class counts among the kept ones; None counts
            all alike (the paper).

    Returns:
        Scalar float32.
    """
    logits = F.interpolate(
        logits.float().contiguous(),  # softmax over channels-last is slow on CPUs
        size=labels.shape[1:],
        mode="bilinear",
        align_corners=align_corners,
    )
    losses = F.cross_entropy(logits, labels, ignore_index=IGNORE, reduction="none")  # 0 where void
    losses, labels = losses.flatten(), labels.flatten()
    shares = torch.ones_like(losses)
    if weights is not None:
        shares = F.pad(weights, (0, IGNORE + 1 - len(weights)))[labels]
    if ohem == "reference":
        return (losses * shares).mean()
    hard = losses > _OHEM_THRESHOLD
    least = min(losses.numel() // _OHEM_MIN_SHARE, int((labels != IGNORE).sum()))
    if hard.sum() < least:
        hard = torch.zeros_like(hard).index_fill_(0, losses.topk(least, sorted=False).indices, True)
    shares = shares * hard
    return (losses * shares).sum() / shares.sum().clamp(min=1e-12)


def class_weights(labels: Iterable[Tensor], num_classes: int, exponent: float) -> Tensor:
    """Weights that let rare classes count: frequency to the power of −``exponent``.

    Args:
        labels: Label maps of a training set, uint8; 255 = no class.
        num_classes: K.
        exponent: 0 counts all pixels alike, 1 all classes alike.

    Returns:
        K float32, at most 10, whose mean over the set's pixels is 1 (less where the 10 cuts one
        off); a class that does not occur has the weight of the rarest one that does.
    """
    counts = torch.zeros(256)
    for label in labels:
        counts += torch.bincount(label.flatten(), minlength=256)
    counts = counts[:num_classes]
    frequency = counts / counts.sum()
    rarest = frequency[frequency > 0].min()
    weights = frequency.clamp(min=rarest).pow(-exponent)
    return (weights / (weights * frequency).sum()).clamp(max=_LARGEST_CLASS_WEIGHT)


def detail_loss(detail: Tensor, labels: Tensor, *, dice: Dice = "squared") -> Tensor:
    """Binary cross-entropy + Dice of the detail head against the edges of the label map.

    Args:
        detail: N×1×h×w logits, upsampled bilinearly (aligned corners) to H×W.
        labels: N×H×W int64, 255 = no class; those pixels are masked.
        dice: ``"squared"``: squared sums in the denominator (the paper); ``"linear"``: plain sums
            (STDC-Seg).

    Returns:
        Scalar float32.
    """
    logits = F.interpolate(
        detail.float(), size=labels.shape[1:], mode="bilinear", align_corners=True
    )[:, 0]
    target = detail_target(labels)
    known = (labels != IGNORE).float()
    bce = F.binary_cross_entropy_with_logits(logits, target, weight=known, reduction="sum")
    return bce / known.sum().clamp(min=1) + dice_loss(logits.sigmoid() * known, target, form=dice)


def dice_loss(probability: Tensor, target: Tensor, *, form: Dice = "squared") -> Tensor:
    """Mean over the batch of ``1 − (2·Σpt + ε) / (Σp² + Σt² + ε)``, ε = 1.

    Args:
        probability: N×... float32 in 0..1, 0 where masked.
        target: N×... float32, 0 or 1, 0 where masked.
        form: ``"linear"`` has Σp + Σt in the denominator instead.
    """
    p, t = probability.flatten(1), target.flatten(1)
    power = 2 if form == "squared" else 1
    sums = p.pow(power).sum(1) + t.pow(power).sum(1)
    return (1 - (2 * (p * t).sum(1) + _DICE_EPSILON) / (sums + _DICE_EPSILON)).mean()


def detail_target(labels: Tensor) -> Tensor:
    """Edges of a label map: what the detail head learns.

    The Laplacian (8 in the centre, −1 around) is taken at strides 1, 2 and 4, with class 0 beyond
    the border; what exceeds 0.1 is an edge. The three edge maps, brought to full size by nearest
    upsampling, are fused with weights 0.6, 0.3, 0.1, and again what exceeds 0.1 is an edge (0.1
    itself, stride 4 alone, does not). Void pixels make no edges, neither their own nor their
    neighbours'.

    Args:
        labels: N×H×W integers, 255 = no class.

    Returns:
        N×H×W float32, 0 or 1; 0 at void pixels.
    """
    known = (labels != IGNORE)[:, None].float()
    ids = labels[:, None].float() * known
    ring = torch.ones(1, 1, 3, 3, device=labels.device)
    ring[..., 1, 1] = 0
    centre = torch.zeros_like(ring)
    centre[..., 1, 1] = 1

    fused = torch.zeros_like(ids)
    with torch.autocast(labels.device.type, enabled=False):  # sums up to 8 × 253 must be exact
        for stride, weight in zip((1, 2, 4), _DETAIL_WEIGHTS, strict=True):

            def sampled(x: Tensor, kernel: Tensor, stride: int = stride) -> Tensor:
                return F.conv2d(x, kernel, stride=stride, padding=1)

            # A void neighbour counts as one of the centre's own class.
            own = sampled(ids, centre) * (8 - sampled(1 - known, ring))
            laplacian = (own - sampled(ids, ring)) * sampled(known, centre)
            edges = (laplacian > _EDGE_THRESHOLD).float()
            fused += weight * F.interpolate(edges, size=labels.shape[1:], mode="nearest")
    # float32(0.1) > 0.1 would hold in double precision only: compare in float32.
    threshold = torch.tensor(_EDGE_THRESHOLD, dtype=torch.float32, device=labels.device)
    return ((fused > threshold) * known)[:, 0].float()
