"""Street furniture: lamps, signs, traffic lights, bollards, fences and walls."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from edgeseg.synthetic.canvas import Colour, Image
from edgeseg.synthetic.geometry import Points
from edgeseg.synthetic.light import tint
from edgeseg.synthetic.people import figure_shadow
from edgeseg.synthetic.stage import LABEL, Box, Stage, box_shadow
from edgeseg.synthetic.textures import noise_patch, wall

RED: Colour = (40.0, 36.0, 190.0)
BLUE: Colour = (165.0, 85.0, 30.0)
BOARD_WHITE: Colour = (228.0, 230.0, 230.0)
BOARD_GREY: Colour = (128.0, 128.0, 126.0)
BLACK: Colour = (26.0, 26.0, 26.0)
AMBER: Colour = (40.0, 170.0, 240.0)
GREEN: Colour = (150.0, 215.0, 60.0)


def _facing(stage: Stage, s: float) -> Colour:
    """Light on a board that faces the traffic."""
    return stage.light.on(stage.normal(s, -1.0, 0.0, 0.0))


@dataclass(frozen=True)
class Pole:
    """A lamp post, a bollard or a plain pole; metres.

    Attributes:
        s: Metres along the street.
        d: Metres from the centre line.
        height: Metres.
        radius: At the foot.
        arm: Reach of a lamp's arm towards the road's middle, or 0.
        colour: Of the pole.
    """

    s: float
    d: float
    height: float
    radius: float
    arm: float
    colour: Colour

    @property
    def box(self) -> Box:
        """See `Thing.box`."""
        return Box.around(self.d, self.arm + 0.2, self.height + 0.5)

    def place(self, time: float) -> float:
        """See `Thing.place`."""
        return self.s

    def shadow(self, stage: Stage, s: float) -> tuple[Points, float]:
        """See `Thing.shadow`."""
        return figure_shadow(stage, s, self.d, self.height, 2.0 * self.radius), 0.8

    def draw(self, stage: Stage, s: float) -> None:
        """See `Thing.draw`."""
        toward, top, slim = -math.copysign(self.arm, self.d), self.height, 0.6 * self.radius
        light = _facing(stage, s)
        colour = tint(self.colour, light)
        # From the foot up: start and end (d, height), radii, colour.
        parts = [((self.d, 0.0), (self.d, top), (self.radius, slim), colour)]
        if self.arm:
            bend, tip = (self.d + 0.75 * toward, top + 0.35), (self.d + toward, top + 0.38)
            parts += [
                ((self.d, 0.0), (self.d, 1.2), (1.5 * self.radius, 1.4 * self.radius), colour),
                ((self.d, top), bend, (slim, 0.7 * slim), colour),
                (bend, tip, (0.09, 0.11), tint((150, 152, 152), light)),
            ]
        elif top < 1.5:  # a bollard's reflecting band
            band = ((self.d, 0.75 * top), (self.d, 0.85 * top), (slim, slim))
            parts.append((*band, tint(BOARD_WHITE, light)))
        ends = stage.view([[s, *end] for part in parts for end in part[:2]]).reshape(-1, 2, 3)
        radii = np.array([part[2] for part in parts])
        colours = [part[3] for part in parts]
        stage.canvas.capsules(ends, radii, colours, LABEL["pole"], rounded=False)


@dataclass(frozen=True)
class Sign:
    """A traffic sign on its pole.

    Attributes:
        s: Metres along the street.
        d: Metres from the centre line.
        height: Of the board's middle in metres.
        size: Half the board's width in metres.
        kind: "ban", "warning", "order", "panel" or "back" (seen from behind).
        variant: Chooses the symbol.
    """

    s: float
    d: float
    height: float
    size: float
    kind: str
    variant: int

    @property
    def box(self) -> Box:
        """See `Thing.box`."""
        return Box.around(self.d, 1.3 * self.size, self.height + self.size)

    def place(self, time: float) -> float:
        """See `Thing.place`."""
        return self.s

    def shadow(self, stage: Stage, s: float) -> tuple[Points, float]:
        """See `Thing.shadow`."""
        return figure_shadow(stage, s, self.d, self.height, 0.1), 0.7

    def draw(self, stage: Stage, s: float) -> None:
        """See `Thing.draw`."""
        light = _facing(stage, s)
        _draw_post(stage, s, self.d, self.height + 0.9 * self.size, 0.05, (125, 127, 128))
        faces = [
            (
                np.column_stack(
                    [
                        np.full(len(outline), s - 0.08),
                        self.d + self.size * outline[:, 0],
                        self.height + self.size * outline[:, 1],
                    ]
                ),
                tint(colour, light),
            )
            for outline, colour in _board(self.kind, self.variant)
        ]
        stage.polygons(faces, LABEL["sign"])


def _draw_post(
    stage: Stage, s: float, d: float, height: float, radius: float, colour: Colour
) -> None:
    ends = stage.view([[s, d, 0.0], [s, d, height]]).reshape(1, 2, 3)
    radii = np.array([[radius, 0.9 * radius]])
    lit = tint(colour, _facing(stage, s))
    stage.canvas.capsules(ends, radii, [lit], LABEL["pole"], rounded=False)


@lru_cache(maxsize=64)
def _board(kind: str, variant: int) -> list[tuple[Points, Colour]]:
    """Shapes of a sign from back to front, in units of its half width, y up."""
    match kind:
        case "ban" if variant % 3 == 0:
            return [(_DISC, RED), (0.74 * _DISC, BOARD_WHITE), (_bar(1.2, 0.3), RED)]
        case "ban":
            digits = [
                (_bar(*size) + np.array([x, 0.0]), colour)
                for x in (-0.22, 0.22)
                for size, colour in (((0.24, 0.62), BLACK), ((0.1, 0.34), BOARD_WHITE))
            ]
            return [(_DISC, RED), (0.74 * _DISC, BOARD_WHITE), *digits]
        case "warning":
            inner = 0.66 * _TRIANGLE + np.array([0.0, -0.03])
            mark = _bar(0.16, 0.5) + np.array([0.0, -0.1])
            return [(_TRIANGLE, RED), (inner, BOARD_WHITE), (mark, BLACK)]
        case "order":
            tip = 0.4 * _TRIANGLE + np.array([0.0, 0.5])
            shapes = [(_DISC, BOARD_WHITE), (0.92 * _DISC, BLUE)]
            return [*shapes, (_bar(0.2, 1.0), BOARD_WHITE), (tip, BOARD_WHITE)]
        case "panel":
            ground: Colour = (BLUE, (70, 105, 20), (40, 160, 200))[variant % 3]
            lines = [
                (_bar(1.1 + 0.35 * ((variant + i) % 3), 0.2) + np.array([-0.1, 0.45 - 0.45 * i]),
                 BOARD_WHITE)
                for i in range(3)
            ]  # fmt: skip
            return [(_bar(2.6, 1.7), BOARD_WHITE), (_bar(2.45, 1.55), ground), *lines]
        case _:
            return [(_DISC if variant % 2 else _TRIANGLE, BOARD_GREY)]


def _bar(width: float, height: float) -> Points:
    return 0.5 * np.array([[-width, height], [width, height], [width, -height], [-width, -height]])


_TURN = np.linspace(0.0, 2.0 * math.pi, 20, endpoint=False)
_DISC = np.stack([np.cos(_TURN), np.sin(_TURN)], axis=-1)
_TRIANGLE = np.array([[0.0, 0.95], [1.05, -0.8], [-1.05, -0.8]])


@dataclass(frozen=True)
class TrafficLight:
    """A traffic light on its pole; `lit` is "red", "amber" or "green"."""

    s: float
    d: float
    height: float
    lit: str

    @property
    def box(self) -> Box:
        """See `Thing.box`."""
        return Box.around(self.d, 0.4, self.height + 1.3)

    def place(self, time: float) -> float:
        """See `Thing.place`."""
        return self.s

    def shadow(self, stage: Stage, s: float) -> tuple[Points, float]:
        """See `Thing.shadow`."""
        return figure_shadow(stage, s, self.d, self.height + 1.0, 0.25), 0.8

    def draw(self, stage: Stage, s: float) -> None:
        """See `Thing.draw`."""
        light = _facing(stage, s)
        _draw_post(stage, s, self.d, self.height + 0.2, 0.07, (52, 52, 52))
        low, high = self.height, self.height + 1.15

        def box(half: float, margin: float, colour: Colour, out: float) -> tuple[Points, Colour]:
            left, right = self.d - half, self.d + half
            bottom, top = low - margin, high + margin
            corners = [[s - out, left, bottom], [s - out, right, bottom], [s - out, right, top],
                       [s - out, left, top]]  # fmt: skip
            return np.array(corners), tint(colour, light)

        faces = [
            box(0.32, 0.1, BOARD_WHITE, 0.05),
            box(0.29, 0.07, BLACK, 0.08),
            box(0.17, 0.0, (16.0, 16.0, 16.0), 0.2),
        ]
        lamps = {"green": GREEN, "amber": AMBER, "red": (60.0, 50.0, 245.0)}
        for i, (name, colour) in enumerate(lamps.items()):
            ring = np.array([self.d, low + 0.2 + 0.375 * i]) + 0.12 * _DISC
            shown: Colour = colour if name == self.lit else (38.0, 38.0, 38.0)
            faces.append((np.column_stack([np.full(len(ring), s - 0.22), ring]), shown))
        stage.polygons(faces, LABEL["sign"])


@dataclass(frozen=True)
class HangingSign:
    """A shop's sign that sticks out from the façade; metres."""

    s: float
    d: float
    height: float
    size: float
    colour: Colour

    @property
    def box(self) -> Box:
        """See `Thing.box`."""
        return Box.around(self.d, self.size + 0.2, self.height + self.size)

    def place(self, time: float) -> float:
        """See `Thing.place`."""
        return self.s

    def shadow(self, stage: Stage, s: float) -> None:
        """See `Thing.shadow`; too high and small to matter."""
        return

    def draw(self, stage: Stage, s: float) -> None:
        """See `Thing.draw`."""
        light = _facing(stage, s)
        inward = -math.copysign(1.0, self.d)

        def quad(inset: float, colour: Colour) -> tuple[Points, Colour]:
            a = self.d + inward * (0.15 + inset)
            b = self.d + inward * (0.15 + self.size - inset)
            low, high = self.height + inset, self.height + self.size - inset
            corners = np.array([[s, a, low], [s, b, low], [s, b, high], [s, a, high]])
            return corners, tint(colour, light)

        inner = BOARD_WHITE if sum(self.colour) < 300 else BLACK
        faces = [
            quad(0.0, self.colour),
            quad(0.07, inner),
            quad(0.2 * self.size + 0.06, self.colour),
        ]
        stage.polygons(faces, LABEL["sign"])


