"""Surface detail as tiles of noise, brick, leaf and twig, all from fixed seeds."""

from __future__ import annotations

import math
from functools import lru_cache
from random import Random

import cv2
import numpy as np
from numpy.typing import NDArray

from edgeseg.synthetic.canvas import Colour, Image

Noise = NDArray[np.float32]
"""Two-dimensional noise of mean 0 and standard deviation 1."""

TILE = 512
"""Side of the noise tiles in samples; they wrap around."""


@lru_cache(maxsize=8)
def noise_tile(roughness: float) -> Noise:
    """A tile of fractal noise, TILE×TILE, that wraps around.

    Args:
        roughness: Power-law exponent of the amplitude spectrum: 0 is white, 1 mottled, 2 cloudy.
    """
    rng = np.random.default_rng(int(1000 * roughness) + 1)
    spectrum = np.fft.rfft2(rng.standard_normal((TILE, TILE)))
    fy = np.fft.fftfreq(TILE)[:, None]
    fx = np.fft.rfftfreq(TILE)[None, :]
    radius = np.hypot(fx, fy)
    radius[0, 0] = np.inf
    tile = np.fft.irfft2(spectrum / np.maximum(radius, 1.0 / TILE) ** roughness, (TILE, TILE))
    return ((tile - tile.mean()) / tile.std()).astype(np.float32)


def noise_patch(roughness: float, height: int, width: int, seed: int) -> Noise:
    """A height×width cut of the noise tile at a place that the seed chooses."""
    random = Random(seed)
    tile = noise_tile(roughness)
    top, left = random.randrange(TILE), random.randrange(TILE)
    rows = np.arange(top, top + height) % TILE
    columns = np.arange(left, left + width) % TILE
    return tile[rows][:, columns]


def sample_noise(
    roughness: float, x: NDArray[np.float32], y: NDArray[np.float32], pitch: float
) -> Noise:
    """Noise at points in metres, `pitch` metres apart per sample, bilinear and wrapping."""
    scale = np.float32(1.0 / pitch)
    return cv2.remap(
        _wrapped_tile(roughness),
        np.mod(x * scale, np.float32(TILE)),
        np.mod(y * scale, np.float32(TILE)),
        cv2.INTER_LINEAR,
    )


@lru_cache(maxsize=8)
def _wrapped_tile(roughness: float) -> Noise:
    """The tile with its first row and column repeated, so that plain remap may wrap."""
    return np.pad(noise_tile(roughness), ((0, 1), (0, 1)), mode="wrap")


def modulate(texture: Image, factor: Noise) -> Image:
    """Multiply a BGR texture by a grey factor around 1."""
    return cv2.multiply(texture, cv2.merge([factor] * 3), dtype=cv2.CV_8U)


def plain(colour: Colour, height: int, width: int) -> Image:
    """A texture of one colour."""
    texture = np.empty((height, width, 3), np.uint8)
    texture[:] = np.clip(colour, 0, 255)
    return texture


