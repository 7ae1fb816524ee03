"""Context path and feature fusion of STDC-Seg (section 3.2 of Fan et al.; from BiSeNet)."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgeseg.models.layers import ConvBNReLU

CONTEXT_CHANNELS = 128


class AttentionRefinementModule(nn.Module):
    """Scales the channels of a 3×3 convolution by a gate computed from their global average."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = ConvBNReLU(in_channels, out_channels, kernel_size=3)
        self.gate = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(out_channels, out_channels, kernel_size=1, bias=False),
            nn.BatchNorm2d(out_channels),
            nn.Sigmoid(),
        )

    def forward(self, x: Tensor) -> Tensor:
        """N×C_in×H×W → N×C_out×H×W."""
        x = self.conv(x)
        out: Tensor = x * self.gate(x)
        return out


class Context(NamedTuple):
    """What the context path hands on, 128 channels each."""

    stride8: Tensor
    stride16: Tensor


class ContextPath(nn.Module):
    """Brings the context of strides 32 and 16, and of the whole image, up to stride 8.

    Args:
        f4_channels: Channels of the stride-32 input: 1024, and K more where a score map
            accompanies the features.
    """

    def __init__(self, f4_channels: int) -> None:
        super().__init__()
        self.conv_avg = ConvBNReLU(f4_channels, CONTEXT_CHANNELS, kernel_size=1)
        self.arm32 = AttentionRefinementModule(f4_channels, CONTEXT_CHANNELS)
        self.arm16 = AttentionRefinementModule(512, CONTEXT_CHANNELS)
        self.conv_head32 = ConvBNReLU(CONTEXT_CHANNELS, CONTEXT_CHANNELS, kernel_size=3)
        self.conv_head16 = ConvBNReLU(CONTEXT_CHANNELS, CONTEXT_CHANNELS, kernel_size=3)

    def forward(self, f3: Tensor, f4: Tensor, stride8_size: tuple[int, int]) -> Context:
        """Fuse top down.

        Args:
            f3: N×512×⌈H/16⌉×⌈W/16⌉.
            f4: N×f4_channels×⌈H/32⌉×⌈W/32⌉.
            stride8_size: Height and width of the stride-8 output.
        """
        whole_image = self.conv_avg(F.adaptive_avg_pool2d(f4, 1))
        context32 = self.arm32(f4) + whole_image
        # Sizes are given, not factors: ⌈H/16⌉ may be 2⌈H/32⌉ - 1 (23×30 → 45×60 at 720×960).
        stride16 = self.conv_head32(F.interpolate(context32, f3.shape[2:], mode="nearest"))
        context16 = self.arm16(f3) + stride16
        stride8 = self.conv_head16(F.interpolate(context16, stride8_size, mode="nearest"))
        return Context(stride8, stride16)


class FeatureFusionModule(nn.Module):
    """Fuses spatial detail (F2) with context, then re-weights the channels by a residual gate."""

    def __init__(self, spatial_channels: int, context_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = ConvBNReLU(spatial_channels + context_channels, out_channels, kernel_size=1)
        self.gate = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(out_channels, out_channels // 4, kernel_size=1, bias=False),
            nn.ReLU(inplace=True),
            nn.Conv2d(out_channels // 4, out_channels, kernel_size=1, bias=False),
            nn.Sigmoid(),
        )

    def forward(self, spatial: Tensor, context: Tensor) -> Tensor:
        """N×C_s×h×w and N×C_c×h×w → N×C_out×h×w."""
        x = self.conv(torch.cat([spatial, context], dim=1))
        out: Tensor = x * self.gate(x) + x
        return out
