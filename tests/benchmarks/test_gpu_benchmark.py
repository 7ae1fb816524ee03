"""The GPU benchmark, without a GPU: its counting, statistics and report, and every body run once
with the kernels emulated on the host and a clock that does not tell the time."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from benchmarks.counts import macs
from benchmarks.gpu import __main__ as command
from benchmarks.gpu import counts, frames, machine
from benchmarks.gpu.bare import AotiEngine, PlanEngine
from benchmarks.gpu.clocks import GraphClock, HostClock, Launch
from benchmarks.gpu.contenders import (
    Case,
    Contender,
    Made,
    Subject,
    aot_inductor,
    built,
    torch_compiled,
    torch_eager,
)
from benchmarks.gpu.correctness import check_of_tests, run_tests, sanitize, sanitizer_check
from benchmarks.gpu.counts import Ceilings, Work
from benchmarks.gpu.device import Device
from benchmarks.gpu.engines import measure_engines, measure_paper
from benchmarks.gpu.kernels import (
    Overlay,
    Preprocess,
    ScoreMap,
    Upsample,
    all_benches,
    measure,
)
from benchmarks.gpu.report import markdown, targets
from benchmarks.gpu.results import (
    Check,
    EngineRow,
    Engines,
    Environment,
    KernelRow,
    Latency,
    Ratio,
    Results,
    default_path,
    load,
    save,
)
from benchmarks.timing import Times

import edgeseg
from edgeseg.errors import ConfigError, EngineError, InputError
from edgeseg.models import STDCSeg, STDCSegConfig

CEILINGS = Ceilings(
    bandwidth=2e12,
    launch_us=1.5,
    operations={"float32": 50e12, "tfloat32": 400e12, "float16": 800e12, "bfloat16": 800e12},
)


def quiet(_: str) -> None:
    pass


class StillClock:
    """Launches every contender twice; the n-th contender takes n ms, give or take."""

    def time(
        self, contenders: Mapping[str, Launch], *, rounds: int, launches: int
    ) -> dict[str, Times]:
        for launch in contenders.values():
            launch(0)
            launch(launches - 1)
        return {
            name: Times(tuple(number + 1e-3 * turn for turn in range(rounds)))
            for number, name in enumerate(contenders, 1)
        }


def stand_in(kernels: Any = None) -> Device:
    """The host in the place of a GPU."""
    return Device(
        memory="cpu",
        cuda_kernels=kernels,
        stream=lambda: 0,
        kernel_clock=StillClock(),
        latency_clock=StillClock(),
        compile=lambda function: function,
        cache_bytes=1 << 10,
        graph=lambda launch: lambda: launch(0),
    )


# --- Counting -------------------------------------------------------------------------------------


def test_bytes_and_operations_of_a_score_map() -> None:
    # 6 pixels of 8 channels in and out, 2 scores a pixel, in 2 bytes; 2 vectors of 8 float32.
    work = counts.score_map_concat(1, 8, 2, 3, 2, itemsize=2)
    assert work.bytes == (6 * 8 + 6 * 8 + 6 * 2) * 2 + 2 * 8 * 4
    # A norm and two dot products of 8 multiply-adds, one root, two divisions.
    assert work.operations == 6 * (3 * 16 + 1 + 2)
    assert work.unit == "float16"


def test_a_frame_that_is_halved_is_read_whole() -> None:
    work = counts.preprocess((8, 64), (4, 32), "bgr", itemsize=4)
    assert work.bytes == 8 * 64 * 3 + 3 * 4 * 32 * 4
    # Three interpolations of 3 and a normalisation of 2, for three channels.
    assert work.operations == 4 * 32 * 3 * 11


def test_a_frame_that_is_quartered_is_read_by_rows_and_sectors() -> None:
    # Output row i lies at 4i + 1.5: rows 1, 2 and 5, 6 of 8. Every sector holds some sample.
    assert counts.preprocess((8, 64), (2, 16), "rgb", itemsize=2).bytes == 4 * 192 + 3 * 32 * 2
    # Columns 15, 16, 47, 48 of 64, in bytes 45..50 and 141..146: sectors 1 and 4.
    assert counts.preprocess((2, 64), (2, 2), "rgb", itemsize=2).bytes == 2 * 2 * 32 + 3 * 4 * 2


def test_nv12_reads_half_a_row_of_chroma_for_each_row_of_luma() -> None:
    work = counts.preprocess((4, 64), (4, 64), "nv12", itemsize=1)
    assert work.bytes == 4 * 64 * 3 // 2 + 3 * 4 * 64
    assert work.operations == 4 * 64 * (4 * 16 + 33)


def test_bytes_and_operations_of_labels() -> None:
    assert counts.upsample_argmax(1, 5, 2, 3, (16, 24), 2) == Work(30 * 2 + 384, 30)
    confident = counts.upsample_argmax(2, 5, 2, 3, (16, 24), 4, confidence=True)
    assert confident.bytes == 60 * 4 + 2 * 384 * 5
    assert confident.operations == 60 + 2 * 384 * (5 * 12 + 1)
    assert counts.overlay((2, 5)) == Work(10 * 7 + 768, 10 * 15)


def test_the_floor_is_the_larger_time_and_a_launch() -> None:
    assert counts.floor_us(Work(4_000_000, 10), CEILINGS) == pytest.approx(2 + 1.5)
    assert counts.floor_us(Work(10, 100_000_000), CEILINGS) == pytest.approx(2 + 1.5)
    in_half = Work(10, 100_000_000, "float16")
    assert counts.floor_us(in_half, CEILINGS) == pytest.approx(0.125 + 1.5)


def test_multiply_adds_of_the_networks_are_the_papers() -> None:
    baseline = macs(STDCSeg(STDCSegConfig("stdc1", 19)), 512, 1024)
    text = torch.nn.functional.normalize(torch.ones(19, 1024), dim=1)
    model = STDCSeg(STDCSegConfig("stdc1", 19, "encoder"), text)
    guided = macs(model, 512, 1024)
    assert baseline == pytest.approx(16.9e9, rel=5e-3)
    # The score map, the wider 3×3 convolution of ARM32, and the wider 1×1 one behind the average.
    added = 16 * 32 * 1024 * 20 + 16 * 32 * 9 * 19 * 128 + 19 * 128
    assert guided - baseline == added
    assert added / baseline == pytest.approx(0.0013, rel=0.1)
    assert model.text_embeddings is not None
    assert model.text_embeddings.device.type == "cpu"
    # 1 TFLOP/s makes a multiply-add of two operations last 2 ps.
    assert counts.network_floor_ms(10**9, 1e12) == pytest.approx(2.0)


# --- Clocks and statistics ------------------------------------------------------------------------


def test_the_host_clock_takes_turns_and_waits_for_the_device() -> None:
    seen: list[str] = []
    clock = HostClock(lambda: seen.append("finish"))
    times = clock.time(
        {"a": lambda n: seen.append(f"a{n}"), "b": lambda n: seen.append(f"b{n}")},
        rounds=2,
        launches=2,
    )
    a, b = ["a0", "a1", "finish"], ["b0", "b1", "finish"]
    assert seen == (b + a + a + b) * 2 + b + a  # three warm up; every other round goes backwards
    assert [len(of_one.ms) for of_one in times.values()] == [2, 2]


def test_times_are_of_one_launch() -> None:
    from time import sleep

    times = HostClock(lambda: None).time({"a": lambda _: sleep(0.01)}, rounds=3, launches=4)
    assert 10 <= times["a"].p50 < 40


def test_the_graph_clock_replays_between_events(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []

    class Event:
        def __init__(self, enable_timing: bool) -> None:
            assert enable_timing

        def record(self) -> None:
            seen.append("record")

        def synchronize(self) -> None:
            seen.append("wait")

        def elapsed_time(self, end: Event) -> float:
            return 8.0

    class Graph:
        def replay(self) -> None:
            seen.append("replay")

    @contextmanager
    def capturing(graph: Graph, stream: object) -> Iterator[None]:
        seen.append("capture")
        yield

    fakes = {
        "Stream": object,
        "Event": Event,
        "CUDAGraph": Graph,
        "graph": capturing,
        "device": lambda device: nullcontext(),
        "stream": lambda stream: nullcontext(),
        "synchronize": lambda: seen.append("synchronize"),
    }
    for name, fake in fakes.items():
        monkeypatch.setattr(torch.cuda, name, fake)
    launches = {"it": lambda number: seen.append(f"launch {number}")}
    times = GraphClock("cuda:0").time(launches, rounds=5, launches=2)
    assert times == {"it": Times((4.0,) * 5)}
    twice = ["launch 0", "launch 1"]
    warm_up = ["synchronize", *twice, "synchronize"]
    assert seen[: len(seen) - 8 * 4] == [*warm_up, "capture", *twice]
    assert seen[-8 * 4 :] == ["record", "replay", "record", "wait"] * 8  # three warm up


def test_the_gpu_is_described(monkeypatch: pytest.MonkeyPatch) -> None:
    properties = SimpleNamespace(
        name="NVIDIA Synthetic 1000",
        major=9,
        minor=0,
        multi_processor_count=3,
        L2_cache_size=1 << 20,
        total_memory=1 << 30,
    )
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: properties)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (9, 0))
    monkeypatch.setattr(torch.cuda, "set_device", lambda index: None)
    environment = machine.environment()
    assert (environment.gpu, environment.compute_capability) == (properties.name, "9.0")
    assert environment.versions["torch"].split("+")[0] == torch.__version__.split("+")[0]
    assert environment.commit != ""
    monkeypatch.setattr(edgeseg._core, "cuda", object(), raising=False)
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", False)  # and again afterwards
    device = Device.gpu()
    assert (device.memory, device.cache_bytes) == ("cuda:0", 1 << 20)
    build = {"cuda": True, "cuda_architectures": "80-real"}
    monkeypatch.setattr(edgeseg, "build_info", lambda: build)
    assert machine.needs_build() == ("the native core holds kernels for 80-real, this GPU is 9.0")
    build["cuda_architectures"] = "90"
    assert machine.needs_build() is None


def test_ratios_and_percentiles() -> None:
    slow, fast = Times(tuple(2.0 + 0.01 * n for n in range(101))), Times((1.0,) * 101)
    ratio = Ratio.of("slow over fast", slow, fast)
    assert ratio.value == pytest.approx(2.5)
    assert 2.3 < ratio.low < 2.5 < ratio.high < 2.7
    assert Latency.of(slow) == Latency(*(pytest.approx(v) for v in (2.5, 2.9, 2.99)))


# --- Kernels, emulated ----------------------------------------------------------------------------

SMALL = (
    ScoreMap((2, 40, 3, 5), 7, "float16"),
    ScoreMap((1, 16, 2, 4), 3, "bfloat16", channels_last=True),
    Preprocess((34, 46), (21, 33), "nv12"),
    Preprocess((12, 14), (12, 14), "bgr", "float32"),
    Upsample((1, 5, 6, 9), (40, 70), "float16", smooth=False, confidence=True),
    Upsample((2, 5, 6, 9), (40, 70), "bfloat16"),
    Overlay((9, 33)),
)


@pytest.mark.cuda_emulation
@pytest.mark.parametrize("bench", SMALL, ids=lambda bench: f"{bench.kernel}-{bench.case}")
def test_a_kernel_is_checked_and_timed(bench: Any, cuda_emulation: ModuleType) -> None:
    rows, missing = measure([bench], stand_in(cuda_emulation), CEILINGS, rounds=3, progress=quiet)
    assert missing == ()
    assert [row.cache for row in rows] == ["cold", "warm"]
    for row in rows:
        assert row.us == {
            name: pytest.approx(1e3 * n, rel=1e-2)
            for n, name in enumerate(("ours", "torch", "inductor"), 1)
        }
        assert [ratio.name for ratio in row.ratios] == ["torch", "inductor"]
        assert row.share == pytest.approx(row.floor_us / 1e3, rel=1e-2)
        assert row.bytes == bench.work().bytes


@dataclass(frozen=True)
class Spoilt:
    """Kernels that write nothing."""

    def score_map_concat(self, *arguments: Any, **rest: Any) -> None:
        pass

    preprocess = upsample_argmax = overlay = score_map_concat


@pytest.mark.parametrize("bench", SMALL, ids=lambda bench: f"{bench.kernel}-{bench.case}")
def test_a_kernel_that_writes_nothing_is_not_timed(bench: Any) -> None:
    rows, missing = measure([bench], stand_in(Spoilt()), CEILINGS, rounds=3, progress=quiet)
    assert rows == ()
    assert len(missing) == 1
    assert missing[0].startswith(f"{bench.kernel}, {bench.case}, ours: ")


@pytest.mark.parametrize("bench", SMALL, ids=lambda bench: f"{bench.kernel}-{bench.case}")
def test_the_check_sees_one_wrong_value(bench: Any) -> None:
    device = stand_in()
    tensors = bench.make(device, seed=3)
    found = bench.torch_form(tensors)
    assert bench.wrong(tensors, found, strict=False) is None
    flat = found.flatten()
    if found.dtype == torch.uint8:
        flat[-1] = 254
    else:
        flat[-1] += 1
    assert bench.wrong(tensors, flat.reshape(found.shape), strict=False)
    if found.dtype != torch.uint8:
        flat[-1] = torch.nan
        assert bench.wrong(tensors, flat.reshape(found.shape), strict=False)


@pytest.mark.cuda_emulation
def test_a_peer_that_fails_is_named_and_the_others_go_on(
    cuda_emulation: ModuleType,
) -> None:
    def broken(_: Any) -> Any:
        raise RuntimeError("no compiler here\nand a long trace")

    device = replace(stand_in(cuda_emulation), compile=lambda _: broken)
    rows, missing = measure([SMALL[-1]], device, CEILINGS, rounds=3, progress=quiet)
    assert [set(row.us) for row in rows] == [{"ours", "torch"}] * 2
    assert missing == ("overlay, 33×9, alpha 128, inductor: RuntimeError: no compiler here",)


def test_all_cases_of_the_issue_are_there_once() -> None:
    benches = list(all_benches())
    assert len(set(benches)) == len(benches)
    score_maps = [bench for bench in benches if isinstance(bench, ScoreMap)]
    assert {bench.classes for bench in score_maps} == {1, 11, 19, 150}
    assert len(score_maps) == 4 * 4 * 3 * 2
    assert {bench.shape[0] for bench in score_maps} == {1, 8}
    frames_ = {bench.frame for bench in benches if isinstance(bench, Preprocess)}
    assert min(frames_) == (480, 640)
    assert max(frames_) == (2160, 3840)


# --- Engines --------------------------------------------------------------------------------------

TINY = Case(3, 64, 96)


@pytest.fixture
def subject(tmp_path: Path) -> Subject:
    return Subject(TINY, stand_in(), tmp_path)


def with_file(subject: Subject, precision: str) -> Made:
    return Made(torch_eager(subject, precision).engine, subject.write("any"))


def failing(subject: Subject, precision: str) -> Made:
    raise ImportError("no module named tensorrt")


def wrong(subject: Subject, precision: str) -> Made:
    return Made(SimpleNamespace(run=lambda: torch.zeros_like(subject.logits)))


CONTENDERS = (
    Contender("eager", "float32", torch_eager),
    Contender("compiled", "bfloat16", torch_compiled),
    Contender("ours", "float32", with_file),
    Contender("absent", "float16", failing),
    Contender("wrong", "float16", wrong),
)


def test_engines_are_checked_then_timed_alone_and_from_the_frame(subject: Subject) -> None:
    engines, missing = measure_engines(
        subject,
        CONTENDERS,
        CEILINGS,
        frames=((64, 96), (48, 80)),
        rounds=3,
        progress=quiet,
        open_runtime=lambda file, _: edgeseg.Runtime(file, threads=1, precision="float32"),
    )
    absent, off = missing
    assert absent == (
        "text-guided, K = 3, 96×64, absent, float16: ImportError: no module named tensorrt"
    )
    assert off.startswith("text-guided, K = 3, 96×64, wrong, float16: logits are off by 1, ")
    assert [(row.contender, row.span) for row in engines.rows] == [
        ("eager", "engine"),
        ("compiled", "engine"),
        ("ours", "engine"),
        ("ours", "frame 96×64"),
        ("ours", "frame 80×48"),
    ]
    for row in engines.rows:
        assert row.error <= (1e-5 if row.precision == "float32" and row.span == "engine" else 0.2)
    # The clock gives the third and the fourth entry three and four milliseconds.
    (over_engine,) = engines.over_engine
    assert over_engine.name == "text-guided, K = 3, 96×64, ours, float32"
    assert over_engine.value == pytest.approx(4 / 3, rel=1e-2)
    assert [ratio.value for ratio in engines.over_ours] == pytest.approx([1 / 3, 2 / 3], rel=1e-2)
    floor = counts.network_floor_ms(subject.macs, CEILINGS.operations["tfloat32"])
    assert engines.rows[0].floor_ms == pytest.approx(floor)


def test_text_guided_stands_over_the_baseline(subject: Subject, tmp_path: Path) -> None:
    baseline = Subject(replace(TINY, guided=False), stand_in(), tmp_path)
    engines, missing = measure_paper(
        subject, baseline, CONTENDERS[:1] + CONTENDERS[3:4], CEILINGS, rounds=5, progress=quiet
    )
    assert [row.network for row in engines.rows] == [
        "text-guided, K = 3, 96×64",
        "baseline, K = 3, 96×64",
    ]
    (ratio,) = engines.guided_over_baseline
    assert ratio.name == "96×64, eager, float32"
    assert ratio.value == pytest.approx(1 / 2, rel=1e-2)  # the first of two contenders
    assert len(missing) == 2


def test_a_contender_without_a_graph_is_launched_step_by_step(subject: Subject) -> None:
    def refuse(_: Launch) -> Any:
        raise RuntimeError("operation not permitted when stream is capturing")

    device = replace(stand_in(), graph=refuse)
    engines, missing = measure_engines(
        replace(subject, device=device),
        CONTENDERS[1:2],
        CEILINGS,
        frames=(),
        rounds=3,
        progress=quiet,
    )
    assert len(engines.rows) == 1
    assert len(missing) == 1
    assert "launched step by step" in missing[0]


def test_an_aoti_package_runs_outside_the_runtime(
    subject: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: list[str] = []

    def load_package(path: str, *, run_single_threaded: bool) -> Any:
        assert run_single_threaded  # or no CUDA graph holds it
        loaded.append(Path(path).read_text())
        return lambda image: image[:, :1]

    monkeypatch.setattr(torch._inductor, "aoti_load_package", load_package)
    engine = AotiEngine(b"package", subject.image, "bfloat16")
    assert engine.run().dtype == torch.bfloat16
    assert loaded == ["package"]


def test_the_aoti_contender_writes_an_engine_file(
    subject: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    from edgeseg.engine_file import open_engine
    from edgeseg.export import aoti

    monkeypatch.setattr(aoti, "to_aoti", lambda model, *arguments: b"code")
    monkeypatch.setattr(torch._inductor, "aoti_load_package", lambda path, **_: lambda image: image)
    made = aot_inductor(subject, "float32")
    assert made.file is not None
    with open_engine(made.file) as engine:
        target = engine.manifest.target("aoti")
        assert target is not None
        assert (target.precision, target.requires["classes"]) == ("float32", "3")
        assert bytes(engine.part(target.parts[0])) == b"code"


def stub_of_tensorrt(subject: Subject, accept: bool = True) -> Any:
    """As much of TensorRT's Python as a plan needs; the network is PyTorch's."""
    addresses: dict[str, int] = {}

    def execute(stream: int) -> bool:
        assert stream == 0
        assert set(addresses) == {"image", "logits"}
        return accept

    engine = SimpleNamespace(
        num_io_tensors=2,
        get_tensor_name=["image", "logits"].__getitem__,
        get_tensor_dtype={"image": "half", "logits": "float"}.__getitem__,
        get_tensor_mode={"image": "in", "logits": "out"}.__getitem__,
        get_tensor_shape={"logits": (1, 3, 8, 12)}.__getitem__,
        create_execution_context=lambda: SimpleNamespace(
            set_tensor_address=addresses.__setitem__, execute_async_v3=execute
        ),
    )

    module = SimpleNamespace(
        DataType=SimpleNamespace(FLOAT="float", HALF="half", BF16="bf16"),
        TensorIOMode=SimpleNamespace(INPUT="in", OUTPUT="out"),
        Runtime=lambda messages: SimpleNamespace(
            deserialize_cuda_engine=lambda plan: engine if plan == b"plan" else None
        ),
    )
    messages = SimpleNamespace(last_error="what the library says")
    return SimpleNamespace(module=module, messages=messages, name="TensorRT 10.15.1.29")


def test_a_plan_runs_outside_the_runtime(subject: Subject) -> None:
    engine = PlanEngine(stub_of_tensorrt(subject), b"plan", subject.image, subject.device)
    logits = engine.run()
    assert logits.shape == (1, 3, 8, 12)
    assert logits.dtype == torch.float32
    with pytest.raises(
        EngineError, match=r"TensorRT 10\.15\.1\.29 refuses the plan: what the library says"
    ):
        PlanEngine(stub_of_tensorrt(subject), b"other", subject.image, subject.device)
    refused = PlanEngine(stub_of_tensorrt(subject, False), b"plan", subject.image, subject.device)
    with pytest.raises(EngineError, match="did not queue"):
        refused.run()


def test_a_target_without_its_library_is_not_measured(subject: Subject) -> None:
    contender = Contender("tensorrt, from ONNX", "float16", built("tensorrt"))
    if machine.find_spec("tensorrt") is not None:
        pytest.skip("TensorRT is here")
    engines, missing = measure_engines(
        subject, [contender], CEILINGS, frames=(), rounds=3, progress=quiet
    )
    assert engines == Engines()
    assert len(missing) == 1
    assert "TensorRT is not installed" in missing[0]


# --- The Runtime ----------------------------------------------------------------------------------


def test_the_runtime_over_many_frames(tiny_engine: Path) -> None:
    checks, missing = frames.measure_runtime(
        lambda: edgeseg.Runtime(tiny_engine, threads=1),
        size=(48, 64),
        frames=20,
        rounds=2,
        progress=quiet,
        memory=lambda: {"host": 5, "device": 7},
    )
    assert missing == ()
    assert len(checks) == 3
    assert checks[0].passed
    assert checks[1].passed
    assert checks[1].detail == f"0 of {24 * 48 * 64:,} labels differ"


def test_growing_memory_does_not_pass(tiny_engine: Path) -> None:
    taken = iter(({"device": 0}, {"device": 17 << 20}))
    runtime = edgeseg.Runtime(tiny_engine, threads=1)
    check = frames.flat_memory(runtime, (48, 64), 10, lambda: next(taken))
    assert not check.passed
    assert "device +17.0 MiB" in check.detail


def test_labels_that_change_side_by_side_do_not_pass() -> None:
    numbers = iter(range(1000))

    def fickle() -> Any:
        return SimpleNamespace(
            predict=lambda frame: SimpleNamespace(labels=np.full((2, 2), next(numbers)))
        )

    assert not frames.side_by_side(fickle, (48, 64)).passed


def test_a_runtime_that_cannot_open_is_named() -> None:
    def refuse() -> Any:
        raise EngineError("no GPU")

    checks, missing = frames.measure_runtime(
        refuse, size=(48, 64), frames=10, rounds=2, progress=quiet
    )
    assert checks == ()
    assert len(missing) == 3
    assert frames.first_file([refuse, lambda: Path("x")]) == (Path("x"), ("EngineError: no GPU",))
    assert frames.first_file([refuse]) == (None, ("EngineError: no GPU",))


# --- Tests and sanitizer --------------------------------------------------------------------------


def test_only_tests_that_ran_pass() -> None:
    assert check_of_tests("x", 0, "....\n===== 70 passed, 3 deselected in 2.1s =====\n").passed
    assert not check_of_tests("x", 0, "70 passed, 1 skipped in 2.1s").passed
    assert not check_of_tests("x", 5, "3 deselected in 2.1s").passed
    assert not check_of_tests("x", 0, "").passed
    failed = check_of_tests("x", 1, "FAILED tests/a.py::b - boom\n1 failed, 4 passed in 1s")
    assert not failed.passed
    assert "FAILED tests/a.py::b - boom" in failed.detail


@pytest.mark.parametrize(
    ("tool", "output", "passed"),
    [
        ("memcheck", "5 passed in 1s\n========= ERROR SUMMARY: 0 errors", True),
        ("memcheck", "5 passed in 1s\n========= ERROR SUMMARY: 2 errors", False),
        ("memcheck", "5 passed in 1s\n", False),
        ("memcheck", "1 failed, 5 passed in 1s\n========= ERROR SUMMARY: 0 errors", False),
        ("initcheck", "5 passed in 1s\n========= ERROR SUMMARY: 1 error", False),
        (
            "racecheck",
            "5 passed in 1s\n"
            "========= RACECHECK SUMMARY: 0 hazards displayed (0 errors, 0 warnings)",
            True,
        ),
        (
            "racecheck",
            "5 passed in 1s\n========= RACECHECK SUMMARY: 1 hazard displayed (1 error, 0 warnings)",
            False,
        ),
    ],
)
def test_the_sanitizers_summary_is_read(tool: str, output: str, passed: bool) -> None:
    status = 1 if "failed" in output else 0
    assert sanitizer_check(tool, status, output).passed is passed


def test_tests_and_sanitizer_run_what_they_say(monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[str] = []

    def record(arguments: Any) -> tuple[int, str]:
        ran.append(" ".join(arguments))
        return 0, "========= ERROR SUMMARY: 0 errors\n5 passed in 1s"

    assert all(check.passed for check in run_tests(record))
    assert [("tests/kernels/test_cuda.py" in line, "tests/runtime" in line) for line in ran] == [
        (True, False),
        (False, True),
    ]
    monkeypatch.setattr("benchmarks.gpu.correctness.find_sanitizer", lambda: "compute-sanitizer")
    checks, missing = sanitize(record)
    assert missing == ()
    assert [check.passed for check in checks] == [True, False, True]  # no summary of racecheck
    monkeypatch.setattr("benchmarks.gpu.correctness.find_sanitizer", lambda: None)
    assert sanitize(record)[0] == ()


# --- The machine ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("architectures", "capability", "runs"),
    [
        ("75-real 80-real 90", 75, True),
        ("75-real 80-real 90", 86, True),
        ("75-real 80-real 90", 72, False),
        ("75-real 80-real 90", 120, True),
        ("75-real 80-real 90-real", 100, False),
        ("90a", 90, True),
        ("90a", 100, False),
        ("80-virtual", 86, True),
        ("86-real", 80, False),
    ],
)
def test_architectures_that_run_on_a_gpu(architectures: str, capability: int, runs: bool) -> None:
    assert machine.runs_on(architectures, capability) is runs


def test_ceilings_are_bytes_and_operations_over_time() -> None:
    class OneMillisecond(StillClock):
        def time(self, *arguments: Any, **rest: Any) -> dict[str, Times]:
            super().time(*arguments, **rest)
            return {"it": Times((1.0,))}

    device = replace(stand_in(), kernel_clock=OneMillisecond())
    ceilings = machine.ceilings(
        device, copy_bytes=1000, product=10, dtypes=("float32", "tfloat32", "bfloat16"), rounds=1
    )
    assert ceilings.bandwidth == pytest.approx(2000 / 1e-3)
    assert ceilings.launch_us == pytest.approx(1000)
    assert ceilings.operations["bfloat16"] == pytest.approx(2000 / 1e-3)


def test_without_a_gpu_one_sentence_says_what_is_missing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert command.main([]) == 2
    said = capsys.readouterr().out
    assert said.startswith("nothing can be measured here: ")
    assert said.count("\n") == 1
    monkeypatch.setattr(torch.version, "cuda", None)
    assert "a build without CUDA" in str(machine.missing())


def test_a_core_without_kernels_is_built_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class ReplacedError(Exception):
        pass

    def replace_process(program: str, arguments: list[str]) -> None:
        raise ReplacedError(" ".join(arguments[1:]))

    monkeypatch.setattr(machine, "missing", lambda: None)
    monkeypatch.setattr(machine, "needs_build", lambda: "the native core was built without CUDA")
    monkeypatch.setattr(machine, "build", lambda: None)
    monkeypatch.setattr(command.os, "execv", replace_process)
    with pytest.raises(ReplacedError, match=r"-m benchmarks\.gpu --only tests --rebuilt"):
        command.main(["--only", "tests"])
    assert command.main(["--rebuilt"]) == 2
    assert "even after a build" in capsys.readouterr().out
    assert machine.build_command()[-2:] == ["-C", "cmake.define.EDGESEG_CUDA=ON"]


# --- Results and report ---------------------------------------------------------------------------

# Invented: no GPU of this name exists, and no figure was measured.
SYNTHETIC = Results(
    environment=Environment(
        gpu="NVIDIA Synthetic 1000",
        compute_capability="99.0",
        multiprocessors=1,
        l2_bytes=1 << 20,
        memory_bytes=1 << 30,
        driver="0.0",
        versions={"torch": "0.0"},
        build={"cuda_architectures": "99"},
        commit="none",
    ),
    ceilings=CEILINGS,
    tests=(Check("pytest tests/runtime -m gpu", True, "7 passed"),),
    sanitizer=(Check("compute-sanitizer memcheck", False, "3 errors"),),
    kernels=tuple(
        KernelRow(
            kernel=kernel,
            case=case,
            cache="cold",
            bytes=10_000_000,
            operations=10**8,
            floor_us=6.5,
            us={"ours": us, "torch": 30.0},
            ratios=(Ratio("torch", 30 / us, 30 / us - 0.1, 30 / us + 0.1),),
        )
        for kernel, case, us in (
            ("score_map_concat", "1×1024×16×32, K = 19, float16, NCHW", 10.0),
            ("score_map_concat", "8×1024×16×32, K = 19, float16, NCHW", 8.0),
            ("upsample_argmax", "1×19×64×128 → 2048×1024, float16, random", 5.0),
        )
    ),
    paper=Engines(
        rows=(
            EngineRow(
                "text-guided, K = 19, 1024×512",
                "aoti",
                "float16",
                "engine",
                Latency(0.5, 0.6, 0.7),
                1e-3,
                0.1,
            ),
        ),
        guided_over_baseline=(
            Ratio("1024×512, aoti, float16", 1.004, 1.001, 1.008),
            Ratio("1024×512, tensorrt, plugin, float16", 1.02, 1.01, 1.03),
        ),
    ),
    engines=Engines(
        rows=(
            EngineRow(
                "text-guided, K = 19, 1024×512",
                "aoti",
                "float16",
                "frame 1024×512",
                Latency(0.9, 1.0, 1.1),
                0.01,
                0.1,
            ),
        ),
        over_engine=(
            Ratio("text-guided, K = 19, 1024×512, aoti, float16", 1.1, 1.0, 1.2),
            Ratio("text-guided, K = 11, 960×720, aoti, float16", 1.3, 1.2, 1.4),
        ),
    ),
    not_measured={"engines": ("tensorrt, float16: ImportError: No module named 'tensorrt'",)},
)


def test_a_file_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "gpu.json"
    save(path, SYNTHETIC)
    assert load(path) == SYNTHETIC
    path.write_text(json.dumps(json.loads(path.read_text()) | {"schema_version": 99}))
    with pytest.raises(InputError, match="schema version 99"):
        load(path)
    path.write_text("{}")
    with pytest.raises(InputError, match="no result of this version"):
        load(path)
    with pytest.raises(InputError, match=r"python -m benchmarks\.gpu"):
        load(tmp_path / "absent.json")
    assert default_path("NVIDIA H100 80GB HBM3").name == "gpu_h100-80gb-hbm3.json"


def test_every_target_is_judged() -> None:
    met = {target.found.split(":")[0]: target.met for target in targets(SYNTHETIC)}
    assert met == {
        "7 passed": True,
        "3 errors": False,
        "1024×512, aoti, float16": True,
        "1024×512, tensorrt, plugin, float16": False,
        "text-guided, K = 19, 1024×512, aoti, float16": True,
        "in 2 of 2 cases; least 3.000 (2.900 to 3.100)": True,
        "in 1 of 1 cases; least 0.81": True,
        "in 0 of 1 cases; least 6.000 (5.900 to 6.100)": False,
        "not measured": None,
    }
    nothing = Results(SYNTHETIC.environment, SYNTHETIC.ceilings)
    assert {target.met for target in targets(nothing)} == {None}
    assert len(targets(nothing)) == 8


def test_the_report_names_everything(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "gpu.json"
    save(path, SYNTHETIC)
    assert command.main(["report", "--json", str(path)]) == 0
    text = capsys.readouterr().out
    assert text.rstrip() == markdown(SYNTHETIC).rstrip()
    assert text.startswith("# NVIDIA Synthetic 1000\n")
    for expected in (
        "copy 2,000 GB/s",
        "| text-guided, K = 19, 1024×512 | aoti, float16 | 0.500 ms | 2000 | 0.20 | 245.3 |",
        "### upsample_argmax",
        "| 6.5 µs | 8.0 µs | 0.81 | 30.0 µs, 3.8 × |",
        "- runtime: not run; `python -m benchmarks.gpu --only runtime`",
        "- engines: tensorrt, float16: ImportError: No module named 'tensorrt'",
    ):
        assert expected in text


def test_parts_are_kept_only_of_the_same_machine_and_commit(tmp_path: Path) -> None:
    path = tmp_path / "gpu.json"
    environment = SYNTHETIC.environment
    assert command.earlier(path, environment, CEILINGS) == Results(environment, CEILINGS)
    save(path, SYNTHETIC)
    kept = command.earlier(path, environment, replace(CEILINGS, launch_us=9.0))
    assert kept.kernels == SYNTHETIC.kernels
    assert kept.ceilings.launch_us == 9.0
    other = replace(environment, commit="later")
    assert command.earlier(path, other, CEILINGS).kernels is None
    anew = command.with_part(kept, "engines", (Engines(), ("all of it: no time",)))
    assert anew.engines == Engines()
    assert anew.not_measured["engines"] == ("all of it: no time",)
    assert anew.kernels == SYNTHETIC.kernels


def test_a_failed_check_fails_the_run() -> None:
    assert command.all_passed(SYNTHETIC, ("tests", "kernels"))
    assert not command.all_passed(SYNTHETIC, ("tests", "sanitizer"))


def test_parts_are_chosen_by_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.chosen(None) == ("tests", "sanitizer", "kernels", "paper", "engines", "runtime")
    assert command.chosen("runtime,kernels") == ("kernels", "runtime")
    with pytest.raises(ConfigError, match="there are tests, sanitizer"):
        command.chosen("kernel")
    assert command.main(["--rounds", "2"]) == 2
    assert "--rounds is 2; at least 10" in capsys.readouterr().out


def test_a_whole_run_on_the_stand_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The command from its first line to its file, its parts replaced by small ones."""
    monkeypatch.setattr(machine, "missing", lambda: None)
    monkeypatch.setattr(machine, "needs_build", lambda: None)
    monkeypatch.setattr(machine, "environment", lambda: SYNTHETIC.environment)
    monkeypatch.setattr(machine, "ceilings", lambda *arguments, **rest: CEILINGS)
    monkeypatch.setattr(machine, "clocks", lambda: "1 MHz")
    monkeypatch.setattr(Device, "gpu", staticmethod(stand_in))
    parts = {
        "kernels": lambda session: measure(
            [], session.device, session.ceilings, rounds=session.rounds, progress=session.progress
        ),
        "runtime": lambda session: ((Check("flat", False, "grew"),), ("stream: no video",)),
    }
    monkeypatch.setattr(command, "PARTS", parts)
    path = tmp_path / "gpu.json"
    assert command.main(["--json", str(path)]) == 1  # a check failed
    results = load(path)
    assert results.kernels == ()
    assert results.clocks == ("1 MHz", "1 MHz")
    assert results.not_measured["runtime"] == ("stream: no video",)
    assert "**no** | grew" in capsys.readouterr().out
