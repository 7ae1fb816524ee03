"""The prediction head, used for classes, auxiliary classes and detail."""

from torch import Tensor, nn

from edgeseg.models.layers import ConvBNReLU


class SegmentationHead(nn.Module):
    """3×3 convolution block, dropout, 1×1 convolution.

    Args:
        in_channels: Channels of the input.
        mid_channels: Channels between the two convolutions.
        out_channels: Number of classes, or 1 for detail.
        dropout: Probability of dropping a whole channel before the last convolution.
        bias: Whether the last convolution has a bias. STDC-Seg's has none, mmsegmentation's has.
    """

    def __init__(
        self,
        in_channels: int,
        mid_channels: int,
        out_channels: int,
        *,
        dropout: float = 0.0,
        bias: bool = False,
    ) -> None:
        super().__init__()
        self.conv = ConvBNReLU(in_channels, mid_channels, kernel_size=3)
        self.dropout = nn.Dropout2d(dropout)
        self.classify = nn.Conv2d(mid_channels, out_channels, kernel_size=1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """N×C_in×h×w → logits N×C_out×h×w."""
        out: Tensor = self.classify(self.dropout(self.conv(x)))
        return out
