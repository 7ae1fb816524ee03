"""Surface detail as tiles of noise, brick, leaf and twig, all from fixed seeds."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache, lru_cache
from random import Random

import cv2
import numpy as np
from numpy.typing import NDArray

from edgeseg.synthetic.canvas import Colour, Image, tinted

Noise = NDArray[np.float32]
"""Two-dimensional noise of mean 0 and standard deviation 1."""

TILE = 512
"""Side of the noise tiles in samples; they wrap around."""


@cache
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
    return np.asarray((tile - tile.mean()) / tile.std(), np.float32)


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
    tiles = np.float32(1.0 / (pitch * TILE))
    u, v = x * tiles, y * tiles
    u -= np.floor(u)
    v -= np.floor(v)
    u *= np.float32(TILE)
    v *= np.float32(TILE)
    return np.asarray(cv2.remap(_wrapped_tile(roughness), u, v, cv2.INTER_LINEAR), np.float32)


@cache
def _wrapped_tile(roughness: float) -> Noise:
    """The tile with its first row and column repeated, so that plain remap may wrap."""
    return np.pad(noise_tile(roughness), ((0, 1), (0, 1)), mode="wrap")


@dataclass(frozen=True)
class Bond:
    """How stones or tiles are laid; lengths in metres, tones relative to the mean stone.

    Attributes:
        course: Height of a course.
        length: Length of a stone.
        variety: Standard deviation of the stones' brightness.
        joint: Brightness of the joints.
    """

    course: float
    length: float
    variety: float
    joint: float


BONDS = {
    "brick": Bond(course=0.075, length=0.225, variety=0.13, joint=1.3),
    "stone": Bond(course=0.35, length=0.7, variety=0.06, joint=0.7),
    "tiles": Bond(course=0.28, length=0.3, variety=0.13, joint=0.45),
    "plaster": Bond(course=1e9, length=1e9, variety=0.0, joint=1.0),
}

WALL_TILE = 20.0
"""Side in metres of the cached piece of wall that all walls of a bond are cut from."""

MIDDLE = 128.0
"""Grey level of tone 1 in tiles that are yet to be coloured."""


def wall(bond: str, colour: Colour, height: int, width: int, density: float, seed: int) -> Image:
    """A bare wall or roof.

    Args:
        bond: Key of `BONDS`.
        colour: Mean colour of the stones.
        height: Pixels.
        width: Pixels.
        density: Pixels per metre.
        seed: Chooses the piece.
    """
    tile = _wall_tile(bond, density)
    random = Random(seed)
    side = tile.shape[0]
    if height <= side and width <= side:
        # A share of the slack, so that all densities cut the same piece.
        top = round(random.random() * (side - height))
        left = round(random.random() * (side - width))
        piece = tile[top : top + height, left : left + width]
    else:
        piece = tile[np.arange(height) % side][:, np.arange(width) % side]
    b, g, r = colour
    return tinted(piece, (b / MIDDLE, g / MIDDLE, r / MIDDLE))


@cache
def _wall_tile(bond: str, density: float) -> Image:
    side = round(WALL_TILE * density)
    laid = BONDS[bond]
    y = np.arange(side)[:, None] / (density * laid.course)
    rows = y.astype(int)
    x = np.arange(side)[None, :] / (density * laid.length) + 0.5 * (rows % 2)
    columns = x.astype(int)
    tone = 1.0 + np.float32(laid.variety) * noise_tile(0.3)[rows % TILE, columns % TILE]
    # Stains and grain on top; they blur with distance like everything else.
    stains = cv2.resize(noise_tile(1.6), (side, side), interpolation=cv2.INTER_AREA)
    grain = noise_patch(0.5, side, side, seed=1)
    tone = tone * (1.0 + np.float32(0.06) * stains + np.float32(0.03) * grain)
    if density * laid.course >= 3.0:  # in coarser tiles the joints are lost in the mean
        level = (y - rows) * density * laid.course < 1.0
        upright = (x - columns) * density * laid.length < 1.0
        tone = np.where(level | upright, 0.5 * (tone + laid.joint), tone)
    grey = np.clip(MIDDLE * tone, 0.0, 255.0).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=2)


@lru_cache(maxsize=128)
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
    leaf = _stretched_noise(0.5, size, size, seed + 1)
    density = envelope + 0.16 * clump + 0.10 * leaf
    # The relief of the clumps, lit from above: their upper sides are bright.
    shift = max(1, size // 24)
    relief = clump - np.roll(clump, -shift, axis=0)
    tone = 0.80 + 0.20 * relief + 0.13 * leaf + 0.30 * (0.5 - y) + 0.10 * (0.5 - x)
    alpha = np.clip(density * 14.0, 0.0, 1.0)
    if kind == "bare":
        alpha, tone = _twigs(random, envelope, size)
    texture = np.empty((size, size, 4), np.uint8)
    texture[..., :3] = np.clip(MIDDLE * tone, 8, 255)[..., None]
    texture[..., 3] = 255.0 * alpha
    return texture


@lru_cache(maxsize=64)
def twig_outline(seed: int, size: int) -> Image:
    """Outline of a bare crown, size×size, 255 inside: around the twigs, not between them."""
    alpha = crown("bare", seed, size)[..., 3]
    around = cv2.blur(alpha, (size // 12, size // 12))
    return np.where(around > 40, np.uint8(255), np.uint8(0))


def _stretched_noise(roughness: float, size: int, samples: int, seed: int) -> Noise:
    patch = noise_patch(roughness, max(2, samples), max(2, samples), seed)
    stretched = cv2.resize(patch, (size, size), interpolation=cv2.INTER_LINEAR)
    return np.asarray(stretched, np.float32)


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
        0.30 + 0.3 * _stretched_noise(0.5, size, size, random.randrange(1 << 16)), 0.0, 0.8
    )
    return np.maximum(twigs, haze), np.full_like(twigs, 0.9)


@lru_cache(maxsize=4)
def foliage(seed: int, size: int) -> Noise:
    """Brightness of a clipped hedge, size×size, mean about 1."""
    clump = _stretched_noise(1.3, size, size // 2, seed)
    leaf = _stretched_noise(0.3, size, size, seed + 1)
    relief = clump - np.roll(clump, -max(1, size // 40), axis=0)
    return np.clip(0.95 + 0.25 * relief + 0.22 * leaf, 0.2, 2.0)
