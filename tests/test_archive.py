"""Archives of drives: what is found, what is recorded, what workers do of it; and on a cluster."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from tests.stress import archives
from tests.stress.engines import frames

from edgeseg import _core
from edgeseg.archive import inputs, label_archive, worker
from edgeseg.archive import plan as archive_plan
from edgeseg.archive import record as record_module
from edgeseg.archive.inputs import SPAN, Archive, Piece, count_pieces, pieces
from edgeseg.archive.plan import missing_pieces, read_plan, write_plan
from edgeseg.archive.record import Header, Line, Record, from_json, of_piece
from edgeseg.archive.worker import Job, Journal, Labeller, computed, load, probe, sha256
from edgeseg.errors import EngineError, InputError, OutputError
from edgeseg.runtime import Runtime


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    archive = tmp_path / "drives"
    archive.mkdir()
    return archive


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(os.fsencode(path.name))


# ---------------------------------------------------------------------------------------- inputs


def test_an_archive_is_walked_in_order_and_its_labels_never_meet(folder: Path) -> None:
    names = ("a/1.jpg", "a/2.JPG", "a/2.bmp", "a/3.png", "a/4.jpg", "a/4.jpg.png", "a/b/cam.MP4")
    touch(*(folder / name for name in names))
    touch(folder / "a" / ".1.jpg", folder / "a" / "notes.txt", folder / ".cache" / "5.jpg")
    (folder / "a" / "again").symlink_to(folder)  # a loop
    (folder / "a" / "nowhere.jpg").symlink_to(folder / "gone.jpg")
    archive = Archive(folder)
    found = {item.path: item.labels for item in archive}
    assert found == {
        "a/1.jpg": "a/1.png",
        "a/2.JPG": "a/2.JPG.png",
        "a/2.bmp": "a/2.bmp.png",
        "a/3.png": "a/3.png",
        "a/4.jpg": "a/4.png",
        "a/4.jpg.png": "a/4.jpg.png.png",
        "a/b/cam.MP4": "a/b/cam.MP4",
    }
    assert list(found) == sorted(found)
    assert archive.others == {".txt": 1, ".jpg": 1}
    assert [item.path for item in archive] == list(found)  # again


def test_a_video_is_cut_into_spans_and_a_lying_header_into_few(folder: Path) -> None:
    archives._write_video(folder / "a.avi", 2 * SPAN + 10)
    touch(folder / "b.avi")
    data = bytearray((folder / "a.avi").read_bytes())
    for tag, places in ((b"avih", 24), (b"strh", 40)):  # total frames, and the stream's length
        start = data.index(tag) + places
        data[start : start + 4] = (2**31 - 2).to_bytes(4, "little")
    (folder / "c.avi").write_bytes(data)
    counts = {item.path: count_pieces(folder, item) for item in Archive(folder)}
    assert counts["a.avi"] == 2
    assert counts["b.avi"] == 1
    assert counts["c.avi"] <= len(data) // 8 // SPAN


def test_an_archive_that_is_none_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is no folder"):
        label_archive(tmp_path / "missing", tmp_path / "out")
    touch(folder / "notes.txt")
    with pytest.raises(InputError, match=r"no image and no video \(1 other files\)"):
        label_archive(folder, tmp_path / "out")
    for out in (folder, folder / "labels", tmp_path):
        with pytest.raises(InputError, match="lie in one another"):
            label_archive(folder, out)


# ---------------------------------------------------------------------------------------- record


def line(piece: Piece, error: str | None = None) -> Line:
    return of_piece(piece, frames=1, size=(2, 3), areas={"road": 1.0}, error=error)


def plan(archive: Path, record: Record, *, redo: bool = False) -> list[Piece]:
    return list(missing_pieces(Archive(archive), record, redo=redo))


def test_a_record_resumes_and_holds_each_piece_once(folder: Path, tmp_path: Path) -> None:
    names = [f"{index}.jpg" for index in range(5)] + [b"\xff.jpg".decode(errors="surrogateescape")]
    touch(*(folder / name for name in names))
    with Record(tmp_path / "out") as record:
        todo = plan(folder, record)
        assert len(todo) == 6
        assert len(record.add([line(todo[0]), line(todo[5], "bad"), line(todo[0])])) == 2
        with pytest.raises(InputError, match="another run"):
            Record(tmp_path / "out")
    path = tmp_path / "out" / "labels.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"input": "1.jpg", "pie')  # killed while it wrote
    with Record(tmp_path / "out") as record:
        assert plan(folder, record) == todo[1:5]
        assert path.read_bytes() == whole
        record.add([line(piece) for piece in todo])
        totals = record.totals()
        assert (totals.inputs, totals.failed, totals.frames, totals.gone) == (6, 1, 6, 0)
        assert record.failures(5) == [(names[5], "bad")]
    assert len(path.read_bytes().splitlines()) == 6
    (folder / "0.jpg").unlink()
    with Record(tmp_path / "out") as record:
        assert plan(folder, record) == []
        assert record.totals().gone == 1
    path.write_bytes(b"{}\n" + whole)
    with pytest.raises(InputError, match=r"line 1 of .* is damaged"):
        Record(tmp_path / "out")


def test_changed_inputs_are_found_and_only_redo_forgets_them(folder: Path, tmp_path: Path) -> None:
    touch(*(folder / f"{index}.jpg" for index in range(4)))
    out = tmp_path / "out"
    with Record(out) as record:
        todo = plan(folder, record)
        record.add([line(todo[0]), line(todo[1]), line(todo[2]), line(todo[3], "bad")])
    touch(out / "0.png", out / "1.png")
    (folder / "1.jpg").write_bytes(b"other")
    with Record(out) as record:
        assert plan(folder, record) == []
        assert list(record.stale()) == ["1.jpg"]
    with Record(out) as record:
        again = plan(folder, record, redo=True)
        assert [piece.input for piece in again] == ["1.jpg", "3.jpg"]
        record.drop_stale()
        record.add([line(piece) for piece in again])
    assert (out / "0.png").exists()
    assert not (out / "1.png").exists()
    lines = [json.loads(text) for text in (out / "labels.jsonl").read_text().splitlines()]
    assert [entry["input"] for entry in lines] == ["0.jpg", "2.jpg", "1.jpg", "3.jpg"]
    assert lines[2]["bytes"] == 5


def test_another_inputs_label_is_not_taken(folder: Path, tmp_path: Path) -> None:
    touch(folder / "a.jpg.png")
    with Record(tmp_path / "out") as record:
        record.add([line(piece) for piece in plan(folder, record)])
        touch(folder / "a.jpg", folder / "a.bmp")  # whose label would be a.jpg.png
        with pytest.raises(InputError, match=r"a\.jpg would be a\.jpg\.png, which is that of"):
            plan(folder, record)


def test_journals_of_dead_workers_are_taken(folder: Path, tmp_path: Path) -> None:
    touch(*(folder / f"{index}.jpg" for index in range(3)))
    with Record(tmp_path / "out") as record:
        record.work.mkdir()
        todo = plan(folder, record)
        with Journal(record.work / "0-7.journal") as journal:
            journal.begin(todo[0])
            journal.done(line(todo[0]))
            journal.begin(todo[1])
        with (record.work / "0-7.journal").open("a") as file:
            file.write('{"done": {"inp')  # killed while it wrote
        lines, left = record.take_journals()
        assert (lines, left) == ([line(todo[0])], [todo[1]])
        assert plan(folder, record) == todo[1:]
        touch(record.work / "0.plan", tmp_path / "out" / "a" / ".0001-0123abcd.png")
        touch(tmp_path / "out" / "a" / "0001.png")
        record.clean()
    files = sorted(path.name for path in (tmp_path / "out").rglob("*") if path.is_file())
    assert files == ["0001.png", "labels.jsonl"]


def test_a_full_disk_is_one_sentence(folder: Path, tmp_path: Path) -> None:
    touch(folder / "a.jpg")
    with pytest.raises(OutputError, match="No space left"), Journal(Path("/dev/full")) as journal:
        journal.begin(Piece("a.jpg", 0, 1, 0, 1, 1, "a.png"))
    with Record(tmp_path / "out") as record:
        todo = plan(folder, record)
        record._file.close()
        record._file = Path("/dev/full").open("wb")  # noqa: SIM115
        with pytest.raises(OutputError, match=r"labels\.jsonl: No space left .* free space"):
            record.add(map(line, todo))


def test_a_record_that_was_replaced_before_it_was_locked_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `drop_stale` of another run does, which lets go of the old file then."""
    out = tmp_path / "out"

    def lock_late(_: object) -> bool:
        (out / "other").touch()
        (out / "other").rename(out / "labels.jsonl")
        return True

    monkeypatch.setattr(record_module, "_lock", lock_late)
    with pytest.raises(InputError, match="another run writes into"):
        Record(out)


