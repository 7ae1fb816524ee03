"""The ground: road, markings, kerbs, pavements and verges, computed per pixel.

Every pixel below the horizon is traced to the ground, once to the road's level and once to the
pavement's; where the two disagree, the kerb's face is seen. Lines and joints are box-filtered
over the pixel's footprint, so they fade with distance as a camera's do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from edgeseg.synthetic.canvas import FRACTION_BITS, Colour, Image, fixed
from edgeseg.synthetic.geometry import FARTHEST, PERIOD, Points, clip_near
from edgeseg.synthetic.stage import LABEL, Stage
from edgeseg.synthetic.textures import TILE, noise_tile, sample_noise

Field = NDArray[np.float32]

FILLET = 4.0
"""Radius in metres of the kerb's curve at a street corner."""

JUST_BEHIND = 20.0
"""Metres behind the camera at which a side street or a crossing may still show."""

DETAIL_SIGHT = 90.0
"""Metres ahead of the camera beyond which side streets and crossings are not drawn."""

GRAIN = 0.011
"""Metres per sample of the finest texture."""

KERB_TOP = 0.14
"""Width of the kerb stones in metres."""

WHITE: Colour = (205.0, 212.0, 214.0)
YELLOW: Colour = (70.0, 160.0, 190.0)


@dataclass(frozen=True)
class Junction:
    """A side street; metres. `side` is −1 for left, 1 for right."""

    s: float
    half_width: float
    side: int


@dataclass(frozen=True)
class Patch:
    """A repaired piece of road (street coordinates, metres) and its brightness, 1 = as the rest."""

    s: tuple[float, float]
    d: tuple[float, float]
    tone: float


@dataclass(frozen=True)
class Ground:
    """Everything that lies flat.

    Attributes:
        asphalt: Colour of the road.
        paving: Colour of the pavements.
        slab: Length and width of a paving slab in metres, or None for asphalt pavements.
        kerb: Colour of the kerb stones.
        grass: Colour of verges and of plots behind the pavements, or None where all is paved.
        verge: Width in metres of a grass strip along the pavement's back, with `grass`.
        centre_line: "dashed", "solid", "double" or "none".
        kerb_line: "double yellow", "single yellow" or "none".
        wear: 0 fresh .. 1 almost gone: how worn the paint is.
        zebras: Where zebra crossings are, metres along the street.
        junctions: Side streets.
        patches: Repairs and manhole covers.
        offset: Shifts the noise, metres.
    """

    asphalt: Colour
    paving: Colour
    slab: tuple[float, float] | None
    kerb: Colour
    grass: Colour | None
    verge: float
    centre_line: str
    kerb_line: str
    wear: float
    zebras: tuple[float, ...]
    junctions: tuple[Junction, ...]
    patches: tuple[Patch, ...]
    offset: float


@dataclass(frozen=True)
class Shadow:
    """Outline in street coordinates (N×3) and density 0..1 of a shadow on the ground."""

    outline: Points
    density: float


