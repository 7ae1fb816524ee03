"""Properties of the kernels that have no other such test: any shapes, strides and values."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.kernels import reference
from tests.kernels.cases import DType, channels_last, decode, encode, storage
from tests.kernels.levels import at_level

from edgeseg import _core

seeds = st.integers(0, 2**32 - 1)


@given(
    shape=st.tuples(st.integers(1, 2), st.integers(1, 70), st.integers(1, 6), st.integers(1, 9)),
    classes=st.integers(1, 20),
    dtype=st.sampled_from(["float32", "float16", "bfloat16"]),
    scale=st.sampled_from([0.0, 1e-3, 1.0, 300.0, 6e4]),
    last=st.tuples(st.booleans(), st.booleans()),
    threads=st.integers(1, 4),
    level=st.sampled_from(_core.dispatch_levels()),
    seed=seeds,
)
@settings(max_examples=150, deadline=None)
def test_score_map_is_the_cosine_and_keeps_the_features(
    shape: tuple[int, int, int, int],
    classes: int,
    dtype: DType,
    scale: float,
    last: tuple[bool, bool],
    threads: int,
    level: str,
    seed: int,
) -> None:
    random = np.random.default_rng(seed)
    features = encode((random.uniform(-1, 1, shape) * scale).astype(np.float32), dtype)
    text = random.normal(size=(classes, shape[1])).astype(np.float32)
    text /= np.linalg.norm(text, axis=1, keepdims=True)
    out = np.empty((shape[0], shape[1] + classes, *shape[2:]), storage(dtype))
    features = channels_last(features) if last[0] else features
    out = channels_last(out) if last[1] else out
    with at_level(level):
        _core.score_map_concat(features, text, out, bfloat16=dtype == "bfloat16", threads=threads)
    np.testing.assert_array_equal(out[:, : shape[1]], features)
    scores = decode(out[:, shape[1] :], dtype)
    want = reference.score_map(decode(features, dtype), text)
    tolerance = {"float32": 2e-6, "float16": 6e-4, "bfloat16": 5e-3}[dtype]
    np.testing.assert_allclose(scores, want, rtol=0, atol=tolerance)


@given(
    size=st.tuples(st.integers(1, 40), st.integers(1, 90)),
    padding=st.tuples(*[st.integers(0, 5)] * 3),
    alpha=st.integers(0, 256),
    in_place=st.booleans(),
    threads=st.integers(1, 4),
    level=st.sampled_from(_core.dispatch_levels()),
    seed=seeds,
)
@settings(max_examples=150, deadline=None)
def test_overlay_is_its_formula(
    size: tuple[int, int],
    padding: tuple[int, int, int],
    alpha: int,
    in_place: bool,
    threads: int,
    level: str,
    seed: int,
) -> None:
    random = np.random.default_rng(seed)
    height, width = size

    def pixels(extra: int, *channels: int) -> np.ndarray:
        shape = (height, width + extra, *channels)
        return random.integers(0, 256, shape, dtype=np.uint8)[:, :width]

    frame, labels = pixels(padding[0], 3), pixels(padding[1])
    out = frame if in_place else pixels(padding[2], 3)
    palette = random.integers(0, 256, (256, 3), dtype=np.uint8)
    want = reference.overlay(frame, labels, palette, alpha)
    around = out.base.copy()
    with at_level(level):
        _core.overlay(frame, labels, palette, out, alpha=alpha, threads=threads)
    np.testing.assert_array_equal(out, want)
    np.testing.assert_array_equal(out.base[:, width:], around[:, width:])
