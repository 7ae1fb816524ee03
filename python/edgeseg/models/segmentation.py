"""STDC-Seg with text guidance.

Lin, Chen, Wu, *A Lightweight Enhancement Approach for Real-Time Semantic Segmentation by
Distilling Rich Knowledge from Pre-Trained Vision-Language Model*, APSIPA Trans. SIP 13, 2024.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgeseg.classes import MAX_CLASSES
from edgeseg.errors import ConfigError, InputError
from edgeseg.models.context_path import CONTEXT_CHANNELS, ContextPath, FeatureFusionModule
from edgeseg.models.heads import SegmentationHead
from edgeseg.models.layers import init_decoder_weights
from edgeseg.models.stdc import BackboneName, STDCNet
from edgeseg.ops import score_map_concat

TextGuidance = Literal["encoder", "decoder"]

TEXT_CHANNELS = 1024
"""Width of F4 and of CLIP RN50's text embeddings: equal, so no projection is needed."""
MIN_IMAGE_SIZE = 32


@dataclass(frozen=True)
class STDCSegConfig:
    """Everything that fixes the network's shape; a checkpoint stores it as a dictionary.

    Attributes:
        backbone: ``"stdc1"`` (STDCNet813) or ``"stdc2"`` (STDCNet1446).
        num_classes: K, 1 to 254.
        text_guidance: Where the score map enters: ``"encoder"`` (the paper: beside F4),
            ``"decoder"`` (ablation: beside the fused features), or None for plain STDC-Seg.
        align_corners: How the logits are meant to be upsampled, and how ``"decoder"`` resizes
            the score map. A property of the trained network.
        dropout: Probability before the last convolution of the head and the auxiliary heads.
        head_bias: Whether the heads' last convolutions have a bias. Only networks converted from
            mmsegmentation do.

    Raises:
        ConfigError: A value outside the above.
    """

    backbone: BackboneName
    num_classes: int
    text_guidance: TextGuidance | None = None
    align_corners: bool = True
    dropout: float = 0.1
    head_bias: bool = False

    def __post_init__(self) -> None:
        if self.backbone not in get_args(BackboneName):
            raise ConfigError(
                f"backbone is {self.backbone!r}; use one of {get_args(BackboneName)}."
            )
        if not 1 <= self.num_classes <= MAX_CLASSES:
            raise ConfigError(
                f"num_classes is {self.num_classes}; labels are uint8 with 255 as void, so it "
                f"must be between 1 and {MAX_CLASSES}."
            )
        if self.text_guidance not in (None, *get_args(TextGuidance)):
            raise ConfigError(
                f"text_guidance is {self.text_guidance!r}; use None or one of "
                f"{get_args(TextGuidance)}."
            )
        if not 0.0 <= self.dropout < 1.0:
            raise ConfigError(f"dropout is {self.dropout}; it must be at least 0 and below 1.")


class SegmentationOutput(NamedTuple):
    """What the network gives in training."""

    logits: Tensor
    """N×K×⌈H/8⌉×⌈W/8⌉."""
    auxiliary: tuple[Tensor, Tensor]
    """Logits of the auxiliary heads on the context at strides 8 and 16, N×K each."""
    score_map: Tensor | None
    """Unscaled cosines of F4 with each class, N×K×⌈H/32⌉×⌈W/32⌉; None for the baseline."""
    detail: Tensor
    """Edge logits from F2, N×1×⌈H/8⌉×⌈W/8⌉."""


