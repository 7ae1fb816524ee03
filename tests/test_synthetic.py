"""Procedural streets: deterministic, any size, labels that agree with the picture."""

from __future__ import annotations

import subprocess
import sys
from itertools import pairwise

import numpy as np
import pytest

from edgeseg import synthetic
from edgeseg.classes import CAMVID, IGNORE
from edgeseg.errors import InputError

NAMES = CAMVID.names


def share(labels, name):
    return float((labels == NAMES.index(name)).mean())


@pytest.fixture(scope="module")
def streets():
    """A spread of small renderings."""
    return [synthetic.street(seed, 120, 160) for seed in range(16)]


def test_same_seed_gives_the_same_bytes_whatever_the_global_random_state():
    np.random.seed(1)
    first = synthetic.street(3, 96, 128)
    np.random.seed(2)
    synthetic.street(4, 50, 60)  # fills caches with other scenes
    second = synthetic.street(3, 96, 128)
    np.testing.assert_array_equal(first.frame, second.frame)
    np.testing.assert_array_equal(first.labels, second.labels)


def test_rendering_leaves_the_global_random_state_alone():
    np.random.seed(5)
    before = np.random.get_state()[1].copy()
    synthetic.street(0, 40, 60)
    np.testing.assert_array_equal(before, np.random.get_state()[1])


def test_bytes_do_not_depend_on_the_process():
    program = (
        "import hashlib; from edgeseg import synthetic; r = synthetic.street(11, 60, 80);"
        "print(hashlib.sha256(r.frame.tobytes() + r.labels.tobytes()).hexdigest())"
    )
    digests = {
        subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, check=True
        ).stdout
        for _ in range(2)
    }
    assert len(digests) == 1


def test_seeds_give_different_streets(streets):
    assert len({rendering.labels.tobytes() for rendering in streets}) == len(streets)


@pytest.mark.parametrize(
    ("height", "width"), [(1, 1), (33, 47), (64, 64), (50, 400), (301, 97), (360, 480)]
)
def test_any_size(height, width):
    rendering = synthetic.street(7, height, width)
    assert rendering.frame.shape == (height, width, 3)
    assert rendering.frame.dtype == np.uint8
    assert rendering.labels.shape == (height, width)
    assert rendering.labels.dtype == np.uint8


def test_labels_are_camvid_ids_or_ignore(streets):
    seen = np.unique(np.concatenate([np.unique(rendering.labels) for rendering in streets]))
    assert set(seen.tolist()) <= {*range(len(CAMVID)), IGNORE}


def test_every_class_is_seen_and_the_big_ones_are_big(streets):
    means = {name: np.mean([share(r.labels, name) for r in streets]) for name in NAMES}
    assert min(means.values()) > 0.002, means
    for name, low, high in (
        ("road", 0.2, 0.42),
        ("building", 0.12, 0.35),
        ("sky", 0.1, 0.3),
        ("tree", 0.04, 0.2),
    ):
        assert low < means[name] < high, (name, means[name])


def test_the_bonnet_is_the_only_void():
    for seed in range(24):
        scene = synthetic.sample_scene(seed)
        void = synthetic.render(scene, 60, 80).labels == IGNORE
        assert void.any() == (scene.drive.bonnet > 0.0)
        assert not void[:45].any()


def test_sizes_show_the_same_scene():
    scene = synthetic.sample_scene(2)
    small = synthetic.render(scene, 90, 120).labels
    large = synthetic.render(scene, 270, 360).labels[1::3, 1::3]
    assert (small == large).mean() > 0.93


def test_the_sky_is_above_the_road(streets):
    for rendering in streets:
        rows = {
            name: np.nonzero(rendering.labels == NAMES.index(name))[0].mean()
            for name in ("sky", "road")
        }
        assert rows["sky"] < rows["road"]


