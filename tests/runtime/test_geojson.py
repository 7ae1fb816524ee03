"""GeoJSON: drawn again by its definition, and examined by shapely, as many of its readers do."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from numpy.typing import NDArray
from tests.runtime.test_result import blobs, result

from edgeseg.errors import InputError

LABELS = arrays(
    np.uint8,
    array_shapes(min_dims=2, max_dims=2, max_side=12),
    elements=st.sampled_from([0, 1, 255]),
)


def shapes(collection: dict[str, Any]) -> list[Any]:
    """Its features as shapely's polygons, through text as a reader gets them."""
    features = json.loads(json.dumps(collection))["features"]
    return [shapely.geometry.shape(feature["geometry"]) for feature in features]


def drawn(collection: dict[str, Any], shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """Label of every pixel whose centre a polygon holds; none may be held twice."""
    labels = np.full(shape, 255, np.uint8)
    ys, xs = np.mgrid[: shape[0], : shape[1]] + 0.5
    for feature, polygon in zip(collection["features"], shapes(collection), strict=True):
        inside = shapely.contains_xy(polygon, xs, ys)
        assert (labels[inside] == 255).all()
        labels[inside] = feature["properties"]["class_id"]
    return labels


def assert_valid(collection: dict[str, Any]) -> None:
    for polygon in shapes(collection):
        assert polygon.is_valid, shapely.is_valid_reason(polygon)
        assert polygon.exterior.is_ccw
        assert not any(hole.is_ccw for hole in polygon.interiors)


def assert_exact(collection: dict[str, Any]) -> None:
    for feature, polygon in zip(collection["features"], shapes(collection), strict=True):
        assert polygon.area == feature["properties"]["area"]


@settings(max_examples=80, deadline=None)
@given(LABELS)
def test_every_label_map_comes_back(labels: NDArray[np.uint8]) -> None:
    collection = result(labels).geojson()
    assert_valid(collection)
    assert_exact(collection)
    np.testing.assert_array_equal(drawn(collection, labels.shape), labels)


def test_what_a_reader_sees() -> None:
    labels = np.full((3, 4), 1, np.uint8)
    labels[1, 1:3] = 255
    collection = result(labels).geojson()
    assert collection["type"] == "FeatureCollection"
    assert collection["image"]["width"], collection["image"]["height"] == (4, 3)
    assert "y down, (0, 0) is the outer corner of the top left pixel" in str(collection["image"])
    (feature,) = collection["features"]
    assert feature["properties"] == {"class_id": 1, "class_name": "sky", "area": 10}
    exterior, hole = feature["geometry"]["coordinates"]
    assert exterior[0] == exterior[-1]
    assert {tuple(corner) for corner in exterior} == {(0, 0), (4, 0), (4, 3), (0, 3)}
    assert {tuple(corner) for corner in hole} == {(1, 1), (3, 1), (3, 2), (1, 2)}


def test_parts_that_meet_in_a_corner_are_two() -> None:
    areas = [f["properties"]["area"] for f in result([[0, 255], [255, 0]]).geojson()["features"]]
    assert areas == [1, 1]


def test_min_area_counts_pixels() -> None:
    one = result([[0, 0, 255, 0], [255, 255, 255, 255], [1, 1, 1, 255]])
    areas = [f["properties"]["area"] for f in one.geojson(min_area=2)["features"]]
    assert areas == [2, 3]
    assert one.geojson(min_area=3.5)["features"] == []


def test_confidence_of_a_part_is_its_mean() -> None:
    one = replace(result([[0, 0, 1]]), confidence=np.array([[0.5, 0.75, 0.25]], np.float32))
    found = [f["properties"]["confidence"] for f in one.geojson()["features"]]
    assert found == [0.625, 0.25]


@pytest.mark.parametrize("tolerance", [1.0, 2.0, 4.0, 20.0])
def test_simplified_polygons_stay_valid_and_near(tolerance: float) -> None:
    one = result(np.kron(blobs(60, 80, 1), np.ones((2, 2), np.uint8)))
    exact, simple = shapes(one.geojson()), shapes(one.geojson(simplify=tolerance))
    assert_valid(one.geojson(simplify=tolerance))
    for before, after in zip(exact, simple, strict=True):
        assert before.exterior.hausdorff_distance(after.exterior) <= tolerance + 1e-9
    corners = [sum(shapely.get_num_coordinates(p) for p in found) for found in (exact, simple)]
    assert corners[1] < corners[0]


def test_transform_to_the_world() -> None:
    labels = blobs(20, 30, 2)
    one = result(labels)
    a, b, c, d, e, f = north_up = (0.5, 0.0, 600_000.0, 0.0, -0.5, 5_800_000.0)
    collection = one.geojson(transform=north_up)
    assert_valid(collection)
    assert collection["image"]["transform"] == list(north_up)
    for pixel, world, feature in zip(
        shapes(one.geojson()), shapes(collection), collection["features"], strict=True
    ):
        moved = shapely.affinity.affine_transform(pixel, (a, b, d, e, c, f))
        assert world.equals(moved)
        assert world.area == pytest.approx(0.25 * feature["properties"]["area"])
    three_rows = [[0.5, 0, 600_000], [0, -0.5, 5_800_000], [0, 0, 1]]
    assert one.geojson(transform=three_rows) == collection  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"min_area": -1}, "min_area is -1 number"),
        ({"simplify": float("inf")}, "simplify is inf number"),
        ({"transform": (1, 0, 0)}, "transform six numbers rasterio"),
        ({"transform": "north"}, "transform north six numbers"),
        ({"transform": (1, 0, 0, 0, float("nan"), 0)}, "transform six finite"),
        ({"transform": (1, 0, 0, 0, 1, 0, 0, 0, 2)}, "transform six numbers"),
        ({"transform": (600_000.0, 0.5, 0.0, 0.0, 0.0, -0.5)}, "no inverse Affine.from_gdal"),
    ],
)
def test_refused(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError) as raised:
        result([[0]]).geojson(**arguments)
    assert all(word in str(raised.value) for word in words.split()), str(raised.value)
