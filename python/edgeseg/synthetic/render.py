"""From a scene to frames and labels: the painter's algorithm, far to near."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

import numpy as np
from numpy.typing import NDArray

from edgeseg.arguments import check_integer, check_number
from edgeseg.classes import IGNORE
from edgeseg.synthetic.canvas import Canvas
from edgeseg.synthetic.geometry import NEAR, PERIOD
from edgeseg.synthetic.ground import Shadow, draw_ground
from edgeseg.synthetic.lens import expose, wet_reflection
from edgeseg.synthetic.light import mix
from edgeseg.synthetic.plan import sample_scene
from edgeseg.synthetic.scene import Scene
from edgeseg.synthetic.sky import draw_sky, draw_skyline
from edgeseg.synthetic.stage import LABEL, Stage, Thing
from edgeseg.synthetic.vehicles import Vehicle

LARGEST_SIDE = 8192
"""Pixels; a larger image is taken for a mistake."""

BEHIND = 15.0
"""Metres behind the camera from which things are still considered: façades that reach ahead."""

SIGHT = 160.0
"""Metres ahead of the camera beyond which only the skyline is drawn."""

SMALLEST = 1.5
"""Height in pixels of the smallest thing that is drawn."""

SHADOW_SIGHT = 80.0
"""Metres ahead of the camera beyond which shadows are too thin to see."""


@dataclass(frozen=True)
class Rendering:
    """A frame and what is in it.

    Attributes:
        frame: H×W×3 uint8, BGR.
        labels: H×W uint8, class ids of `edgeseg.classes.CAMVID`; 255 on the camera's own car.
    """

    frame: NDArray[np.uint8]
    labels: NDArray[np.uint8]


def render(scene: Scene, height: int, width: int, time: float = 0.0) -> Rendering:
    """Photograph a scene.

    Args:
        scene: From `sample_scene`.
        height: Pixels, 1 to 8192.
        width: Pixels, 1 to 8192. All sizes show the same horizontal field of view.
        time: Seconds since the start of the drive; any finite number.

    Returns:
        The frame and its labels. The same arguments give the same bytes on the same machine with
        the same versions of numpy and OpenCV; elsewhere a rounding may differ.

    Raises:
        InputError: A size or the time is out of range.
    """
    height, width = _check_size(height, width)
    time = check_number("time", time)
    canvas = Canvas(scene.camera(height, width, time), scene.light.haze)
    stage = Stage(canvas, scene.road, scene.light, time)
    things = _nearby(scene, stage)

    draw_sky(stage, scene.skyline)
    draw_ground(stage, scene.ground, _shadows(stage, things), _contacts(stage, things))
    draw_skyline(stage, scene.skyline)
    for s, thing in _in_view(things, stage):
        thing.draw(stage, s)
    wet_reflection(canvas, scene.light, LABEL["road"])
    if scene.drive.bonnet > 0.0:
        _draw_bonnet(stage, scene.drive.bonnet)
    grain = Random(f"grain {scene.seed} {time!r}")
    return Rendering(expose(canvas, scene.light, scene.lens, grain), canvas.labels)


def street(seed: int, height: int, width: int) -> Rendering:
    """One street from a seed: `render(sample_scene(seed), height, width)`."""
    return render(sample_scene(seed), height, width)


def clip(seed: int, height: int, width: int, frames: int, fps: float = 15) -> Iterator[Rendering]:
    """A drive down one street.

    Args:
        seed: Of the scene.
        height: Pixels, 1 to 8192.
        width: Pixels, 1 to 8192.
        frames: How many, at least 0.
        fps: Frames per second of the drive.

    Returns:
        An iterator over the frames, each rendered when it is asked for.

    Raises:
        InputError: An argument is out of range.
    """
    height, width = _check_size(height, width)
    frames = check_integer("frames", frames, 0)
    fps = check_number("fps", fps, 0.001, 1000)
    scene = sample_scene(seed)
    return (render(scene, height, width, i / fps) for i in range(frames))


def _check_size(height: int, width: int) -> tuple[int, int]:
    return (
        check_integer("height", height, 1, LARGEST_SIDE),
        check_integer("width", width, 1, LARGEST_SIDE),
    )


def _nearby(scene: Scene, stage: Stage) -> list[tuple[float, Thing]]:
    """Things near the camera with their places shifted to its lap, the farthest first."""
    start = (scene.drive.s + scene.drive.speed * stage.time) % PERIOD - BEHIND
    placed = []
    for thing in scene.things:
        s = start + (thing.place(stage.time) - start) % PERIOD
        if s < start + BEHIND + SIGHT:
            placed.append((s, thing))
        elif s + thing.box.ahead > start + PERIOD:  # begins behind and reaches past the camera
            placed.append((s - PERIOD, thing))
    # What hides others stretches along the street, so its far end decides.
    placed.sort(key=lambda item: -(item[0] + item[1].box.ahead))
    return placed


def _in_view(things: list[tuple[float, Thing]], stage: Stage) -> list[tuple[float, Thing]]:
    """Those of the things whose boxes may show in the image."""
    if not things:
        return []
    boxes = [
        (s - box.behind, s + box.ahead, box.left, box.right, box.height)
        for s, box in ((s, thing.box) for s, thing in things)
    ]
    back, front, left, right, height = np.array(boxes).T[:, :, None]
    s = np.where([0, 1, 0, 1, 0, 1, 0, 1], back, front)
    d = np.where([0, 0, 1, 1, 0, 0, 1, 1], left, right)
    y = np.where([0, 0, 0, 0, 1, 1, 1, 1], height, 0.0)
    camera = stage.canvas.camera
    x, down, depth = np.moveaxis(camera.view(stage.road.world(s, d, y)), -1, 0)
    # Half the image, widened by a degree or so, as slopes of the limiting rays.
    across = (0.5 * camera.width + 1.0) / camera.focal + 0.02
    upward = (0.5 * camera.height + 1.0) / camera.focal + 0.02
    seen = (depth.max(axis=1) > NEAR) & ~(
        (x > across * depth).all(axis=1)
        | (x < -across * depth).all(axis=1)
        | (down > upward * depth).all(axis=1)
        | (down < -upward * depth).all(axis=1)
    )
    large = height[:, 0] * camera.focal > SMALLEST * depth.min(axis=1)
    return [things[i] for i in np.flatnonzero(seen & large)]


def _shadows(stage: Stage, things: list[tuple[float, Thing]]) -> list[Shadow]:
    if max(stage.light.sun_colour) <= 0.0:
        return []
    here = stage.canvas.camera.position[2]
    thrown = (thing.shadow(stage, s) for s, thing in things if s - here < SHADOW_SIGHT)
    return [Shadow(*shadow) for shadow in thrown if shadow is not None]


def _contacts(stage: Stage, things: list[tuple[float, Thing]]) -> list[Shadow]:
    """The dark under vehicles, where not even the sky shines."""
    return [Shadow(thing.footprint(s), 0.9) for s, thing in things if isinstance(thing, Vehicle)]


def _draw_bonnet(stage: Stage, share: float) -> None:
    """The camera car's own bonnet along the lower edge of the image."""
    canvas = stage.canvas
    height, width = canvas.labels.shape
    x = np.linspace(0.0, width, 25)
    rise = share * height * (1.0 - 0.55 * (2.0 * x / width - 1.0) ** 2)
    for drop, tone in ((0.0, 0.10), (0.25, 0.22), (0.6, 0.14)):
        top = np.stack([x, height - (1.0 - drop) * rise], axis=-1)
        outline = np.concatenate([top, [[width + 1.0, height + 1.0], [-1.0, height + 1.0]]])
        colour = mix((14.0, 13.0, 12.0), stage.light.horizon, tone)
        canvas.polygon(outline, colour, IGNORE, 0.0)
