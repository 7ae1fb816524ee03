"""Trees and hedges."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from edgeseg.synthetic.canvas import Colour, Image
from edgeseg.synthetic.geometry import Points
from edgeseg.synthetic.light import tint
from edgeseg.synthetic.stage import LABEL, Box, Stage, box_shadow, shadow_offset
from edgeseg.synthetic.textures import MIDDLE, crown, foliage, twig_outline

CROWN_SIZES = (64, 128, 256)
"""Sides of crown textures in pixels."""


@dataclass(frozen=True)
class Tree:
    """A tree: a trunk and a crown that always shows its broad side.

    Attributes:
        s: Metres along the street.
        d: Metres from the centre line.
        height: Metres.
        spread: Width of the crown in metres.
        kind: See `textures.crown`.
        colour: Of the leaves.
        bark: Colour of the trunk.
        mirrored: Whether the crown is flipped left to right.
        seed: Chooses the crown among a few prototypes.
    """

    s: float
    d: float
    height: float
    spread: float
    kind: str
    colour: Colour
    bark: Colour
    mirrored: bool
    seed: int

    @property
    def box(self) -> Box:
        """See `Thing.box`."""
        return Box.around(self.d, 0.5 * self.spread, self.height)

    def place(self, time: float) -> float:
        """See `Thing.place`."""
        return self.s

    @property
    def _clear(self) -> float:
        """Height of the trunk below the crown in metres."""
        return self.height * (0.06 if self.kind == "conifer" else 0.26)

    def shadow(self, stage: Stage, s: float) -> tuple[Points, float]:
        """See `Thing.shadow`."""
        low, high = (shadow_offset(stage, s, h) for h in (self._clear, self.height))
        turn = np.linspace(0.0, 2 * math.pi, 24, endpoint=False)
        # Leaves let light through and make a lobed outline.
        lobes = 1.0 + 0.18 * np.sin(5 * turn + self.seed) + 0.1 * np.sin(11 * turn)
        along = 0.5 * np.linalg.norm(high - low) + 0.3 * self.spread
        direction = math.atan2(*(high - low)[::-1])
        ring = np.stack([along * np.cos(turn), 0.45 * self.spread * np.sin(turn)], -1)
        sine, cosine = math.sin(direction), math.cos(direction)
        rotated = (ring * lobes[:, None]) @ np.array([[cosine, sine], [-sine, cosine]])
        outline = np.array([s, self.d]) + 0.5 * (low + high) + rotated
        return np.column_stack([outline, np.zeros(len(outline))]), (
            0.3 if self.kind == "bare" else 0.8
        )

    def draw(self, stage: Stage, s: float) -> None:
        """See `Thing.draw`."""
        canvas = stage.canvas
        foot, fork, top = stage.view(
            [[s, self.d, 0.0], [s, self.d, self._clear + 0.25 * self.height],
             [s, self.d, self.height]]
        )  # fmt: skip
        if foot[2] < 1.5:
            return
        upright = stage.light.on(stage.normal(s, -0.8, -0.6 * math.copysign(1.0, self.d), 0.0))
        girth = 0.022 * self.height
        canvas.capsules(
            np.stack([foot, fork])[None], np.array([[girth, 0.6 * girth]]),
            [tint(self.bark, upright)], LABEL["tree"], rounded=False,
        )  # fmt: skip
        half = np.array([0.5 * self.spread, 0.0, 0.0])
        bottom = foot + (top - foot) * (self._clear / self.height)
        corners = np.stack([top - half, top + half, bottom + half, bottom - half])
        on_screen = (self.height - self._clear) * canvas.camera.focal / float(top[2])
        size = next((size for size in CROWN_SIZES if size >= on_screen), CROWN_SIZES[-1])
        texture = crown(self.kind, self.seed, size)
        lit_from_right = float((canvas.camera.rotation @ np.array(stage.light.sun))[0]) > 0.0
        leaf = self.bark if self.kind == "bare" else self.colour
        b, g, r = tint(leaf, stage.light.on((0.0, 0.7, -0.7)))
        solid: Image | None = None
        if self.kind == "bare":  # annotators draw around the twigs, not between them
            solid = twig_outline(self.seed, size)
        if self.mirrored != lit_from_right:
            texture = texture[:, ::-1]
            solid = None if solid is None else solid[:, ::-1]
        light = (b / MIDDLE, g / MIDDLE, r / MIDDLE)
        canvas.panel(corners, texture, LABEL["tree"], light, solid=solid)


@dataclass(frozen=True)
class Hedge:
    """A hedge along the street; metres."""

    s: float
    length: float
    d: float
    height: float
    thickness: float
    colour: Colour
    seed: int

    @property
    def box(self) -> Box:
        """See `Thing.box`."""
        near, far = sorted((self.d, self.d + math.copysign(self.thickness, self.d)))
        return Box(0.0, self.length, near, far, self.height)

    def place(self, time: float) -> float:
        """See `Thing.place`."""
        return self.s

    def shadow(self, stage: Stage, s: float) -> tuple[Points, float]:
        """See `Thing.shadow`."""
        near, far = self.d, self.d + math.copysign(self.thickness, self.d)
        return box_shadow(stage, (s, s + self.length), (near, far), self.height), 0.9

    def draw(self, stage: Stage, s: float) -> None:
        """See `Thing.draw`."""
        side = math.copysign(1.0, self.d)
        back, end = self.d + side * self.thickness, s + self.length
        top = self.height
        faces = (
            ([[s, back, top], [s, self.d, top], [s, self.d, 0], [s, back, 0]], (-1.0, 0.0, 0.3)),
            ([[s, self.d, top], [end, self.d, top], [end, self.d, 0], [s, self.d, 0]],
             (0.0, -side, 0.3)),
        )  # fmt: skip
        for corners, (ahead, right, up) in faces:
            length = abs(corners[1][0] - corners[0][0]) + abs(corners[1][1] - corners[0][1])
            b, g, r = tint(self.colour, stage.light.on(stage.normal(s, ahead, right, up)))
            light = (b / MIDDLE, g / MIDDLE, r / MIDDLE)
            texture = _hedge_face(self.seed, length, top)
            stage.canvas.panel(stage.view(corners), texture, LABEL["tree"], light)


@lru_cache(maxsize=64)
def _hedge_face(seed: int, length: float, height: float) -> Image:
    """BGRA texture of a hedge's side, its upper edge ragged."""
    density = 40.0  # pixels per metre
    rows, columns = max(4, int(height * density)), max(4, int(length * density))
    leaves = foliage(seed % 4, 512)
    tone = leaves[np.arange(rows)[:, None] % 512, np.arange(columns)[None, :] % 512]
    depth = np.linspace(0.0, 1.0, rows)[:, None]
    ragged = depth * height - 0.05 - 0.06 * tone
    texture = np.empty((rows, columns, 4), np.uint8)
    texture[..., :3] = np.clip(MIDDLE * tone * (1.12 - 0.45 * depth), 6, 255)[..., None]
    texture[..., 3] = np.clip(ragged * 1500.0, 0, 255)
    return texture
