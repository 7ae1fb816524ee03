"""Procedural streets: frames with exact labels from a seed, as many as are wanted.

A street is sampled as a description in metres and seconds (`sample_scene`), then photographed at
any size and time (`render`). Labels are drawn by the same polygons as the frame, in CamVid's
classes. Needs numpy and OpenCV, no data and no torch.

    from edgeseg import synthetic
    sample = synthetic.street(seed=7, height=360, width=480)
    sample.frame, sample.labels

Modules, lowest first: `geometry` (road, camera), `canvas` (what is drawn on), `light`,
`textures`, `stage` (what an object needs to draw itself); the objects `ground`, `sky`,
`buildings`, `vegetation`, `vehicles`, `people`, `furniture`; `lens` (what a camera does to it);
`scene` (the description), `plan` (how one is sampled), `render` (all of it, far to near).
"""

from edgeseg.synthetic.plan import sample_scene
from edgeseg.synthetic.render import Rendering, clip, render, street
from edgeseg.synthetic.scene import Scene

__all__ = ["Rendering", "Scene", "clip", "render", "sample_scene", "street"]
