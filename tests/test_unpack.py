"""`edgeseg unpack`: an engine as a folder for C++ programs."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from zipfile import ZipFile

import numpy as np
import onnx
import pytest

from edgeseg import trust
from edgeseg.cli import main
from edgeseg.engine_file import Input, Target, add_target, open_engine
from edgeseg.errors import EngineError, InputError, OutputError
from edgeseg.runtime import packaged_engine
from edgeseg.unpack import cpp_header, unpack_engine

INCLUDE = Path(__file__).parents[1] / "csrc" / "include"
COMPILE = ("c++", "-std=c++17", "-Wall", "-Wextra", "-Wpedantic", "-Werror", f"-I{INCLUDE}")
NAMES = ('say "hi"', "back\\slash", "what??/", "line\nbreak", "Straße1", "/* no comment */", "%s")


def command(*arguments: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["edgeseg", *map(str, arguments)])
    with pytest.raises(SystemExit) as ending:
        main()
    assert ending.value.code in (0, None)


def test_without_a_name_the_packaged_engine_is_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command("unpack", "--out", tmp_path / "engine", monkeypatch=monkeypatch)
    with ZipFile(packaged_engine()) as archive:
        assert (tmp_path / "engine" / "manifest.json").read_bytes() == archive.read("manifest.json")


def test_the_folder_holds_every_part_as_it_was(
    tiny_engine: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = tmp_path / "some" / "where"
    command("unpack", tiny_engine, "--out", folder, "--json", monkeypatch=monkeypatch)
    said = json.loads(capsys.readouterr().out)
    with ZipFile(tiny_engine) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
        hash_in_comment = archive.comment.split()[-1].decode()
    written = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert written == {*parts, "engine.h"}
    assert [Path(path).relative_to(folder).as_posix() for path in said["written"]] == [
        *parts,
        "engine.h",
    ]
    assert said["native_code"] == []
    for name, content in parts.items():
        assert (folder / name).read_bytes() == content
    assert sha256((folder / "manifest.json").read_bytes()).hexdigest() == hash_in_comment


def test_the_header_says_what_the_manifest_says(
    write_tiny_engine: Callable[..., Path], tmp_path: Path
) -> None:
    """Compiled and printed, whatever stands in the names; numbers as the kernels are given them."""
    size = Input(
        height=64, width=96, mean=(123.675, 0.1, -1e6), std=(1e-3, 58.395, 1e6), resize="letterbox"
    )
    size = size.model_copy(update={"pad": 1 / 3})
    colours = tuple((i, 2 * i, 255 - i) for i in range(len(NAMES)))
    path = write_tiny_engine(
        tmp_path / "names.edgeseg", name='"); evil(', classes=NAMES, palette=colours, input=size
    )
    unpack_engine(path, tmp_path / "engine", namespace="robot::front")
    (tmp_path / "main.cpp").write_text(
        """#include <cstdio>
        #include "engine/engine.h"
        int main() {
            constexpr const edgeseg::EngineInfo& info = robot::front::info;
            static_assert(info.input.height == 64 && info.input.width == 96);
            static_assert(info.resize == edgeseg::Resize::letterbox && !info.align_corners);
            std::printf("%s%c", info.name, 0);
            for (int i = 0; i < info.class_count; ++i) {
                std::printf("%s%c%d %d %d%c", info.class_names[i], 0, info.palette[i][0],
                            info.palette[i][1], info.palette[i][2], 0);
            }
            for (float mean : info.normalization.mean) std::printf("%a%c", double{mean}, 0);
            for (float std : info.normalization.std) std::printf("%a%c", double{std}, 0);
            std::printf("%a", double{info.normalization.pad});
        }"""
    )
    program = tmp_path / "program"
    compiled = subprocess.run(
        [*COMPILE, str(tmp_path / "main.cpp"), "-o", str(program)], capture_output=True, text=True
    )
    assert compiled.returncode == 0, compiled.stderr
    printed = subprocess.run([program], capture_output=True, check=True).stdout
    name, *rest = printed.decode().split("\0")
    assert name == '"); evil('
    assert rest[: 2 * len(NAMES) : 2] == list(NAMES)
    assert rest[1 : 2 * len(NAMES) : 2] == ["{} {} {}".format(*colour) for colour in colours]
    numbers = [float.fromhex(number) for number in rest[2 * len(NAMES) :]]
    assert numbers == [float(np.float32(x)) for x in (*size.mean, *size.std, size.pad)]


def test_a_header_is_plain_ascii(tiny_engine: Path) -> None:
    with open_engine(tiny_engine) as engine:
        manifest = engine.manifest.model_copy(update={"name": "тест\u202e", "classes": NAMES[:3]})
    assert cpp_header(manifest, "engine").isascii()


@pytest.mark.parametrize(
    "namespace", ["", "1st", "a b", "a::", "a{}", "x;", "é", "a:b", "class", "robot::int"]
)
def test_what_is_no_namespace_is_refused(namespace: str, tiny_engine: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"is no C\+\+ name; .* like robot::front"):
        unpack_engine(tiny_engine, tmp_path / "out", namespace=namespace)
    assert not (tmp_path / "out").exists()


def test_what_is_not_as_promised_is_not_unpacked(
    write_tiny_engine: Callable[..., Path], tmp_path: Path
) -> None:
    tensor = onnx.TensorProto(name="w", data_type=onnx.TensorProto.FLOAT, dims=[1])
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="/etc/passwd")
    model = onnx.ModelProto(graph=onnx.GraphProto(initializer=[tensor])).SerializeToString()
    path = write_tiny_engine(tmp_path / "spy.edgeseg", model=model)
    with pytest.raises(EngineError, match="keeps weights in another file"):
        unpack_engine(path, tmp_path / "out")
    path = write_tiny_engine(tmp_path / "thief.edgeseg")
    plan = Target(kind="tensorrt", parts=("engine.h",), weights="float16", requires={"a": "b"})
    add_target(path, plan, {"engine.h": b"#include </etc/passwd>"})
    with pytest.raises(EngineError, match=r"has a part 'engine\.h', where the header is to be"):
        unpack_engine(path, tmp_path / "out")
    path = write_tiny_engine(tmp_path / "junk.edgeseg", model=b"no network")
    with pytest.raises(EngineError, match=r"OpenVINO .* cannot read the onnx target"):
        unpack_engine(path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_where_the_header_is_the_rest_is_there(tiny_engine: Path, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    unpack_engine(tiny_engine, folder)
    (folder / "golden" / "labels.png").unlink()
    (folder / "golden" / "labels.png").mkdir()  # in the way
    with pytest.raises(OutputError, match="is a folder"):
        unpack_engine(tiny_engine, folder)
    assert not (folder / "engine.h").exists()
    (folder / "golden" / "labels.png").rmdir()
    (folder / "own.txt").write_text("mine")
    unpack_engine(tiny_engine, folder)
    assert (folder / "engine.h").exists()
    assert (folder / "own.txt").read_text() == "mine"
    with pytest.raises(OutputError, match="cannot make the folder"):
        unpack_engine(tiny_engine, folder / "engine.h")


def test_native_code_is_named(
    write_tiny_engine: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = write_tiny_engine(tmp_path / "plan.edgeseg")
    needs = {"library": "TensorRT", "version": "10.9", "compute_capability": "8.7"}
    name = "tensorrt/sm87-float16.plan"
    plan = Target(kind="tensorrt", parts=(name,), weights="float16", requires=needs)
    add_target(path, plan, {name: b"code"})
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    command("unpack", path, "-o", tmp_path / "out", monkeypatch=monkeypatch)
    assert "plan is native code that was built elsewhere: load it only" in capsys.readouterr().out
    assert (tmp_path / "out" / name).read_bytes() == b"code"
    assert (
        f"{name}: tensorrt, float16 weights, native code"
        in (tmp_path / "out" / "engine.h").read_text()
    )
    trust.remember(sha256(b"code").hexdigest())
    assert unpack_engine(path, tmp_path / "out").native_code == ()