def test_frame_and_labels_change_at_the_same_places():
    """Most label borders lie where the picture has an edge; most of the picture has none."""
    agree = []
    for seed in range(6):
        rendering = synthetic.street(seed, 180, 240)
        grey = rendering.frame.astype(np.float32).mean(axis=2)
        step = np.abs(np.diff(grey, axis=1))
        border = np.diff(rendering.labels.astype(int), axis=1) != 0
        # Lens blur spreads an edge over a pixel or two.
        agree.append(step[border].mean() / step[~border].mean())
    assert np.median(agree) > 3.0, agree


def test_classes_look_like_themselves():
    """On dry clear days: the sky is brighter than the road, trees in leaf greener than it."""
    bright, green = [], []
    for seed in range(40):
        scene = synthetic.sample_scene(seed)
        if scene.light.clouds >= 0.5 or scene.light.haze > 0.004:
            continue
        rendering = synthetic.render(scene, 90, 120)
        colours = {
            name: rendering.frame[rendering.labels == NAMES.index(name)].astype(float)
            for name in ("sky", "road", "tree")
        }
        bright.append(colours["sky"].mean() - colours["road"].mean())
        if len(colours["tree"]) > 100:
            excess = {
                name: (c[:, 1] - 0.5 * (c[:, 0] + c[:, 2])).mean() for name, c in colours.items()
            }
            green.append(excess["tree"] - excess["road"])
    assert len(bright) >= 5
    assert np.mean(np.array(bright) > 0) > 0.8
    assert np.mean(np.array(green) > 0) > 0.8


def test_a_clip_moves_smoothly():
    moving = next(s for s in range(50) if synthetic.sample_scene(s).drive.speed > 5.0)
    frames = list(synthetic.clip(moving, 90, 120, frames=5, fps=15))
    assert len(frames) == 5
    for before, after in pairwise(frames):
        assert (before.frame != after.frame).any()
        same = (before.labels == after.labels).mean()
        assert 0.85 < same < 1.0
        drift = np.abs(before.frame.astype(int) - after.frame.astype(int)).mean()
        assert drift < 20.0
    assert (frames[0].labels == frames[-1].labels).mean() < 0.995


def test_clip_is_the_scene_at_its_times():
    scene = synthetic.sample_scene(9)
    third = list(synthetic.clip(9, 40, 60, frames=3, fps=10))[2]
    np.testing.assert_array_equal(third.frame, synthetic.render(scene, 40, 60, 0.2).frame)


@pytest.mark.parametrize("time", [-3.0, 1e4, 123.456])
def test_the_street_never_ends(time):
    rendering = synthetic.render(synthetic.sample_scene(1), 60, 80, time)
    assert share(rendering.labels, "road") > 0.05


def test_a_clip_is_rendered_as_it_is_asked_for():
    frames = synthetic.clip(0, 30, 40, frames=10**9)
    assert next(frames).frame.shape == (30, 40, 3)


@pytest.mark.parametrize(
    ("call", "what"),
    [
        (lambda: synthetic.street(0, 0, 10), "height"),
        (lambda: synthetic.street(0, 10, -1), "width"),
        (lambda: synthetic.street(0, 10, 10**6), "width"),
        (lambda: synthetic.street(0, 10.5, 10), "height"),
        (lambda: synthetic.street("one", 10, 10), "seed"),
        (lambda: synthetic.sample_scene(1.5), "seed"),
        (lambda: synthetic.render(synthetic.sample_scene(0), 10, 10, float("nan")), "time"),
        (lambda: synthetic.clip(0, 10, 10, -1), "frames"),
        (lambda: synthetic.clip(0, 10, 10, 2, fps=0.0), "fps"),
        (lambda: synthetic.clip(0, 10, 10, 2, fps=float("inf")), "fps"),
        (lambda: synthetic.clip(0, 0, 10, 2), "height"),
    ],
)
def test_bad_arguments_are_named(call, what):
    with pytest.raises(InputError, match=what):
        call()


def test_numpy_integers_are_integers():
    rendering = synthetic.street(np.int64(3), np.int32(20), np.uint16(30))
    np.testing.assert_array_equal(rendering.frame, synthetic.street(3, 20, 30).frame)
