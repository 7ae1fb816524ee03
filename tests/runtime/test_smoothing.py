"""Temporal smoothing, against the rule as it is written, one pixel after the other."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tests.runtime.test_result import result

import edgeseg
from edgeseg.errors import InputError

HEIGHT, WIDTH = 12, 15


def frames_of(labels: Any, confidence: Any = None) -> Iterator[edgeseg.Result]:
    """Results whose frame cannot be looked at, as if it had never left a GPU."""
    for index, map_of_frame in enumerate(labels):
        one = replace(result(map_of_frame), frame=None)  # type: ignore[arg-type]
        yield one if confidence is None else replace(one, confidence=confidence[index])


def noisy(frames: int, rate: float, seed: int) -> NDArray[np.uint8]:
    """Labels of a scene that stands still, some of them wrong in every frame."""
    rng = np.random.default_rng(seed)
    scene = rng.integers(0, 3, (HEIGHT, WIDTH), np.uint8)
    wrong = rng.random((frames, HEIGHT, WIDTH)) < rate
    return np.where(wrong, rng.integers(0, 3, wrong.shape, np.uint8), scene)


def by_the_rule(
    labels: NDArray[np.uint8], confidence: NDArray[np.float32] | None, frames: int, sure: float
) -> NDArray[np.uint8]:
    """What comes out where no scene is cut."""
    out = labels.copy()
    for y, x in np.ndindex(labels.shape[1:]):
        for t in range(1, len(labels)):
            in_a_row = 1
            while in_a_row <= t and labels[t - in_a_row, y, x] == labels[t, y, x]:
                in_a_row += 1
            is_sure = confidence is not None and confidence[t, y, x] >= sure
            taken = is_sure or in_a_row >= frames
            out[t, y, x] = labels[t, y, x] if taken else out[t - 1, y, x]
    return out


@pytest.mark.parametrize("frames", [1, 2, 3, 6])
@pytest.mark.parametrize("with_confidence", [False, True])
def test_follows_the_rule(frames: int, with_confidence: bool) -> None:
    labels = noisy(20, 0.2, frames)
    confidence = None
    if with_confidence:
        confidence = np.random.default_rng(1).random(labels.shape, np.float32)
    found = list(edgeseg.smooth(frames_of(labels, confidence), frames, 0.8))
    expected = by_the_rule(labels, confidence, frames, 0.8)
    np.testing.assert_array_equal([one.labels for one in found], expected)
    assert found[0].labels.dtype == np.uint8
    if confidence is not None:
        for one, before, seen in zip(found, confidence, labels, strict=True):
            assert one.confidence is not None
            np.testing.assert_array_equal(one.confidence, np.where(one.labels == seen, before, 0))


@pytest.mark.parametrize("shape", [(1, 1), (4, 1), (1, 4), (3, 4)])
def test_small_frames_are_not_taken_for_numbers(shape: tuple[int, int]) -> None:
    labels = np.random.default_rng(0).integers(0, 2, (30, *shape), np.uint8)
    confidence = np.random.default_rng(1).random(labels.shape, np.float32)
    labels[:, 0, 0] = np.arange(30) % 2
    changes = [
        (np.stack([one.labels for one in found])[1:] != labels[1:]).sum()
        for found in (
            edgeseg.smooth(frames_of(labels, confidence), 2, 0.5),
            edgeseg.smooth(frames_of(labels), 2),
        )
    ]
    assert changes[0] <= changes[1]


def test_one_frame_or_any_confidence_changes_nothing() -> None:
    labels = noisy(10, 0.2, 0)
    confidence = np.zeros(labels.shape, np.float32)
    for frames, sure in ((1, 1.0), (9, 0.0)):
        found = edgeseg.smooth(frames_of(labels, confidence), frames, sure)
        np.testing.assert_array_equal([one.labels for one in found], labels)


def test_less_flicker_and_nearer_to_the_scene() -> None:
    labels = noisy(60, 0.1, 3)
    found = np.stack([one.labels for one in edgeseg.smooth(frames_of(labels))])

    def flicker(clip: NDArray[np.uint8]) -> float:
        return float((clip[1:] != clip[:-1]).mean())

    assert flicker(found) < flicker(labels) / 4
    scene = np.apply_along_axis(lambda seen: np.bincount(seen).argmax(), 0, labels)
    assert (found != scene).mean() < (labels != scene).mean() / 4


def test_a_cut_or_another_size_begins_anew() -> None:
    road, sky = np.zeros((8, 9), np.uint8), np.ones((8, 9), np.uint8)
    partly = road.copy()
    partly[:2] = 1  # a quarter: something comes into sight
    shown = [one.labels for one in edgeseg.smooth(frames_of([road, partly, sky, road[:4]]))]
    np.testing.assert_array_equal(shown[1], road)
    np.testing.assert_array_equal(shown[2], sky)
    np.testing.assert_array_equal(shown[3], road[:4])


def test_frames_are_not_waited_for_and_not_kept() -> None:
    alive = []

    def watched() -> Iterator[edgeseg.Result]:
        for one in frames_of(noisy(12, 0.1, 5)):
            alive.append(weakref.ref(one.labels))
            yield one

    for count, one in enumerate(edgeseg.smooth(watched()), 1):
        assert len(alive) == count
        del one
    assert sum(labels() is not None for labels in alive) <= 1


def test_of_a_runtime(tiny_engine: Path) -> None:
    runtime = edgeseg.Runtime(tiny_engine)
    rng = np.random.default_rng(0)
    frames = [rng.integers(0, 256, (32, 48, 3), np.uint8) for _ in range(4)]
    labels = np.stack([one.labels for one in runtime.predict_batch(frames)])
    found = list(edgeseg.smooth(runtime.stream(frames, confidence=True), 2))
    assert len(found) == 4
    np.testing.assert_array_equal(found[0].labels, labels[0])
    assert found[3].timings.total > 0
    assert found[3].overlay().shape == (32, 48, 3)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"frames": 0}, "frames is 0.*from 1 to 250"),
        ({"frames": 2.5}, r"frames is 2\.5"),
        ({"sure": 1.5}, r"sure is 1\.5.*from 0 to 1"),
    ],
)
def test_refused_before_a_frame_is_taken(arguments: dict[str, Any], words: str) -> None:
    smooth: Callable[..., Any] = edgeseg.smooth
    with pytest.raises(InputError, match=words):
        smooth(iter([]), **arguments)
