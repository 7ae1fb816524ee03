"""Buildings: façades painted in metres, then hung in the world as textured panels."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from random import Random

import cv2
import numpy as np

from edgeseg.synthetic.canvas import Colour, Image
from edgeseg.synthetic.geometry import NEAR, Points, faces_camera
from edgeseg.synthetic.light import Vector, mix, tint
from edgeseg.synthetic.stage import LABEL, Box, Stage, box_shadow
from edgeseg.synthetic.textures import wall

DENSITIES = (6.0, 12.0, 20.0, 32.0)
"""Pixels per metre in which façades are painted: coarse ones for distant buildings."""

FLAT_BELOW = 5.0
"""Width in pixels below which a façade is drawn in its mean colour."""

GLAZED = 0.2
"""Share of a façade that is dark glass, as its mean colour sees it."""

CHIMNEY_SIGHT = 100.0
"""Metres ahead of the camera beyond which chimneys are left out."""

SHARPNESS = 0.8
"""Texture pixels per image pixel at a panel's nearest point."""

DETAILED = 12.0
"""Pixels per metre from which window panes, sills and curtains are painted."""

BRICKS: tuple[Colour, ...] = (
    (62, 82, 142),
    (70, 88, 128),
    (88, 104, 140),
    (104, 142, 170),
    (118, 150, 168),
    (60, 70, 104),
)
STONES: tuple[Colour, ...] = ((150, 172, 184), (136, 152, 160), (120, 132, 138), (164, 180, 188))
PLASTERS: tuple[Colour, ...] = (
    (214, 222, 226), (190, 208, 220), (168, 194, 216), (206, 206, 200), (150, 168, 190),
    (188, 200, 186), (198, 186, 172), (128, 150, 190),
)  # fmt: skip
SHOP_COLOURS: tuple[Colour, ...] = (
    (40, 40, 44), (60, 44, 30), (34, 60, 32), (30, 30, 110), (110, 60, 28), (206, 206, 202),
    (60, 120, 150), (90, 30, 80), (28, 28, 34), (140, 130, 60),
)  # fmt: skip
ROOFS: tuple[Colour, ...] = ((84, 80, 76), (58, 70, 104), (72, 74, 80), (60, 60, 62))
FRAME_COLOURS: tuple[Colour, ...] = ((222, 226, 226), (222, 226, 226), (60, 56, 52), (70, 90, 110))
SHOP_NAMES = ("CAFE", "BAKERY", "BOOKS", "Bank", "Hotel", "PIZZA", "Optik", "Flowers", "SHOES",
              "Market", "BAR", "Travel", "BIKES", "Hair", "Pharmacy", "TOYS", "Music")  # fmt: skip


