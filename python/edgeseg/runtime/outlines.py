"""Connected parts of a label map, and the outlines of their pixels.

Outlines run along the pixels' edges, not through their centres: a part of n pixels encloses n
square pixels, be it one pixel wide, and neighbours share their border. That is what GeoJSON's and
COCO's readers expect. A corner (x, y) is the outer corner of pixel x of row y: (0, 0) is the top
left corner of the image, (width, height) the bottom right one.

Parts hang together by edges (4 neighbours). Joined at a corner only, an outline would touch
itself, which valid polygons must not.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from edgeseg.arguments import check_number

Ring = NDArray[np.int32]
"""n×2, n ≥ 3: (x, y) of the corners of a closed line; the first one is not repeated."""


@dataclass(frozen=True, eq=False)
class Part:
    """Pixels of one class that hang together.

    Attributes:
        class_id: index of the class.
        area: number of pixels.
        box: x, y, width and height of the smallest rectangle around them, in pixels.
        mask: height×width uint8, 1 where the rectangle holds the part.
    """

    class_id: int
    area: int
    box: tuple[int, int, int, int]
    mask: NDArray[np.uint8]

    def mean(self, image: NDArray[np.float32]) -> float:
        """Mean of an H×W image over the part."""
        x, y, width, height = self.box
        return float(image[y : y + height, x : x + width][self.mask != 0].mean())


def checked_limits(min_area: float, simplify: float) -> tuple[float, float]:
    """What `Result`'s outlines take as arguments.

    Raises:
        InputError: one is negative, or not a number.
    """
    return (
        check_number("min_area", min_area, 0),
        check_number("simplify", simplify, 0, 1_000_000),
    )


def parts(labels: NDArray[np.uint8], classes: int, min_area: float = 0) -> Iterator[Part]:
    """The parts of class after class, each class from top to bottom.

    Args:
        labels: H×W; labels of `classes` and above are no class.
        classes: K.
        min_area: fewest pixels of a part.
    """
    # All classes at once: OpenCV would go over the map once for each.
    height, width = labels.shape
    start, end = _runs(labels)
    values = labels.ravel()[start]
    part_of_run = _join(start, end, values, width, height)
    # What a part's first run is called, its pixels are called.
    numbers = part_of_run.repeat(end - start).reshape(height, width)
    order = np.lexsort((part_of_run, values))
    start, end, part_of_run, values = start[order], end[order], part_of_run[order], values[order]
    first = np.flatnonzero(np.diff(part_of_run, prepend=-1))
    rows, left, right = start // width, start % width, (end - 1) % width + 1
    lowest, highest, total = np.minimum.reduceat, np.maximum.reduceat, np.add.reduceat
    x, y, area = lowest(left, first), lowest(rows, first), total(end - start, first)
    w, h = highest(right, first) - x, highest(rows, first) + 1 - y
    for index in np.flatnonzero((values[first] < classes) & (area >= min_area)):
        box = int(x[index]), int(y[index]), int(w[index]), int(h[index])
        window = numbers[box[1] : box[1] + box[3], box[0] : box[0] + box[2]]
        mask = (window == part_of_run[first[index]]).view(np.uint8)
        yield Part(int(values[first[index]]), int(area[index]), box, mask)


def outline(part: Part, simplify: float = 0.0) -> tuple[Ring, list[Ring]]:
    """A part's outer ring and its holes: a valid polygon.

    Rings do not cross or touch themselves; two of them may meet in single points.

    Args:
        part: what to draw.
        simplify: how far, in pixels, a ring may be moved to save corners (Douglas-Peucker). Less
            is done where rings would touch: half, a quarter, nothing.
    """
    # Twice as large, every pixel of an edge has a centre beside that edge.
    twice = part.mask.repeat(2, axis=0).repeat(2, axis=1)
    contours, hierarchy = cv2.findContours(twice, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    # One part has one outer contour; which of the list it is, is not promised.
    order = np.argsort(hierarchy[0, :, 3] >= 0, kind="stable")
    corner = np.array(part.box[:2], np.int32)
    exact = [_edges(_points(contours[index])) + corner for index in order]
    for tolerance in (simplify, simplify / 2, simplify / 4) if simplify > 0 else ():
        simple = [_points(cv2.approxPolyDP(ring, tolerance, closed=True)) for ring in exact]
        if _is_polygon(simple):
            return simple[0], simple[1:]
    return exact[0], exact[1:]


def _runs(labels: NDArray[np.uint8]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Where pixels of one label follow each other in a row: first pixels, and those after the last.

    Pixels count row after row.
    """
    begins = np.ones(labels.shape, np.bool_)
    np.not_equal(labels[:, 1:], labels[:, :-1], out=begins[:, 1:])
    start = np.flatnonzero(begins)
    return start, np.append(start[1:], labels.size)