@dataclass(frozen=True)
class Fence:
    """A fence or a low wall along the street; metres.

    Attributes:
        s: Where it begins.
        length: Along the street.
        d: From the centre line.
        height: Above the ground.
        kind: "railings", "barrier", "boards" or "wall".
        colour: Of bars, boards or bricks.
        seed: Chooses the noise.
    """

    s: float
    length: float
    d: float
    height: float
    kind: str
    colour: Colour
    seed: int

    @property
    def box(self) -> Box:
        """See `Thing.box`."""
        return Box(0.0, self.length, self.d - 0.4, self.d + 0.4, self.height)

    def place(self, time: float) -> float:
        """See `Thing.place`."""
        return self.s

    def shadow(self, stage: Stage, s: float) -> tuple[Points, float]:
        """See `Thing.shadow`."""
        density = 0.35 if self.kind in ("railings", "barrier") else 1.0
        return box_shadow(stage, (s, s + self.length), (self.d, self.d + 0.2), self.height), density

    def draw(self, stage: Stage, s: float) -> None:
        """See `Thing.draw`."""
        side = math.copysign(1.0, self.d)
        end = s + self.length
        light = stage.light.on(stage.normal(s, 0.0, -side, 0.0))
        texture = _fence_texture(self.kind, self.colour, self.length, self.height, self.seed)
        corners = stage.view(
            [[s, self.d, self.height], [end, self.d, self.height], [end, self.d, 0.0],
             [s, self.d, 0.0]]
        )  # fmt: skip
        # As annotators do: a row of bars is a fence, gaps included.
        solid = np.full(texture.shape[:2], 255, np.uint8)
        stage.canvas.panel(corners, texture, LABEL["fence"], light, solid=solid)
        if self.kind == "wall":
            back = self.d + side * 0.3
            flank = [[s, self.d, 0.0], [s, self.d, self.height], [s, back, self.height],
                     [s, back, 0.0]]  # fmt: skip
            facing = tint(self.colour, _facing(stage, s))
            stage.polygons([(np.array(flank), facing)], LABEL["fence"])


