"""Training losses: cross-entropy with OHEM on logits and score map, detail loss on F2.

All losses are computed in float32, ignore label 255, and are 0 (never NaN) where every label is.
Sources: Lin et al., APSIPA Trans. SIP 13, 2024, e400; Fan et al., CVPR 2021 (STDC-Seg).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from edgeseg.classes import IGNORE
from edgeseg.models import SegmentationOutput

Ohem = Literal["stdc", "reference"]
Dice = Literal["squared", "linear"]

SCORE_TEMPERATURE = 0.07
"""The score map's cosines are divided by this before the softmax (CLIP's initial temperature)."""

_OHEM_THRESHOLD = -math.log(0.7)  # a pixel whose own class has a probability below 0.7 is hard
_OHEM_MIN_SHARE = 16  # at least one pixel in 16 is kept
_DICE_EPSILON = 1.0
_LARGEST_CLASS_WEIGHT = 10.0

_CPU_BAND = 2**18  # upsampled scores that exist at a time: a megabyte stays in a core's cache
_GPU_BAND = 2**27  # and half a gigabyte keeps a GPU busy


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
    temperature: float | Tensor = SCORE_TEMPERATURE,
) -> LossTerms:
    """All losses of one batch.

    Args:
        output: What the network gives in training mode.
        labels: N×H×W int64 class ids, 255 = no class.
        align_corners: How logits and score map are upsampled to H×W; a property of the model.
        ohem: Which pixels count, see :func:`cross_entropy`.
        dice: Form of the Dice loss, see :func:`detail_loss`.
        class_weights: Of the cross-entropies, see :func:`class_weights`.
        temperature: What the score map is divided by; a 0-d tensor gets its gradient.
    """

    def upsampled(logits: Tensor) -> Tensor:
        return cross_entropy(
            logits, labels, align_corners=align_corners, ohem=ohem, weights=class_weights
        )

    score = labels.new_zeros((), dtype=torch.float32)
    if output.score_map is not None:
        score = upsampled(output.score_map.float() / temperature)
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
        Scalar float32 (float64 where the logits are).
    """
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    loss: Tensor = _UpsampledCrossEntropy.apply(logits, labels, align_corners, ohem, weights)
    return loss