def _join(
    start: NDArray[np.int64],
    end: NDArray[np.int64],
    values: NDArray[np.uint8],
    width: int,
    height: int,
) -> NDArray[np.int64]:
    """For each run the first one of its part, by their indices."""
    # Runs of the next row that overlap: those that end behind its start and begin before its end.
    first = np.searchsorted(end, start + width, side="right")
    count = np.searchsorted(start, end + width, side="left") - first
    count[start >= width * (height - 1)] = 0
    upper = np.arange(len(start)).repeat(count)
    lower = np.arange(len(upper)) + (first - (np.cumsum(count) - count)).repeat(count)
    same = values[upper] == values[lower]
    upper, lower = upper[same], lower[same]
    # Union-find, all pairs at once: the lower root wins, then everybody points at a root.
    root = np.arange(len(start))
    while len(upper):
        a, b = root[upper], root[lower]
        np.minimum.at(root, np.maximum(a, b), np.minimum(a, b))
        while not np.array_equal(nearer := root[root], root):
            root = nearer
        apart = root[upper] != root[lower]
        upper, lower = upper[apart], lower[apart]
    return root


def _edges(contour: Ring) -> Ring:
    """Corners along the edges, of a contour through pixel centres at twice the size."""
    ring = (contour + 1) >> 1
    ring = ring[(ring != _turned(ring)).any(axis=1)]
    # Edges are upright or level: where both neighbours share x or y, there is no corner.
    before, after = _turned(ring), _turned(ring, -1)
    corners: Ring = ring[~((ring == before) & (ring == after)).any(axis=1)]
    return corners


def _turned(ring: Ring, by: int = 1) -> Ring:
    """Each point's neighbour before it, or behind it (-1); `np.roll`, without its overhead."""
    return np.concatenate((ring[-by:], ring[:-by]))


def _points(contour: cv2.typing.MatLike) -> Ring:
    return contour.reshape(-1, 2).astype(np.int32, copy=False)


def _is_polygon(rings: list[Ring]) -> bool:
    """Whether the first ring holds the others, beside each other, and none touches any."""
    if any(len(ring) < 3 for ring in rings) or _touch(rings):
        return False
    exterior, *holes = rings
    points = [(float(x), float(y)) for x, y in (hole[0].tolist() for hole in holes)]
    if any(cv2.pointPolygonTest(exterior, point, False) < 0 for point in points):
        return False
    return not any(
        cv2.pointPolygonTest(hole, point, False) > 0
        for index, hole in enumerate(holes)
        for other, point in enumerate(points)
        if other != index
    )


def _touch(rings: list[Ring]) -> bool:
    """Whether lines of the rings cross, touch or overlap other than at their common corner."""
    start = np.concatenate(rings).astype(np.int64)
    end = np.concatenate([_turned(ring, -1) for ring in rings]).astype(np.int64)
    firsts = np.cumsum([0] + [len(ring) for ring in rings])
    index = np.arange(len(start))
    following = index + 1
    following[firsts[1:] - 1] = firsts[:-1]
    # A line that goes back on the one before it.
    way, next_way = end - start, (end - start)[following]
    folded = (_cross(way, next_way) == 0) & ((way * next_way).sum(axis=1) < 0)
    if folded.any():
        return True
    low, high = np.minimum(start, end), np.maximum(start, end)
    for first in range(0, len(start), 256):
        rows = slice(first, first + 256)
        near = (low[rows, None] <= high[None]).all(axis=2) & (high[rows, None] >= low[None]).all(2)
        i, j = np.nonzero(near)
        i += first
        apart = (i < j) & (following[i] != j) & (following[j] != i)
        i, j = i[apart], j[apart]
        a, b, c, d = start[i], end[i], start[j], end[j]
        # Each line's ends lie on both sides of the other, or on it.
        one = np.sign(_cross(b - a, c - a)) * np.sign(_cross(b - a, d - a))
        other = np.sign(_cross(d - c, a - c)) * np.sign(_cross(d - c, b - c))
        if ((one <= 0) & (other <= 0)).any():
            return True
    return False


def _cross(a: NDArray[np.int64], b: NDArray[np.int64]) -> NDArray[np.int64]:
    product: NDArray[np.int64] = a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]
    return product
