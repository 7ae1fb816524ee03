"""The confusion matrix as a picture."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from edgeseg.errors import OutputError
from edgeseg.evaluate.scores import Scores
from edgeseg.files import replacing

_FORMATS = (".png", ".pdf", ".svg")


def check_picture_path(path: Path) -> None:
    """Refuse, before long work, a file that :func:`write_confusion` could not write.

    Raises:
        OutputError: The suffix is no format known here, or the folder does not exist.
    """
    if path.suffix.lower() not in _FORMATS:
        raise OutputError(
            f"cannot write {path}: {path.suffix or 'no suffix'!r} is no format known here; end the "
            f"name in {', '.join(_FORMATS[:-1])} or {_FORMATS[-1]}"
        )
    if not path.parent.is_dir():
        raise OutputError(f"cannot write {path}: the folder {path.parent} does not exist")


def write_confusion(path: Path, scores: Scores) -> None:
    """Draw the confusion matrix: of each class's labelled pixels, the share predicted as each.

    Every row sums to 100 %; rows of classes that are never labelled stay empty. Shares are written
    out from half a per cent on.

    Raises:
        OutputError: The file cannot be written.
    """
    from matplotlib.figure import Figure

    check_picture_path(path)
    labelled = scores.confusion.sum(1, keepdims=True)
    shares = scores.confusion / np.maximum(labelled, 1)
    K = len(scores.classes)
    side = 2.5 + 0.45 * K
    figure = Figure(figsize=(side, side), layout="constrained")
    axes = figure.add_subplot()
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axes.set_xticks(range(K), scores.classes, rotation=45, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(K), scores.classes)
    axes.set_xlabel("predicted")
    axes.set_ylabel("labelled")
    axes.set_title(f"% of the labelled pixels; mIoU {scores.miou:.1%}")
    for (row, column), share in np.ndenumerate(shares):
        if share >= 0.005:
            colour = "white" if share > 0.5 else "black"
            axes.text(column, row, f"{100 * share:.0f}", ha="center", va="center", color=colour)
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=150)