@dataclass(frozen=True)
class Building:
    """One building; metres.

    Attributes:
        s: Where its façade begins along the street.
        width: Length of the façade along the street.
        side: −1 left, 1 right of the street.
        setback: Distance of the façade from the centre line.
        depth: From front to back.
        storeys: Number of storeys.
        storey: Height of a storey.
        roof: Height of the ridge above the eaves; 0 is a flat roof.
        shop: Whether the ground floor is a shop.
        corner: Whether its flank is in full view and has windows.
        hidden: Height up to which its neighbour hides its flank.
        seed: Chooses materials, windows and doors.
    """

    s: float
    width: float
    side: int
    setback: float
    depth: float
    storeys: int
    storey: float
    roof: float
    shop: bool
    corner: bool
    hidden: float
    seed: int

    @property
    def height(self) -> float:
        """Height of the eaves in metres."""
        return self.storeys * self.storey + 0.4

    @property
    def box(self) -> Box:
        """See `Thing.box`."""
        near, far = sorted((self.side * self.setback, self.side * (self.setback + self.depth)))
        return Box(0.0, self.width, near, far, self.height + self.roof + 2.0)

    def place(self, time: float) -> float:
        """See `Thing.place`."""
        return self.s

    def shadow(self, stage: Stage, s: float) -> tuple[Points, float]:
        """See `Thing.shadow`."""
        near, far = self.side * self.setback, self.side * (self.setback + self.depth)
        height = self.height + 0.6 * self.roof
        return box_shadow(stage, (s, s + self.width), (near, far), height), 1.0

    def draw(self, stage: Stage, s: float) -> None:
        """See `Thing.draw`."""
        end = s + self.width
        front, back = self.side * self.setback, self.side * (self.setback + self.depth)
        middle, eaves, ridge = 0.5 * (front + back), self.height, self.height + self.roof
        if self.hidden < ridge:
            self._draw_flank(stage, s, front, back)
        if self.roof > 0.0:
            slope = self._outward(
                [[s, middle, ridge], [end, middle, ridge], [end, front, eaves], [s, front, eaves]]
            )
            run = 0.5 * self.depth
            length = math.hypot(self.roof, run)
            facing = stage.normal(s, 0.0, -self.side * self.roof / length, run / length)
            self._draw_panel(stage, "roof", slope, facing)
            if s - stage.canvas.camera.position[2] < CHIMNEY_SIGHT:
                self._draw_chimney(stage, s, middle, ridge)
        facade = self._outward([[s, front, eaves], [end, front, eaves], [end, front, 0],
                                [s, front, 0]])  # fmt: skip
        self._draw_panel(stage, "front", facade, stage.normal(s, 0.0, -self.side, 0.0))

    def _outward(self, corners: list[list[float]]) -> Points:
        """Corners given from left to right for a building on the left, for either side."""
        return np.array(corners)[[0, 1, 2, 3] if self.side < 0 else [1, 0, 3, 2]]

    def _draw_panel(self, stage: Stage, part: str, street: Points, facing: Vector) -> None:
        view = stage.view(street)
        if not faces_camera(view):
            return
        canvas, light = stage.canvas, stage.light.on(facing)
        if view[:, 2].min() > NEAR:
            left, right = canvas.camera.pixels(view[:2])[:, 0]
            if abs(right - left) < FLAT_BELOW:
                look = _look(self.seed)
                colour = look.roof if part == "roof" else mix(look.wall, (50, 44, 40), GLAZED)
                canvas.polygons(view, [4], [tint(colour, light)], LABEL["building"])
                return
        texture = _paint(self, part, _density(view, stage))
        canvas.panel(view, texture, LABEL["building"], light)

    def _draw_flank(self, stage: Stage, s: float, front: float, back: float) -> None:
        """The wall towards the camera, with its gable."""
        eaves, facing = self.height, stage.normal(s, -1.0, 0.0, 0.0)
        colour = tint(_look(self.seed).wall, stage.light.on(facing))
        faces = []
        if self.roof > 0.0:
            gable = [[s, front, eaves], [s, back, eaves], [s, 0.5 * (front + back),
                     eaves + self.roof]]  # fmt: skip
            faces.append((np.array(gable), colour))
        if 0.0 < self.hidden < eaves:
            bare = [[s, front, eaves], [s, back, eaves], [s, back, self.hidden],
                    [s, front, self.hidden]]  # fmt: skip
            faces.append((np.array(bare), colour))
        if faces:
            stage.polygons(faces, LABEL["building"])
        if self.hidden == 0.0:
            corners = [[s, back, eaves], [s, front, eaves], [s, front, 0], [s, back, 0]]
            self._draw_panel(stage, "flank", self._outward(corners), facing)

    def _draw_chimney(self, stage: Stage, s: float, d: float, ridge: float) -> None:
        half, low, high = 0.45, ridge - 0.6, ridge + 1.3
        a = s + 0.15 * self.width
        b, inner = a + 2 * half, d - self.side * half
        brick = mix(_look(self.seed).wall, (70, 80, 110), 0.5)
        near = [[a, d - half, low], [a, d + half, low], [a, d + half, high], [a, d - half, high]]
        street = [[a, inner, low], [b, inner, low], [b, inner, high], [a, inner, high]]
        faces = [
            (np.array(corners), tint(brick, stage.light.on(stage.normal(s, ahead, right, 0.0))))
            for corners, ahead, right in ((near, -1.0, 0.0), (street, 0.0, -float(self.side)))
        ]
        stage.polygons(faces, LABEL["building"])