def draw_ground(
    stage: Stage, ground: Ground, shadows: Sequence[Shadow], contacts: Sequence[Shadow]
) -> None:
    """Draw everything below the horizon; shadows of the sun and the dark under standing things."""
    canvas, road = stage.canvas, stage.road
    camera = canvas.camera
    top = max(0, int(np.floor(camera.horizon)) + 1)
    if top >= camera.height:
        return
    rays = _trace(stage, top)
    s, d = road.street(*rays.at(0.0))
    raised_s, raised_d = road.street(*rays.at(road.kerb_height))
    here = camera.position[2]
    junctions = [
        Junction(s0, junction.half_width, junction.side)
        for junction in ground.junctions
        if (s0 := _next_copy(junction.s, here)) < here + DETAIL_SIGHT
    ]
    zebras = [s0 for s0 in (_next_copy(z, here) for z in ground.zebras) if s0 < here + DETAIL_SIGHT]
    off_road = _distance_to_road(s, d, road.half_width, junctions)
    on_pavement = _distance_to_road(raised_s, raised_d, road.half_width, junctions)
    is_road = off_road <= 0.0
    is_kerb_face = ~is_road & (on_pavement < 0.0)

    stains = sample_noise(1.6, s + ground.offset, d, 0.11)
    fine = sample_noise(0.5, s, d + ground.offset, GRAIN)
    fine *= np.clip(4.0 * GRAIN / rays.along, 0.0, 1.0)
    stains *= np.clip(2.0 / rays.along, 0.0, 1.0)

    # Tyres darken their tracks, rain leaves dirt along the kerb.
    lane = np.abs(d) - 0.5 * road.half_width
    tone = 1.0 + 0.06 * stains + 0.08 * fine - 0.05 * np.exp(-((np.abs(lane) - 0.8) ** 2) / 0.1)
    tone -= 0.12 * np.exp(np.minimum(off_road, 0.0) / 0.25)
    tone *= _patch_tones(stage, ground, top)
    colour = np.empty((*s.shape, 3), np.float32)
    for channel in range(3):
        colour[..., channel] = ground.asphalt[channel] * tone

    white, yellow = _paint(ground, road.half_width, zebras, junctions, s, d, off_road, rays)
    wear = np.float32(ground.wear)
    worn = np.clip(1.0 - wear * (0.5 + 0.5 * stains + 0.25 * fine), 0.0, 1.0)
    _blend(colour, WHITE, white * worn)
    _blend(colour, YELLOW, yellow * worn)

    labels = np.full(s.shape, LABEL["road"], np.uint8)
    _pave(colour, labels, ground, stage, ~is_road, on_pavement, raised_s, raised_d, rays, fine)
    kerb_stone = (on_pavement >= 0.0) & (on_pavement < KERB_TOP) & ~is_road
    stone_tone = (1.0 + 0.06 * stains + 0.1 * fine)[..., None]
    colour[kerb_stone] = (stone_tone * np.array(ground.kerb, np.float32))[kerb_stone]
    colour[is_kerb_face] = 0.62 * (stone_tone * np.array(ground.kerb, np.float32))[is_kerb_face]

    lit = np.array(stage.light.on((0.0, 1.0, 0.0)), np.float32)
    dark = 1.0 - np.array(stage.light.shadow, np.float32)
    shade = _mask(stage, shadows, top).astype(np.float32) / 255.0
    contact = _mask(stage, contacts, top).astype(np.float32) / 255.0
    colour *= lit * (1.0 - 0.5 * stage.light.wetness * is_road[..., None])
    colour *= (1.0 - shade[..., None] * dark) * (1.0 - 0.72 * contact)[..., None]
    canvas.frame[top:] = np.clip(colour, 0.0, 255.0)
    canvas.labels[top:] = labels
    canvas.air[top:] = 1.0 - np.exp(-np.float32(canvas.extinction) * rays.depth)


@dataclass(frozen=True)
class _Rays:
    """Pixels traced to the ground plane; one row of pixels has one depth, as there is no roll."""

    camera_x: float
    camera_y: float
    camera_z: float
    right: Field
    """H×W, metres to the world's right of the camera, on the plane at height 0."""
    ahead: Field
    """H×W, metres to the world's front of the camera, on the plane at height 0."""
    depth: Field
    """H×1, metres along the optical axis."""
    across: Field
    """H×1, width of a pixel on the ground in metres."""
    along: Field
    """H×1, length of a pixel on the ground in metres."""

    def at(self, height: float) -> tuple[Field, Field]:
        """World x and z where the rays meet the plane at a height."""
        share = np.float32(1.0 - height / self.camera_y)
        return (
            np.float32(self.camera_x) + share * self.right,
            np.float32(self.camera_z) + share * self.ahead,
        )


def _trace(stage: Stage, top: int) -> _Rays:
    camera = stage.canvas.camera
    cx, cy = camera.centre
    x = ((np.arange(camera.width) - cx) / camera.focal).astype(np.float32)[None, :]
    y = (np.arange(top, camera.height) - cy)[:, None] / camera.focal
    sp, cp = np.sin(camera.pitch), np.cos(camera.pitch)
    height = camera.position[1]
    down = np.maximum(y * cp + sp, height / FARTHEST)
    depth = (height / down).astype(np.float32)
    forward = depth * (cp - y * sp).astype(np.float32)
    sine, cosine = np.float32(np.sin(camera.yaw)), np.float32(np.cos(camera.yaw))
    side = depth * x
    across = depth / np.float32(camera.focal)
    return _Rays(
        camera_x=camera.position[0],
        camera_y=height,
        camera_z=camera.position[2],
        right=side * cosine + forward * sine,
        ahead=forward * cosine - side * sine,
        depth=depth,
        across=across,
        along=across * np.maximum(forward / np.float32(height), 1.0),
    )