def test_chunks_cover_a_plan_once(tmp_path: Path) -> None:
    image = Piece("a.jpg", 0, 1, 0, 1, 1, "a.png")
    span = Piece("b.avi", 0, 9, 0, 1, 1, "b.avi")
    todo = [replace(image, input=f"{i}.jpg") for i in range(300)]
    todo += [replace(span, piece=i) for i in range(9)]
    written = write_plan(tmp_path / "0.plan", todo)
    assert (written.pieces, written.frames) == (309, 300 + 9 * SPAN)
    for workers in (1, 2, 100):
        chunks = list(written.chunks(workers))
        assert [chunk["chunk"] for chunk in chunks] == list(range(len(chunks)))
        read = [p for c in chunks for p in read_plan(written.path, c["offset"], c["count"])]
        assert read == todo
        assert max(chunk["count"] for chunk in chunks) <= SPAN


# --------------------------------------------------------------------------------------- workers


@pytest.fixture
def span(monkeypatch: pytest.MonkeyPatch) -> int:
    """A short span, so that few frames are several."""
    for module in (inputs, archive_plan, worker):
        monkeypatch.setattr(module, "SPAN", 24)
    return 24


@pytest.fixture
def job(folder: Path, tmp_path: Path, tiny_engine: Path) -> Job:
    out = tmp_path / "out"
    touch(out / ".work" / "token")
    return Job(
        archive=folder,
        out=out,
        engine=tiny_engine,
        engine_sha256=sha256(tiny_engine),
        threads=1,
        gpus=0,
        precision="float32",
        trust=False,
        edgeseg=_core.__version__,
        token="token",
    )


