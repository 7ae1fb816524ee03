"""The corpus, and a few hundred inputs from a seed, through every fuzz target."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import pytest
from onnx import helper
from tests.fuzz import drafts, engine_file, guard, network, text_table
from tests.fuzz.fuzzing import BrokenPromiseError, Target, mutated

from edgeseg.errors import EngineError
from edgeseg.runtime import Runtime

TARGETS = {target.name: target for target in (m.TARGET for m in (engine_file, network, text_table))}
EXECUTIONS = {"engine_file": 800, "network": 150, "text_table": 1500}


@pytest.mark.parametrize("name", TARGETS)
def test_the_corpus_breaks_nothing(name: str) -> None:
    outcomes = [TARGETS[name].check(data) for data in TARGETS[name].corpus()]
    assert {"sound", "refused"} <= set(outcomes)  # and not all refused for one reason at the door


@pytest.mark.parametrize("name", TARGETS)
def test_mutations_break_nothing(name: str) -> None:
    target: Target = TARGETS[name]
    for data in islice(mutated(target, seed=1), EXECUTIONS[name]):
        target.check(data)


def test_mutations_are_the_same_for_the_same_seed() -> None:
    target = TARGETS["engine_file"]
    first, second = (list(islice(mutated(target, seed=5), 50)) for _ in range(2))
    assert first == second
    assert len(set(first)) > 45


def test_external_data_is_never_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the file is there and fits, so that OpenVINO would take it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "weights.bin").write_bytes(bytes(12))
    scale = helper.make_node("Mul", ["x", "w"], ["logits"])
    for location in ("weights.bin", str(tmp_path / "weights.bin")):
        content = drafts.onnx_network(drafts.pool("x"), scale, tensors=(drafts.external(location),))
        path = tmp_path / "external.edgeseg"
        path.write_bytes(drafts.assemble(drafts.with_part(drafts.MODEL, content).encode()))
        with pytest.raises(EngineError, match="keeps weights in another file"):
            Runtime(path)


def test_the_guard_sees_what_it_is_there_for(tmp_path: Path) -> None:
    allowed, other = tmp_path / "allowed", tmp_path / "other"
    allowed.write_bytes(b"x")
    with guard.only_reading(allowed):
        allowed.read_bytes()
        for action in (other.read_bytes, other.mkdir, lambda: allowed.write_bytes(b"")):
            with pytest.raises(BrokenPromiseError):
                action()
    with pytest.raises(BrokenPromiseError, match="were held"), guard.bounded_memory(1000):
        bytearray(64 << 20)