def _next_copy(s: float, here: float) -> float:
    """The copy of a place, among all periods, that comes next for a camera at `here`."""
    start = here - JUST_BEHIND
    return start + (s - start) % PERIOD


def _distance_to_road(
    s: Field, d: Field, half_width: float, junctions: Sequence[Junction]
) -> Field:
    """Signed distance in metres to the kerb line, negative on the road, round at corners."""
    main = np.abs(d) - np.float32(half_width)
    distance = main
    for junction in junctions:
        side = np.abs(s - np.float32(junction.s)) - np.float32(junction.half_width)
        # The union of two strips, its inner corners filled by an arc (a fillet).
        corner = np.hypot(np.maximum(FILLET - main, 0.0), np.maximum(FILLET - side, 0.0))
        union = np.maximum(np.float32(FILLET), np.minimum(main, side)) - corner
        distance = np.where(d * junction.side > 0.0, np.minimum(distance, union), distance)
    return distance


def _stripe(x: Field, half_width: float, footprint: Field) -> Field:
    """Share of a pixel at `x` that a stripe around 0 covers."""
    half = np.float32(0.5) * footprint
    low = np.maximum(x - half, np.float32(-half_width))
    high = np.minimum(x + half, np.float32(half_width))
    coverage: Field = np.maximum(high - low, np.float32(0.0)) / footprint
    return coverage


def _pulses(x: Field, period: float, width: float, footprint: Field) -> Field:
    """Share of a pixel at `x` covered by stripes of a width that repeat with a period."""

    def integral(position: Field) -> Field:
        whole = np.floor(position * np.float32(1.0 / period))
        rest = np.minimum(position - whole * np.float32(period), np.float32(width))
        covered: Field = whole * np.float32(width) + rest
        return covered

    half = np.float32(0.5) * footprint
    coverage: Field = (integral(x + half) - integral(x - half)) / footprint
    return coverage


def _paint(
    ground: Ground,
    half_width: float,
    zebras: Sequence[float],
    junctions: Sequence[Junction],
    s: Field,
    d: Field,
    off_road: Field,
    rays: _Rays,
) -> tuple[Field, Field]:
    """Coverage by white and by yellow paint."""
    across, along = rays.across, rays.along
    line = 0.06  # half the width of a line, metres
    match ground.centre_line:
        case "dashed":
            white = _stripe(d, line, across) * _pulses(s, 6.0, 3.6, along)
        case "solid":
            white = _stripe(d, line, across)
        case "double":
            white = _stripe(np.abs(d) - np.float32(0.14), line, across)
        case _:
            white = np.zeros_like(d)
    yellow = np.zeros_like(d)
    if ground.kerb_line != "none":
        yellow = _stripe(off_road + np.float32(0.28), 0.045, across)
        if ground.kerb_line == "double yellow":
            yellow += _stripe(off_road + np.float32(0.48), 0.045, across)
    for zebra in zebras:
        offset = s - np.float32(zebra)
        # Clear tarmac between the give-way lines, then the bars.
        clear = 1.0 - _stripe(offset, 2.6, along)
        white *= clear
        yellow *= clear
        bars = _stripe(offset, 1.5, along) * _pulses(d + np.float32(half_width), 1.1, 0.55, across)
        edges = _stripe(np.abs(offset) - np.float32(2.4), 0.1, along)
        white += (bars + edges * _pulses(d, 0.8, 0.5, across)) * (np.abs(d) < half_width)
    for junction in junctions:
        give_way = _stripe(d * junction.side - np.float32(half_width + 0.3), 0.1, across)
        mouth = np.abs(s - np.float32(junction.s)) < junction.half_width
        white += give_way * _pulses(s, 0.9, 0.6, along) * mouth
    return np.minimum(white, 1.0), np.minimum(yellow, 1.0)


def _blend(colour: Field, paint: Colour, coverage: Field) -> None:
    """Lay paint over a colour field where coverage is above 0, in place."""
    rows, columns = np.nonzero(coverage > 0.004)
    share = coverage[rows, columns][:, None]
    base = colour[rows, columns]
    colour[rows, columns] = base + (np.array(paint, np.float32) - base) * share


