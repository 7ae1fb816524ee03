"""Buildings: façades painted in metres, then hung in the world as textured panels."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from random import Random

import cv2
import numpy as np

from edgeseg.synthetic.canvas import Colour, Image
from edgeseg.synthetic.geometry import Points
from edgeseg.synthetic.light import mix, tint
from edgeseg.synthetic.stage import LABEL, Stage, box_shadow
from edgeseg.synthetic.textures import masonry, rough

DENSITIES = (5.0, 10.0, 20.0, 40.0)
"""Pixels per metre in which façades are painted: coarse ones for distant buildings."""

BRICKS: tuple[Colour, ...] = (
    (62, 82, 142), (70, 88, 128), (88, 104, 140), (104, 142, 170), (118, 150, 168), (60, 70, 104),
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
        corner: Whether its flank faces a side street and has windows.
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
    seed: int

    @property
    def height(self) -> float:
        """Height of the eaves in metres."""
        return self.storeys * self.storey + 0.4

    @property
    def reach(self) -> float:
        """See `Thing.reach`."""
        return self.width

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
        ridge_d = 0.5 * (front + back)
        eaves, ridge = self.height, self.height + self.roof
        look = _look(self.seed)

        flank = self._seen(
            stage.view([[s, back, eaves], [s, front, eaves], [s, front, 0], [s, back, 0]])
        )
        if _faces_camera(flank):
            light = stage.light.on(stage.normal(s, -1.0, 0.0, 0.0))
            texture = _lit(self._texture("flank", flank, stage), light)
            if self.roof > 0:
                gable = stage.view([[s, front, eaves], [s, back, eaves], [s, ridge_d, ridge]])
                stage.canvas.face(gable, tint(look.wall, light), LABEL["building"])
            stage.canvas.panel(flank, texture, LABEL["building"])

        if self.roof > 0:
            corners = [[s, ridge_d, ridge], [end, ridge_d, ridge], [end, front, eaves],
                       [s, front, eaves]]  # fmt: skip
            slope = self._seen(stage.view(corners))
            run = 0.5 * self.depth
            pitch = math.hypot(self.roof, run)
            if _faces_camera(slope):
                normal = stage.normal(s, 0.0, -self.side * self.roof / pitch, run / pitch)
                texture = self._texture("roof", slope, stage)
                stage.canvas.panel(
                    slope, _lit(texture, stage.light.on(normal)), LABEL["building"]
                )
            self._draw_chimney(stage, s, ridge_d, ridge, look.wall)

        facade = self._seen(
            stage.view([[s, front, eaves], [end, front, eaves], [end, front, 0], [s, front, 0]])
        )
        if _faces_camera(facade):
            light = stage.light.on(stage.normal(s + 0.5 * self.width, 0.0, -self.side, 0.0))
            texture = _lit(self._texture("front", facade, stage), light)
            stage.canvas.panel(facade, texture, LABEL["building"])

    def _seen(self, corners: Points) -> Points:
        """Corners given from left to right for a building on the left, for either side."""
        return corners if self.side < 0 else corners[[1, 0, 3, 2]]

    def _draw_chimney(
        self, stage: Stage, s: float, d: float, ridge: float, colour: Colour
    ) -> None:
        half, height = 0.45, 1.3
        a, b = s + 0.15 * self.width, s + 0.15 * self.width + 2 * half
        for corners, normal in (
            ([[a, d - half], [a, d + half]], (-1.0, 0.0)),
            ([[a, d - self.side * half], [b, d - self.side * half]], (0.0, -float(self.side))),
        ):
            low, high = ridge - 0.6, ridge + height
            (s0, d0), (s1, d1) = corners
            quad = stage.view([[s0, d0, low], [s1, d1, low], [s1, d1, high], [s0, d0, high]])
            light = stage.light.on(stage.normal(s, *normal, 0.0))
            stage.canvas.face(quad, tint(mix(colour, (70, 80, 110), 0.5), light), LABEL["building"])

    def _texture(self, part: str, view: Points, stage: Stage) -> Image:
        """The part's texture, as fine as the nearest visible point of the panel needs."""
        nearest = max(2.0, float(view[:, 2].min()))
        wanted = stage.canvas.camera.focal / nearest
        density = next((density for density in DENSITIES if density >= wanted), DENSITIES[-1])
        return _paint(self, part, density)


