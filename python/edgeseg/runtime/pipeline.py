"""What a Runtime needs of the device that it runs on."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from edgeseg.runtime.frames import Frame
from edgeseg.runtime.result import Timings


class Pipeline(Protocol):
    """From a frame to its labels on one device; many threads may use it at once.

    Attributes:
        name: what runs the network, e.g. "openvino".
        device: where it runs, as the backend names it.
        precision: number format of the inference, e.g. "bfloat16".
        logits: (K, height, width) of the network's output.
    """

    name: str
    device: str
    precision: str
    logits: tuple[int, int, int]

    def label(
        self, frame: Frame, confidence: bool
    ) -> tuple[NDArray[np.uint8], NDArray[np.float32] | None, Timings]:
        """Labels H×W uint8, their softmax probabilities H×W float32 if wanted, and the time."""
