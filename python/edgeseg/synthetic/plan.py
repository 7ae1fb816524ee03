"""How a street comes about: `sample_scene` draws one from a seed.

Scalars are drawn with Python's own generator from string seeds, one per part of the street, so
that a change to one part leaves the others as they were.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from random import Random
from typing import TypeVar

from edgeseg.arguments import check_integer
from edgeseg.synthetic.buildings import BRICKS, SHOP_COLOURS, Building
from edgeseg.synthetic.canvas import Colour
from edgeseg.synthetic.furniture import Fence, HangingSign, Pole, Sign, TrafficLight
from edgeseg.synthetic.geometry import PERIOD, Road
from edgeseg.synthetic.ground import Ground, Junction, Patch
from edgeseg.synthetic.lens import sample_lens
from edgeseg.synthetic.light import mix, sample_light
from edgeseg.synthetic.people import Clothes, Cyclist, Pedestrian
from edgeseg.synthetic.scene import Drive, Scene
from edgeseg.synthetic.sky import Block, Skyline
from edgeseg.synthetic.stage import Thing
from edgeseg.synthetic.vegetation import Hedge, Tree
from edgeseg.synthetic.vehicles import BODIES, Vehicle

_T = TypeVar("_T")

PARKING = 2.1
"""Width in metres of a parking lane."""

CAR_PAINTS: tuple[Colour, ...] = (
    (188, 190, 192), (150, 152, 154), (40, 40, 42), (70, 72, 74), (226, 228, 228), (120, 60, 30),
    (50, 40, 140), (140, 90, 50), (60, 80, 40), (110, 130, 140), (30, 60, 150), (150, 140, 110),
)  # fmt: skip
COATS: tuple[Colour, ...] = (
    (30, 28, 28), (38, 36, 36), (60, 44, 36), (46, 46, 48), (36, 48, 40), (66, 60, 56),
    (44, 40, 110), (86, 86, 88), (120, 96, 72), (180, 185, 190), (50, 76, 104), (36, 130, 180),
    (90, 40, 90),
)  # fmt: skip
TROUSERS: tuple[Colour, ...] = (
    (28, 28, 30), (36, 34, 34), (74, 52, 38), (96, 70, 54), (50, 58, 68), (104, 112, 120),
)  # fmt: skip
SKINS: tuple[Colour, ...] = ((150, 180, 224), (120, 155, 205), (80, 110, 160), (50, 72, 110))
HAIRS: tuple[Colour, ...] = ((30, 36, 44), (40, 60, 84), (70, 120, 160), (150, 155, 160))
LEAVES: tuple[Colour, ...] = (
    (40, 96, 72), (36, 80, 66), (46, 104, 88), (52, 110, 116), (30, 72, 50), (40, 100, 130),
)  # fmt: skip
BARKS: tuple[Colour, ...] = ((58, 72, 84), (78, 88, 96), (48, 60, 74))
LAMP_COLOURS: tuple[Colour, ...] = ((110, 112, 112), (60, 62, 62), (52, 70, 44), (140, 142, 142))


def sample_scene(seed: int) -> Scene:
    """Draw a street.

    Args:
        seed: Any integer; the same seed gives the same scene.

    Returns:
        The scene, to be passed to `render`.

    Raises:
        InputError: `seed` is not an integer.
    """
    seed = check_integer("seed", seed)
    plan = _sample_plan(Random(f"street {seed}"))
    things: list[Thing] = []
    for side in (-1, 1):
        things += _frontage(Random(f"frontage {seed} {side}"), plan, side)
        things += _pavement(Random(f"pavement {seed} {side}"), plan, side)
        things += _pedestrians(Random(f"pedestrians {seed} {side}"), plan, side)
    things += _crossings(Random(f"crossings {seed}"), plan)
    drive = _sample_drive(Random(f"drive {seed}"), plan)
    things += _traffic(Random(f"traffic {seed}"), plan, drive)
    return Scene(
        seed=seed,
        road=plan.road,
        light=sample_light(Random(f"light {seed}")),
        lens=sample_lens(Random(f"lens {seed}")),
        drive=drive,
        ground=_sample_ground(Random(f"ground {seed}"), plan),
        skyline=_sample_skyline(Random(f"skyline {seed}")),
        things=tuple(things),
    )


@dataclass(frozen=True)
class _Plan:
    """What the parts of a street have in common.

    Attributes:
        road: Centre line and section.
        traffic: Side of the road that traffic keeps to, −1 left, 1 right.
        parked: Whether cars park along the left and along the right kerb.
        styles: Character of the left and of the right side: "town", "suburb" or "park".
        avenue: Whether trees line the left and the right pavement.
        season: "summer", "autumn" or "winter".
        busy: How many people and cars are about, around 1.
        junctions: Side streets.
        zebras: Crossings, metres along the street.
        brick: Colour of garden walls.
        species: Kinds and seeds of trees that grow here.
    """

    road: Road
    traffic: int
    parked: tuple[bool, bool]
    styles: tuple[str, str]
    avenue: tuple[bool, bool]
    season: str
    busy: float
    junctions: tuple[Junction, ...]
    zebras: tuple[float, ...]
    brick: Colour
    species: tuple[tuple[str, int], ...]

    @property
    def lane(self) -> float:
        """Distance from the centre line to the middle of a lane."""
        edge = self.road.half_width - (PARKING if any(self.parked) else 0.0)
        return 0.5 * edge

    def free(self, s: float, side: int, margin: float) -> bool:
        """Whether a kerbside place is clear of side streets and crossings."""
        return all(
            j.side != side or _gap(s, j.s) > j.half_width + margin for j in self.junctions
        ) and all(_gap(s, zebra) > 2.0 + margin for zebra in self.zebras)


def _on(side: int, pair: tuple[_T, _T]) -> _T:
    """The entry for a side, −1 or 1, of a left-right pair."""
    return pair[0] if side < 0 else pair[1]


def _gap(a: float, b: float) -> float:
    """Distance in metres between two places along a street that repeats."""
    return abs((a - b + PERIOD / 2) % PERIOD - PERIOD / 2)


def _sample_plan(random: Random) -> _Plan:
    parked = (random.random() < 0.35, random.random() < 0.35)
    half_width = random.uniform(2.6, 3.4) + (PARKING if any(parked) else 0.0)
    road = Road(
        half_width=half_width,
        pavement_width=random.triangular(2.2, 5.0, 3.2),
        kerb_height=random.uniform(0.09, 0.15),
        bend=random.choice((0.0, random.uniform(-11.0, 11.0))),
        swings=random.choice((1, 2)),
        phase=random.uniform(0.0, 2 * math.pi),
    )
    style = random.choices(("town", "suburb", "mixed", "park"), (5, 3, 3, 2))[0]
    styles = {
        "town": ("town", "town"),
        "suburb": ("suburb", "suburb"),
        "mixed": random.choice((("town", "suburb"), ("suburb", "town"))),
        "park": random.choice((("town", "park"), ("park", "town"), ("park", "suburb"))),
    }[style]
    junctions = []
    for side in (-1, 1):
        s = random.uniform(10.0, 120.0)
        while s < PERIOD - 25.0:
            junctions.append(Junction(s, random.uniform(3.0, 4.2), side))
            s += random.uniform(60.0, 170.0)
    zebras = tuple(
        s
        for s in (random.uniform(0.0, 150.0), random.uniform(190.0, PERIOD - 30.0))
        if random.random() < 0.6 and all(_gap(s, j.s) > j.half_width + 7.0 for j in junctions)
    )
    season = random.choices(("summer", "autumn", "winter"), (5, 2, 3))[0]
    kinds = {
        "summer": ("leafy", "leafy", "leafy", "poplar", "conifer"),
        "autumn": ("leafy", "leafy", "bare", "poplar", "conifer"),
        "winter": ("bare", "bare", "bare", "leafy", "conifer"),
    }[season]
    return _Plan(
        road=road,
        traffic=random.choices((-1, 1), (3, 1))[0],
        parked=parked,
        styles=styles,
        avenue=(random.random() < 0.45, random.random() < 0.45),
        season=season,
        busy=random.triangular(0.4, 2.0, 1.0),
        junctions=tuple(junctions),
        zebras=zebras,
        brick=random.choice(BRICKS),
        species=tuple((random.choice(kinds), random.randrange(8)) for _ in range(3)),
    )


def _sample_drive(random: Random, plan: _Plan) -> Drive:
    return Drive(
        s=random.uniform(0.0, PERIOD),
        d=plan.traffic * plan.lane + random.uniform(-0.5, 0.5),
        speed=random.choice((0.0, random.uniform(3.0, 12.0), random.uniform(3.0, 12.0))),
        height=random.uniform(1.2, 1.6),
        field_of_view=math.radians(random.uniform(48.0, 75.0)),
        pitch=random.uniform(-0.06, 0.03),
        yaw=random.gauss(0.0, 0.035),
        bonnet=random.uniform(0.03, 0.09) if random.random() < 0.15 else 0.0,
    )


def _sample_ground(random: Random, plan: _Plan) -> Ground:
    grey = random.uniform(78.0, 128.0)
    pale = random.uniform(110.0, 168.0)
    warm = random.uniform(0.0, 10.0)
    patches = []
    for _ in range(14):
        s, d = random.uniform(0.0, PERIOD), random.uniform(-1.0, 1.0) * plan.road.half_width
        length, width = random.uniform(0.8, 9.0), random.uniform(0.5, 1.8)
        edge = plan.road.half_width - 0.1
        patches.append(
            Patch((s, s + length), (max(-edge, d - width / 2), min(edge, d + width / 2)),
                  random.uniform(0.78, 1.12))
        )  # fmt: skip
    for _ in range(10):  # manhole covers
        s, d = random.uniform(0.0, PERIOD), random.uniform(-0.7, 0.7) * plan.road.half_width
        patches.append(Patch((s, s + 0.65), (d, d + 0.6), random.uniform(0.5, 0.7)))
    green = "town" not in plan.styles or random.random() < 0.15
    slabs = ((0.9, 0.6), (0.6, 0.6), (0.45, 0.45), (0.2, 0.2), None)
    return Ground(
        asphalt=(grey + random.uniform(-2, 6), grey, grey + random.uniform(-4, 3)),
        paving=(pale - warm, pale, pale + 0.6 * warm),
        slab=random.choice(slabs),
        kerb=(pale + 8.0, pale + 14.0, pale + 16.0),
        grass=(52.0, random.uniform(96, 120), random.uniform(78, 105)) if green else None,
        verge=random.choice((0.0, 0.9, 1.2)),
        centre_line=random.choices(("dashed", "solid", "double", "none"), (6, 1, 1, 2))[0],
        kerb_line=random.choices(("double yellow", "single yellow", "none"), (3, 2, 4))[0]
        if not any(plan.parked)
        else "none",
        wear=random.uniform(0.1, 0.75),
        zebras=plan.zebras,
        junctions=plan.junctions,
        patches=tuple(patches),
        offset=random.uniform(0.0, 40.0),
    )


def _sample_skyline(random: Random) -> Skyline:
    blocks = []
    for _ in range(random.randrange(4, 22)):
        tone = random.uniform(70, 165)
        blocks.append(
            Block(
                azimuth=random.uniform(-1.2, 1.2),
                half_width=random.uniform(0.008, 0.035),
                height=random.uniform(0.015, 0.06),
                colour=(tone + random.uniform(-14, 8), tone, tone + random.uniform(-8, 22)),
            )
        )
    blocks.sort(key=lambda block: -block.height)
    return Skyline(
        trees=random.uniform(0.015, 0.04),
        tree_colour=mix(random.choice(LEAVES), (70.0, 80.0, 80.0), 0.4),
        blocks=tuple(blocks),
        offset=random.randrange(512),
    )


def _frontage(random: Random, plan: _Plan, side: int) -> Iterator[Thing]:
    """Everything behind the pavement of one side, and down its side streets."""
    mouths = sorted(
        (j.s - j.half_width - 2.2, j.s + j.half_width + 2.2)
         for j in plan.junctions if j.side == side
    )  # fmt: skip
    start = 0.0
    for low, high in [*mouths, (PERIOD, PERIOD)]:
        yield from _block(random, plan, side, start, low)
        if high < PERIOD:
            yield from _side_street(random, plan, side, low, high)
        start = high


def _side_street(
    random: Random, plan: _Plan, side: int, low: float, high: float
) -> Iterator[Thing]:
    """What is seen down a side street: its far side and what closes it."""
    edge = plan.road.plot_edge
    for step in range(2):
        yield _house(
            random, plan, high + 0.4, 8.0, side, edge + 13.0 + 12.0 * step, depth=11.0, corner=True
        )
    yield _house(random, plan, low - 12.0, high - low + 24.0, side, edge + 48.0, depth=10.0)
    for _ in range(random.randrange(4)):
        s = random.choice((low + 0.6, high - 0.6)) + random.uniform(-0.3, 0.3)
        yield _tree(random, plan, s, side * (edge + random.uniform(9.0, 40.0)), 9.0)


def _block(random: Random, plan: _Plan, side: int, start: float, end: float) -> Iterator[Thing]:
    """Plots between two side streets."""
    kinds = {
        "town": (("terrace", 8), ("detached", 1), ("green", 2)),
        "suburb": (("terrace", 2), ("detached", 6), ("green", 2)),
        "park": (("terrace", 1), ("green", 8)),
    }[_on(side, plan.styles)]
    s = start
    while end - s > 4.0:
        kind = random.choices([k for k, _ in kinds], [w for _, w in kinds])[0]
        length = random.uniform(18.0, 55.0) if kind != "detached" else random.uniform(13.0, 20.0)
        length = min(length, end - s)
        if end - s - length < 6.0:
            length = end - s
        match kind:
            case "terrace":
                yield from _terrace(random, plan, side, s, s + length)
            case "detached":
                yield from _garden_house(random, plan, side, s, s + length)
            case _:
                yield from _green(random, plan, side, s, s + length)
        s += length


def _house(
    random: Random,
    plan: _Plan,
    s: float,
    width: float,
    side: int,
    setback: float,
    *,
    depth: float,
    storeys: int | None = None,
    shop: bool = False,
    corner: bool = False,
    hidden: float = 0.0,
) -> Building:
    storeys = storeys or random.choice((2, 2, 3))
    pitched = random.random() < (0.85 if storeys <= 3 else 0.4)
    return Building(
        s=s,
        width=width,
        side=side,
        setback=setback,
        depth=depth,
        storeys=storeys,
        storey=random.uniform(2.7, 3.3),
        roof=random.uniform(1.6, 3.2) if pitched else 0.0,
        shop=shop,
        corner=corner,
        hidden=hidden,
        seed=random.randrange(1 << 30),
    )


def _terrace(random: Random, plan: _Plan, side: int, start: float, end: float) -> Iterator[Thing]:
    """Houses wall to wall."""
    town = _on(side, plan.styles) == "town"
    typical = random.choice((3, 3, 4, 4)) if town else random.choice((2, 2, 3))
    setback = plan.road.plot_edge + random.choice((0.0, 0.0, 0.4))
    depth, s = random.uniform(8.0, 12.0), start
    shops = town and random.random() < 0.65
    hidden = 0.0
    while end - s > 2.0:
        width = random.uniform(5.0, 11.0)
        if end - s - width < 4.5:
            width = end - s
        storeys = max(2, typical + random.choice((-1, 0, 0, 0, 1)))
        if random.random() < 0.04:
            storeys += 2
        shop = shops and random.random() < 0.75
        house = _house(
            random, plan, s, width, side, setback, depth=depth, storeys=storeys, shop=shop,
            corner=s == start, hidden=hidden,
        )  # fmt: skip
        yield house
        hidden = house.height
        if shop and random.random() < 0.6:
            yield HangingSign(
                s=s + random.uniform(0.1, 0.9) * width,
                d=side * setback,
                height=random.uniform(2.9, 3.5),
                size=random.uniform(0.6, 0.95),
                colour=random.choice(SHOP_COLOURS),
            )
        s += width


def _garden_house(
    random: Random, plan: _Plan, side: int, start: float, end: float
) -> Iterator[Thing]:
    """A house in its garden, behind a fence, a wall or a hedge."""
    edge = plan.road.plot_edge
    setback = edge + random.uniform(3.0, 7.0)
    margin = random.uniform(1.0, 2.5)
    yield _house(
        random, plan, start + margin, end - start - 2 * margin, side, setback,
        depth=random.uniform(7.0, 10.0), corner=True,
    )  # fmt: skip
    gate = start + random.uniform(0.2, 0.7) * (end - start)
    for low, high in ((start, gate), (gate + 1.2, end)):
        yield from _boundary(random, plan, side, low, high)
    for _ in range(random.randrange(3)):
        d = side * random.uniform(edge + 1.2, setback - 0.5)
        yield _tree(random, plan, random.uniform(start, end), d, random.uniform(3.5, 7.0))
    for _ in range(random.randrange(3)):
        d = side * (setback + random.uniform(9.0, 22.0))
        yield _tree(random, plan, random.uniform(start, end), d, random.uniform(8.0, 13.0))


def _green(random: Random, plan: _Plan, side: int, start: float, end: float) -> Iterator[Thing]:
    """A park, a churchyard, a wooded plot."""
    edge = plan.road.plot_edge
    yield from _boundary(random, plan, side, start, end)
    s = start + random.uniform(0.5, 3.0)
    while s < end - 0.5:
        d = side * (edge + random.uniform(1.5, 6.0))
        yield _tree(random, plan, s, d, random.uniform(7.0, 13.0))
        if random.random() < 0.8:
            far = side * (edge + random.uniform(8.0, 22.0))
            yield _tree(random, plan, s + random.uniform(-2, 2), far, random.uniform(9.0, 15.0))
        s += random.uniform(3.0, 8.0)
    if random.random() < 0.5 and end - start > 14.0:
        yield _house(
            random, plan, start + 3.0, end - start - 6.0, side, edge + random.uniform(18.0, 30.0),
            depth=10.0,
        )  # fmt: skip


def _boundary(random: Random, plan: _Plan, side: int, start: float, end: float) -> Iterator[Thing]:
    """What separates a plot from the pavement, in pieces short enough to follow the bend."""
    kind = random.choices(("railings", "wall", "boards", "hedge", "none"), (5, 5, 3, 3, 1))[0]
    if kind == "none":
        return
    height = {"railings": 1.3, "wall": 0.95, "boards": 1.6, "hedge": 1.5}[kind]
    height *= random.uniform(0.8, 1.25)
    dark: Colour = (36.0, 38.0, 36.0)
    wood: Colour = (70.0, random.uniform(95, 120), random.uniform(120, 150))
    d = side * (plan.road.plot_edge + 0.1)
    pieces = max(1, round((end - start) / 6.0))
    length = (end - start) / pieces
    leaf = mix(random.choice(LEAVES), (30.0, 60.0, 45.0), 0.4)
    seed = random.randrange(1 << 16)
    for i in range(pieces):
        s = start + i * length
        if length < 0.3:
            continue
        if kind == "hedge":
            yield Hedge(s, length, d, height, 0.9, leaf, seed)
        else:
            colour = {"railings": dark, "wall": plan.brick, "boards": wood}[kind]
            yield Fence(s, length, d, height, kind, colour, seed)


def _tree(random: Random, plan: _Plan, s: float, d: float, height: float) -> Tree:
    kind, seed = random.choice(plan.species)
    wide = {"leafy": 0.85, "bare": 0.85, "poplar": 0.5, "conifer": 0.5}[kind]
    leaf = random.choice(LEAVES[:4] if plan.season == "summer" else LEAVES)
    if plan.season == "autumn" and kind == "leafy":
        leaf = mix(leaf, (40.0, 100.0, 150.0), random.uniform(0.2, 0.8))
    return Tree(
        s=s,
        d=d,
        height=height,
        spread=height * wide * random.uniform(0.8, 1.15),
        kind=kind,
        colour=mix(leaf, (40.0, 90.0, 70.0), 0.4),
        bark=random.choice(BARKS),
        mirrored=random.random() < 0.5,
        seed=seed,
    )


def _pavement(random: Random, plan: _Plan, side: int) -> Iterator[Thing]:
    """Lamps, signs, bollards and trees along one kerb."""
    kerbside = side * (plan.road.half_width + 0.45)
    metal = random.choice(LAMP_COLOURS)
    tall = random.uniform(5.5, 8.5)
    s = random.uniform(0.0, 25.0)
    while s < PERIOD:
        if plan.free(s, side, 1.5):
            yield Pole(s, kerbside, tall, 0.09, random.uniform(0.9, 1.6), metal)
        s += random.uniform(24.0, 34.0)
    s = random.uniform(0.0, 20.0)
    while s < PERIOD:
        if plan.free(s, side, 1.0):
            yield _sign(random, s, kerbside, facing=side == plan.traffic)
        s += random.uniform(10.0, 32.0)
    if random.random() < 0.35:
        start = random.uniform(0.0, PERIOD - 40.0)
        for i in range(random.randrange(8, 24)):
            s = start + 1.8 * i
            if plan.free(s, side, 0.5):
                yield Pole(s, kerbside, 1.0, 0.075, 0.0, (40.0, 40.0, 40.0))
    if _on(side, plan.avenue):
        s, pitch = random.uniform(0.0, 8.0), random.uniform(8.0, 14.0)
        height = random.uniform(6.0, 10.0)
        while s < PERIOD:
            if plan.free(s, side, 2.0):
                yield _tree(random, plan, s, side * (plan.road.half_width + 0.9), height)
            s += pitch


def _sign(random: Random, s: float, d: float, facing: bool) -> Sign:
    kinds = ("ban", "warning", "order", "panel") if facing else ("back", "panel", "ban")
    return Sign(
        s=s,
        d=d,
        height=random.uniform(2.2, 2.9),
        size=random.uniform(0.32, 0.52),
        kind=random.choice(kinds),
        variant=random.randrange(6),
    )


def _crossings(random: Random, plan: _Plan) -> Iterator[Thing]:
    """Traffic lights, barriers and people at crossings and street corners."""
    edge = plan.road.half_width + 0.4
    places = [(zebra - 3.2, 0.8) for zebra in plan.zebras]
    places += [(j.s - j.half_width - 6.0, 0.45) for j in plan.junctions]
    for s, chance in places:
        if random.random() > chance:
            continue
        lit = random.choice(("red", "green", "amber", "green"))
        for side in (-1, 1):
            yield TrafficLight(s, side * edge, random.uniform(2.1, 2.5), lit)
            if random.random() < 0.7:
                length = random.uniform(4.0, 14.0)
                grey: Colour = (132.0, 134.0, 134.0)
                yield Fence(s - length - 0.5, length, side * edge, 1.05, "barrier", grey, 0)
    for zebra in plan.zebras:
        for _ in range(random.randrange(1, 4)):
            yield _pedestrian(
                random, zebra + random.uniform(-1.2, 1.2), 0.0, crosses=plan.road.half_width + 1.0
            )


def _pedestrians(random: Random, plan: _Plan, side: int) -> Iterator[Pedestrian]:
    s = random.uniform(0.0, 15.0)
    while s < PERIOD:
        low, high = plan.road.half_width + 0.7, plan.road.plot_edge - 0.35
        d = side * random.uniform(low, max(low, high))
        yield _pedestrian(random, s, d, crosses=0.0)
        if random.random() < 0.35:  # in company
            beside = d + random.choice((-0.6, 0.6))
            yield _pedestrian(random, s + random.uniform(-0.4, 0.4), beside, crosses=0.0)
        s += random.expovariate(plan.busy / 16.0) + 0.8


def _pedestrian(random: Random, s: float, d: float, crosses: float) -> Pedestrian:
    standing = not crosses and random.random() < 0.15
    pace = 0.0 if standing else random.uniform(0.9, 1.7)
    return Pedestrian(
        s=s,
        d=d,
        speed=pace * random.choice((-1, 1)),
        crosses=crosses,
        height=random.choices((random.uniform(1.55, 1.9), random.uniform(1.0, 1.4)), (9, 1))[0],
        clothes=_clothes(random),
        skirted=random.random() < 0.25,
        bag=random.choice(COATS) if random.random() < 0.3 else None,
        phase=random.uniform(0.0, 2 * math.pi),
    )


def _clothes(random: Random) -> Clothes:
    return Clothes(
        coat=random.choice(COATS),
        trousers=random.choice(TROUSERS),
        shoes=(34.0, 34.0, 36.0),
        skin=random.choice(SKINS),
        hair=random.choice(HAIRS),
    )


def _traffic(random: Random, plan: _Plan, drive: Drive) -> Iterator[Thing]:
    """Parked cars, cars on the move and cyclists."""
    for side in (-1, 1):
        if _on(side, plan.parked):
            s = random.uniform(0.0, 6.0)
            while s < PERIOD:
                if plan.free(s, side, 5.0) and random.random() < 0.5:
                    d = side * (plan.road.half_width - 1.0 + random.uniform(-0.1, 0.1))
                    yield _vehicle(random, s, d, 0.0, ahead=side == plan.traffic)
                s += random.uniform(5.6, 7.5)
    # Cars ahead keep the camera's pace, so that it never runs into them.
    s = drive.s + random.uniform(9.0, 40.0)
    while s < drive.s + 150.0:
        yield _vehicle(random, s, plan.traffic * plan.lane, drive.speed, ahead=True)
        s += random.uniform(8.0, 20.0) + random.expovariate(plan.busy / 35.0)
    oncoming = -random.uniform(4.0, 12.0)
    s = random.uniform(0.0, 30.0)
    while s < PERIOD - 15.0:
        yield _vehicle(random, s, -plan.traffic * plan.lane, oncoming, ahead=False)
        s += random.uniform(8.0, 20.0) + random.expovariate(plan.busy / 30.0)
    # Cyclists keep to the edge of the driving lane.
    edge = 2.0 * plan.lane - 0.6
    for side, sign in ((plan.traffic, 1.0), (-plan.traffic, -1.0)):
        s = random.uniform(0.0, 30.0)
        while s < PERIOD:
            yield Cyclist(
                s=s,
                d=side * (edge - random.uniform(0.0, 0.5)),
                speed=sign * random.uniform(3.5, 6.5),
                height=random.uniform(1.6, 1.88),
                clothes=_clothes(random),
                frame=random.choice(CAR_PAINTS),
                phase=random.uniform(0.0, 2 * math.pi),
            )
            s += random.expovariate(plan.busy / 55.0) + 3.0


def _vehicle(random: Random, s: float, d: float, speed: float, ahead: bool) -> Vehicle:
    weights = (5, 4, 3, 1.2, 0.0 if speed == 0.0 else 0.5)
    body = random.choices(tuple(BODIES), weights)[0]
    paint = random.choice(CAR_PAINTS)
    if body == "van" and random.random() < 0.6:
        paint = (222.0, 224.0, 224.0)
    return Vehicle(s=s, d=d, speed=speed, ahead=ahead, body=body, paint=paint)