def rough(colour: Colour, height: int, width: int, strength: float, seed: int) -> Image:
    """Plaster, concrete, tarmac: one colour with fine grain and large stains."""
    grain = noise_patch(0.5, height, width, seed)
    small = noise_patch(1.6, max(1, height // 4), max(1, width // 4), seed + 1)
    stains = cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR)
    factor = 1.0 + np.float32(strength) * (0.5 * grain + stains)
    return modulate(plain(colour, height, width), factor)


def masonry(
    colour: Colour,
    height: int,
    width: int,
    *,
    density: float,
    course: float,
    length: float,
    joint: Colour,
    variety: float,
    seed: int,
) -> Image:
    """Bricks, blocks or roof tiles in running bond.

    Args:
        colour: Mean colour of a brick.
        height: Pixels.
        width: Pixels.
        density: Pixels per metre.
        course: Height of a course in metres.
        length: Length of a brick in metres.
        joint: Colour of the joints.
        variety: Standard deviation of the bricks' brightness, relative.
        seed: Chooses the noise.
    """
    y = np.arange(height) / (density * course)
    x = np.arange(width) / (density * length)
    rows = y.astype(int)
    bricks = noise_patch(0.3, rows[-1] + 1, int(x[-1]) + 2, seed)
    columns = (x[None, :] + 0.5 * (rows[:, None] % 2)).astype(int)
    tone = 1.0 + np.float32(variety) * bricks[rows[:, None], columns]
    tone *= 1.0 + np.float32(0.07) * noise_patch(1.6, height, width, seed + 1)
    texture = modulate(plain(colour, height, width), tone)
    # Joints narrower than a pixel fade into the mean colour.
    if density * course >= 3.0:
        lines = (y - rows) * density * course < 1.0
        ends = np.mod(x[None, :] + 0.5 * (rows[:, None] % 2), 1.0) * density * length < 1.0
        mortar = ends | lines[:, None]
        texture[mortar] = np.clip(0.6 * texture[mortar] + 0.4 * np.array(joint), 0, 255)
    return texture


@lru_cache(maxsize=32)
def crown(kind: str, seed: int, size: int) -> Image:
    """A tree crown seen from the side, size×size×4 BGRA, lit from the upper left.

    Args:
        kind: "leafy" (round), "poplar" (narrow), "conifer" or "bare" (twigs).
        seed: Chooses the shape.
        size: Pixels.
    """
    random = Random(seed)
    y, x = np.mgrid[0:size, 0:size].astype(np.float32) / size
    envelope = np.full((size, size), -1.0, np.float32)
    if kind == "conifer":
        envelope = 1.0 - np.abs(x - 0.5) / (0.05 + 0.42 * y) - 0.6 * (y > 0.97)
        envelope = np.minimum(envelope, 1.0) * 0.6
    else:
        spread = 0.16 if kind == "poplar" else 0.27
        for _ in range(9):
            radius = random.uniform(0.14, 0.24)
            angle, reach = random.uniform(0, 2 * math.pi), random.uniform(0, 1) ** 0.5
            cx = 0.5 + spread * reach * math.cos(angle)
            cy = 0.5 + 0.29 * reach * math.sin(angle)
            blob = 1.0 - np.hypot(x - cx, y - cy) / radius
            np.maximum(envelope, blob, out=envelope)
    clump = _stretched_noise(1.3, size, size // 2, seed)
    leaf = _stretched_noise(0.6, size, size, seed + 1)
    density = envelope + 0.16 * clump + 0.10 * leaf
    # The relief of the clumps, lit from above: their upper sides are bright.
    shift = max(1, size // 24)
    relief = clump - np.roll(clump, -shift, axis=0)
    tone = 0.80 + 0.20 * relief + 0.13 * leaf + 0.30 * (0.5 - y) + 0.10 * (0.5 - x)
    alpha = np.clip(density * 14.0, 0.0, 1.0)
    if kind == "bare":
        alpha, tone = _twigs(random, envelope, size)
    texture = np.empty((size, size, 4), np.uint8)
    texture[..., :3] = np.clip(128.0 * tone, 8, 255)[..., None]
    texture[..., 3] = 255.0 * alpha
    return texture


def _stretched_noise(roughness: float, size: int, samples: int, seed: int) -> Noise:
    patch = noise_patch(roughness, max(2, samples), max(2, samples), seed)
    return cv2.resize(patch, (size, size), interpolation=cv2.INTER_LINEAR)


def _twigs(random: Random, envelope: Noise, size: int) -> tuple[Noise, Noise]:
    """Alpha and tone of branches that fork, with a haze of twigs between them."""
    lines = np.zeros((size, size), np.uint8)
    unit = 16  # sub-pixel steps of cv2.line with shift=4
    stack = [(0.5, 1.0, -math.pi / 2, 0.26, 5)]
    while stack:
        x, y, angle, length, level = stack.pop()
        x2, y2 = x + length * math.cos(angle), y + length * math.sin(angle)
        start = (int(x * size * unit), int(y * size * unit))
        end = (int(x2 * size * unit), int(y2 * size * unit))
        shade = (255, 255, 255, 220, 170, 130)[5 - level]
        cv2.line(lines, start, end, (shade,), max(1, level * size // 130), cv2.LINE_AA, shift=4)
        if level > 0:
            for _ in range(3):
                turn = random.uniform(-0.75, 0.75)
                stack.append((x2, y2, angle + turn, length * random.uniform(0.6, 0.85), level - 1))
                x2, y2 = x2 - 0.3 * (x2 - x), y2 - 0.3 * (y2 - y)
    twigs = lines.astype(np.float32) / 255.0
    haze = np.clip(envelope * 3.0, 0.0, 1.0) * np.clip(
        0.30 + 0.3 * _stretched_noise(0.4, size, size, random.randrange(1 << 16)), 0.0, 0.8
    )
    return np.maximum(twigs, haze), np.full_like(twigs, 0.9)


@lru_cache(maxsize=4)
def foliage(seed: int, size: int) -> Noise:
    """Brightness of a clipped hedge, size×size, mean about 1."""
    clump = _stretched_noise(1.2, size, size // 2, seed)
    leaf = _stretched_noise(0.3, size, size, seed + 1)
    relief = clump - np.roll(clump, -max(1, size // 40), axis=0)
    return np.clip(0.95 + 0.25 * relief + 0.22 * leaf, 0.2, 2.0)