@lru_cache(maxsize=128)
def _fence_texture(kind: str, colour: Colour, length: float, height: float, seed: int) -> Image:
    """BGRA texture in full light."""
    density = 40.0  # pixels per metre
    rows, columns = max(4, round(height * density)), max(4, round(length * density))
    texture = np.empty((rows, columns, 4), np.uint8)
    texture[..., 3] = 255
    x = np.arange(columns) / density
    match kind:
        case "wall":
            texture[..., :3] = wall("brick", colour, rows, columns, density, seed)
            texture[: max(1, round(0.09 * density)), :, :3] = (142, 150, 154)
        case "boards":
            plank = (x / 0.15).astype(int)
            tone = 1.0 + 0.14 * noise_patch(0.3, 1, int(plank[-1]) + 1, seed)[0][plank]
            tone = tone * np.where(np.mod(x, 0.15) < 0.02, 0.55, 1.0)
            grain = 1.0 + 0.05 * noise_patch(0.5, rows, columns, seed)
            texture[..., :3] = np.clip(np.array(colour) * (tone * grain)[..., None], 0, 255)
        case _:
            spacing, bar = (0.14, 0.03) if kind == "railings" else (0.11, 0.03)
            texture[..., :3] = np.array(colour)
            bars = np.mod(x, spacing) < bar
            bars |= np.mod(x, 2.4) < 0.07
            alpha = np.where(bars, 255, 0)[None, :].repeat(rows, axis=0)
            rail = max(1, round(0.05 * density))
            top, bottom = round(0.1 * rows), round(0.88 * rows)
            alpha[top : top + rail] = alpha[bottom : bottom + rail] = 255
            if kind == "barrier":
                alpha[: round(0.1 * rows)] = 0
            texture[..., 3] = alpha
    return texture
