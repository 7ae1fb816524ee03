"""The engine file: round trip, and every kind of damage refused with a sentence."""

from __future__ import annotations

import json
import os
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeseg.engine_file import (
    ALIGNMENT,
    Architecture,
    Golden,
    Input,
    Manifest,
    Target,
    Training,
    add_target,
    open_engine,
    write_engine,
)
from edgeseg.errors import EngineError, OutputError

PARTS = {
    "onnx/model.onnx": bytes(range(256)) * 40,
    "golden/frame.png": b"frame",
    "golden/labels.png": b"",
}


def _read_everything(path: Path) -> None:
    with open_engine(path) as file:
        for name in file.manifest.parts:
            file.part(name)


def manifest(**changes: object) -> Manifest:
    fields: dict[str, object] = {
        "name": "test",
        "created_by": "tests",
        "classes": ("road", "sky"),
        "palette": ((1, 2, 3), (4, 5, 6)),
        "input": Input(height=64, width=96, mean=(1.0, 2.0, 3.0), std=(1.0, 1.0, 1.0)),
        "architecture": Architecture(
            backbone="stdc1", text_guidance=None, parameters=1, align_corners=True
        ),
        "training": Training(dataset="none"),
        "targets": (Target(kind="onnx", parts=("onnx/model.onnx",), weights="float32"),),
        "golden": Golden(frame="golden/frame.png", labels="golden/labels.png"),
    }
    return Manifest(**(fields | changes))


@pytest.fixture
def engine(tmp_path: Path) -> Path:
    path = tmp_path / "test.edgeseg"
    write_engine(path, manifest(), PARTS)
    return path


def test_round_trip(engine: Path) -> None:
    with open_engine(engine) as file:
        assert file.manifest.classes == ("road", "sky")
        assert file.manifest.input.mean == (1.0, 2.0, 3.0)
        for name, content in PARTS.items():
            assert bytes(file.part(name)) == content


def test_same_input_gives_the_same_bytes(tmp_path: Path) -> None:
    first, second = tmp_path / "a.edgeseg", tmp_path / "b.edgeseg"
    write_engine(first, manifest(), PARTS)
    write_engine(second, manifest(), PARTS)
    assert first.read_bytes() == second.read_bytes()


def test_any_zip_tool_can_unpack_it(engine: Path) -> None:
    with zipfile.ZipFile(engine) as archive:
        assert archive.testzip() is None
        assert archive.namelist() == ["manifest.json", *PARTS]
        assert {name: archive.read(name) for name in PARTS} == PARTS
        json.loads(archive.read("manifest.json"))


def test_parts_are_aligned(engine: Path) -> None:
    content = engine.read_bytes()
    with zipfile.ZipFile(engine) as archive:
        for info in archive.infolist():
            lengths = struct.unpack_from("<2H", content, info.header_offset + 26)
            assert (info.header_offset + 30 + sum(lengths)) % ALIGNMENT == 0


def test_a_part_stays_valid_after_close(engine: Path) -> None:
    with open_engine(engine) as file:
        part = file.part("golden/frame.png")
    assert bytes(part) == b"frame"


def test_every_flipped_byte_is_detected(tmp_path: Path) -> None:
    path = tmp_path / "tiny.edgeseg"
    write_engine(path, manifest(), dict.fromkeys(PARTS, b"part"))
    flips = np.random.default_rng(0).integers(1, 256, path.stat().st_size)
    with path.open("r+b", buffering=0) as file:
        for offset, flip in enumerate(flips):
            original = os.pread(file.fileno(), 1, offset)
            os.pwrite(file.fileno(), bytes([original[0] ^ int(flip)]), offset)
            with pytest.raises(EngineError):
                _read_everything(path)
            os.pwrite(file.fileno(), original, offset)
    _read_everything(path)


texts = st.text(st.characters(exclude_categories=("Cc", "Cs")), min_size=1, max_size=40)


