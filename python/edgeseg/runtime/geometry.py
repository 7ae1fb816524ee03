"""Where a frame lies in the network's input, and where its labels lie in the logits."""

from __future__ import annotations

from dataclasses import dataclass

from edgeseg import _core
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
    content, source = _core.place(
        frame,
        (network_input.height, network_input.width),
        resize=network_input.resize,
        logits=logits,
        align_corners=align_corners,
    )
    return Placement(content, source)