def _density(view: Points, stage: Stage) -> float:
    """Pixels per metre that the nearest visible point of a panel needs."""
    camera = stage.canvas.camera
    # What is beside the camera comes into view only some way ahead.
    beside = float(np.abs(view[:, 0]).min()) * 2.0 * camera.focal / camera.width
    wanted = SHARPNESS * camera.focal / max(float(view[:, 2].min()), beside, 1.0)
    return next((density for density in DENSITIES if density >= wanted), DENSITIES[-1])


@dataclass(frozen=True)
class _Look:
    """Materials of one building."""

    bond: str
    wall: Colour
    frame: Colour
    shop: Colour
    roof: Colour
    window_width: float
    window_height: float
    bay: float


@lru_cache(maxsize=1024)
def _look(seed: int) -> _Look:
    random = Random(seed)
    material = random.choices(("brick", "plaster", "stone", "concrete"), (5, 4, 2, 1))[0]
    palette = {"brick": BRICKS, "plaster": PLASTERS, "stone": STONES, "concrete": STONES}[material]
    shade = random.uniform(0.75, 1.1)
    b, g, r = (min(235.0, c * shade) for c in random.choice(palette))
    strip = material == "concrete"
    return _Look(
        bond="plaster" if strip else material,
        wall=(b, g, r),
        frame=random.choice(FRAME_COLOURS),
        shop=random.choice(SHOP_COLOURS),
        roof=random.choice(ROOFS),
        window_width=random.uniform(1.6, 2.2) if strip else random.uniform(0.9, 1.4),
        window_height=random.uniform(1.3, 1.8),
        bay=random.uniform(2.3, 2.6) if strip else random.uniform(2.1, 3.4),
    )


class _Wall:
    """A texture with a brush that works in metres from its lower left corner."""

    def __init__(self, texture: Image, density: float) -> None:
        self.texture = texture
        self.density = density
        self.rows = texture.shape[0]

    def rectangle(self, x: float, y: float, width: float, height: float, colour: Colour) -> None:
        """Fill a rectangle; its lower left corner is (x, y)."""
        left, right = round(x * self.density), round((x + width) * self.density)
        top = self.rows - round((y + height) * self.density)
        bottom = self.rows - round(y * self.density)
        if right > left and bottom > top:
            cv2.rectangle(self.texture, (left, top), (right - 1, bottom - 1), colour, cv2.FILLED)

    def darken(self, x: float, y: float, width: float, height: float, factor: float) -> None:
        """Multiply a rectangle's brightness by a factor below 1."""
        left, right = round(x * self.density), round((x + width) * self.density)
        top = self.rows - round((y + height) * self.density)
        bottom = self.rows - round(y * self.density)
        region = self.texture[max(top, 0) : max(bottom, 0), max(left, 0) : max(right, 0)]
        if region.size:
            region[:] = cv2.convertScaleAbs(region, alpha=factor)

    def text(self, words: str, x: float, y: float, height: float, colour: Colour) -> None:
        """Write; (x, y) is the lower left corner of the first letter."""
        size = height * self.density
        if size < 5:
            return
        origin = (round(x * self.density), self.rows - round(y * self.density))
        cv2.putText(
            self.texture, words, origin, cv2.FONT_HERSHEY_SIMPLEX, size / 22.0, colour,
            max(1, round(size / 9)), cv2.LINE_AA,
        )  # fmt: skip


