"""The sky, and what stands against it too far away to have parallax."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from edgeseg.synthetic.canvas import Colour
from edgeseg.synthetic.geometry import FARTHEST
from edgeseg.synthetic.light import tint
from edgeseg.synthetic.stage import LABEL, Stage
from edgeseg.synthetic.textures import TILE, noise_tile, sample_noise

SKYLINE_DEPTH = 260.0
"""Metres: how much haze lies before the skyline."""

HAZE_LAYER = 40.0
"""Metres: how high the haze reaches before the sky."""

CLOUD_SCALE = 0.012
"""Size of a cloud noise sample, in units of the cloud layer's height."""

WIND = 0.004
"""Drift of the clouds per second, in units of the cloud layer's height."""


@dataclass(frozen=True)
class Block:
    """A distant building: azimuth of its middle, half width and height in radians, and colour."""

    azimuth: float
    half_width: float
    height: float
    colour: Colour


@dataclass(frozen=True)
class Skyline:
    """Distant trees and buildings.

    Attributes:
        trees: Mean height of the tree line in radians.
        tree_colour: Colour of the distant trees.
        blocks: Distant buildings, the farthest first.
        offset: Shifts the tree line's and the clouds' noise.
    """

    trees: float
    tree_colour: Colour
    blocks: tuple[Block, ...]
    offset: int


def draw_sky(stage: Stage, skyline: Skyline) -> None:
    """Fill everything above the ground with sky."""
    canvas, light = stage.canvas, stage.light
    camera = canvas.camera
    bottom = min(camera.height, max(0, int(np.floor(camera.horizon)) + 1))
    if bottom == 0:
        return
    cx, cy = camera.centre
    # Nothing in the sky is sharp: every other pixel will do.
    rows, columns = max(1, bottom // 2), max(1, camera.width // 2)
    x = ((np.linspace(0.0, camera.width, columns) - cx) / camera.focal).astype(np.float32)[None, :]
    y = ((np.linspace(0.0, bottom, rows) - cy) / camera.focal).astype(np.float32)[:, None]
    axes = camera.rotation.astype(np.float32)
    ray = [axes[0, k] * x + axes[1, k] * y + axes[2, k] for k in range(3)]
    norm = 1.0 / np.sqrt(1.0 + x * x + y * y)
    up = np.maximum(ray[1] * norm, 0.0)

    high = np.clip(up / 0.75, 0.0, 1.0) ** 0.6
    zenith, horizon = np.array(light.zenith, np.float32), np.array(light.horizon, np.float32)
    colour = horizon + high[..., None] * (zenith - horizon)

    flat = 1.0 / (up + 0.12)
    drift = np.float32(WIND * stage.time + skyline.offset)
    cloud = sample_noise(1.6, ray[0] * norm * flat + drift, ray[2] * norm * flat, CLOUD_SCALE)
    wisps = sample_noise(1.3, ray[0] * norm * flat, ray[2] * norm * flat + drift, CLOUD_SCALE / 3)
    cloud += 0.25 * wisps
    if light.clouds >= 1.0:
        colour *= (1.0 + 0.06 * cloud)[..., None]
    else:
        cover = np.clip(1.1 * (cloud + 2.2 * light.clouds - 1.3), 0.0, 1.0) * np.clip(
            up * 12.0, 0.0, 1.0
        )
        lit = np.clip(236.0 - 26.0 * (cloud - 0.6), 170.0, 250.0)
        colour += cover[..., None] * (lit[..., None] - colour)

    toward = sum(ray[k] * np.float32(light.sun[k]) for k in range(3)) * norm
    strength = float(light.sun_colour[2])
    glow = strength * (
        90.0 * np.exp((toward - 1.0) * 6.0)
        + 220.0 * np.exp((toward - 1.0) * 120.0)
        + 900.0 * np.exp((toward - 1.0) * 4000.0)
    )
    colour += glow[..., None] * np.array([0.8, 0.95, 1.0], np.float32)
    haze = np.float32(canvas.extinction * HAZE_LAYER) / np.maximum(up, HAZE_LAYER / FARTHEST)
    size = (camera.width, bottom)
    canvas.frame[:bottom] = cv2.resize(np.clip(colour, 0.0, 255.0).astype(np.uint8), size)
    canvas.air[:bottom] = cv2.resize(1.0 - np.exp(-haze), size)
    canvas.labels[:bottom] = LABEL["sky"]


def draw_skyline(stage: Stage, skyline: Skyline) -> None:
    """Draw the distant trees and buildings over the sky and the end of the ground."""
    camera = stage.canvas.camera
    cx, _ = camera.centre
    foot = camera.horizon + 1.0 + 0.004 * camera.focal

    def column(azimuth: float) -> float:
        return cx + camera.focal * float(np.tan(np.clip(azimuth - camera.yaw, -1.3, 1.3)))

    columns = np.linspace(-1.0, camera.width, max(3, camera.width // 2))
    azimuths = np.arctan((columns - cx) / camera.focal) + camera.yaw
    samples = (azimuths / 0.004).astype(int) + skyline.offset
    profile = noise_tile(1.3)[skyline.offset % TILE, samples % TILE]
    tops = camera.horizon - camera.focal * skyline.trees * np.maximum(0.3, 1.0 + 0.3 * profile)
    outline = np.concatenate([np.stack([columns, tops], -1), [[camera.width, foot], [-1.0, foot]]])
    light = stage.light.on((0.0, 0.3, -0.95))
    stage.canvas.polygon(outline, tint(skyline.tree_colour, light), LABEL["tree"], SKYLINE_DEPTH)
    for block in skyline.blocks:
        left = column(block.azimuth - block.half_width)
        right = column(block.azimuth + block.half_width)
        top = camera.horizon - camera.focal * block.height
        corners = np.array([[left, top], [right, top], [right, foot], [left, foot]])
        stage.canvas.polygon(corners, tint(block.colour, light), LABEL["building"], SKYLINE_DEPTH)