class _UpsampledCrossEntropy(torch.autograd.Function):
    """:func:`cross_entropy`, computing the gradient together with the value.

    Whether a pixel counts depends on its own loss alone, unless too few are hard. So one pass
    over bands of pixels gives every loss and the gradient of their sum at the logits' own size;
    upsampled logits never exist as a whole.
    """

    @staticmethod
    def forward(
        ctx: Any,
        logits: Tensor,
        labels: Tensor,
        align_corners: bool,
        ohem: Ohem,
        weights: Tensor | None,
    ) -> Tensor:
        if weights is None:
            weights = logits.new_ones(logits.shape[1])
        shares = F.pad(weights.to(logits), (0, IGNORE + 1 - len(weights)))
        shares = shares.index_select(0, labels.flatten()).view_as(labels)

        def scored(shares: Tensor, threshold: float) -> tuple[Tensor, Tensor]:
            with torch.autocast(logits.device.type, enabled=False):
                return _pixel_losses(
                    logits, labels, shares, threshold, align_corners, ctx.needs_input_grad[0]
                )

        threshold = -math.inf if ohem == "reference" else _OHEM_THRESHOLD
        losses, gradient = scored(shares, threshold)
        kept = shares * (losses > threshold)
        if ohem == "reference":
            divisor = torch.full_like(kept.sum(), kept.numel())
        else:
            least = min(losses.numel() // _OHEM_MIN_SHARE, int((labels != IGNORE).count_nonzero()))
            if (losses > threshold).count_nonzero() < least:
                hardest = losses.flatten().topk(least, sorted=False).indices
                kept = torch.zeros_like(shares)
                kept.view(-1)[hardest] = shares.view(-1)[hardest]
                _, gradient = scored(kept, -math.inf)
            divisor = kept.sum().clamp(min=1e-12)
        ctx.save_for_backward(gradient.div_(divisor))
        return (losses * kept).sum() / divisor

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = ctx.saved_tensors
        return grad * gradient, None, None, None, None


def _pixel_losses(
    logits: Tensor,
    labels: Tensor,
    shares: Tensor,
    threshold: float,
    align_corners: bool,
    needs_gradient: bool,
) -> tuple[Tensor, Tensor]:
    """Every pixel's cross-entropy, and the gradient of the sum of those above a threshold.

    Args:
        logits: N×K×h×w float32 or float64.
        labels: N×H×W int64, 255 = no class.
        shares: N×H×W of the logits' type, the factor of each pixel's loss in the sum, 0 at void.
        threshold: Losses up to this one are left out of the sum.
        align_corners: Of the upsampling.
        needs_gradient: The gradient is 0 otherwise.

    Returns:
        N×H×W losses, −1 at void, and the N×K×h×w gradient.
    """
    n, k, h, w = logits.shape
    height, width = labels.shape[1:]
    # Bilinear upsampling as matrix products: along the rows at once, to N×h×(K·W); along the
    # columns band by band. Scores in units of log 2: powers of 2 are faster than those of e.
    columns = _interpolation(w, width, align_corners).to(logits)
    wide = (logits.transpose(1, 2) @ (columns.T / math.log(2))).flatten(2)
    wide_gradient = torch.zeros_like(wide)
    losses = torch.empty_like(shares)

    band = _CPU_BAND if logits.device.type == "cpu" else _GPU_BAND
    band_rows = min(height, max(1, band // (k * width)))
    band_images = min(n, max(1, band // (k * width * height)))
    vertical = _interpolation(h, height, align_corners)
    for top in range(0, height, band_rows):
        rows = slice(top, top + band_rows)
        touched = vertical[rows].any(0).nonzero()
        source = slice(int(touched[0]), int(touched[-1]) + 1)
        weights = vertical[rows, source].to(logits)
        for first in range(0, n, band_images):
            images = slice(first, first + band_images)
            label = labels[images, rows]
            known = label != IGNORE
            own = label.masked_fill(~known, 0)[:, :, None]

            mix = weights.expand(len(label), -1, -1)
            scores = (mix @ wide[images, source]).view(*label.shape[:2], k, width)  # N×rows×K×W
            scores -= scores.amax(2, keepdim=True)
            own_score = scores.gather(2, own)
            probabilities = scores.exp2_()
            total = probabilities.sum(2, keepdim=True)
            loss = math.log(2) * (total.log2() - own_score)[:, :, 0]
            loss.masked_fill_(~known, -1)
            losses[images, rows] = loss
            if needs_gradient:
                factor = (shares[images, rows] * (loss > threshold))[:, :, None]
                own_gradient = (own_score.exp2() / total - 1) * factor
                gradient = probabilities.mul_(factor / total).scatter_(2, own, own_gradient)
                wide_gradient[images, source].baddbmm_(mix.mT, gradient.flatten(2))
    return losses, (wide_gradient.view(n, h, k, width) @ columns).transpose(1, 2)


def _interpolation(source: int, target: int, align_corners: bool) -> Tensor:
    """Linear interpolation from ``source`` to ``target`` samples: a target×source matrix."""
    unit = torch.eye(source, dtype=torch.float64)[None]
    return F.interpolate(unit, size=target, mode="linear", align_corners=align_corners)[0].T


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
    height, width = labels.shape[1:]
    rows = _interpolation(detail.shape[2], height, align_corners=True).to(detail.device).float()
    columns = _interpolation(detail.shape[3], width, align_corners=True).to(detail.device).float()
    with torch.autocast(detail.device.type, enabled=False):
        logits = rows @ detail[:, 0].float() @ columns.T
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
    upsampling, are fused with weights 0.6, 0.3, 0.1, and again what exceeds 0.1 is an edge. Void
    pixels make no edges, neither their own nor their neighbours'.

    So each edge of strides 1 and 2 is one of the target, and those of stride 4, whose weight does
    not exceed 0.1, never matter: they need not be computed.

    Args:
        labels: N×H×W integers, 255 = no class.

    Returns:
        N×H×W float32, 0 or 1; 0 at void pixels.
    """
    void = labels == IGNORE
    ids = labels.masked_fill(void, 0).to(torch.int16)  # sums up to 9 × 254
    # A void neighbour counts as one of the centre's own class.
    laplacian = ids * (9 - _sum3x3(void.to(torch.int16))) - _sum3x3(ids)
    edges = ((laplacian > 0) & ~void).to(torch.uint8)
    coarse = F.interpolate(edges[:, None, ::2, ::2], size=labels.shape[1:], mode="nearest")[:, 0]
    return (edges | coarse).masked_fill(void, 0).float()


def _sum3x3(x: Tensor) -> Tensor:
    """Sum over each pixel's 3×3 neighbourhood; N×H×W integers, 0 beyond the border."""
    x = F.pad(x, (1, 1, 1, 1))
    x = x[:, :-2] + x[:, 1:-1] + x[:, 2:]
    return x[:, :, :-2] + x[:, :, 1:-1] + x[:, :, 2:]