def _pave(
    colour: Field,
    labels: Image,
    ground: Ground,
    stage: Stage,
    paved: NDArray[np.bool_],
    distance: Field,
    s: Field,
    d: Field,
    rays: _Rays,
    fine: Field,
) -> None:
    """Lay pavements, verges and plots over everything that is not road, in place."""
    rows, columns = np.nonzero(paved)
    if rows.size == 0:
        return
    s, d, distance, fine = (field[rows, columns] for field in (s, d, distance, fine))
    across, along = rays.across[rows, 0], rays.along[rows, 0]
    stains = _at(1.6, s, d, 0.2)
    tone = 1.0 + 0.07 * stains + 0.10 * fine
    if ground.slab is not None:
        length, width = ground.slab
        cells = noise_tile(0.3)[
            np.floor(s / length).astype(int) % TILE, np.floor(d / width).astype(int) % TILE
        ]
        tone += 0.07 * cells * np.clip(length / along, 0.0, 1.0)
        joint = 0.018  # metres
        tone *= 1.0 - 0.45 * _pulses(s, length, joint, along)
        tone *= 1.0 - 0.45 * _pulses(d, width, joint, across)
    flat = tone[:, None] * np.array(ground.paving, np.float32)
    kinds = np.full(rows.size, LABEL["pavement"], np.uint8)
    if ground.grass is not None:
        pavement = stage.road.pavement_width
        grass = distance > pavement - ground.verge
        blades = 1.0 + 0.14 * stains + 0.28 * fine
        flat[grass] = blades[grass, None] * np.array(ground.grass, np.float32)
        kinds[grass] = LABEL["tree"]
    colour[rows, columns] = flat
    labels[rows, columns] = kinds


def _at(roughness: float, x: Field, y: Field, pitch: float) -> Field:
    """Noise at a list of points, nearest sample."""
    i = np.floor(x * np.float32(1.0 / pitch)).astype(np.int32) % TILE
    j = np.floor(y * np.float32(1.0 / pitch)).astype(np.int32) % TILE
    return np.asarray(noise_tile(roughness)[i, j])


def _outline(stage: Stage, street: Points, top: int) -> NDArray[np.int32] | None:
    """A ground polygon as fixed-point pixels of the image below row `top`."""
    visible = clip_near(stage.view(street))
    if len(visible) < 3:
        return None
    return fixed(stage.canvas.camera.pixels(visible) - np.array([0.0, top]))


def _mask(stage: Stage, shadows: Sequence[Shadow], top: int) -> Image:
    """Density of the shadows, 0..255, softened a little."""
    camera = stage.canvas.camera
    mask = np.zeros((camera.height - top, camera.width), np.uint8)
    for shadow in sorted(shadows, key=lambda shadow: shadow.density):  # the densest wins
        outline = _outline(stage, shadow.outline, top)
        if outline is not None:
            cv2.fillPoly(mask, [outline], (255.0 * shadow.density,), cv2.LINE_AA, FRACTION_BITS)
    softness = 2 * (camera.width // 320) + 1
    return np.asarray(cv2.blur(mask, (2 * softness + 1, softness)), np.uint8)


def _patch_tones(stage: Stage, ground: Ground, top: int) -> Field:
    """Relative brightness of the road by its repairs."""
    camera = stage.canvas.camera
    tones = np.full((camera.height - top, camera.width), 128, np.uint8)
    here = camera.position[2]
    for patch in ground.patches:
        lap = PERIOD * (np.floor((here - 5.0 - patch.s[1]) / PERIOD) + 1.0)
        s0, s1 = patch.s[0] + lap, patch.s[1] + lap
        if s0 - here > 70.0:
            continue
        (d0, d1) = patch.d
        outline = _outline(
            stage, np.array([[s0, d0, 0.0], [s1, d0, 0.0], [s1, d1, 0.0], [s0, d1, 0.0]]), top
        )
        if outline is not None:
            cv2.fillPoly(tones, [outline], (128 * patch.tone,), cv2.LINE_AA, FRACTION_BITS)
            # The joint around it was sealed with bitumen.
            cv2.polylines(tones, [outline], True, (95,), 1, cv2.LINE_AA, FRACTION_BITS)
    return tones.astype(np.float32) / 128.0
