"""A label map as GeoJSON (RFC 7946)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgeseg.errors import InputError
from edgeseg.runtime.outlines import Ring, checked_limits, outline, parts

if TYPE_CHECKING:
    from edgeseg.runtime.result import Result

PIXELS = "pixels; x to the right, y down, (0, 0) is the outer corner of the top left pixel"
WORLD = "the transform's; x = a·column + b·row + c, y = d·column + e·row + f"


def feature_collection(
    result: Result,
    *,
    min_area: float = 0.0,
    simplify: float = 0.0,
    transform: Sequence[float] | None = None,
) -> dict[str, Any]:
    """See `Result.geojson`."""
    min_area, simplify = checked_limits(min_area, simplify)
    matrix = None if transform is None else _matrix(transform)
    features = []
    for part in parts(result.labels, len(result.classes), min_area):
        exterior, holes = outline(part, simplify)
        rings = [_positions(exterior, matrix, clockwise=False)]
        rings += [_positions(hole, matrix, clockwise=True) for hole in holes]
        properties: dict[str, Any] = {
            "class_id": part.class_id,
            "class_name": result.classes[part.class_id],
            "area": part.area,
        }
        if result.confidence is not None:
            properties["confidence"] = round(part.mean(result.confidence), 4)
        geometry = {"type": "Polygon", "coordinates": rings}
        features.append({"type": "Feature", "properties": properties, "geometry": geometry})
    height, width = result.labels.shape
    image: dict[str, Any] = {"width": width, "height": height, "coordinates": PIXELS}
    if matrix is not None:
        image |= {"coordinates": WORLD, "transform": matrix.ravel().tolist()}
    return {"type": "FeatureCollection", "image": image, "features": features}


def _positions(
    ring: Ring, matrix: NDArray[np.float64] | None, *, clockwise: bool
) -> list[list[float]]:
    """A closed ring that turns as RFC 7946 wants it: by the numbers, as if y went up."""
    points = ring if matrix is None else ring @ matrix[:, :2].T + matrix[:, 2]
    if (_doubled_area(points) < 0) != clockwise:
        points = points[::-1]
    positions: list[list[float]] = points.tolist()
    return [*positions, positions[0]]


def _doubled_area(points: NDArray[np.generic]) -> float:
    """Twice the signed area inside a ring; positive counter-clockwise, where y goes up."""
    around = points.astype(np.float64) - points[0]  # far from 0, products would lose digits
    x, y = around[:, 0], around[:, 1]
    return float(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1)))


def _matrix(transform: Sequence[float]) -> NDArray[np.float64]:
    """2×3: from (column, row, 1) to (x, y)."""
    try:
        numbers = np.asarray(transform, np.float64).ravel()
    except (TypeError, ValueError):
        numbers = np.empty(0)
    if numbers.size == 9 and numbers[6:].tolist() == [0, 0, 1]:  # affine.Affine, a 3×3 matrix
        numbers = numbers[:6]
    if numbers.size != 6 or not np.isfinite(numbers).all():
        raise InputError(
            f"the transform is {transform!r}; six finite numbers a, b, c, d, e, f were expected, "
            "as rasterio's dataset.transform holds them (of GDAL's order: Affine.from_gdal)"
        )
    matrix = numbers.reshape(2, 3)
    if np.linalg.det(matrix[:, :2]) == 0:
        raise InputError(
            f"the transform {numbers.tolist()} has no inverse: it makes every pixel a line or a "
            "point; a, b, c, d, e, f were expected (of GDAL's order: Affine.from_gdal)"
        )
    return matrix
