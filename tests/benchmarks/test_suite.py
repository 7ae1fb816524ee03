"""The suite: its peers agree, it counts right, it says what it promised, and nothing stops it."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from time import sleep

import cv2
import numpy as np
import pytest
import torch
from benchmarks.counts import macs
from benchmarks.suite import paths, peers
from benchmarks.suite.__main__ import main
from benchmarks.suite.counts import parameters, preprocess_bytes, upsample_bytes
from benchmarks.suite.instructions import CASES, Count, Counts, write_counts
from benchmarks.suite.kernels import nv12
from benchmarks.suite.networks import Subject, resized, subject, write_engine_of
from benchmarks.suite.paths import AGREES, agreement, measure_paths
from benchmarks.suite.peers import (
    MAKERS,
    NO_BFLOAT16,
    Maker,
    Missing,
    Peer,
    Precision,
    make_peers,
    ours,
)
from benchmarks.suite.report import write_report
from benchmarks.suite.results import (
    PathTable,
    Picture,
    Ratio,
    Results,
    Run,
    check_same,
    load,
    merged,
    save,
)
from benchmarks.suite.run import Plan, measure
from benchmarks.suite.streams import Camera
from benchmarks.suite.verdict import verdicts
from benchmarks.timing import Times, interleaved, paired_ratio_interval, ratio_interval

from edgeseg.errors import InputError
from edgeseg.machine import cpu_computes_in_bfloat16
from edgeseg.models import STDCSeg, STDCSegConfig
from edgeseg.runtime import packaged_engine
from edgeseg.synthetic import street

pytestmark = pytest.mark.timeout(900)  # a whole run, if a small one, also on a busy machine

# Compiling takes PyTorch minutes; it is the eager peer's function, and the suite checks it itself.
QUICK = tuple(maker for maker in MAKERS if maker.name != "PyTorch compiled")
OPENVINO = tuple(maker for maker in MAKERS if maker.name == "OpenVINO in one graph")
FLOATS: tuple[Precision, ...] = ("float32", *(("bfloat16",) if cpu_computes_in_bfloat16() else ()))


def network(guided: bool, classes: int) -> STDCSeg:
    config = STDCSegConfig("stdc1", classes, "encoder" if guided else None)
    text = torch.nn.functional.normalize(torch.randn(classes, 1024)) if guided else None
    return STDCSeg(config, text).eval()


# ------------------------------------------------------------------------------------------ counts


def test_parameters_are_the_papers() -> None:
    assert round(parameters(network(False, 19)) / 1e3) == 8573
    assert round(parameters(network(True, 19)) / 1e3) == 8597
    assert parameters(network(True, 19)) - parameters(network(False, 19)) == 128 * 10 * 19


def test_macs_of_text_guidance_by_hand() -> None:
    """Two more convolutions' inputs, and the score map: at 64×96, F4 has 2×3 pixels."""
    classes = 19
    convolutions = 128 * classes + 9 * 128 * classes * 6  # conv_avg on 1×1, ARM32 on 2×3
    score_map = 6 * 1024 * (classes + 1)
    difference = macs(network(True, classes), 64, 96) - macs(network(False, classes), 64, 96)
    assert difference == convolutions + score_map


def test_macs_are_about_the_papers() -> None:
    assert macs(network(True, 19), 512, 1024) / 1e9 == pytest.approx(16.9, abs=0.05)


def test_bytes_of_preprocess_by_hand() -> None:
    # As large as the frame: every row of 128 pixels is 384 bytes, 6 lines.
    assert preprocess_bytes((4, 128), (4, 128), "bgr") == 4 * 384 + 3 * 4 * 128 * 4
    # Two luma bytes a pixel pair, and half as many rows of chroma.
    assert preprocess_bytes((4, 128), (4, 128), "nv12") == (4 + 2) * 128 + 3 * 4 * 128 * 4
    # A quarter of the rows: each output row reads the two in the middle of four.
    assert preprocess_bytes((16, 128), (4, 128), "rgb", 2) == 8 * 384 + 3 * 4 * 128 * 2


def test_bytes_of_upsample_by_hand() -> None:
    assert upsample_bytes(19, (2, 3), (10, 20)) == 19 * 6 * 4 + 200