@given(
    classes=st.lists(texts, min_size=1, max_size=254, unique=True),
    note=texts,
    mean=st.tuples(*[st.floats(-1e6, 1e6)] * 3),
    contents=st.lists(st.binary(max_size=9000), min_size=3, max_size=3),
)
@settings(max_examples=60, deadline=None)
def test_whatever_is_written_is_read_back(
    tmp_path_factory: pytest.TempPathFactory,
    classes: list[str],
    note: str,
    mean: tuple[float, float, float],
    contents: list[bytes],
) -> None:
    path = tmp_path_factory.mktemp("round-trip") / "any.edgeseg"
    parts = dict(zip(PARTS, contents, strict=True))
    described = manifest(
        classes=tuple(classes),
        palette=((0, 0, 0),) * len(classes),
        input=Input(height=64, width=96, mean=mean, std=(1.0,) * 3),
        training=Training(dataset=note),
    )
    written = write_engine(path, described, parts)
    with open_engine(path) as file:
        assert file.manifest == written
        assert file.manifest == described.model_copy(update={"parts": written.parts})
        assert {name: bytes(file.part(name)) for name in parts} == parts
    with zipfile.ZipFile(path) as archive:  # nor does another reader see anything else
        assert {name: archive.read(name) for name in parts} == parts


@pytest.mark.parametrize("keep", [0, 1, 29, 43, 4095, 4096, 5000, -1])
def test_truncation_is_named(engine: Path, keep: int) -> None:
    engine.write_bytes(engine.read_bytes()[:keep])
    with pytest.raises(EngineError, match=r"truncated|empty|not an engine file"):
        open_engine(engine)


def test_appended_bytes_are_refused(engine: Path) -> None:
    with engine.open("ab") as file:
        file.write(b"more")
    with pytest.raises(EngineError, match="appended"):
        open_engine(engine)


def test_missing_file_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="edgeseg export"):
        open_engine(tmp_path / "none.edgeseg")


def test_a_folder_is_not_an_engine(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="is a folder"):
        open_engine(tmp_path)


def test_foreign_files_are_refused(tmp_path: Path) -> None:
    foreign = tmp_path / "foreign.edgeseg"
    for content in (b"\x7fELF" + bytes(9000), b"PK\3\4" + bytes(9000), b"{}"):
        foreign.write_bytes(content)
        with pytest.raises(EngineError, match="not an engine file"):
            open_engine(foreign)
    with zipfile.ZipFile(foreign, "w") as archive:
        archive.writestr("model.onnx", b"x" * 9000)
    with pytest.raises(EngineError, match="not an engine file"):
        open_engine(foreign)


def _with_manifest(path: Path, text: bytes) -> None:
    """Write a file whose archive is right but whose manifest is `text`."""
    from edgeseg.engine_file import _layout

    layout = _layout(text, {})
    path.write_bytes(layout.headers[0][1] + text + layout.tail)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b'{"schema_version": 2}', "schema version 2"),
        (b'{"schema_version": "1"}', "schema version '1'"),
        (b'{"schema_version": "' + b"x" * 900_000 + b'"}', r"schema version 'x+\.\.\.x+', this"),
        (b'{"schema_version": ' + b"1" * 100_000 + b"}", "not JSON"),
        (b"[]", "schema version None"),
        (b"not json", "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b'{"schema_version": 1}', "bad manifest"),
    ],
)
def test_bad_manifests_are_named(tmp_path: Path, text: bytes, message: str) -> None:
    path = tmp_path / "bad.edgeseg"
    _with_manifest(path, text)
    with pytest.raises(EngineError, match=message):
        open_engine(path)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("classes", []),
        ("classes", ["road", "road"]),
        ("classes", ["road"]),
        ("palette", [[1, 2, 3], [4, 5, 256]]),
        ("input", {"height": 10**9, "width": 96, "mean": [0, 0, 0], "std": [1, 1, 1]}),
        ("input", {"height": 64, "width": 96, "mean": [0, 0, 0], "std": [0, 1, 1]}),
        ("input", {"height": 64, "width": 96, "mean": [0, 0, 0], "std": [1e308, 1, 1]}),
        ("input", {"height": 64, "width": 96, "mean": [0, -1e39, 0], "std": [1, 1, 1]}),
        ("input", {"height": 64, "width": 96, "mean": [0, 0, float("nan")], "std": [1, 1, 1]}),
        ("targets", []),
        ("targets", [{"kind": "pickle", "parts": ["a"], "weights": "float32"}]),
        ("targets", [{"kind": "onnx", "parts": ["../../etc/passwd"], "weights": "float32"}]),
        ("targets", [{"kind": "onnx", "parts": ["/etc/passwd"], "weights": "float32"}]),
        ("targets", [{"kind": "onnx", "parts": ["onnx/other.onnx"], "weights": "float32"}]),
        ("surprise", 1),
        ("\x1b[2J" + "x" * 900_000, 1),
        ("name", "\x1b[2Jroad"),  # would clear the terminal that shows it
        ("classes", ["road", "\x1b]0;title\x07"]),
    ],
)
def test_bad_fields_are_refused(engine: Path, field: str, value: object) -> None:
    with open_engine(engine) as file:
        raw = file.manifest.model_dump(mode="json")
    _with_manifest(engine, json.dumps(raw | {field: value}).encode())
    with pytest.raises(EngineError, match="bad manifest") as refusal:
        open_engine(engine)
    assert len(str(refusal.value)) < 1000
    assert "\x1b" not in str(refusal.value)


