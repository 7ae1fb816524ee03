"""Labels that do not flicker from frame to frame of a video."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

import cv2
import numpy as np
from numpy.typing import NDArray

from edgeseg.arguments import check_integer, check_number
from edgeseg.runtime.result import Result

SURE = 0.6
"""With 3 frames it takes out two thirds of the flicker, and at 30 frames a second costs no accuracy
and 0.2 points of mIoU: benchmarks/results/smoothing.md."""

_CUT = 1 / 3
"""Share of pixels that change at once only where the scene does: by a drive at 5 frames a second
at most a quarter, from one street to another 0.29 to 0.44."""

_MOST_FRAMES = 250


class Smoother:
    """Holds each pixel's label until another one is sure, or stays.

    A new label takes a pixel at once where its confidence is at least `sure`, otherwise when it has
    come `frames` times in a row. Without confidence, only the second counts. Nothing of the frames
    is looked at, so it makes no difference where they were labelled.

    Starts anew when the size changes, and when a third of the pixels do, as at a cut.
    """

    def __init__(self, frames: int = 3, sure: float = SURE) -> None:
        """Keep nothing yet.

        Args:
            frames: 1 (nothing is held) to 250.
            sure: 0 (nothing is held) to 1.

        Raises:
            InputError: an argument is out of range.
        """
        self._frames = check_integer("frames", frames, 1, _MOST_FRAMES)
        self._sure = check_number("sure", sure, 0, 1)
        # Labels given last, labels that came last, and how often they have come in a row.
        self._held = self._last = self._seen = np.empty((0, 0), np.uint8)

    def __call__(self, result: Result) -> Result:
        """The result of the next frame, with smoothed labels.

        Where a label is held against what the frame shows, the confidence is 0: that of the label
        held is not known.
        """
        labels, confidence = result.labels, result.confidence
        if labels.shape != self._held.shape or self._is_cut(labels):
            self._held = self._last = labels
            self._seen = np.ones(labels.shape, np.uint8)
            return result
        again = cv2.compare(labels, self._last, cv2.CMP_EQ)  # 255 where it is so
        cv2.bitwise_and(self._seen, again, self._seen)
        np.minimum(self._seen, self._frames - 1, out=self._seen)
        self._seen += 1
        taken = self._seen >= self._frames
        if confidence is not None:
            taken |= confidence >= self._sure
        self._last = labels
        self._held = self._held.copy()
        cv2.copyTo(labels, taken.view(np.uint8), self._held)
        if confidence is not None:
            as_seen = cv2.compare(self._held, labels, cv2.CMP_EQ)
            confidence = cv2.copyTo(confidence, as_seen).astype(np.float32, copy=False)
        return replace(result, labels=self._held, confidence=confidence)

    def _is_cut(self, labels: NDArray[np.uint8]) -> bool:
        differs = cv2.countNonZero(cv2.compare(labels, self._held, cv2.CMP_NE))
        return differs > _CUT * labels.size


def smooth(results: Iterable[Result], frames: int = 3, sure: float = SURE) -> Iterator[Result]:
    """Smooth the labels of a video over time; see `Smoother`.

        for result in edgeseg.smooth(runtime.stream("drive.mp4", confidence=True)):
            ...

    No frame is waited for, and no more is kept than three maps of the frame's size. What moves
    or appears shows up to `frames` − 1 frames later where the network is not sure of it.

    Args:
        results: in the order of the frames; with confidence, if there is time for it.
        frames: as for `Smoother`.
        sure: as for `Smoother`.

    Raises:
        InputError: an argument is out of range.
    """
    smoother = Smoother(frames, sure)
    return map(smoother, results)
