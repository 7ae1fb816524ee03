"""The command line: right files, right exit codes, one sentence for an error, no traceback."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from edgeseg.video import open_source, write_video


def edgeseg(*arguments: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from edgeseg.cli import main; main()"]
    done = subprocess.run([*command, *map(str, arguments)], capture_output=True, text=True, cwd=cwd)
    assert "Traceback" not in done.stderr, done.stderr
    return done


def report(*arguments: object) -> dict[str, Any]:
    done = edgeseg(*arguments, "--json")
    assert done.returncode == 0, done.stderr
    parsed: dict[str, Any] = json.loads(done.stdout)
    return parsed


def red(height: int, width: int) -> np.ndarray:
    frame = np.zeros((height, width, 3), np.uint8)
    frame[..., 2] = 200
    return frame


def test_predict_an_image(tiny_engine: Path, tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "photo.jpg"), red(90, 130))
    out = tmp_path / "out"
    done = report(
        "predict", tmp_path / "photo.jpg", "-e", tiny_engine, "-o", out, "--labels", "--colored"
    )
    assert done["frames"] == 1
    assert done["areas"]["red"] == 1.0
    assert done["stages_ms"]["total"]["p50"] > 0
    assert sorted(path.name for path in out.iterdir()) == [
        "photo_colored.png",
        "photo_labels.png",
        "photo_overlay.png",
    ]
    labels = cv2.imread(str(out / "photo_labels.png"), cv2.IMREAD_UNCHANGED)
    assert labels.shape == (90, 130)
    assert (labels == 0).all()


def test_predict_a_folder_loses_no_file(tiny_engine: Path, tmp_path: Path) -> None:
    for name in ("a.png", "a.jpg", "b.png"):
        cv2.imwrite(str(tmp_path / name), red(40, 60))
    done = report("predict", tmp_path, "-e", tiny_engine, "-o", tmp_path / "out")
    assert done["frames"] == 3
    assert len(list((tmp_path / "out").iterdir())) == 3


def test_predict_a_video(tiny_engine: Path, tmp_path: Path) -> None:
    with write_video(tmp_path / "drive.mp4", fps=10) as video:
        for _ in range(8):
            video.write(red(48, 64))
    out = tmp_path / "out"
    done = report(
        "predict", tmp_path / "drive.mp4", "-e", tiny_engine, "-o", out, "--labels", "--limit", 5
    )
    assert done["frames"] == 5
    with open_source(out / "drive_overlay.mp4") as clip:
        assert len(list(clip)) == 5
    assert len(list((out / "drive_labels").iterdir())) == 5


def test_predict_writes_what_is_asked_for(tiny_engine: Path, tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "photo.png"), red(90, 130))
    out = tmp_path / "out"
    flags = "--no-overlay --side-by-side --legend --geojson --coco --simplify 1 --min-area 2"
    filters = "--only red,green --min-confidence 0.2 --smooth 3"
    command = ("predict", tmp_path / "photo.png", "-e", tiny_engine, "-o", out)
    done = report(*command, *flags.split(), *filters.split())
    files = ["photo_side-by-side.png", "photo.geojson", "photo_coco.json"]
    assert [Path(path).name for path in done["written"]] == files
    assert sorted(path.name for path in out.iterdir()) == sorted(files)
    (feature,) = json.loads((out / "photo.geojson").read_bytes())["features"]
    assert feature["properties"]["area"] == 90 * 130


def test_predict_lists_the_classes_where_one_is_unknown(tiny_engine: Path, tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "photo.png"), red(8, 8))
    out = tmp_path / "out"
    command = ("predict", tmp_path / "photo.png", "-e", tiny_engine, "-o", out)
    done = edgeseg(*command, "--only", "red,rouge")
    assert done.returncode == 1
    sentence = "no class is called 'rouge'; there are red, green, blue"
    assert sentence in done.stderr.replace("\n", " ")
    assert not out.exists()


def test_a_video_that_breaks_off_keeps_what_was_read(tiny_engine: Path, tmp_path: Path) -> None:
    whole = tmp_path / "whole.avi"
    noise = np.random.default_rng(0)
    writer = cv2.VideoWriter(str(whole), cv2.VideoWriter.fourcc(*"MJPG"), 10, (64, 48))
    for _ in range(20):
        writer.write(noise.integers(0, 256, (48, 64, 3), np.uint8))
    writer.release()
    cut = tmp_path / "cut.avi"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    done = edgeseg("predict", cut, "-e", tiny_engine, "-o", tmp_path / "out")
    assert done.returncode == 1
    assert "ends early" in done.stderr.replace("\n", " ")
    with open_source(tmp_path / "out" / "cut_overlay.mp4") as clip:
        assert 0 < len(list(clip)) < 20


def test_demo(tiny_engine: Path, tmp_path: Path) -> None:
    done = report("demo", "-e", tiny_engine, "-o", tmp_path / "out", "--seconds", 0.3)
    assert done["frames"] == 4
    for path in done["written"]:
        assert Path(path).stat().st_size > 0


def test_info_and_verify(tiny_engine: Path) -> None:
    assert report("info", tiny_engine)["classes"] == ["red", "green", "blue"]
    assert report("verify", tiny_engine)["ok"] is True
    assert "red, green, blue" in edgeseg("info", tiny_engine).stdout


def test_verify_tells_a_difference_by_its_exit_code(write_tiny_engine: Any, tmp_path: Path) -> None:
    from edgeseg.engine_file import Input

    other = Input(height=64, width=96, mean=(255.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    path = write_tiny_engine(tmp_path / "other.edgeseg", input=other)
    assert edgeseg("verify", path).returncode == 3


def test_version() -> None:
    assert edgeseg("--version").stdout.startswith("edgeseg 0.")


def test_doctor() -> None:
    findings = {
        finding["subject"]: finding for finding in json.loads(edgeseg("doctor", "--json").stdout)
    }
    assert findings["edgeseg"]["state"] == "ok"
    assert findings["packaged engine"]["state"] == "ok"
    assert findings["openvino"]["state"] == "ok"


@pytest.fixture(scope="module")
def labelled_frames(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two frames, red left and blue right, labelled so but for a strip of void above."""
    root = tmp_path_factory.mktemp("frames")
    frame = red(64, 96)
    frame[:, 48:] = frame[:, 48:, ::-1]
    labels = np.zeros((64, 96), np.uint8)
    labels[:, 48:], labels[:6] = 2, 255
    for folder, pixels in (("images", frame), ("labels", labels)):
        (root / "val" / folder).mkdir(parents=True)
        for name in ("a.png", "b.png"):
            cv2.imwrite(str(root / "val" / folder / name), pixels)
    return root


