"""What the pages take for granted: a reader's own files, and time.

A file that a page names is put into the page's folder as its small stand-in. What would take
minutes is made small by the `SHRINKS`, the only difference between a page and what is run.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from shutil import copyfile, copytree
from typing import TYPE_CHECKING

import cv2
import numpy as np

from edgeseg import synthetic
from edgeseg.runtime import packaged_engine
from edgeseg.video import write_video

if TYPE_CHECKING:
    import torch

CLASSES = {"road": 3, "car": 8, "person": 9}  # and their ids in CamVid, as streets are labelled


def picture(path: Path) -> None:
    """A street."""
    cv2.imwrite(str(path), synthetic.street(7, 120, 160).frame)


def video(path: Path) -> None:
    """Six frames down a street."""
    with write_video(path, 10) as writer:
        for sample in synthetic.clip(7, 120, 160, frames=6, fps=10):
            writer.write(sample.frame)


def engine(path: Path) -> None:
    """The packaged one."""
    copyfile(packaged_engine(), path)


def data_set(root: Path) -> None:
    """Streets labelled road, car, person: four to train with, two to validate."""
    ids = np.full(256, 255, np.uint8)
    ids[list(CLASSES.values())] = range(len(CLASSES))
    for split, seeds in (("train", range(4)), ("val", range(4, 6))):
        for kind in ("images", "labels"):
            (root / split / kind).mkdir(parents=True)
        for seed in seeds:
            street = synthetic.street(seed, 64, 96)
            cv2.imwrite(str(root / split / "images" / f"{seed}.png"), street.frame)
            cv2.imwrite(str(root / split / "labels" / f"{seed}.png"), ids[street.labels])


def camvid(root: Path) -> None:
    """Streets in the SegNet tutorial's layout, whose labels are CamVid's indices."""
    for split, seeds in (("train", range(4)), ("val", range(4, 6))):
        for folder in (split, f"{split}annot"):
            (root / folder).mkdir(parents=True)
        for seed in seeds:
            street = synthetic.street(seed, 72, 96)
            cv2.imwrite(str(root / split / f"{seed}.png"), street.frame)
            cv2.imwrite(str(root / f"{split}annot" / f"{seed}.png"), street.labels)
        lines = (f"/SegNet/{split}/{seed}.png /SegNet/{split}annot/{seed}.png\n" for seed in seeds)
        (root / f"{split}.txt").write_text("".join(lines))


def official_network(path: Path) -> None:
    """STDC-Seg's checkpoint form, weights at random."""
    import torch
    from tests.models.test_pretrained import write_stdcseg

    torch.save(_at_random(write_stdcseg("stdc1", 19)), path)


def _at_random(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Float tensors in place of numbered ones: matrices around 0, what scales around 1."""
    import torch

    torch.manual_seed(0)
    for name, tensor in weights.items():
        if tensor.is_floating_point():
            centre = 0.0 if tensor.ndim > 1 or name.endswith(("bias", "mean")) else 1.0
            weights[name] = centre + 0.05 * torch.randn_like(tensor).clamp(-2, 2)
    return weights


def official_backbone(path: Path) -> None:
    """STDC-Seg's form of an ImageNet backbone, weights at random."""
    import torch
    from tests.models.test_pretrained import Writer, write_stdcseg_backbone

    writer = Writer()
    write_stdcseg_backbone(writer, "stdc1")
    torch.save({"state_dict": _at_random(writer.state)}, path)


def backbone(path: Path) -> None:
    """A start for the backbone, as `edgeseg convert --backbone` makes one."""
    from edgeseg.checkpoint import convert_backbone, save_checkpoint

    official_backbone(path)
    save_checkpoint(path, convert_backbone(path, "stdc1"))


def clip_weights(path: Path) -> None:
    """CLIP RN50's text tower, weights at random."""
    import torch
    from open_clip.transformer import TextTransformer

    torch.manual_seed(0)
    tower = TextTransformer(77, 49408, width=512, heads=8, layers=12, output_dim=1024)
    torch.save({name: tensor.half() for name, tensor in tower.state_dict().items()}, path)


def ros2(path: Path) -> None:
    """A package of ROS 2, as far as a page needs it."""
    copytree(Path(__file__).parent / "ros2" / path.name, path)


STAND_INS: Mapping[str, Callable[[Path], None]] = {
    "street.jpg": picture,
    "photo.jpg": picture,
    "drive.mp4": video,
    "my.edgeseg": engine,
    "camvid.edgeseg": engine,
    "MINE": data_set,
    "CAMVID": camvid,
    "STDCNet813M_73.91.tar": official_backbone,
    "stdc1.pt": backbone,
    "clip.pt": clip_weights,
    "rclpy": ros2,
    "sensor_msgs": ros2,
    "model_maxmIOU50.pth": official_network,
}
"""By the name that a page uses."""

SHRINKS: tuple[tuple[str, str, str], ...] = (
    (r"^pip install .*$", "true", "the tests' environment has it"),
    (r"^edgeseg train [^#\n]*", r"\g<0> --iterations 2 --set batch_size=2 ", "two steps"),
    (r"(?<=--size )(320x240|640x480|960x720|1024x512)", "96x64", "small networks"),
    (r"^edgeseg train camvid[^#\n]*", r"\g<0> --size 96x64 ", "small crops"),
    (r"--encoder clip-rn50", r"\g<0> --encoder-weights clip.pt", "no download"),
    (r"^edgeseg text --dataset [^#\n]*", r"\g<0> --weights clip.pt ", "no download"),
    (r"^edgeseg bench [^#\n]*", r"\g<0> --seconds 0.2 ", "a glance"),
    (r"^edgeseg quantize [^#\n]*", r"\g<0> --frames 4 ", "four frames"),
    (r"range\(80\).*range\(80, 96\)", 'range(6), "val": range(80, 82)', "few pictures"),
    (r"height=240, width=320", "height=64, width=96", "small pictures"),
    (r"stream\(0,", 'stream("drive.mp4",', "no camera: a video in its place"),
    (r"--port 6006", "--port 0", "a port that is free"),
    (r"--seconds 3600", "--seconds 1", "a glance"),
    (
        r"tests\.(stress \w+|fuzz\.kernels)",
        r"\g<0> --help",
        "minutes of compiling and counting, of which tests/stress and tests/fuzz run short forms",
    ),
)
"""Pattern in a block, what takes its place, and why that still tests the page."""


def shrunk(code: str) -> str:
    """A block as it is run."""
    for pattern, replacement, _ in SHRINKS:
        code = re.sub(pattern, replacement, code, flags=re.MULTILINE)
    return code