@pytest.mark.parametrize("names", [["onnx/model.onnx"], list(PARTS)])  # together over 4 GiB
def test_a_manifest_cannot_claim_parts_that_are_not_there(engine: Path, names: list[str]) -> None:
    with open_engine(engine) as file:
        raw = file.manifest.model_dump(mode="json")
    for name in names:
        raw["parts"][name]["size"] = 2**31
    _with_manifest(engine, json.dumps(raw).encode())
    with pytest.raises(EngineError, match="truncated"):
        open_engine(engine)


def test_parts_must_fit_the_manifest(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="give exactly those"):
        write_engine(tmp_path / "x.edgeseg", manifest(), {"onnx/model.onnx": b""})
    assert list(tmp_path.iterdir()) == []


def test_add_target_keeps_the_rest(engine: Path) -> None:
    names = ("openvino/model.xml", "openvino/model.bin")
    target = Target(kind="openvino", parts=names, weights="float16")
    for round_number in (b"1", b"2"):  # the second one replaces the first
        add_target(engine, target, dict.fromkeys(names, round_number))
    with open_engine(engine) as file:
        assert [t.kind for t in file.manifest.targets] == ["onnx", "openvino"]
        assert bytes(file.part("onnx/model.onnx")) == PARTS["onnx/model.onnx"]
        assert bytes(file.part(names[1])) == b"2"


def test_plans_for_different_gpus_live_side_by_side(engine: Path) -> None:
    def add(capability: str, content: bytes) -> None:
        name = f"tensorrt/sm{capability.replace('.', '')}-float16.plan"
        requires = {"compute_capability": capability}
        target = Target(kind="tensorrt", parts=(name,), weights="float16", requires=requires)
        add_target(engine, target, {name: content})

    add("8.7", b"old")
    add("9.0", b"other")
    add("8.7", b"new")
    with open_engine(engine) as file:
        plans = file.manifest.targets_of("tensorrt")
        assert [bytes(file.part(plan.parts[0])) for plan in plans] == [b"other", b"new"]
        assert file.manifest.targets_of("tensorrt", quantized=True) == ()


def test_an_unknown_part_is_named(engine: Path) -> None:
    with open_engine(engine) as file, pytest.raises(EngineError, match="has no part 'x'"):
        file.part("x")


def test_a_full_disk_leaves_the_old_file(engine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = engine.read_bytes()

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match="No space left"):
        write_engine(engine, manifest(name="new"), PARTS)
    assert engine.read_bytes() == before
    assert list(engine.parent.iterdir()) == [engine]