@dataclass(frozen=True)
class _Look:
    """Materials of one building."""

    material: str
    wall: Colour
    joint: Colour
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
        material=material,
        wall=(b, g, r),
        joint=(150, 158, 162),
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

    def rectangle(self, x: float, y: float, width: float, height: float, colour: Colour) -> None:
        """Fill a rectangle; its lower left corner is (x, y)."""
        rows = self.texture.shape[0]
        left, right = round(x * self.density), round((x + width) * self.density)
        top, bottom = rows - round((y + height) * self.density), rows - round(y * self.density)
        if right <= left or bottom <= top:
            return
        region = self.texture[max(top, 0) : max(bottom, 0), max(left, 0) : max(right, 0)]
        region[:] = np.clip(colour, 0, 255).astype(np.uint8)

    def darken(self, x: float, y: float, width: float, height: float, factor: float) -> None:
        """Multiply a rectangle's brightness."""
        rows = self.texture.shape[0]
        left, right = round(x * self.density), round((x + width) * self.density)
        top, bottom = rows - round((y + height) * self.density), rows - round(y * self.density)
        region = self.texture[max(top, 0) : max(bottom, 0), max(left, 0) : max(right, 0)]
        region[:] = np.minimum(region * factor, 255).astype(np.uint8)

    def text(self, words: str, x: float, y: float, height: float, colour: Colour) -> None:
        """Write; (x, y) is the lower left corner of the first letter."""
        size = height * self.density
        if size < 5:
            return
        origin = (round(x * self.density), self.texture.shape[0] - round(y * self.density))
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
        return masonry(
            look.roof, rows, columns, density=density, course=0.28, length=0.3,
            joint=(30, 30, 30), variety=0.13, seed=building.seed,
        )  # fmt: skip
    wall = _Wall(_bare_wall(look, rows, columns, density, building.seed), density)
    if part == "front" or building.corner:
        _furnish(wall, building, look, random, length, building.shop and part == "front")
    # Rain and traffic leave dirt at the foot, the eaves throw a shadow.
    wall.darken(0.0, 0.0, length, 0.35, 0.82)
    wall.darken(0.0, height - 0.3, length, 0.3, 0.62)
    wall.rectangle(0.0, height - 0.12, length, 0.12, mix(look.frame, (128, 128, 128), 0.3))
    return wall.texture


def _bare_wall(look: _Look, rows: int, columns: int, density: float, seed: int) -> Image:
    match look.material:
        case "brick":
            return masonry(
                look.wall, rows, columns, density=density, course=0.075, length=0.225,
                joint=look.joint, variety=0.13, seed=seed,
            )  # fmt: skip
        case "stone":
            return masonry(
                look.wall, rows, columns, density=density, course=0.35, length=0.7,
                joint=(90, 96, 100), variety=0.06, seed=seed,
            )  # fmt: skip
        case _:
            return rough(look.wall, rows, columns, 0.055, seed)


def _furnish(
    wall: _Wall, building: Building, look: _Look, random: Random, length: float, shop: bool
) -> None:
    """Add windows, doors and the shop to a bare wall."""
    bays = max(1, int(length / look.bay))
    pitch = length / bays
    first = 0
    if shop:
        _shop(wall, building, look, random, length)
        first = 1
    else:
        door = random.randrange(bays)
        _door(wall, random, (door + 0.5) * pitch)
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
            _window(wall, look, random, x, sill, height, style, lintel)
    if random.random() < 0.4:  # a band between the storeys
        for storey in range(1, building.storeys):
            y = storey * building.storey + 0.1
            wall.rectangle(0.0, y, length, 0.16, mix(look.wall, (215, 220, 222), 0.45))
            wall.darken(0.0, y - 0.07, length, 0.07, 0.7)
    # A drainpipe.
    x = random.choice((0.25, length - 0.35))
    wall.rectangle(x, 0.0, 0.1, building.height, mix(look.shop, (50, 50, 50), 0.6))


