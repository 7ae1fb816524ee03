"""Light and weather: one sun, one sky, haze and wetness."""

from __future__ import annotations

import math
from dataclasses import dataclass
from random import Random

from edgeseg.synthetic.canvas import Colour

Vector = tuple[float, float, float]


@dataclass(frozen=True)
class Light:
    """The light and weather of one scene.

    Attributes:
        sun: Unit vector towards the sun, world axes (x right, y up, z along the street).
        sun_colour: Direct light on a surface that faces the sun, BGR factors.
        sky_colour: Light from the whole sky on a horizontal surface, BGR factors.
        zenith: Colour of the sky overhead.
        horizon: Colour of the sky near the ground, and of the haze.
        clouds: Share of the sky under cloud, 0..1.
        haze: Extinction per metre.
        wetness: 0 dry .. 1 rain-soaked.
    """

    sun: Vector
    sun_colour: Colour
    sky_colour: Colour
    zenith: Colour
    horizon: Colour
    clouds: float
    haze: float
    wetness: float

    @property
    def shadow(self) -> Colour:
        """What is left of the light on the ground in the sun's shadow, BGR factors."""
        b, g, r = self.on((0.0, 1.0, 0.0))
        sb, sg, sr = self.sky_colour
        return sb / b, sg / g, sr / r

    def on(self, normal: Vector) -> Colour:
        """Light on a surface with this unit normal, BGR factors."""
        (x, y, z), (sun_x, sun_y, sun_z) = normal, self.sun
        facing = max(0.0, x * sun_x + y * sun_y + z * sun_z)
        # A wall sees half the sky, and the lit ground below it gives some back.
        openness = 0.72 + 0.28 * y
        (b, g, r), (sun_b, sun_g, sun_r) = self.sky_colour, self.sun_colour
        return (
            b * openness + sun_b * facing,
            g * openness + sun_g * facing,
            r * openness + sun_r * facing,
        )


def tint(colour: Colour, light: Colour) -> Colour:
    """A surface colour under a light, clipped to what a frame can hold."""
    (b, g, r), (light_b, light_g, light_r) = colour, light
    return min(255.0, b * light_b), min(255.0, g * light_g), min(255.0, r * light_r)


def mix(a: Colour, b: Colour, share: float) -> Colour:
    """Blend of two colours; `share` of the second."""
    (a_b, a_g, a_r), (b_b, b_g, b_r) = a, b
    return a_b + (b_b - a_b) * share, a_g + (b_g - a_g) * share, a_r + (b_r - a_r) * share


def sample_light(random: Random) -> Light:
    """Draw a time of day and a weather."""
    weather = random.choices(("clear", "broken", "overcast", "rain"), (4, 3, 3, 1))[0]
    elevation = math.radians(random.triangular(8.0, 60.0, 25.0))
    azimuth = random.uniform(-math.pi, math.pi)
    sun = (
        math.cos(elevation) * math.sin(azimuth),
        math.sin(elevation),
        math.cos(elevation) * math.cos(azimuth),
    )
    # A low sun is weak and warm.
    warmth = max(0.0, 1.0 - elevation / math.radians(35.0))
    strength = {"clear": 0.85, "broken": 0.6, "overcast": 0.06, "rain": 0.0}[weather]
    strength *= random.uniform(0.8, 1.1)
    sun_colour = (
        strength * (0.92 - 0.35 * warmth),
        strength * (0.97 - 0.15 * warmth),
        strength,
    )
    grey = {"clear": 0.0, "broken": 0.3, "overcast": 0.9, "rain": 1.0}[weather]
    ambient = {"clear": 0.52, "broken": 0.6, "overcast": 0.78, "rain": 0.66}[weather]
    ambient *= random.uniform(0.85, 1.1)
    sky_colour = mix((1.1, 1.0, 0.93), (1.02, 1.0, 0.99), grey)
    blue_zenith = (random.uniform(205, 250), random.uniform(150, 205), random.uniform(90, 175))
    cloud_grey = random.uniform(180, 240) if weather == "overcast" else random.uniform(150, 200)
    zenith = mix(blue_zenith, (cloud_grey + 4, cloud_grey, cloud_grey - 2), grey)
    blue_horizon = (252.0 - 30.0 * warmth, 246.0 - 8.0 * warmth, 234.0 + 14.0 * warmth)
    pale = min(245.0, cloud_grey + random.uniform(15, 45))
    horizon = mix(blue_horizon, (pale, pale, pale - 2), grey)
    haze = {"clear": 0.0012, "broken": 0.0018, "overcast": 0.0035, "rain": 0.007}[weather]
    haze *= random.uniform(0.6, 1.8)
    if random.random() < 0.08:
        haze += random.uniform(0.006, 0.016)
    b, g, r = sky_colour
    return Light(
        sun=sun,
        sun_colour=sun_colour,
        sky_colour=(b * ambient, g * ambient, r * ambient),
        zenith=zenith,
        horizon=horizon,
        clouds={"clear": random.uniform(0.05, 0.3), "broken": 0.55, "overcast": 1.0, "rain": 1.0}[
            weather
        ],
        haze=haze,
        wetness={
            "clear": 0.0,
            "broken": 0.0,
            "overcast": random.choice((0.0, 0.0, 0.4)),
            "rain": random.uniform(0.6, 1.0),
        }[weather],
    )