def test_nv12_comes_back_as_the_frame() -> None:
    grey = np.full((6, 8, 3), 90, np.uint8)
    grey[:, 4:] = 200
    back = cv2.cvtColor(nv12(grey), cv2.COLOR_YUV2BGR_NV12)
    assert np.abs(back.astype(int) - grey).max() <= 2
    red = np.zeros((6, 8, 3), np.uint8)
    red[..., 2] = 255
    back = cv2.cvtColor(nv12(red), cv2.COLOR_YUV2BGR_NV12)
    assert back[..., 2].min() > 240
    assert back[..., :2].max() < 15


# ------------------------------------------------------------------------------------------ timing


def test_contenders_take_turns_and_lead_calls_do_not_count() -> None:
    calls: list[str] = []
    times = interleaved(
        {"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, 2, warm_up=1, lead=1
    )
    backwards = ["b", "b", "a", "a"]
    assert calls == [*backwards, "a", "a", "b", "b", *backwards]
    assert {name: len(found.ms) for name, found in times.items()} == {"a": 2, "b": 2}


def test_a_percent_is_seen_through_drift_and_order() -> None:
    """Rounds that differ by a third, and second turns that are 5 % slower: pairs cancel both."""
    random = np.random.default_rng(0)
    drift = 100 * (1.3 + np.sin(np.arange(150) / 20) + 0.02 * random.standard_normal(150))
    noise = 1 + 0.005 * random.standard_normal((2, 150))
    forward = np.arange(150) % 2 == 0
    over = Times(tuple(1.01 * drift * noise[0] * np.where(forward, 1.0, 1.05)))
    under = Times(tuple(drift * noise[1] * np.where(forward, 1.05, 1.0)))
    value, low, high = paired_ratio_interval(over, under)
    assert low < 1.01 < high
    assert value == pytest.approx(1.01, abs=0.002)
    assert high - low < 0.005
    _, coarse_low, coarse_high = ratio_interval(over, under)
    assert coarse_high - coarse_low > 2 * (high - low)


# ------------------------------------------------------------------------------------------- peers


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Subject:
    """The packaged engine, and its network again in PyTorch."""
    return subject(packaged_engine(), tmp_path_factory.mktemp("packaged"))


@pytest.fixture(scope="module")
def small(trained: Subject, tmp_path_factory: pytest.TempPathFactory) -> Subject:
    """Its weights with half-pixel centres, as every tool's own resize has them."""
    folder = tmp_path_factory.mktemp("small")
    settings = trained.manifest.input
    engine = write_engine_of(
        resized(trained.model, 11, guided=True, align_corners=False),
        folder / "small.edgeseg",
        width=320,
        height=160,
        mean=settings.mean,
        std=settings.std,
        calibration=0,
    )
    return subject(engine, folder)


FRAME = street(5, 320, 640).frame


def test_every_installed_peer_agrees(small: Subject) -> None:
    expected = {p: ours(small, p, 1).labels(FRAME) for p in FLOATS}
    assert len(np.unique(expected["float32"])) > 3
    agreed = []
    for peer in make_peers(small, FRAME, 1, QUICK):
        if isinstance(peer, Missing):
            assert (
                peer.precision == "int8"
                or "not installed" in peer.reason
                or (peer.precision not in FLOATS and peer.reason == NO_BFLOAT16)
            ), peer
            continue
        labels = peer.labels(FRAME)
        assert labels.dtype == np.uint8, peer.name
        share = agreement(labels, expected[peer.precision])
        assert share >= (AGREES if peer.exact else 0.9), (peer.name, peer.precision, share)
        agreed.append(peer.name)
    assert {"PyTorch eager", "OpenVINO in one graph", "cv2.dnn"} <= set(agreed)


def test_other_class_counts_keep_the_trained_ones(trained: Subject) -> None:
    """Without text guidance's small new weights, 11 classes are the packaged network's."""
    same = resized(trained.model, 11, guided=False, align_corners=True)
    more = resized(trained.model, 19, guided=False, align_corners=True)
    image = torch.randn(1, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(more(image)[:, :11], same(image))
        assert more(image).shape[1] == 19
    # Equal classes would be ties, which every tool's rounding decides in its own way.
    assert len(torch.unique(more.head.classify.weight.flatten(1), dim=0)) == 19


def _wrong(subject: Subject, frame: np.ndarray, precision: str, threads: int) -> Peer:
    return Peer("wrong", "1", "float32", lambda frame: np.zeros(frame.shape[:2], np.uint8))


def _broken(subject: Subject, frame: np.ndarray, precision: str, threads: int) -> Peer:
    raise RuntimeError("no such kernel")


def test_a_missing_a_broken_and_a_wrong_peer_stop_nothing(small: Subject) -> None:
    makers = (
        Maker("absent", "no-such-tool", "no_such_tool", ("float32",), _broken),
        Maker("broken", "numpy", "numpy", ("float32",), _broken),
        Maker("wrong", "numpy", "numpy", ("float32",), _wrong),
        *(replace(maker, precisions=("float32",)) for maker in OPENVINO),
    )
    table = measure_paths(
        small, FRAME, threads=1, rounds=2, progress=lambda what: None, makers=makers
    )
    reasons = {left.name: left.reason for left in table.left_out}
    assert reasons.keys() == {"absent", "broken", "wrong"}
    assert "pip install" in reasons["absent"]
    assert "no such kernel" in reasons["broken"]
    assert "agree" in reasons["wrong"]
    assert [row.name for row in table.rows].count("OpenVINO in one graph") == 1
    assert tuple(engine.precision for engine in table.engines) == FLOATS


def test_a_cpu_without_bfloat16_stops_nothing(
    small: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (paths, peers):
        monkeypatch.setattr(module, "cpu_computes_in_bfloat16", lambda: False)
    table = measure_paths(
        small, FRAME, threads=1, rounds=2, progress=lambda what: None, makers=OPENVINO
    )
    assert [engine.precision for engine in table.engines] == ["float32"]
    assert [row.precision for row in table.rows] == ["float32", "float32"]
    assert {left.precision: left.reason for left in table.left_out}["bfloat16"] == NO_BFLOAT16


# ------------------------------------------------------------------------------------------ report


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    """A tiny run, whose times mean nothing."""
    plan = Plan(
        threads=1,
        rounds=2,
        guidance_rounds=2,
        network=(192, 128),
        classes=12,
        calibration=0,
        wide_frame=(160, 96),
        packaged_frame=(128, 96),
        kernel_frames=((128, 96),),
        video_frames=3,
        makers=OPENVINO,
    )
    return measure(plan, tmp_path_factory.mktemp("run"), lambda what: None)


def test_a_tiny_run_gives_a_complete_report(results: Results, tmp_path: Path) -> None:
    save(results, tmp_path / "suite.json")
    assert load(tmp_path / "suite.json") == results
    assert main(["report", "--json", str(tmp_path / "suite.json")]) == 0
    assert {path.name for path in tmp_path.iterdir()} == {
        "suite.json",
        "suite.md",
        "suite-latency.png",
        "suite-stages.png",
        "suite-accuracy.png",
    }
    assert results.paths
    assert results.kernels
    assert results.accuracy
    page = (tmp_path / "suite.md").read_text()
    for expected in (
        "192×128, K = 12",
        "640×480, K = 11",
        "96×64, K = 12",
        "predict ÷ engine",
        "text-guided",
        "8,597k",
        "254",
        "nv12",
        "stream()",
        "added, frames",
        "labelled: street 5 of edgeseg.synthetic: synthetic",
        "bounded by the network",
        results.setup.machine.cpu,
        *(row.level for row in results.kernels.rows),
    ):
        assert expected in page, expected
    assert [table.judged for table in results.paths.tables] == [True, True, False]
    assert [{row.precision for row in table.rows} for table in results.paths.tables] == [
        {*FLOATS},  # calibration=0
        {*FLOATS, "int8"},
        {FLOATS[-1]},
    ]
    assert [(row.classes, row.size) for row in results.accuracy.costs] == [
        *[(19, "1024×512")] * 2,
        *[(11, "960×720")] * 2,
    ]
    assert {point.precision for point in results.accuracy.points} == {"float32", "int8"}


def test_verdicts_follow_the_numbers(results: Results) -> None:
    targets = {verdict.target for verdict in verdicts(results)}
    for promised in (
        "predict ≤ 1.10 × bare engine, bfloat16",
        "predict ≤ 1.15 × bare engine, int8",
        "p99 ≤ 1.3 × p50 of predict, int8",
        "≥ 3 × OpenVINO in one graph, float32",
        "ahead of every other, bfloat16",
        "ahead of all at each tool's best",
        "upsample_argmax ≥ 20 × in-graph, a street's logits",
        "upsample_argmax ≥ 4 × in-graph, random logits",
        "preprocess ≤ 0.6 × blobFromImage, BGR",
        "text-guided ÷ baseline engine: upper end of the 95 % interval ≤ 1.01",
        "stream() never slower than a read–predict loop",
        "stream() adds no more than one frame of latency",
        "stream() keeps order",
    ):
        assert promised in targets
    assert not [v for v in verdicts(results) if v.where.startswith("96×64")], "has no targets"
    assert results.guidance
    for high, outcome in ((1.01, "met"), (1.02, "missed")):
        row = replace(results.guidance.rows[0], ratio=Ratio(1.0, 0.99, high))
        for rounds, seen in ((50, outcome), (49, "not measured")):
            guidance = replace(results.guidance, run=Run("", 1.0, rounds), rows=(row,))
            judged = verdicts(replace(results, guidance=guidance))
            assert [v.outcome for v in judged if v.target.startswith("text-guided")] == [seen]
    empty = verdicts(Results(results.schema_version, results.setup))
    assert {v.outcome for v in empty} == {"not measured"}
    assert len(empty) == 7


def only(results: Results, table: PathTable) -> Results:
    """With one table of paths."""
    assert results.paths
    return replace(results, paths=replace(results.paths, tables=(table,)))


def test_speed_is_judged_by_its_ratio(results: Results) -> None:
    assert results.paths
    table = results.paths.tables[1]
    engine = next(e for e in table.engines if e.precision == "int8")
    for value, outcome in ((1.15, "met"), (1.16, "missed")):
        changed = replace(engine, predict_to_engine=Ratio(value, 0.9, 1.3))
        judged = verdicts(only(results, replace(table, engines=(changed,))))
        seen = [v for v in judged if v.target == "predict ≤ 1.15 × bare engine, int8"]
        assert [v.outcome for v in seen] == [outcome]
    for ms, outcome in (
        ([10.0] * 50 + [14.0] * 50, "met"),  # p50 is 12
        ([10.0] * 90 + [14.0] * 10, "missed"),
        ([10.0] * 99, "not measured"),  # their p99 is the maximum
    ):
        changed = replace(engine, steady=Times(tuple(ms)))
        judged = verdicts(only(results, replace(table, engines=(changed,))))
        seen = [v for v in judged if v.target == "p99 ≤ 1.3 × p50 of predict, int8"]
        assert [v.outcome for v in seen] == [outcome]


@pytest.mark.parametrize(
    ("ratio", "outcome"),
    [
        (Ratio(1.2, 1.1, 1.3), "met"),
        (Ratio(1.2, 0.9, 1.3), "undecided"),
        (Ratio(0.9, 0.8, 0.99), "missed"),
    ],
)
def test_ahead_and_never_slower_take_the_whole_interval(
    results: Results, ratio: Ratio, outcome: str
) -> None:
    assert results.paths
    assert results.streams
    table = results.paths.tables[1]
    rows = tuple(r if r.name == "edgeseg" else replace(r, to_ours=ratio) for r in table.rows)
    ahead = only(results, replace(table, rows=rows))
    seen = [v for v in verdicts(ahead) if v.target.startswith("ahead of every other")]
    assert {v.outcome for v in seen} - {"not measured"} == {outcome}  # bfloat16, where it lacks
    streams = replace(results.streams, rows=(replace(results.streams.rows[0], ratio=ratio),))
    judged = verdicts(replace(results, streams=streams))
    assert [v.outcome for v in judged if "never slower" in v.target] == [outcome]


def test_the_latency_that_stream_adds_is_counted_in_frames(results: Results) -> None:
    assert results.streams
    live = results.streams.live[0]
    for stream_ms, outcome in ((55.0, "met"), (65.0, "missed")):
        row = replace(
            live,
            period_ms=10.0,
            frame_ms=40.0,  # the longer one counts
            stream_ms=Times((stream_ms,)),
            loop_ms=Times((20.0,)),
        )
        judged = verdicts(replace(results, streams=replace(results.streams, live=(row,))))
        assert [v.outcome for v in judged if v.target.endswith("frame of latency")] == [outcome]
    assert results.streams.checks.in_order
    assert 1 <= results.streams.checks.read_ahead <= 4
    assert results.streams.checks.before_drop == results.streams.checks.readable


def test_a_camera_shows_its_newest_frame_to_whoever_comes_late() -> None:
    camera = Camera(np.zeros((2, 2, 3), np.uint8), period=0.02, frames=10)
    numbers = []
    for frame in camera:
        numbers.append(256 * int(frame[0, 0, 0]) + int(frame[0, 0, 1]))
        sleep(0.05)
    assert numbers == list(camera.shown)
    assert numbers == sorted(set(numbers))
    assert numbers[0] == 0
    assert 2 <= len(numbers) <= 4


# ------------------------------------------------------------------------------------- several runs


def test_parts_of_another_run_are_kept_beside_new_ones(results: Results, tmp_path: Path) -> None:
    assert results.accuracy
    later = Run("2031-01-02 03:04:05", 1.0, 7)
    new = Results(
        results.schema_version,
        results.setup,
        accuracy=replace(results.accuracy, run=later),
    )
    both = merged(results, new)
    assert both.runs()["accuracy"] == later
    assert (both.paths, both.kernels) == (results.paths, results.kernels)
    write_report(both, tmp_path, "suite")
    page = (tmp_path / "suite.md").read_text()
    assert "| accuracy | 2031-01-02 03:04:05 | 1.0 | 7 |" in page
    assert "Several runs" in page
    write_report(new, tmp_path, "part")
    page = (tmp_path / "part.md").read_text()
    assert "Several runs" not in page
    assert "Not measured: paths, guidance, kernels, streams." in page
    assert not (tmp_path / "part-latency.png").exists()


def test_machines_are_never_mixed(results: Results, tmp_path: Path) -> None:
    check_same(results, results.setup, tmp_path)
    setup = results.setup
    for other, named in (
        (replace(setup, commit="1234567"), "commit"),
        (replace(setup, machine=replace(setup.machine, cpu="abacus")), "abacus here"),
        (replace(setup, versions=setup.versions | {"openvino": "1.0"}), "openvino"),
        (replace(setup, picture=Picture("x.png", "2×2", "00")), "picture name"),
    ):
        with pytest.raises(InputError, match=f"{named}.*without --only"):
            check_same(results, other, tmp_path / "suite.json")


def test_a_part_alone_from_the_command_line(
    results: Results, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "suite.json"
    picture = tmp_path / "secret" / "drive.png"
    picture.parent.mkdir()
    cv2.imwrite(str(picture), FRAME)
    command = ["run", "--only", "accuracy", "--json", str(file), "--rounds", "2"]
    assert main([*command, "--picture", str(picture)]) == 0
    digest = hashlib.sha256(picture.read_bytes()).hexdigest()[:16]
    page = (tmp_path / "suite.md").read_text()
    assert f"labelled: drive.png, 640×320, SHA-256 {digest}…" in page
    assert "secret" not in page + file.read_text()
    before = file.read_bytes()
    assert main(command) == 1  # a synthetic street now
    assert "picture name: drive.png there, street 5" in capsys.readouterr().err
    assert file.read_bytes() == before
    with pytest.raises(SystemExit):
        main(["run", "--only", "accuracy,speed"])
    assert "speed: no such part" in capsys.readouterr().err


# ------------------------------------------------------------------------------------- instructions


def test_instructions_without_valgrind(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert main(["instructions", "--json", str(tmp_path / "counts.json")]) == 1
    assert "valgrind is not installed" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_every_case_of_instructions_runs(tmp_path: Path) -> None:
    np.save(tmp_path / "street.npy", np.zeros((1, 11, 60, 80), np.float32))
    for case in CASES.values():
        case.prepare(tmp_path)()


def test_a_page_of_instructions(tmp_path: Path) -> None:
    rows = (Count("overlay", "all", "baseline", 12.5), Count("overlay", "all", "avx2", 1.25))
    write_counts(Counts("0.1", "abc", "GNU 12", "valgrind-3", rows), tmp_path / "counts.json")
    assert "| overlay | all | 12.50 | 1.25 |" in (tmp_path / "counts.md").read_text()


# ---------------------------------------------------------------------------------- without results


def test_a_report_without_a_run(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"benchmarks\.suite run"):
        load(tmp_path / "suite.json")
    assert main(["report", "--json", str(tmp_path / "suite.json")]) == 1


def test_a_report_needs_no_peers(results: Results, tmp_path: Path) -> None:
    assert results.paths
    tables = tuple(replace(t, rows=t.rows[: len(t.engines)]) for t in results.paths.tables)
    write_report(replace(results, paths=replace(results.paths, tables=tables)), tmp_path, "suite")
    assert "not measured" in (tmp_path / "suite.md").read_text()
