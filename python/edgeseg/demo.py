"""A drive down a street that nobody has to download."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgeseg import synthetic
from edgeseg.files import make_folder
from edgeseg.images import write_image
from edgeseg.predict import OnFrame, Report, Tally
from edgeseg.runtime import Runtime
from edgeseg.video import prefetch, write_video

HEIGHT, WIDTH, FPS = 540, 960, 15


def run_demo(
    out: Path,
    engine: str | os.PathLike[str] | None,
    seconds: float,
    seed: int,
    threads: int | None,
    on_frame: OnFrame,
) -> Report:
    """Segment a synthetic clip; write it with overlays, and its first frame as pictures.

    Args:
        out: folder for `street_overlay.mp4`, `street.png`, `street_overlay.png` and
            `street_colored.png`; made if it is not there.
        engine: an engine file; None is the packaged one.
        seconds: length of the clip.
        seed: which street.
        threads: CPU threads; None is all.
        on_frame: for progress bars.

    Raises:
        EngineError: the engine cannot be used.
        OutputError: something cannot be written.
    """
    runtime = Runtime(engine, threads=threads)
    make_folder(out)
    total = max(1, round(seconds * FPS))

    def frames() -> Iterator[NDArray[np.uint8]]:
        for rendering in synthetic.clip(seed, HEIGHT, WIDTH, total, FPS):
            yield rendering.frame

    tally = Tally(runtime)
    clip = out / "street_overlay.mp4"
    written = [clip]
    with write_video(clip, FPS) as video, prefetch(frames(), 2) as rendered:
        for result in runtime.stream(rendered):
            overlay = result.overlay()
            video.write(overlay)
            done = tally.add(result)
            if done == 1:
                stills = {
                    "street.png": result.frame.pixels,
                    "street_overlay.png": overlay,
                    "street_colored.png": result.colored(),
                }
                for name, pixels in stills.items():
                    write_image(out / name, pixels)
                    written.append(out / name)
            on_frame(done, total)
    return tally.report(written)