@lru_cache(maxsize=512)
def _paint(building: Building, part: str, density: float) -> Image:
    """Texture of a part of a building in full light, `density` pixels per metre."""
    look = _look(building.seed)
    random = Random(f"{building.seed} {part}")
    length = building.depth if part == "flank" else building.width
    height = building.height
    if part == "roof":
        height = math.hypot(building.roof, 0.5 * building.depth)
    rows, columns = max(2, round(height * density)), max(2, round(length * density))
    if part == "roof":
        return wall("tiles", look.roof, rows, columns, density, building.seed)
    brush = _Wall(wall(look.bond, look.wall, rows, columns, density, building.seed), density)
    if part == "front" or building.corner:
        _furnish(brush, building, look, random, length, building.shop and part == "front")
    # Rain and traffic leave dirt at the foot, the eaves throw a shadow.
    brush.darken(0.0, 0.0, length, 0.35, 0.82)
    brush.darken(0.0, height - 0.3, length, 0.3, 0.62)
    brush.rectangle(0.0, height - 0.12, length, 0.12, mix(look.frame, (128, 128, 128), 0.3))
    return brush.texture


def _furnish(
    brush: _Wall, building: Building, look: _Look, random: Random, length: float, shop: bool
) -> None:
    """Add windows, doors and the shop to a bare wall."""
    bays = max(1, int(length / look.bay))
    pitch = length / bays
    first = 0
    if shop:
        _shop(brush, building, look, random, length)
        first = 1
    else:
        door = random.randrange(bays)
        _door(brush, random, (door + 0.5) * pitch)
    style = random.choice(("sash", "casement", "grid"))
    lintel = random.random() < 0.6
    for storey in range(first, building.storeys):
        sill = storey * building.storey + (0.9 if storey == 0 else 0.75)
        height = min(look.window_height, building.storey - 1.1)
        if building.storeys > 2 and storey == building.storeys - 1 and building.roof > 0:
            height *= 0.75
        for bay in range(bays):
            if storey == 0 and not shop and bay == door:
                continue
            x = (bay + 0.5) * pitch - look.window_width / 2
            _window(brush, look, random, x, sill, height, style, lintel)
    if random.random() < 0.4:  # a band between the storeys
        for storey in range(1, building.storeys):
            y = storey * building.storey + 0.1
            brush.rectangle(0.0, y, length, 0.16, mix(look.wall, (215, 220, 222), 0.45))
            brush.darken(0.0, y - 0.07, length, 0.07, 0.7)
    # A drainpipe.
    x = random.choice((0.25, length - 0.35))
    brush.rectangle(x, 0.0, 0.1, building.height, mix(look.shop, (50, 50, 50), 0.6))


def _window(
    brush: _Wall,
    look: _Look,
    random: Random,
    x: float,
    y: float,
    height: float,
    style: str,
    lintel: bool,
) -> None:
    width, bar = look.window_width, 0.07
    if lintel:
        brush.rectangle(
            x - 0.12, y + height, width + 0.24, 0.2, mix(look.wall, (210, 214, 216), 0.5)
        )
    brush.rectangle(x - 0.03, y, width + 0.06, height, mix(look.wall, (20, 20, 20), 0.7))
    brush.rectangle(x, y, width, height - 0.05, look.frame)
    # Drawn at every density alike, so that the same windows are lit from afar and from near.
    glass, curtained, cloth = _glass(random), random.random() < 0.4, random.random()
    if brush.density < DETAILED:
        brush.rectangle(x + bar, y + bar, width - 2 * bar, height - 0.05 - 2 * bar, glass)
        return
    panes_x = 2 if style != "sash" or width > 1.3 else 1
    panes_y = {"sash": 2, "casement": 1, "grid": 3}[style]
    pane_width = (width - bar * (panes_x + 1)) / panes_x
    pane_height = (height - 0.05 - bar * (panes_y + 1)) / panes_y
    for i in range(panes_x):
        for j in range(panes_y):
            left = x + bar + i * (pane_width + bar)
            low = y + bar + j * (pane_height + bar)
            # Upper panes mirror the sky, lower ones the street.
            brush.rectangle(
                left, low, pane_width, pane_height, mix(glass, (190, 180, 165), 0.12 * j)
            )
    if curtained:
        colour = mix(glass, mix((200, 205, 210), (120, 130, 150), cloth), 0.6)
        for left in (x + bar, x + 0.8 * width - bar):
            brush.rectangle(left, y + bar, 0.2 * width, height - 2 * bar, colour)
    brush.darken(x, y + height - 0.2, width, 0.15, 0.6)
    brush.rectangle(x - 0.1, y - 0.1, width + 0.2, 0.1, mix(look.wall, (216, 220, 222), 0.6))
    brush.darken(x - 0.1, y - 0.18, width + 0.2, 0.08, 0.72)


