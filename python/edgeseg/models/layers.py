"""The convolution block that every part of STDC-Seg is made of."""

from torch import Tensor, nn


class ConvBNReLU(nn.Module):
    """Convolution without bias, batch normalisation, ReLU.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        kernel_size: Odd; the input is padded to keep its size at stride 1.
        stride: Output size is ⌈input / stride⌉.
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int, stride: int = 1
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(
            in_channels, out_channels, kernel_size, stride, padding=kernel_size // 2, bias=False
        )
        self.bn = nn.BatchNorm2d(out_channels)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """N×C_in×H×W → N×C_out×⌈H/stride⌉×⌈W/stride⌉."""
        out: Tensor = self.relu(self.bn(self.conv(x)))
        return out


def init_decoder_weights(module: nn.Module) -> None:
    """Kaiming-normal with a = 1, as STDC-Seg initialises every convolution but the backbone's."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, a=1)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
