"""The bold rules of the house: what a device needs never imports torch."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

BLOCK_TORCH = "import sys; sys.modules['torch'] = None; sys.modules['onnx'] = None; "


def run(code: str) -> None:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "code",
    [
        "import edgeseg",
        "import edgeseg.cli, edgeseg.predict, edgeseg.demo, edgeseg.doctor, edgeseg.video",
        "import edgeseg.engine_file, edgeseg.synthetic, edgeseg.classes, edgeseg.text",
        "import edgeseg, edgeseg.synthetic as synthetic;"
        "edgeseg.Runtime().predict(synthetic.street(0, 64, 96).frame)",
    ],
)
def test_runs_without_torch(code: str) -> None:
    run(BLOCK_TORCH + code)


def test_a_runtime_imports_neither_torch_nor_the_training_side(tiny_engine: Path) -> None:
    run(
        "import sys, numpy as np, edgeseg\n"
        f"edgeseg.Runtime({str(tiny_engine)!r}).predict(np.zeros((8, 8, 3), np.uint8))\n"
        "loaded = [m for m in sys.modules if m.split('.')[0] in ('torch', 'onnx', 'lightning')]\n"
        "assert not loaded, loaded\n"
    )


def test_the_file_layer_stands_alone() -> None:
    """The engine file needs no backend, no OpenCV and no native core of its own."""
    source = Path(sys.modules["edgeseg"].__file__ or "").parent / "engine_file.py"
    lines = source.read_text().splitlines()
    imports = " ".join(line for line in lines if line.startswith(("import", "from")))
    assert "pydantic" in imports
    assert not [name for name in ("cv2", "openvino", "_core", "runtime") if name in imports]