@pytest.fixture(scope="module")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network that knows nothing, of the classes of `labelled_frames`."""
    from edgeseg.checkpoint import Checkpoint, save_checkpoint
    from edgeseg.classes import ClassTable
    from edgeseg.data import IMAGENET_MEAN, IMAGENET_STD
    from edgeseg.models import STDCSeg, STDCSegConfig

    config = STDCSegConfig("stdc1", num_classes=3, text_guidance=None)
    checkpoint = Checkpoint(
        model_config=config,
        state_dict=STDCSeg(config).state_dict(),
        classes=ClassTable(("red", "green", "blue"), ((255, 0, 0), (0, 255, 0), (0, 0, 255))),
        text_provenance=None,
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        training={"dataset": "none", "config": {"eval_size": (64, 96)}},
    )
    path = tmp_path_factory.mktemp("checkpoint") / "tiny.pt"
    save_checkpoint(path, checkpoint)
    return path


def test_evaluate_an_engine(labelled_frames: Path, tiny_engine: Path, tmp_path: Path) -> None:
    picture = tmp_path / "confusion.png"
    done = report("evaluate", labelled_frames, "-e", tiny_engine, "--confusion", picture)
    assert done["images"] == 2
    assert done["miou"] == done["pixel_accuracy"] == done["mean_boundary_f"] == 1
    assert done["iou"] == {"red": 1, "green": None, "blue": 1}
    assert done["confusion"] == [[2 * 58 * 48, 0, 0], [0, 0, 0], [0, 0, 2 * 58 * 48]]
    assert done["runtime"].startswith("Runtime('tiny'")
    assert done["options"] == {"boundary_tolerance": 0.0075}
    assert picture.stat().st_size > 0


def test_evaluate_a_checkpoint(labelled_frames: Path, tiny_checkpoint: Path) -> None:
    command = ["evaluate", labelled_frames, "--checkpoint", tiny_checkpoint, "--threads", 1]
    plain = edgeseg(*command)
    assert plain.returncode == 0, plain.stderr
    assert "tiny.pt: stdc1, no text, 3 classes" in plain.stdout
    assert "input 96×64" in plain.stdout
    assert "2 images" in plain.stdout
    many = report(*command, "--size", "128x96", "--sliding", "64x48", "--scales", "1,1.5", "--flip")
    assert many["options"] == {
        "boundary_tolerance": 0.0075,
        "size": "128x96",
        "sliding": "64x48",
        "stride": "43x32",
        "scales": [1.0, 1.5],
        "flip": True,
    }
    assert np.sum(many["confusion"]) == 2 * 58 * 96


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--flip"], "measured as it is shipped"),
        (["--size", "96x64"], "measured as it is shipped"),
        (["--scales", "1,2"], "measured as it is shipped"),
        (["--sliding", "64x64"], "measured as it is shipped"),
        (["--scales", "one"], "write them like 0.5,1,1.5"),
        (["--stride", "8x8"], "name that with --sliding"),
        (["--sliding", "32x32", "--stride", "64x64"], "leaves pixels out"),
        (["--checkpoint", "x.pt", "--engine", "x.edgeseg"], "both given"),
        (["--confusion", "matrix.doc"], "end the name in"),
    ],
)
def test_evaluate_refuses_in_one_sentence(
    labelled_frames: Path, tmp_path: Path, options: list[str], words: str
) -> None:
    done = edgeseg("evaluate", labelled_frames, *options, cwd=tmp_path)
    assert done.returncode == 1
    assert words in done.stderr.replace("\n", " ")


def test_evaluate_does_not_guess_that_data_has_the_packaged_classes(labelled_frames: Path) -> None:
    done = edgeseg("evaluate", labelled_frames)
    assert done.returncode == 1
    assert "--classes" in done.stderr


def test_evaluate_names_the_classes_of_both(labelled_frames: Path, tiny_engine: Path) -> None:
    names = "red,blue,green"
    done = edgeseg("evaluate", labelled_frames, "-e", tiny_engine, "--classes", names)
    assert done.returncode == 1
    assert "the engine knows ['red', 'green', 'blue']" in done.stderr.replace("\n", " ")
    assert "the data ['red', 'blue', 'green']" in done.stderr.replace("\n", " ")


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["predict", "missing.png"], 1, "does not exist"),
        (["predict", "missing.png", "-e", "missing.edgeseg"], 1, "no engine file"),
        (["info", "missing.edgeseg"], 1, "no engine file"),
        (["verify", "."], 1, "is a folder"),
        (["export", "missing.pt", "out.edgeseg"], 1, "does not exist"),
        (["export", "missing.pt", "out.edgeseg", "--size", "big"], 1, "WIDTHxHEIGHT"),
        (["convert", "missing.pth", "out.pt"], 1, "missing.pth"),
        (["convert", "missing.pth", "out.pt", "--dataset", "mars"], 1, "no set 'mars'"),
        (["train", "nothing", "--out", "run"], 1, "no recipe 'nothing'"),
        (["train", "camvid-cpu", "--out", "run"], 1, "--data"),
        (["evaluate", "missing"], 1, "does not exist"),
        (["predict"], 2, "Missing argument"),
        (["predict", "x.png", "--alpha", "2"], 2, "alpha"),
        (["fly"], 2, "No such command"),
    ],
)
def test_errors_are_one_sentence(
    tmp_path: Path, arguments: list[str], code: int, words: str
) -> None:
    done = edgeseg(*arguments, cwd=tmp_path)
    assert done.returncode == code
    assert words in done.stderr.replace("\n", " ")
    assert list(tmp_path.iterdir()) == []


def test_an_output_folder_that_cannot_be_made(tiny_engine: Path, tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "photo.png"), red(8, 8))
    done = edgeseg(
        "predict", tmp_path / "photo.png", "-e", tiny_engine, "-o", tmp_path / "photo.png"
    )
    assert done.returncode == 1
    assert "cannot make the folder" in done.stderr.replace("\n", " ")


@pytest.mark.parametrize("command", ["predict", "verify", "bench"])
def test_a_gpu_that_cannot_be_had_is_named(command: str, tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "frame.png"), red(64, 96))
    source = (tmp_path / "frame.png", "--out", tmp_path / "out") if command == "predict" else ()
    done = edgeseg(command, *source, "--device", "cuda", "--trust")
    assert done.returncode == 1
    # With a GPU, the packaged engine has nothing for it.
    reasons = ("built without CUDA", "there is no device cuda:0", "has no target for GPUs")
    assert any(reason in done.stderr for reason in reasons)
