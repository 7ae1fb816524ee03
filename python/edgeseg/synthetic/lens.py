"""From the painted canvas to a photograph: haze, exposure, blur, vignette, noise, compression."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from random import Random

import cv2
import numpy as np
from numpy.typing import NDArray

from edgeseg.synthetic.canvas import Canvas, Image
from edgeseg.synthetic.light import Light
from edgeseg.synthetic.textures import TILE, noise_tile

REFERENCE_WIDTH = 480.0
"""Image width in pixels that blur is stated for."""

BLUR_SEEN = 0.25
"""Standard deviation in pixels below which blur changes nothing."""


@dataclass(frozen=True)
class Lens:
    """Properties of a camera's optics and processing.

    Attributes:
        exposure: Gain.
        gamma: Exponent of the tone curve; above 1 darkens the shadows.
        saturation: 0 grey, 1 as painted.
        warmth: Gain of red over blue, 0 neutral.
        vignette: Loss of light in the corners, 0..1.
        blur: Standard deviation in pixels at `REFERENCE_WIDTH`.
        noise: Standard deviation in grey levels.
        quality: JPEG quality, or None for no compression.
    """

    exposure: float
    gamma: float
    saturation: float
    warmth: float
    vignette: float
    blur: float
    noise: float
    quality: int | None


def sample_lens(random: Random) -> Lens:
    """Draw a camera."""
    return Lens(
        exposure=random.triangular(0.75, 1.6, 1.2),
        gamma=random.uniform(0.95, 1.5),
        saturation=random.uniform(0.5, 1.05),
        warmth=random.uniform(-0.09, 0.05),
        vignette=random.uniform(0.0, 0.35),
        blur=random.uniform(0.3, 0.8),
        noise=random.triangular(0.8, 5.0, 2.0),
        quality=random.choice((None, 95, 85, 70)),
    )


def wet_reflection(canvas: Canvas, light: Light, road: int) -> None:
    """Mirror the scene in the wet road, in place."""
    horizon = round(canvas.camera.horizon)
    height = canvas.camera.height
    if light.wetness <= 0.0 or not 1 < horizon < height - 1:
        return
    rows = np.arange(horizon, height)
    mirror = canvas.frame[np.clip(2 * horizon - rows, 0, horizon)]
    streak = max(1, height // 12)
    mirror = np.asarray(cv2.blur(mirror, (max(1, streak // 8), streak)), np.uint8)
    # Grazing rays are mirrored more (Fresnel, roughly).
    grazing = np.linspace(0.6, 0.15, rows.size, dtype=np.float32)[:, None]
    share = np.where(canvas.labels[horizon:] == road, np.float32(light.wetness) * grazing, 0.0)
    share = np.asarray(cv2.blur(share.astype(np.float32), (3, 3)), np.float32)
    canvas.frame[horizon:] = cv2.blendLinear(mirror, canvas.frame[horizon:], share, 1.0 - share)


def expose(canvas: Canvas, light: Light, lens: Lens, grain: Random) -> Image:
    """The final frame (H×W×3 uint8); `grain` draws this frame's noise."""
    height, width = canvas.labels.shape
    haze = np.empty_like(canvas.frame)
    haze[:] = np.clip(light.horizon, 0.0, 255.0)
    frame = cv2.blendLinear(haze, canvas.frame, canvas.air, 1.0 - canvas.air)
    grey = np.full((3, 3), (1.0 - lens.saturation) / 3.0)
    gains = lens.exposure * np.array([1.0 - lens.warmth, 1.0, 1.0 + lens.warmth])
    frame = cv2.transform(frame, gains[:, None] * (lens.saturation * np.eye(3) + grey))
    sigma = lens.blur * width / REFERENCE_WIDTH
    if sigma > BLUR_SEEN:
        frame = cv2.GaussianBlur(frame, (0, 0), sigma)

    light_field = np.asarray(frame, np.float32)
    y = np.linspace(-1.0, 1.0, height, dtype=np.float32)[:, None]
    x = np.linspace(-1.0, 1.0, width, dtype=np.float32)[None, :]
    light_field *= (1.0 - np.float32(0.5 * lens.vignette) * (x * x + y * y))[..., None]
    top, left = grain.randrange(TILE), grain.randrange(TILE)
    rows, columns = (np.arange(height) + top) % TILE, (np.arange(width) + left) % TILE
    light_field += np.float32(lens.noise) * _sensor_noise()[rows][:, columns]
    developed = np.clip(light_field + np.float32(0.5), 0.0, 255.0).astype(np.uint8)
    curve = np.rint(255.0 * (np.arange(256) / 255.0) ** lens.gamma).astype(np.uint8)
    return _compress(np.asarray(cv2.LUT(developed, curve), np.uint8), lens.quality)


@cache
def _sensor_noise() -> NDArray[np.float32]:
    """White noise, TILE×TILE×3: mostly of brightness, some of colour."""
    tile = noise_tile(0.0)
    shifts = ((0, 0), (171, 59), (83, 301))
    colours = np.stack([np.roll(tile, shift, (0, 1)) for shift in shifts], axis=-1)
    return np.asarray(0.75 * tile[..., None] + 0.65 * colours, np.float32)


def _compress(frame: Image, quality: int | None) -> Image:
    """A frame after JPEG compression, or as it is."""
    if quality is None:
        return frame
    _, coded = cv2.imencode(".jpg", frame, [cv2.IMWRITE_JPEG_QUALITY, quality])
    return np.asarray(cv2.imdecode(coded, cv2.IMREAD_COLOR), np.uint8)