def _glass(random: Random) -> Colour:
    dark = random.uniform(22, 60)
    if random.random() < 0.06:
        return (120.0, 190.0, 225.0)  # somebody is at home
    if random.random() < 0.2:
        return (168.0, 158.0, 146.0)  # the sky's reflection
    return (dark + 14, dark + 8, dark)


def _door(brush: _Wall, random: Random, x: float) -> None:
    colour = random.choice(SHOP_COLOURS)
    brush.rectangle(x - 0.65, 0.0, 1.3, 2.75, (206, 212, 214))
    brush.rectangle(x - 0.5, 0.15, 1.0, 2.0, colour)
    brush.rectangle(x - 0.5, 2.25, 1.0, 0.38, (64, 58, 52))
    for low in (0.35, 1.2):
        brush.rectangle(x - 0.36, low, 0.72, 0.7, mix(colour, (0, 0, 0), 0.3))
    brush.rectangle(x - 0.65, 0.0, 1.3, 0.15, (150, 158, 162))


def _shop(brush: _Wall, building: Building, look: _Look, random: Random, length: float) -> None:
    top = min(3.1, building.storey + 0.1)
    fascia = 0.65
    brush.rectangle(0.0, 0.0, length, top, mix(look.shop, (30, 30, 30), 0.25))
    brush.rectangle(0.25, 0.45, length - 0.5, top - fascia - 0.55, (40, 36, 34))
    # Displays behind the glass: boxes of colour, brighter where lamps shine.
    x = 0.35
    while x < length - 0.9:
        width = random.uniform(0.25, 0.9)
        height = random.uniform(0.3, 1.2)
        colour: Colour = (random.uniform(20, 170), random.uniform(20, 170), random.uniform(30, 190))
        brush.rectangle(x, 0.55, width, height, mix(colour, (40, 36, 34), random.uniform(0.3, 0.8)))
        if random.random() < 0.5:
            brush.rectangle(x, 1.9, width, 0.08, (190, 215, 228))
        x += width + random.uniform(0.05, 0.5)
    for i in range(1, max(2, int(length / 1.8))):
        brush.rectangle(i * length / max(2, int(length / 1.8)), 0.3, 0.09, top - fascia - 0.3,
                       look.shop)  # fmt: skip
    door = random.uniform(0.2, 0.75) * length
    brush.rectangle(door, 0.0, 1.1, 2.2, mix(look.shop, (0, 0, 0), 0.5))
    brush.rectangle(door + 0.12, 0.2, 0.86, 1.85, (52, 46, 42))
    board = mix(look.shop, (255, 255, 255), 0.08)
    brush.rectangle(0.0, top - fascia, length, fascia, board)
    brush.darken(0.0, top - fascia - 0.12, length, 0.12, 0.5)
    ink: Colour = (225, 230, 232) if sum(board) < 380 else (50, 36, 36)
    name = random.choice(SHOP_NAMES)
    brush.text(name, random.uniform(0.1, 0.4) * length, top - fascia + 0.17, 0.34, ink)
    if random.random() < 0.3:  # an awning's front
        stripe = random.choice(SHOP_COLOURS)
        for i in range(int(length / 0.5)):
            colour = stripe if i % 2 else (215, 220, 222)
            brush.rectangle(i * 0.5, top - fascia - 0.75, 0.5, 0.75, colour)
