"""From the painted canvas to a photograph: haze, exposure, blur, vignette, noise, compression."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

import cv2
import numpy as np

from edgeseg.synthetic.canvas import Canvas, Image
from edgeseg.synthetic.light import Light
from edgeseg.synthetic.textures import TILE, noise_tile

REFERENCE_WIDTH = 480.0
"""Image width in pixels that blur is stated for."""


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
        exposure=random.triangular(0.6, 1.25, 0.95),
        gamma=random.uniform(0.95, 1.35),
        saturation=random.uniform(0.65, 1.15),
        warmth=random.uniform(-0.06, 0.06),
        vignette=random.uniform(0.0, 0.35),
        blur=random.uniform(0.3, 0.8),
        noise=random.triangular(0.8, 5.0, 2.0),
        quality=random.choice((None, 95, 85, 70)),
    )


def wet_reflection(canvas: Canvas, light: Light, road: int) -> None:
    """Mirror the scene in the wet road, in place."""
    horizon = round(canvas.camera.horizon)
    rows = canvas.camera.height - max(horizon, 0)
    if light.wetness <= 0.0 or horizon <= 1 or rows <= 1:
        return
    below = slice(horizon, canvas.camera.height)
    mirror_rows = np.clip(2 * horizon - np.arange(horizon, canvas.camera.height), 0, horizon)
    mirror = canvas.frame[mirror_rows]
    streak = max(1, canvas.camera.height // 12)
    mirror = cv2.blur(mirror, (max(1, streak // 8), streak))
    # Grazing rays are mirrored more (Fresnel, roughly).
    grazing = np.linspace(1.0, 0.25, rows, dtype=np.float32)[:, None]
    share = np.where(canvas.labels[below] == road, 0.6 * light.wetness * grazing, 0.0)
    share = cv2.blur(share.astype(np.float32), (3, 3))[..., None]
    blended = canvas.frame[below] * (1.0 - share) + mirror * share
    canvas.frame[below] = blended.astype(np.uint8)


def expose(canvas: Canvas, light: Light, lens: Lens, grain: Random) -> Image:
    """The final frame (H×W×3 uint8); `grain` draws this frame's noise."""
    height, width = canvas.labels.shape
    frame = canvas.frame.astype(np.float32)
    clear = np.exp(-np.float32(light.haze) * canvas.depth)
    clear[np.isinf(canvas.depth)] = 1.0
    haze = np.array(light.horizon, np.float32)
    frame -= haze
    frame *= clear[..., None]
    frame += haze

    grey = np.full((3, 3), 1.0 / 3.0) * (1.0 - lens.saturation)
    gains = lens.exposure * np.array([1.0 - lens.warmth, 1.0, 1.0 + lens.warmth])
    frame = cv2.transform(frame, gains[:, None] * (lens.saturation * np.eye(3) + grey))
    sigma = lens.blur * width / REFERENCE_WIDTH
    if sigma > 0.25:
        frame = cv2.GaussianBlur(frame, (0, 0), sigma)
    y = np.linspace(-1.0, 1.0, height, dtype=np.float32)[:, None]
    x = np.linspace(-1.0, 1.0, width, dtype=np.float32)[None, :]
    frame *= (1.0 - np.float32(0.5 * lens.vignette) * (x * x + y * y))[..., None]
    frame = np.maximum(frame, 0.0, out=frame)

    tile = noise_tile(0.0)
    rows, columns = np.arange(height) % TILE, np.arange(width) % TILE
    for channel in range(3):
        shifted = np.roll(tile, (grain.randrange(TILE), grain.randrange(TILE)), (0, 1))
        frame[..., channel] += np.float32(lens.noise) * shifted[rows][:, columns]
    finished: Image = np.clip(frame + 0.5, 0.0, 255.0).astype(np.uint8)
    curve = 255.0 * (np.arange(256) / 255.0) ** lens.gamma
    finished = cv2.LUT(finished, np.rint(curve).astype(np.uint8))
    if lens.quality is not None:
        _, coded = cv2.imencode(".jpg", finished, [cv2.IMWRITE_JPEG_QUALITY, lens.quality])
        finished = cv2.imdecode(coded, cv2.IMREAD_COLOR)
    return finished