def _window(
    wall: _Wall,
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
        wall.rectangle(x - 0.12, y + height, width + 0.24, 0.2, mix(look.wall, (210, 214, 216), 0.5))
    wall.rectangle(x - 0.03, y, width + 0.06, height, mix(look.wall, (20, 20, 20), 0.7))
    wall.rectangle(x, y, width, height - 0.05, look.frame)
    glass = _glass(random)
    panes_x = 2 if style != "sash" or width > 1.3 else 1
    panes_y = {"sash": 2, "casement": 1, "grid": 3}[style]
    pane_width = (width - bar * (panes_x + 1)) / panes_x
    pane_height = (height - 0.05 - bar * (panes_y + 1)) / panes_y
    for i in range(panes_x):
        for j in range(panes_y):
            left = x + bar + i * (pane_width + bar)
            low = y + bar + j * (pane_height + bar)
            # Upper panes mirror the sky, lower ones the street.
            wall.rectangle(left, low, pane_width, pane_height, mix(glass, (190, 180, 165), 0.12 * j))
    if random.random() < 0.4:  # curtains
        cloth = mix((200, 205, 210), (120, 130, 150), random.random())
        wall.rectangle(x + bar, y + bar, 0.2 * width, height - 2 * bar, mix(glass, cloth, 0.6))
        wall.rectangle(
            x + 0.8 * width - bar, y + bar, 0.2 * width, height - 2 * bar, mix(glass, cloth, 0.6)
        )
    wall.darken(x, y + height - 0.2, width, 0.15, 0.6)
    wall.rectangle(x - 0.1, y - 0.1, width + 0.2, 0.1, mix(look.wall, (216, 220, 222), 0.6))
    wall.darken(x - 0.1, y - 0.18, width + 0.2, 0.08, 0.72)


def _glass(random: Random) -> Colour:
    dark = random.uniform(22, 60)
    if random.random() < 0.06:
        return (120.0, 190.0, 225.0)  # somebody is at home
    if random.random() < 0.2:
        return (168.0, 158.0, 146.0)  # the sky's reflection
    return (dark + 14, dark + 8, dark)


def _door(wall: _Wall, random: Random, x: float) -> None:
    colour = random.choice(SHOP_COLOURS)
    wall.rectangle(x - 0.65, 0.0, 1.3, 2.75, (206, 212, 214))
    wall.rectangle(x - 0.5, 0.15, 1.0, 2.0, colour)
    wall.rectangle(x - 0.5, 2.25, 1.0, 0.38, (64, 58, 52))
    for low in (0.35, 1.2):
        wall.rectangle(x - 0.36, low, 0.72, 0.7, mix(colour, (0, 0, 0), 0.3))
    wall.rectangle(x - 0.65, 0.0, 1.3, 0.15, (150, 158, 162))


def _shop(
    wall: _Wall, building: Building, look: _Look, random: Random, length: float
) -> None:
    top = min(3.1, building.storey + 0.1)
    fascia = 0.65
    wall.rectangle(0.0, 0.0, length, top, mix(look.shop, (30, 30, 30), 0.25))
    wall.rectangle(0.25, 0.45, length - 0.5, top - fascia - 0.55, (40, 36, 34))
    # Displays behind the glass: boxes of colour, brighter where lamps shine.
    x = 0.35
    while x < length - 0.9:
        width = random.uniform(0.25, 0.9)
        height = random.uniform(0.3, 1.2)
        colour: Colour = (random.uniform(20, 170), random.uniform(20, 170), random.uniform(30, 190))
        wall.rectangle(x, 0.55, width, height, mix(colour, (40, 36, 34), random.uniform(0.3, 0.8)))
        if random.random() < 0.5:
            wall.rectangle(x, 1.9, width, 0.08, (190, 215, 228))
        x += width + random.uniform(0.05, 0.5)
    for i in range(1, max(2, int(length / 1.8))):
        wall.rectangle(i * length / max(2, int(length / 1.8)), 0.3, 0.09, top - fascia - 0.3,
                       look.shop)  # fmt: skip
    door = random.uniform(0.2, 0.75) * length
    wall.rectangle(door, 0.0, 1.1, 2.2, mix(look.shop, (0, 0, 0), 0.5))
    wall.rectangle(door + 0.12, 0.2, 0.86, 1.85, (52, 46, 42))
    board = mix(look.shop, (255, 255, 255), 0.08)
    wall.rectangle(0.0, top - fascia, length, fascia, board)
    wall.darken(0.0, top - fascia - 0.12, length, 0.12, 0.5)
    ink: Colour = (225, 230, 232) if sum(board) < 380 else (50, 36, 36)
    name = random.choice(SHOP_NAMES)
    wall.text(name, random.uniform(0.1, 0.4) * length, top - fascia + 0.17, 0.34, ink)
    if random.random() < 0.3:  # an awning's front
        stripe = random.choice(SHOP_COLOURS)
        for i in range(int(length / 0.5)):
            colour = stripe if i % 2 else (215, 220, 222)
            wall.rectangle(i * 0.5, top - fascia - 0.75, 0.5, 0.75, colour)


def _lit(texture: Image, light: Colour) -> Image:
    """A texture under a light, BGR factors."""
    return cv2.multiply(texture, (*light, 1.0))


def _faces_camera(corners: Points) -> bool:
    """Whether a panel (top left, top right, bottom right, bottom left) shows its front."""
    normal = np.cross(corners[1] - corners[0], corners[3] - corners[0])
    return bool(normal @ corners[0] > 0.0)
