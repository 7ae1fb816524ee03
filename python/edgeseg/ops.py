"""The native kernels as PyTorch operators."""

import torch
from torch import Tensor


def score_map_concat_reference(features: Tensor, text: Tensor) -> Tensor:
    """Cosine of every pixel with every class, beside the features.

    Every pixel is scaled by its largest magnitude first: then sums of squares lie in [1, C], so
    neither float16 nor the largest float32 overflows, and no epsilon is needed that a narrow type
    would round to zero.

    Args:
        features: N×C×H×W.
        text: K×C rows of unit length.

    Returns:
        N×(C+K)×H×W in the dtype of ``features``: the features, then cosines, 0 where a pixel's
        features are all zero.
    """
    wide = features.to(torch.promote_types(features.dtype, torch.float32))
    # The cosine does not depend on the scale, so neither does its gradient.
    peak = wide.detach().abs().amax(dim=1, keepdim=True)
    nonzero = peak > 0
    scaled = wide / torch.where(nonzero, peak, 1)
    norm = scaled.square().sum(dim=1, keepdim=True).clamp(min=1).sqrt()
    dot = torch.nn.functional.conv2d(scaled, text.to(wide.dtype)[:, :, None, None])
    scores = torch.where(nonzero, dot / norm, 0)
    return torch.cat([features, scores.to(features.dtype)], dim=1)
