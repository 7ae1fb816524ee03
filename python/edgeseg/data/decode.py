"""Decoding a whole split in threads, with one account of all that is wrong in it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from edgeseg.classes import IGNORE
from edgeseg.data.memory import available_memory
from edgeseg.data.split import UNREADABLE, Coding, Pair, Split, first_few, read_values
from edgeseg.errors import InputError
from edgeseg.images import read_image

Progress = Callable[[int, int], None]
"""Told how many images are done, of how many."""

_MEMORY_SHARE = 0.8  # the rest is for training itself
_MEASURED_IMAGES = 32


def decode(
    split: Split, max_side: int | None = None, progress: Progress | None = None
) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """Decode all images and labels of a split.

    Args:
        split: What to decode.
        max_side: Larger pictures are made smaller, until their longer side has so many pixels.
        progress: Called after each image.

    Returns:
        RGB images uint8, 3×H×W each, and labels uint8, H×W each.

    Raises:
        InputError: The split is empty, too large for the memory, without any labelled pixel, or
            holds files that cannot be used: all of them are counted and the first few named.
    """
    if not split.pairs:
        raise InputError("the split holds no image; put images and labels into its folders")
    _check_memory(split.pairs, max_side)
    results: list[_Decoded | InputError] = []
    with ThreadPoolExecutor() as pool:  # OpenCV and Pillow release the GIL
        work = partial(_decode, coding=split.coding, max_side=max_side)
        for result in pool.map(work, split.pairs):
            results.append(result)
            if progress is not None:
                progress(len(results), len(split.pairs))
    decoded = [result for result in results if isinstance(result, _Decoded)]
    _raise_problems(split, results, decoded)
    if all(bool((d.labels == IGNORE).all()) for d in decoded):
        raise InputError(
            f"no pixel in {len(decoded)} label files has a class, all are {IGNORE} or ignored "
            f"values; first {split.pairs[0].labels}. Test sets are often published so: choose "
            "another split"
        )
    return tuple(d.image for d in decoded), tuple(d.labels for d in decoded)


def channels_first(image: NDArray[Any]) -> Tensor:
    """H×W×3 BGR uint8 pixels as a 3×H×W RGB tensor."""
    return torch.from_numpy(np.ascontiguousarray(image[..., ::-1].transpose(2, 0, 1)))


@dataclass(frozen=True)
class _Decoded:
    pair: Pair
    image: Tensor
    labels: Tensor
    unknown: Counter[int]


def _decode(pair: Pair, coding: Coding, max_side: int | None) -> _Decoded | InputError:
    try:
        image = read_image(pair.image)
        values = read_values(pair.labels, in_colours=coding.in_colours)
    except InputError as error:
        return error
    height, width = image.shape[:2]
    if values.shape != (height, width):
        return InputError(
            f"{pair.labels} is {values.shape[1]}×{values.shape[0]} but its image {pair.image.name} "
            f"is {width}×{height}; make both the same size"
        )
    labels, unknown = coding.labels(values)
    smaller = _fit((width, height), max_side)
    if smaller != (width, height):
        image = cv2.resize(image, smaller, interpolation=cv2.INTER_AREA).astype(np.uint8)
        labels = cv2.resize(labels, smaller, interpolation=cv2.INTER_NEAREST_EXACT).astype(np.uint8)
    return _Decoded(pair, channels_first(image), torch.from_numpy(labels), unknown)


def _fit(size: tuple[int, int], max_side: int | None) -> tuple[int, int]:
    """Width and height with the longer one at most ``max_side``."""
    scale = 1.0 if max_side is None else min(1.0, max_side / max(size))
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def _raise_problems(
    split: Split, results: Sequence[_Decoded | InputError], decoded: Sequence[_Decoded]
) -> None:
    complaints = []
    if failures := [result for result in results if isinstance(result, InputError)]:
        listed = "\n  ".join(str(failure) for failure in failures[:5])
        more = f"\n  and {len(failures) - 5:,} more" if len(failures) > 5 else ""
        complaints.append(
            f"{len(failures):,} of {len(results):,} images with labels cannot be used:\n"
            f"  {listed}{more}"
        )
    if foreign := [d for d in decoded if d.unknown]:
        pixels: Counter[int] = Counter()
        files: Counter[int] = Counter()
        for d in foreign:
            pixels.update(d.unknown)
            files.update(d.unknown.keys())
        kind = "colours" if split.coding.in_colours else "values"
        listed = first_few(
            (
                f"{split.coding.describe(value)} ({count:,} pixels in {files[value]:,} file"
                f"{'s' if files[value] > 1 else ''})"
                for value, count in pixels.most_common()
            ),
            limit=10,
        )
        complaints.append(
            f"{len(foreign):,} of {len(results):,} label files hold {kind} without a class: "
            f"{listed}.\n  First files: {first_few(d.pair.labels for d in foreign)}.\n"
            f"  Expected {split.coding.expected}"
        )
    if complaints:
        raise InputError("\n".join(complaints))


def _check_memory(pairs: Sequence[Pair], max_side: int | None) -> None:
    """Compare what a sample of the images' headers foretells with what there is."""
    available = available_memory()
    sizes = [_size(pair.image) for pair in pairs[:: max(1, len(pairs) // _MEASURED_IMAGES)]]
    known = [size for size in sizes if size is not None]
    if available is None or not known:
        return
    pixels = [width * height for width, height in (_fit(size, max_side) for size in known)]
    needed = 4 * len(pairs) * sum(pixels) // len(pixels)  # R, G, B and the label
    if needed > _MEMORY_SHARE * available:
        width, height = known[0]
        raise InputError(
            f"{len(pairs):,} images, the first of {width}×{height}, need {needed / 1e9:.1f} GB of "
            f"memory once decoded, but of the {available / 1e9:.1f} GB that are free "
            f"{_MEMORY_SHARE:.0%} may be used; decode them smaller with --max-side (in Python "
            f"max_side), for instance {max(width, height) // 2}, or take a machine with more memory"
        )


def _size(path: Path) -> tuple[int, int] | None:
    """Width and height from a file's header; None where it cannot be read."""
    try:
        with Image.open(path) as picture:
            return picture.size
    except UNREADABLE:
        return None
