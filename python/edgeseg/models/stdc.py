"""STDC backbones (Fan et al., *Rethinking BiSeNet for Real-time Semantic Segmentation*, CVPR 2021).

A Short-Term Dense Concatenate (STDC) module halves its channels at every convolution and
concatenates what all of them see, so one module carries several receptive fields at the price of
little more than one convolution.
"""

from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from edgeseg.models.layers import ConvBNReLU

BackboneName = Literal["stdc1", "stdc2"]

# STDC modules at strides 8, 16 and 32: table 2 of the paper (STDCNet813 and STDCNet1446).
STAGE_DEPTHS: dict[BackboneName, tuple[int, int, int]] = {
    "stdc1": (2, 2, 2),
    "stdc2": (4, 5, 3),
}


class Features(NamedTuple):
    """What the backbone hands on; the paper's F1 to F4. Each size is ⌈previous / 2⌉."""

    f1: Tensor
    """Stride 4, 64 channels."""
    f2: Tensor
    """Stride 8, 256 channels."""
    f3: Tensor
    """Stride 16, 512 channels."""
    f4: Tensor
    """Stride 32, 1024 channels."""


class STDCModule(nn.Module):
    """Short-Term Dense Concatenate module of four blocks (section 3.1, "cat" fusion).

    A 1×1 convolution to half the channels, then 3×3 convolutions to 1/4, 1/8 and 1/8; the output
    concatenates all four. At stride 2 a depthwise 3×3 convolution halves the resolution after the
    1×1, whose own output is average-pooled before it is concatenated.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        half, quarter, eighth = out_channels // 2, out_channels // 4, out_channels // 8
        self.blocks = nn.ModuleList(
            [
                ConvBNReLU(in_channels, half, kernel_size=1),
                ConvBNReLU(half, quarter, kernel_size=3),
                ConvBNReLU(quarter, eighth, kernel_size=3),
                ConvBNReLU(eighth, eighth, kernel_size=3),
            ]
        )
        self.downsample: nn.Module = nn.Identity()
        self.skip: nn.Module = nn.Identity()
        if stride == 2:
            self.downsample = nn.Sequential(
                nn.Conv2d(half, half, 3, stride=2, padding=1, groups=half, bias=False),
                nn.BatchNorm2d(half),
            )
            self.skip = nn.AvgPool2d(3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """N×C_in×H×W → N×C_out×⌈H/stride⌉×⌈W/stride⌉."""
        first, *rest = self.blocks
        x = first(x)
        outputs = [self.skip(x)]
        x = self.downsample(x)
        for block in rest:
            x = block(x)
            outputs.append(x)
        return torch.cat(outputs, dim=1)


class STDCNet(nn.Module):
    """STDC1 (STDCNet813) or STDC2 (STDCNet1446), without the classifier.

    Args:
        name: ``"stdc1"`` or ``"stdc2"``.
    """

    def __init__(self, name: BackboneName) -> None:
        super().__init__()
        self.name = name
        depth8, depth16, depth32 = STAGE_DEPTHS[name]
        self.stem = nn.Sequential(ConvBNReLU(3, 32, 3, stride=2), ConvBNReLU(32, 64, 3, stride=2))
        self.stage8 = _stage(64, 256, depth8)
        self.stage16 = _stage(256, 512, depth16)
        self.stage32 = _stage(512, 1024, depth32)
        self._init_weights()

    def _init_weights(self) -> None:
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, mode="fan_out")

    def forward(self, images: Tensor) -> Features:
        """N×3×H×W normalised RGB → features at strides 4, 8, 16 and 32."""
        f1 = self.stem(images)
        f2 = self.stage8(f1)
        f3 = self.stage16(f2)
        return Features(f1, f2, f3, self.stage32(f3))


def _stage(in_channels: int, out_channels: int, depth: int) -> nn.Sequential:
    first = STDCModule(in_channels, out_channels, stride=2)
    return nn.Sequential(
        first, *(STDCModule(out_channels, out_channels, stride=1) for _ in range(depth - 1))
    )