def run(job: Job, todo: list[Piece]) -> list[Line]:
    """What a worker records of pieces, in their order, a chunk each."""
    written = write_plan(job.out / ".work" / "0.plan", todo)
    labeller = Labeller(job, written.path, computed(load(job)))
    done = []
    for index, chunk in enumerate(written.chunks(1000)):
        answer = labeller({name: np.array([value]) for name, value in chunk.items()})
        assert answer == {"journal": [f"0-{index}.journal"], "error": [""], "words": [""]}
        entries = (job.out / ".work" / f"0-{index}.journal").read_text().splitlines()
        done += [json.loads(entry)["done"] for entry in entries if "done" in json.loads(entry)]
    return [from_json(entry) for entry in done]


def test_a_worker_labels_as_predict_does_and_names_what_is_broken(
    folder: Path, job: Job, span: int
) -> None:
    broken = archives.make_archive(folder, 6, 2 * span + 20)
    todo = [piece for item in Archive(folder) for piece in pieces(item, count_pieces(folder, item))]
    lines = run(job, todo)
    assert {entry.input for entry in lines if entry.error} == broken
    assert len(lines) == 6 + 2 + 3 + 2
    by_key = {(entry.input, entry.piece): entry for entry in lines}
    assert by_key["drive0/rear.avi", 0].frames == span
    assert by_key["drive0/rear.avi", 1].frames == span + 20
    assert by_key["cut.avi", 1].frames == 40 - span
    assert "ends early: 40 of 80 frames" in str(by_key["cut.avi", 1].error)
    assert "truncated JPEG" in str(by_key["drive1/cut.jpg", 0].error)
    labels, different = archives.compare(folder, job.out, Path(str(job.engine)))
    assert (labels, different) == (6 + 2 * span + 20 + 40, 0)
    image = "drive0/front/00000.png"
    serial = Runtime(job.engine, "cpu", 1, precision="float32").predict(folder / image)
    assert by_key[image, 0].areas == pytest.approx(serial.areas(), abs=1e-6)
    assert by_key[image, 0].size == serial.labels.shape


