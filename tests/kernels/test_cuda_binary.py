"""The machine code that a build with CUDA contains."""

from __future__ import annotations

import re
import subprocess

import pytest

from edgeseg import _core

pytestmark = [pytest.mark.cuda, pytest.mark.cuda_toolkit]


def cuobjdump(option: str) -> str:
    command = ("cuobjdump", option, str(_core.__file__))
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_no_kernel_spills_registers() -> None:
    usage = re.findall(
        r"Function (\S+):\s+REG:\d+ STACK:(\d+) .*LOCAL:(\d+)", cuobjdump("--dump-resource-usage")
    )
    assert any("score_map_concat" in name for name, _, _ in usage)
    assert [name for name, stack, local in usage if (stack, local) != ("0", "0")] == []


def test_score_map_concat_uses_tensor_cores_and_accesses_of_16_bytes() -> None:
    functions = re.split(r"\bFunction : ", cuobjdump("--dump-sass"))[1:]
    # Before compute capability 8.0 the form for tensor cores is empty.
    bodies = [
        text for text in functions if re.match(r"\w*score_map_concat", text) and "STG" in text
    ]
    assert bodies
    for body in bodies:
        name = body.partition("\n")[0]
        for instruction in ("LDG", "STG"):
            found = re.search(rf"\b{instruction}\.E[.\w]*\.128\b", body)
            assert found, f"no {instruction} of 128 bits in {name}"
        assert ("_mma_" in name) == ("HMMA.16816.F32" in body) == ("LDSM.16" in body), name