class STDCSeg(nn.Module):
    """STDC-Seg, plain or guided by text.

    Args:
        config: The network's shape.
        text_embeddings: K×1024 rows of unit length, any float dtype, kept as the float32 buffer
            ``text_embeddings``; None for the baseline.

    Attributes:
        backbone: STDCNet; what stage 2 freezes and what gets its own learning rate.
        context_path, fusion, head: The decoder.
        auxiliary_head8, auxiliary_head16, detail_head: Used in training only.

    Raises:
        ConfigError: ``text_embeddings`` does not fit ``config``.
    """

    text_embeddings: Tensor | None

    def __init__(self, config: STDCSegConfig, text_embeddings: Tensor | None = None) -> None:
        super().__init__()
        self.config = config
        K = config.num_classes
        encoder_scores = K if config.text_guidance == "encoder" else 0
        decoder_scores = K if config.text_guidance == "decoder" else 0
        dropout, bias = config.dropout, config.head_bias

        self.backbone = STDCNet(config.backbone)
        self.context_path = ContextPath(TEXT_CHANNELS + encoder_scores)
        self.fusion = FeatureFusionModule(256, CONTEXT_CHANNELS, 256)
        self.head = SegmentationHead(256 + decoder_scores, 256, K, dropout=dropout, bias=bias)
        self.auxiliary_head8 = SegmentationHead(CONTEXT_CHANNELS, 64, K, dropout=dropout, bias=bias)
        self.auxiliary_head16 = SegmentationHead(
            CONTEXT_CHANNELS, 64, K, dropout=dropout, bias=bias
        )
        self.detail_head = SegmentationHead(256, 64, 1, bias=bias)
        for child in self.children():
            if child is not self.backbone:
                init_decoder_weights(child)
        self.register_buffer("text_embeddings", _checked_embeddings(config, text_embeddings))

    def forward(
        self, images: Tensor, text_embeddings: Tensor | None = None
    ) -> Tensor | SegmentationOutput:
        """Segment a batch.

        Args:
            images: N×3×H×W normalised RGB; H and W at least 32, any value above. Training needs
                N ≥ 2: batch normalisation of the image-wide averages sees one value per image.
            text_embeddings: K×1024 unit rows that take the place of the buffer for this call, with
                gradient: the prompts that stage 2 learns.

        Returns:
            In evaluation the logits, N×K×⌈H/8⌉×⌈W/8⌉; in training a `SegmentationOutput`.

        Raises:
            InputError: Images below 32 pixels, or embeddings for a baseline network.
        """
        if min(images.shape[2:]) < MIN_IMAGE_SIZE:
            raise InputError(
                f"The images are {images.shape[2]}×{images.shape[3]}; the network needs at least "
                f"{MIN_IMAGE_SIZE} pixels in height and width. Resize them."
            )
        features = self.backbone(images)
        f4, scores = self._guide(features.f4, text_embeddings)
        context = self.context_path(features.f3, f4, features.f2.shape[2:])
        fused = self.fusion(features.f2, context.stride8)
        if self.config.text_guidance == "decoder":
            assert scores is not None
            # Bilinear, like the logits: our choice.
            scores_up = F.interpolate(
                scores, fused.shape[2:], mode="bilinear", align_corners=self.config.align_corners
            )
            fused = torch.cat([fused, scores_up], dim=1)
        logits: Tensor = self.head(fused)
        if not self.training:
            return logits
        return SegmentationOutput(
            logits,
            (self.auxiliary_head8(context.stride8), self.auxiliary_head16(context.stride16)),
            scores,
            self.detail_head(features.f2),
        )

    def _guide(self, f4: Tensor, text_embeddings: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Score map of F4, and F4 as the context path wants it: with the map beside it or raw."""
        text = self.text_embeddings if text_embeddings is None else text_embeddings
        if self.config.text_guidance is None:
            if text is not None:
                raise InputError(
                    "This network has no text guidance, so it takes no text embeddings; build it "
                    'with text_guidance="encoder" to use them.'
                )
            return f4, None
        assert text is not None  # __init__ saw to it
        guided = score_map_concat(f4, text)
        scores = guided[:, f4.shape[1] :]
        return (guided if self.config.text_guidance == "encoder" else f4), scores


def _checked_embeddings(config: STDCSegConfig, text_embeddings: Tensor | None) -> Tensor | None:
    if config.text_guidance is None:
        if text_embeddings is not None:
            raise ConfigError("text_embeddings are given, but text_guidance is None; drop one.")
        return None
    expected = (config.num_classes, TEXT_CHANNELS)
    if text_embeddings is None:
        raise ConfigError(
            f'text_guidance is "{config.text_guidance}" but there are no text_embeddings; give a '
            f"tensor of shape {expected}."
        )
    if tuple(text_embeddings.shape) != expected:
        raise ConfigError(
            f"text_embeddings have shape {tuple(text_embeddings.shape)}; {config.num_classes} "
            f"classes need {expected}, as wide as the backbone's last feature map."
        )
    embeddings = text_embeddings.detach().float().clone()
    norms = embeddings.norm(dim=1)
    if not torch.allclose(norms, torch.ones_like(norms), atol=1e-3):
        raise ConfigError(
            f"text_embeddings have row norms from {norms.min():.4g} to {norms.max():.4g}; the "
            "score map needs unit rows. Normalise them."
        )
    return embeddings
