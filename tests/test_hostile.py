"""What a new user, or a broken camera, gets wrong: each a typed error, one sentence, no traceback.

Over two hundred of them, through the public API and the command line as they are called. The
command line runs in this process, by the same `main` that the `edgeseg` command calls.
"""

from __future__ import annotations

import io
import logging
import math
import sys
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from tests.fuzz.drafts import GOOD, assemble

from edgeseg import cli
from edgeseg.engine_file import Target, add_target
from edgeseg.errors import EdgesegError, EngineError, InputError
from edgeseg.runtime import Runtime, verify
from edgeseg.text import TextEmbeddings

TARGET = Target(kind="onnx", parts=("onnx/model.onnx",), weights="float32")
GREY = np.full((48, 64, 3), 90, np.uint8)


def _jpeg(pixels: np.ndarray) -> bytes:
    return bytes(cv2.imencode(".jpg", pixels)[1].tobytes())


def _png(pixels: np.ndarray) -> bytes:
    return bytes(cv2.imencode(".png", pixels)[1].tobytes())


def _zip() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("manifest.json", "{}")
        archive.writestr("model.onnx", bytes(100_000))
    return file.getvalue()


_ENGINE = assemble(GOOD.encode())
_NPY = io.BytesIO()
np.save(_NPY, np.eye(3, 4))
WRONG_FILES = {
    "empty.bin": b"",
    "text.txt": b"this is not it\n" * 20,
    "noise.bin": bytes(np.random.default_rng(0).integers(0, 256, 5000, dtype=np.uint8)),
    "program.so": b"\x7fELF" + bytes(5000),
    "archive.zip": _zip(),
    "page.html": b"<html><body>404 Not Found</body></html>",
    "pointer.lfs": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 12345\n",
    "table.npy": _NPY.getvalue(),
    "picture.png": _png(GREY),
    "cut.png": _png(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8))[:2000],
    "cut.jpg": _jpeg(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8))[:2000],
    "cut.edgeseg": _ENGINE[:-200],
    "longer.edgeseg": _ENGINE + b"\n",
    "flipped.edgeseg": _ENGINE[:5000] + bytes([_ENGINE[5000] ^ 1]) + _ENGINE[5001:],
    "clip.mp4": b"\0\0\0\x18ftypmp42" + bytes(3000),
    "pickle.pt": b"\x80\x04\x95\x1f\x00\x00\x00\x00\x00\x00\x00\x8c\x02os\x94\x8c\x06system\x94.",
}
OTHER_PATHS = ("missing.bin", "folder", "no/such/folder/x.bin", "null\0name", "x" * 5000, "")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one of every wrong file, and one engine that is right."""
    folder = tmp_path_factory.mktemp("hostile")
    for name, content in WRONG_FILES.items():
        (folder / name).write_bytes(content)
    (folder / "folder").mkdir()
    (folder / "good.edgeseg").write_bytes(_ENGINE)
    return folder


@pytest.fixture(scope="module")
def runtime(place: Path) -> Runtime:
    return Runtime(place / "good.edgeseg", device="cpu")


def _at(place: Path, name: str) -> str:
    return f"{place}/{name}" if name and not name.startswith("/") else name


def refused(action: Callable[[], object], kind: type[EdgesegError] = EdgesegError) -> str:
    """The message of the typed error that `action` raises."""
    with pytest.raises(kind) as raised:
        action()
    message = str(raised.value)
    assert 20 < len(message) < 2000 + 5000, message[:300]
    assert "Traceback" not in message
    return message


# ---------------------------------------------------------------------------------------- frames


class Unwilling:
    """Claims to be an array, and is none."""

    def __array__(self, *arguments: Any, **keywords: Any) -> Any:
        raise ValueError("no array today")


class Strange:
    """Claims to be an array, and gives something else."""

    def __array__(self, *arguments: Any, **keywords: Any) -> Any:
        return np.array("text")


def _meta() -> Any:
    return torch.empty((48, 64, 3), dtype=torch.uint8, device="meta")


FRAMES: dict[str, Callable[[], Any]] = {
    "None": lambda: None,
    "number": lambda: 3,
    "float": lambda: 3.5,
    "bool": lambda: True,
    "nan": lambda: math.nan,
    "list": lambda: [[1, 2, 3]],
    "list of frames": lambda: [GREY, GREY],
    "tuple": lambda: (GREY,),
    "dict": lambda: {"frame": GREY},
    "set": lambda: {1, 2},
    "object": lambda: object(),
    "function": lambda: print,
    "class": lambda: np.ndarray,
    "generator": lambda: (x for x in [GREY]),
    "date": lambda: date(2024, 1, 1),
    "namespace": lambda: SimpleNamespace(shape=(48, 64, 3), dtype=np.uint8),
    "open file": lambda: io.BytesIO(_png(GREY)),
    "unwilling": Unwilling,
    "strange": Strange,
    "empty bytes": lambda: b"",
    "bytes": lambda: b"not an image",
    "bytearray": lambda: bytearray(500),
    "raw pixels as bytes": GREY.tobytes,
    "memoryview": lambda: memoryview(b"abc"),
    "cut png": lambda: WRONG_FILES["cut.png"],
    "cut jpeg": lambda: WRONG_FILES["cut.jpg"],
    "zip": _zip,
    "scalar array": lambda: np.uint8(3),
    "0-d": lambda: np.array(3, np.uint8),
    "1-d": lambda: np.zeros(100, np.uint8),
    "encoded as array": lambda: np.frombuffer(_png(GREY), np.uint8),
    "grey": lambda: GREY[..., 0],
    "grey with axis": lambda: GREY[..., :1],
    "two channels": lambda: GREY[..., :2],
    "four channels": lambda: np.zeros((48, 64, 4), np.uint8),
    "five channels": lambda: np.zeros((48, 64, 5), np.uint8),
    "no channels": lambda: np.zeros((48, 64, 0), np.uint8),
    "channels first": lambda: GREY.transpose(2, 0, 1),
    "batch": lambda: GREY[None],
    "5-d": lambda: GREY[None, None],
    "no rows": lambda: np.zeros((0, 64, 3), np.uint8),
    "no columns": lambda: np.zeros((48, 0, 3), np.uint8),
    "float 0..1": lambda: GREY.astype(np.float32) / 255,
    "float 0..255": lambda: GREY.astype(np.float64),
    "normalised": lambda: GREY.astype(np.float32) / 255 - 0.5,
    "nan frame": lambda: np.full((48, 64, 3), np.nan, np.float32),
    "inf frame": lambda: np.full((48, 64, 3), np.inf, np.float16),
    "bool frame": lambda: GREY > 3,
    "int8": lambda: GREY.astype(np.int8),
    "int64": lambda: GREY.astype(np.int64),
    "uint16": lambda: GREY.astype(np.uint16),
    "complex": lambda: GREY.astype(np.complex64),
    "strings": lambda: GREY.astype(str),
    "objects": lambda: GREY.astype(object),
    "structured": lambda: np.zeros((48, 64, 3), [("a", "u1")]),
    "dates": lambda: np.zeros((48, 64, 3), "datetime64[s]"),
    "masked": lambda: np.ma.masked_equal(np.zeros((48, 64, 3), np.uint8), 0),
    "float tensor": lambda: torch.zeros(48, 64, 3),
    "chw tensor": lambda: torch.zeros(3, 48, 64, dtype=torch.uint8),
    "gradient tensor": lambda: torch.zeros(48, 64, 3, requires_grad=True),
    "meta tensor": _meta,
    "sparse tensor": lambda: torch.zeros(48, 64, 3, dtype=torch.uint8).to_sparse(),
    "quantized tensor": lambda: torch.quantize_per_tensor(
        torch.zeros(48, 64, 3), 0.1, 0, torch.quint8
    ),
    "empty PIL": lambda: Image.new("RGB", (0, 10)),
    "float PIL": lambda: Image.new("F", (64, 48)),
    "16-bit PIL": lambda: Image.new("I;16", (64, 48)),
    "cut PIL": lambda: Image.open(io.BytesIO(WRONG_FILES["cut.png"])),
}


@pytest.mark.parametrize("name", FRAMES)
def test_frames(name: str, runtime: Runtime) -> None:
    refused(lambda: runtime.predict(FRAMES[name]()), InputError)


@pytest.mark.parametrize("name", [*WRONG_FILES, *OTHER_PATHS, "/dev/zero", "/dev/null"])
def test_frames_by_path(name: str, place: Path, runtime: Runtime) -> None:
    if name == "picture.png":
        assert runtime.predict(place / name).labels.shape == GREY.shape[:2]
        return
    refused(lambda: runtime.predict(_at(place, name)), InputError)


CALLS: dict[str, Callable[[Runtime], object]] = {
    "pixel format": lambda r: r.predict(GREY, "bayer"),  # type: ignore[arg-type]
    "pixel format None": lambda r: r.predict(GREY, None),  # type: ignore[arg-type]
    "pixel format list": lambda r: r.predict(GREY, ["bgr"]),  # type: ignore[arg-type]
    "nv12 of three channels": lambda r: r.predict(GREY, "nv12"),
    "nv12 odd": lambda r: r.predict(np.zeros((48, 63), np.uint8), "nv12"),
    "nv12 rows": lambda r: r.predict(np.zeros((47, 64), np.uint8), "nv12"),
    "nv12 float": lambda r: r.predict(np.zeros((48, 64)), "nv12"),
    "batch of nothing": lambda r: r.predict_batch(None),  # type: ignore[arg-type]
    "batch of one frame": lambda r: r.predict_batch(GREY),
    "batch of a path": lambda r: r.predict_batch("picture.png"),
    "batch of a number": lambda r: r.predict_batch(3),  # type: ignore[arg-type]
    "batch with a hole": lambda r: r.predict_batch([GREY, None]),  # type: ignore[list-item]
    "batch of bytes": lambda r: r.predict_batch(b"abc"),  # type: ignore[arg-type]
    "stream of nothing": lambda r: list(r.stream(None)),  # type: ignore[arg-type]
    "stream of one frame": lambda r: list(r.stream(GREY)),
    "stream of floats": lambda r: list(r.stream([1.0, 2.0])),  # type: ignore[list-item]
    "stream of an empty name": lambda r: list(r.stream("")),
    "stream of a missing camera": lambda r: list(r.stream(99)),
    "stream of a negative camera": lambda r: list(r.stream(-1)),
    "stream of a huge camera": lambda r: list(r.stream(1 << 70)),
    "stream of a strange url": lambda r: list(r.stream("gopher://nowhere/x")),
    "overlay alpha": lambda r: r.predict(GREY).overlay(2),
    "overlay alpha nan": lambda r: r.predict(GREY).overlay(math.nan),
    "overlay alpha text": lambda r: r.predict(GREY).overlay("half"),  # type: ignore[arg-type]
    "overlay threads": lambda r: r.predict(GREY).overlay(threads=0),
    "polygons area": lambda r: r.predict(GREY).polygons(min_area=-1),
    "polygons simplify": lambda r: r.predict(GREY).polygons(simplify=math.inf),
    "save without suffix": lambda r: r.predict(GREY).save("picture"),
    "save unknown suffix": lambda r: r.predict(GREY).save("picture.doc"),
    "save labels as jpeg": lambda r: r.predict(GREY).save("labels.jpg", "labels"),
    "save unknown picture": lambda r: r.predict(GREY).save("x.png", "mask"),  # type: ignore[arg-type]
    "save nowhere": lambda r: r.predict(GREY).save("/no/such/folder/x.png"),
    "save over a folder": lambda r: r.predict(GREY).save("/tmp.png/.."),
    "save null": lambda r: r.predict(GREY).save("a\0b.png"),
}


@pytest.mark.parametrize("name", CALLS)
def test_calls(
    name: str, runtime: Runtime, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    refused(lambda: CALLS[name](runtime))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", [*WRONG_FILES, *OTHER_PATHS, "/dev/null"])
def test_engines(name: str, place: Path) -> None:
    path = _at(place, name)
    refused(lambda: Runtime(path), EngineError)
    refused(lambda: verify(path), EngineError)
    refused(lambda: add_target(path, TARGET, {}), EdgesegError)


ARGUMENTS: dict[str, dict[str, Any]] = {
    "device": {"device": "tpu"},
    "device number": {"device": 0},
    "device None": {"device": None},
    "device index": {"device": "cuda:x"},
    "device far": {"device": "cuda:99"},
    "threads 0": {"threads": 0},
    "threads negative": {"threads": -4},
    "threads many": {"threads": 10**6},
    "threads float": {"threads": 2.5},
    "threads text": {"threads": "four"},
    "precision": {"precision": "float8"},
    "precision None": {"precision": None},
    "precision int8": {"precision": "int8"},  # the engine has none
}


@pytest.mark.parametrize("name", ARGUMENTS)
def test_arguments(name: str, place: Path) -> None:
    refused(lambda: Runtime(place / "good.edgeseg", **ARGUMENTS[name]))


@pytest.mark.parametrize("name", [*WRONG_FILES, *OTHER_PATHS])
def test_text_tables(name: str, place: Path) -> None:
    refused(lambda: TextEmbeddings.load(_at(place, name)), InputError)


# ----------------------------------------------------------------------------------- command line


@dataclass(frozen=True)
class Ending:
    code: object
    out: str
    err: str


@pytest.fixture
def edgeseg_command(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[Callable[..., Ending]]:
    """Runs the command line in an empty folder."""
    monkeypatch.chdir(tmp_path)
    logger = logging.getLogger("edgeseg")
    handlers, level = list(logger.handlers), logger.level

    def run(*arguments: str) -> Ending:
        monkeypatch.setattr(sys, "argv", ["edgeseg", *arguments])
        code: object = 0
        try:
            cli.main()
        except SystemExit as ending:
            code = ending.code
        said = capsys.readouterr()
        return Ending(code, said.out, said.err)

    yield run
    logger.handlers[:] = handlers
    logger.setLevel(level)


USAGE: list[list[str]] = [
    ["fly"],
    ["--fly"],
    ["predict"],
    ["predict", "a.png", "b.png"],
    ["predict", "a.png", "--alpha", "2"],
    ["predict", "a.png", "--alpha", "half"],
    ["predict", "a.png", "--alpha"],
    ["predict", "a.png", "--limit", "0"],
    ["predict", "a.png", "--limit", "many"],
    ["predict", "a.png", "--precision", "float8"],
    ["predict", "a.png", "--threads", "two"],
    ["predict", "a.png", "--shiny"],
    ["demo", "--seconds", "0"],
    ["demo", "--seed", "-1"],
    ["demo", "extra"],
    ["train"],
    ["train", "folder-cpu"],
    ["train", "folder-cpu", "--out", "x", "--devices", "0"],
    ["train", "folder-cpu", "--out", "x", "--max-side", "1"],
    ["train", "synthetic-cpu", "--out", "x", "--accelerator", "tpu"],
    ["evaluate"],
    ["evaluate", "x", "--precision", "high"],
    ["text", "road"],
    ["convert", "x.pt"],
    ["convert", "x.pt", "y.pt", "--backbone", "resnet"],
    ["export"],
    ["export", "x.pt", "y.edgeseg", "--weights", "int4"],
    ["export", "x.pt", "y.edgeseg", "--resize", "crop"],
    ["quantize", "x.edgeseg"],
    ["quantize", "x.edgeseg", "--data", "d", "--frames", "0"],
    ["build", "x.edgeseg"],
    ["build", "x.edgeseg", "--target", "coreml"],
    ["build", "x.edgeseg", "--target", "tensorrt", "--optimization-level", "9"],
    ["info", "a", "b"],
    ["verify", "--strictly"],
    ["bench", "--seconds", "-1"],
    ["doctor", "me"],
]

# {place} holds the wrong files; nothing else is there.
ERRORS: list[list[str]] = [
    *(
        [command, "{place}/" + name]
        for command in ("info", "verify")
        for name in (*WRONG_FILES, "missing.edgeseg", "folder")
        if (command, name) != ("info", "flipped.edgeseg")  # info reads no part
    ),
    *(
        ["predict", "{place}/" + name, "-e", "{place}/good.edgeseg"]
        for name in (*WRONG_FILES, "missing.png", "folder", "no/such/x.png")
        if name != "picture.png"
    ),
    *(
        ["predict", "{place}/picture.png", "-e", "{place}/" + name]
        for name in ("empty.bin", "text.txt", "cut.edgeseg", "flipped.edgeseg", "missing.edgeseg")
    ),
    ["predict", "{place}/picture.png", "-e", "{place}/good.edgeseg", "-o", "{place}/text.txt"],
    ["predict", "{place}/picture.png", "-e", "{place}/good.edgeseg", "-o", "/proc/nowhere"],
    ["predict", "{place}/picture.png", "-e", "{place}/good.edgeseg", "--threads", "0"],
    ["predict", "{place}/picture.png", "-e", "{place}/good.edgeseg", "--precision", "int8"],
    ["predict", "99"],
    ["predict", "rtsp://127.0.0.1:9/none"],
    ["predict", "http://127.0.0.1:9/none.mp4"],
    ["predict", "file:///none.mp4"],
    ["predict", ""],
    ["demo", "-o", "{place}/text.txt", "--seconds", "0.2", "-e", "{place}/good.edgeseg"],
    ["demo", "-e", "{place}/archive.zip"],
    *(
        ["export", "{place}/" + name, "out.edgeseg", "--size", "96x64"]
        for name in ("empty.bin", "text.txt", "noise.bin", "pickle.pt", "picture.png", "folder")
    ),
    ["export", "missing.pt", "out.edgeseg"],
    ["export", "missing.pt", "out.edgeseg", "--size", "0x0"],
    ["export", "missing.pt", "out.edgeseg", "--size", "1024*512"],
    ["export", "missing.pt", "out.edgeseg", "--size", "99999x99999"],
    *(
        ["convert", "{place}/" + name, "out.pt"]
        for name in ("empty.bin", "text.txt", "noise.bin", "pickle.pt", "archive.zip", "folder")
    ),
    ["convert", "missing.pth", "out.pt", "--dataset", "mars"],
    ["evaluate", "{place}/missing"],
    ["evaluate", "{place}/folder"],
    ["evaluate", "{place}/text.txt"],
    ["evaluate", "{place}/folder", "--scales", "0"],
    ["evaluate", "{place}/folder", "--checkpoint", "{place}/pickle.pt"],
    ["evaluate", "{place}/folder", "--checkpoint", "{place}/text.txt", "--flip"],
    ["evaluate", "{place}/folder", "--checkpoint", "x.pt", "--engine", "y.edgeseg"],
    ["evaluate", "{place}/folder", "--engine", "{place}/cut.edgeseg"],
    ["evaluate", "{place}/folder", "--engine", "{place}/good.edgeseg", "--split", "nonsense"],
    ["evaluate", "{place}/folder", "--confusion", "{place}/x.doc"],
    ["train", "nothing", "--out", "run"],
    ["train", "folder-cpu", "--out", "run"],
    ["train", "folder-cpu", "--out", "run", "--data", "{place}/missing"],
    ["train", "folder-cpu", "--out", "run", "--data", "{place}/folder"],
    ["train", "folder-cpu", "--out", "run", "--data", "{place}/folder", "--classes", ","],
    ["train", "folder-cpu", "--out", "run", "--data", "{place}/folder", "--classes", "a,a"],
    ["train", "folder-cpu", "--out", "run", "--data", "{place}/folder", "--set", "lr"],
    ["train", "folder-cpu", "--out", "run", "--data", "{place}/folder", "--set", "lr=fast"],
    ["train", "folder-cpu", "--out", "run", "--data", "{place}/folder", "--set", "wings=2"],
    ["train", "folder-cpu", "--out", "run", "--data", "{place}/folder", "--size", "7"],
    ["train", "folder-cpu", "--out", "run", "--text", "{place}/table.npy"],
    ["train", "folder-cpu", "--out", "run", "--init", "{place}/noise.bin"],
    ["train", "folder-cpu", "--out", "run", "--resume"],
    ["train", "synthetic-cpu", "--out", "run", "--iterations", "-5"],
    ["train", "synthetic-cpu", "--out", "{place}/text.txt"],
    ["train", "synthetic-cpu", "--out", "run", "--threads", "0"],
    ["text", "--out", "x.npy"],
    ["text", "road", "--out", "x.npy", "--encoder", "gpt"],
    ["text", "road", "--out", "x.npy", "--weights", "{place}/noise.bin"],
    ["text", "--dataset", "mars", "--out", "x.npy"],
    ["text", "road", "--dataset", "camvid", "--out", "x.npy"],
    ["quantize", "{place}/missing.edgeseg", "--data", "{place}/folder"],
    ["quantize", "{place}/archive.zip", "--data", "{place}/folder"],
    ["quantize", "{place}/good.edgeseg", "--data", "{place}/folder"],
    ["quantize", "{place}/good.edgeseg", "--data", "{place}/missing"],
    ["build", "{place}/missing.edgeseg", "--target", "tensorrt"],
    ["build", "{place}/cut.edgeseg", "--target", "tensorrt"],
    ["build", "{place}/good.edgeseg", "--target", "tensorrt"],
    ["build", "{place}/good.edgeseg", "--target", "tensorrt-rtx", "--for", "seven"],
    ["bench", "{place}/flipped.edgeseg", "--seconds", "0.1"],
    ["bench", "{place}/good.edgeseg", "--seconds", "0.1", "--frame", "axb"],
    ["bench", "{place}/good.edgeseg", "--seconds", "0.1", "--frame", "{place}/text.txt"],
    ["bench", "{place}/good.edgeseg", "--seconds", "0.1", "--threads", "-1"],
]


def _name(arguments: list[str]) -> str:
    return " ".join(arguments).replace("{place}/", "")


@pytest.mark.parametrize("arguments", USAGE, ids=_name)
def test_wrong_usage(
    arguments: list[str], edgeseg_command: Callable[..., Ending], tmp_path: Path
) -> None:
    ending = edgeseg_command(*arguments)
    assert ending.code == 2, ending
    assert "Traceback" not in ending.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("arguments", ERRORS, ids=_name)
def test_errors(
    arguments: list[str], place: Path, edgeseg_command: Callable[..., Ending], tmp_path: Path
) -> None:
    before = {file.name: file.stat().st_mtime_ns for file in place.iterdir()}
    ending = edgeseg_command(*(word.replace("{place}", str(place)) for word in arguments))
    assert ending.code == 1, ending
    assert "Traceback" not in ending.err
    assert ending.err.count("error: ") == 1, ending.err
    assert list(tmp_path.iterdir()) == []
    assert {file.name: file.stat().st_mtime_ns for file in place.iterdir()} == before


def test_there_are_over_two_hundred() -> None:
    assert len(FRAMES) + len(CALLS) + len(ARGUMENTS) + len(USAGE) + len(ERRORS) > 200
