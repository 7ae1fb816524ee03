"""Where a frame lies in the network's input, and where its labels lie in the logits."""

from __future__ import annotations

from dataclasses import dataclass

from edgeseg.engine_file import Input


@dataclass(frozen=True)
class Placement:
    """How one frame size maps to the network and back.

    Attributes:
        content: (y, x, height, width) in input pixels: the frame is resized into it.
        source: (y, x, height, width) in logit coordinates, as `upsample_argmax` defines them: the
            labels cover it.
    """

    content: tuple[int, int, int, int]
    source: tuple[float, float, float, float]


def place(
    frame: tuple[int, int],
    network_input: Input,
    logits: tuple[int, int],
    *,
    align_corners: bool,
) -> Placement:
    """Place a frame of a (height, width) in the network's input by the engine's resize mode.

    Args:
        frame: (height, width) of the frame.
        network_input: size and resize mode.
        logits: (height, width) of the logit grid.
        align_corners: how logits relate to input pixels: corner centres coincide, or edges do.
    """
    size = (network_input.height, network_input.width)
    extent = size
    if network_input.resize == "letterbox":
        scale = min(size[0] / frame[0], size[1] / frame[1])
        extent = (max(1, round(frame[0] * scale)), max(1, round(frame[1] * scale)))
    offset = ((size[0] - extent[0]) // 2, (size[1] - extent[1]) // 2)
    if align_corners:
        # Distances between centres: n pixels span n - 1 steps.
        ratio = [(grid - 1) / (n - 1) for grid, n in zip(logits, size, strict=True)]
        span = (extent[0] - 1, extent[1] - 1)
    else:
        ratio = [grid / n for grid, n in zip(logits, size, strict=True)]
        span = extent
    return Placement(
        content=(*offset, *extent),
        source=(
            offset[0] * ratio[0],
            offset[1] * ratio[1],
            span[0] * ratio[0],
            span[1] * ratio[1],
        ),
    )
