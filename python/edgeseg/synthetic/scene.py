"""A sampled street: the description that `render` photographs."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from edgeseg.synthetic.geometry import PERIOD, Camera, Road
from edgeseg.synthetic.ground import Ground
from edgeseg.synthetic.lens import Lens
from edgeseg.synthetic.light import Light
from edgeseg.synthetic.sky import Skyline
from edgeseg.synthetic.stage import Thing


@dataclass(frozen=True)
class Drive:
    """The camera car.

    Attributes:
        s: Metres along the street at time 0.
        d: Metres from the centre line.
        speed: Metres per second.
        height: Of the camera in metres.
        field_of_view: Horizontal, in radians.
        pitch: Downward tilt in radians.
        yaw: Constant turn away from the road's direction in radians.
        bonnet: Height of the car's own bonnet in the image as a share of it, 0 for none.
    """

    s: float
    d: float
    speed: float
    height: float
    field_of_view: float
    pitch: float
    yaw: float
    bonnet: float


@dataclass(frozen=True)
class Scene:
    """A street, sampled; everything in metres and seconds.

    Attributes:
        seed: Where it came from.
        road: The centre line and the road's section.
        light: Time of day and weather.
        lens: The camera's rendition.
        drive: The camera's way.
        ground: Surfaces and markings.
        skyline: What is far away.
        things: Everything that stands on the ground.
    """

    seed: int
    road: Road
    light: Light
    lens: Lens
    drive: Drive
    ground: Ground
    skyline: Skyline
    things: tuple[Thing, ...]

    def camera(self, height: int, width: int, time: float) -> Camera:
        """The camera of a height×width image, `time` seconds into the drive."""
        drive = self.drive
        s = (drive.s + drive.speed * time) % PERIOD
        heading = self.road.heading(s)
        x, _, z = self.road.world(np.array(s), np.array(drive.d), np.array(0.0))
        # The car rocks a little on its springs.
        rocking = 0.0015 * min(1.0, drive.speed / 8.0) * math.sin(5.1 * time)
        return Camera(
            height=height,
            width=width,
            focal=0.5 * width / math.tan(0.5 * drive.field_of_view),
            position=(float(x), drive.height, float(z)),
            yaw=self.road.heading(s + 5.0) * 0.5 + heading * 0.5 + drive.yaw,
            pitch=drive.pitch + rocking,
        )
