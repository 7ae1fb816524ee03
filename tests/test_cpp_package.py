"""The C++ library as its users meet it: installed, moved, found by CMake, and without Python."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from openvino.utils import get_cmake_path

from edgeseg import Runtime
from edgeseg.engine_file import open_engine, write_engine
from edgeseg.runtime import packaged_engine
from edgeseg.synthetic import street
from edgeseg.unpack import unpack_engine

ROOT = Path(__file__).parents[1]
HEADERS = sorted((ROOT / "csrc" / "include").glob("edgeseg/*.h"))
STRICT = ("-Wall", "-Wextra", "-Wpedantic", "-Wshadow", "-Wconversion", "-Werror")
THREADS = 2


def run(*command: object) -> str:
    """What a command prints; an AssertionError with all of it where it fails."""
    tools = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # cmake's wheel
    done = subprocess.run(
        [str(word) for word in command],
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=os.environ | {"PATH": tools},
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def configure(source: Path, build: Path, *settings: str) -> None:
    flags = (f"-DCMAKE_CXX_FLAGS={' '.join(STRICT)}", "-DCMAKE_CXX_FLAGS_RELEASE=-O1")
    run("cmake", "-G", "Ninja", "-S", source, "-B", build, *flags, *settings)


@pytest.fixture(scope="module")
def prefix(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the library was moved after it was installed; nothing is left at the first place."""
    folder = tmp_path_factory.mktemp("cpp")
    build, installed = folder / "build", folder / "installed"
    configure(ROOT, build, "-DEDGESEG_PYTHON=OFF", "-DEDGESEG_CUDA=OFF")
    run("cmake", "--build", build)
    run("cmake", "--install", build, "--prefix", installed)
    shutil.rmtree(build)
    return installed.rename(folder / "moved")


def letterboxed(path: Path) -> Path:
    """The packaged engine, but for frames of any shape."""
    with open_engine(packaged_engine()) as engine:
        box = engine.manifest.input.model_copy(update={"resize": "letterbox", "pad": 114.0})
        manifest = engine.manifest.model_copy(update={"input": box})
        write_engine(path, manifest, {name: engine.part(name) for name in manifest.parts})
    return path


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the example is built, for one engine after the other."""
    return tmp_path_factory.mktemp("example")


@pytest.mark.parametrize("resize", ["stretch", "letterbox"])
def test_the_example_gives_the_labels_of_edgeseg_predict(
    resize: str, prefix: Path, example: Path, tmp_path: Path
) -> None:
    path = packaged_engine()
    if resize == "letterbox":
        path = letterboxed(tmp_path / "letterbox.edgeseg")
    folder = tmp_path / "engine"
    unpack_engine(path, folder)
    configure(
        ROOT / "csrc" / "example",
        example,
        f"-DCMAKE_PREFIX_PATH={prefix}",
        f"-DENGINE={folder}",
        f"-DOpenVINO_DIR={get_cmake_path()}",
    )
    run("cmake", "--build", example)
    assert "red left, blue right" in run(example / "minimal")

    picture, labels, overlay = (tmp_path / name for name in ("in.ppm", "labels.pgm", "out.ppm"))
    cv2.imwrite(str(picture), street(5, 270, 600).frame)
    network = folder / "onnx" / "model.onnx"
    printed = run(example / "segment", network, picture, labels, overlay, THREADS, "float32")
    runtime = Runtime(path, "cpu", THREADS, precision="float32")
    expected = runtime.predict(picture)
    found = cv2.imread(str(labels), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(found, expected.labels)
    assert len(np.unique(found)) > 4
    np.testing.assert_array_equal(cv2.imread(str(overlay)), expected.overlay(threads=THREADS))
    areas = dict(line.split("\t") for line in printed.splitlines())
    assert {name: float(area) for name, area in areas.items()} == pytest.approx(
        expected.areas(), abs=1e-5
    )


def test_what_is_not_there_is_said(prefix: Path, tmp_path: Path) -> None:
    (tmp_path / "CMakeLists.txt").write_text(
        "cmake_minimum_required(VERSION 3.22)\nproject(user LANGUAGES CXX)\n"
        "find_package(edgeseg ${WANTED})\n"
        'message(STATUS "edgeseg_FOUND=${edgeseg_FOUND} cuda=${edgeseg_cuda_FOUND}")\n'
    )

    def finds(wanted: str) -> str:
        found = f"-Dedgeseg_DIR={prefix / 'lib' / 'cmake' / 'edgeseg'}"
        return run("cmake", "-S", tmp_path, "-B", tmp_path / "build", found, f"-DWANTED={wanted}")

    assert "edgeseg_FOUND=1 cuda=OFF" in finds("0.1")
    assert "edgeseg_FOUND=1" in finds("0.1;OPTIONAL_COMPONENTS;cuda")
    assert "no CUDA kernels (EDGESEG_CUDA=OFF)" in finds("0.1;COMPONENTS;cuda")
    assert "edgeseg_FOUND=0" in finds("0.2")


def test_the_package_names_no_folder_of_this_machine(prefix: Path) -> None:
    for file in (*prefix.rglob("*.cmake"), *prefix.rglob("*.pc")):
        assert str(prefix.parent) not in file.read_text(), file
        assert str(ROOT) not in file.read_text(), file
    assert not (prefix / "include" / "edgeseg" / "cuda.h").exists()


@pytest.mark.parametrize("compiler", ["g++", "clang++"])
@pytest.mark.parametrize("standard", ["c++17", "c++20"])
def test_every_header_stands_alone(compiler: str, standard: str) -> None:
    if shutil.which(compiler) is None:
        pytest.skip(f"no {compiler}")
    assert len(HEADERS) >= 5
    for header in HEADERS:
        run(
            *(compiler, f"-std={standard}", *STRICT, "-fsyntax-only", f"-I{header.parents[1]}"),
            *("-include", header, "-x", "c++", os.devnull),
        )