def test_spans_come_in_any_order(folder: Path, job: Job, span: int) -> None:
    archives._write_video(folder / "a.avi", 3 * span)
    (item,) = Archive(folder)
    todo = list(pieces(item, 3))
    lines = run(job, [todo[1], todo[0], todo[2]])
    assert [(entry.first_frame, entry.frames) for entry in lines] == [
        (span, span),
        (0, span),
        (2 * span, span),
    ]
    assert archives.compare(folder, job.out, Path(str(job.engine))) == (3 * span, 0)


def test_an_input_that_changes_meanwhile_is_not_recorded_as_labelled(
    folder: Path, job: Job
) -> None:
    cv2.imwrite(str(folder / "a.png"), frames(1, ((64, 96),))[0])
    (item,) = Archive(folder)
    (piece,) = pieces(replace(item, mtime_ns=item.mtime_ns - 1), 1)
    (entry,) = run(job, [piece])
    assert "changed while the archive was labelled" in str(entry.error)
    (folder / "a.png").unlink()
    (entry,) = run(job, [piece])
    assert "cannot see" in str(entry.error)


def test_what_nobody_foresaw_is_told_of_its_input(
    folder: Path, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Raised, it would count as a dead worker, three times over."""

    def predict(*_: object) -> None:
        raise RuntimeError("as OpenVINO does")

    cv2.imwrite(str(folder / "a.png"), frames(1, ((64, 96),))[0])
    monkeypatch.setattr(Runtime, "predict", predict)
    (item,) = Archive(folder)
    (entry,) = run(job, list(pieces(item, 1)))
    assert (entry.frames, entry.size) == (0, None)
    assert entry.error == "a.png: unforeseen RuntimeError: as OpenVINO does"


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"engine_sha256": "0" * 64}, EngineError, "finds another engine"),
        ({"token": "other"}, InputError, "cannot see the labels in"),
        ({"archive": Path("/nowhere")}, InputError, "cannot see the archive /nowhere"),
        ({"edgeseg": "0.0.1"}, EngineError, "install the same version everywhere"),
        ({"engine": Path("/nowhere")}, EngineError, "cannot be read"),
    ],
)
def test_a_worker_that_sees_something_else_says_so(
    job: Job, change: dict[str, object], error: type[Exception], words: str
) -> None:
    changed = replace(job, **change)  # type: ignore[arg-type]
    with pytest.raises(error, match=words):
        load(changed)
    refusal = probe(changed)
    assert isinstance(refusal, tuple)
    assert refusal[0] == error.__name__
    labeller = Labeller(changed, job.out / ".work" / "0.plan", "any")
    answer = labeller({name: np.array([0]) for name in ("chunk", "offset", "count")})
    assert answer["error"] == [error.__name__]
    assert words in answer["words"][0]


def test_workers_do_not_mix_number_formats(job: Job) -> None:
    labeller = Labeller(job, job.out / ".work" / "0.plan", "onnx target with openvino in int8")
    answer = labeller({name: np.array([0]) for name in ("chunk", "offset", "count")})
    assert answer["error"] == ["EngineError"]
    assert "float32, the labels are made with the onnx target" in answer["words"][0]


# ------------------------------------------------------------------------------------------- Ray


def test_another_engines_or_archives_labels_are_not_mixed(
    folder: Path, tmp_path: Path, tiny_engine: Path
) -> None:
    touch(folder / "a.jpg")
    header = Header(
        archive=str(folder),
        engine="tiny",
        engine_sha256=sha256(tiny_engine),
        computed="any",
        classes=("red",),
    )
    with Record(tmp_path / "out") as record:
        record.write_header(header.model_copy(update={"engine_sha256": "0" * 64}))
    with pytest.raises(InputError, match="holds labels of the engine 'tiny' with SHA-256 000000"):
        label_archive(folder, tmp_path / "out", tiny_engine)
    with Record(tmp_path / "out") as record:
        record.write_header(header.model_copy(update={"archive": "/elsewhere"}))
    with pytest.raises(InputError, match="holds labels of the archive /elsewhere"):
        label_archive(folder, tmp_path / "out", tiny_engine)


@pytest.mark.parametrize(
    ("address", "words"), [("127.0.0.1:1", "no Ray cluster answers"), ("ray://a:1", "HOST:PORT")]
)
def test_a_cluster_that_is_not_there_is_named(
    folder: Path, tmp_path: Path, tiny_engine: Path, address: str, words: str
) -> None:
    touch(folder / "a.jpg")
    with pytest.raises(InputError, match=words):
        label_archive(folder, tmp_path / "out", tiny_engine, address=address)


@pytest.mark.parametrize("bad", [{"workers": 0}, {"threads": 0}, {"gpus": -1}])
def test_arguments_are_checked(folder: Path, tmp_path: Path, bad: dict[str, float]) -> None:
    with pytest.raises(InputError, match="was expected"):
        label_archive(folder, tmp_path / "out", **bad)  # type: ignore[arg-type]


def test_without_ray_the_extra_is_named(folder: Path, tmp_path: Path, tiny_engine: Path) -> None:
    touch(folder / "a.jpg")
    code = (
        "import sys; sys.modules['ray'] = None\n"
        "from edgeseg.cli import main; sys.argv = ['edgeseg', *sys.argv[1:]]; main()"
    )
    options = ["label", str(folder), "-o", str(tmp_path / "out"), "-e", str(tiny_engine)]
    done = subprocess.run([sys.executable, "-c", code, *options], capture_output=True, text=True)
    assert done.returncode == 1
    assert "pip install 'edgeseg[ray]'" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    with archives.two_workers() as address:
        yield address


@pytest.mark.ray
@pytest.mark.timeout(600)  # Ray starts slowly on a busy machine
def test_a_cluster_labels_every_input_once_though_interrupted_and_a_node_killed(
    folder: Path, tmp_path: Path, tiny_engine: Path, cluster: str
) -> None:
    broken = archives.make_archive(folder, 60, 60)
    out = tmp_path / "out"
    ending = archives.label_and_interrupt(
        folder, out, tiny_engine, "--address", cluster, "--workers", "1"
    )
    assert ending.code == 130, ending.output
    assert "Traceback" not in ending.output

    done = archives.label_and_kill(folder, out, tiny_engine, cluster, raylet=True)
    assert done.code == 4
    assert (done.report["inputs"], done.report["labelled"], done.report["failed"]) == (64, 61, 3)
    failures = done.report["failures"]
    assert isinstance(failures, list)
    assert {failure["input"] for failure in failures} == broken
    assert isinstance(done.report["abandoned"], int)
    assert done.report["abandoned"] >= 1
    assert done.report["frames"] == done.labels == 60 + 60 + 40
    assert (done.lines, done.repeated, done.different) == (64, 0, 0)
    assert not list(out.rglob(".*"))

    again = label_archive(folder, out, tiny_engine, address=cluster, threads=1)  # without Ray
    assert (again.frames, again.frames_now, again.failed) == (160, 0, 3)
