"""INT8 beside the float engine: what it costs is measured, written down, and decides who runs."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import numpy as np
import onnx
import openvino as ov
import pytest
from numpy.typing import NDArray
from onnx import numpy_helper
from tests.export.test_engine_export import small_checkpoint
from typer.testing import CliRunner

from edgeseg import Runtime
from edgeseg.cli import app
from edgeseg.data import LabelledImages, load_synthetic
from edgeseg.engine_file import MAX_MIOU_DROP, Quantization, Target, add_target, open_engine
from edgeseg.errors import EngineError, InputError, MissingDependencyError
from edgeseg.export import ExportConfig, export_engine, quantize_engine
from edgeseg.runtime import verify

SIZE = (96, 160)
INT8 = ("openvino/int8.xml", "openvino/int8.bin")


def frames_of(data: LabelledImages) -> list[NDArray[np.uint8]]:
    return [image.permute(1, 2, 0).numpy() for image in data.images]


@pytest.fixture(scope="module")
def streets() -> LabelledImages:
    return load_synthetic(range(4), (90, 160))


@pytest.fixture(scope="module")
def float_engine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("float")
    config = ExportConfig(height=SIZE[0], width=SIZE[1], resize="letterbox", check_frames=1)
    export_engine(small_checkpoint(folder / "small.pt"), folder / "small.edgeseg", config)
    return folder / "small.edgeseg"


@pytest.fixture(scope="module")
def engine(
    float_engine: Path, streets: LabelledImages, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Quantized on four streets and scored on them."""
    path = tmp_path_factory.mktemp("int8") / "small.edgeseg"
    shutil.copyfile(float_engine, path)
    quantize_engine(
        path, frames_of(streets), calibration="streets", validation=streets, validation_name="same"
    )
    return path


@pytest.fixture(scope="module")
def portable(
    float_engine: Path, streets: LabelledImages, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Quantized on the same streets into the form for TensorRT."""
    path = tmp_path_factory.mktemp("qdq") / "small.edgeseg"
    shutil.copyfile(float_engine, path)
    quantize_engine(
        path,
        frames_of(streets),
        calibration="streets",
        target="onnx",
        validation=streets,
        validation_name="same",
    )
    return path


def run(*arguments: str) -> str:
    """What a command prints, each run of white space as one space."""
    result = CliRunner().invoke(app, list(arguments), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return " ".join(result.stdout.split())


def with_cost(engine: Path, path: Path, drop: float | None) -> Path:
    """A copy of the engine in which INT8 was measured to cost so much mIoU."""
    shutil.copyfile(engine, path)
    with open_engine(engine) as file:
        target = file.manifest.target("openvino", quantized=True)
        assert target is not None
        assert target.quantization is not None
        parts = {name: bytes(file.part(name)) for name in target.parts}
    measured = {"float_miou": None, "miou": None}
    if drop is not None:
        measured = {"float_miou": 0.75, "miou": 0.75 - drop}
    cost = target.quantization.model_copy(update=measured)
    add_target(path, target.model_copy(update={"quantization": cost}), parts)
    return path


def test_the_file_says_what_int8_costs(engine: Path, streets: LabelledImages) -> None:
    with open_engine(engine) as file:
        onnx, int8 = file.manifest.targets
        sizes = {name: part.size for name, part in file.manifest.parts.items()}
    assert (onnx.kind, int8.kind, int8.weights, int8.parts) == ("onnx", "openvino", "int8", INT8)
    assert sizes["openvino/int8.bin"] < 0.6 * sizes["onnx/model.onnx"]  # a byte, not two, a weight
    [agreement] = int8.agreement
    assert (agreement.precision, agreement.frames) == ("int8", len(streets))
    assert 0.5 < agreement.pixels < 1.0  # the network is random: many near ties
    made = int8.quantization
    assert made is not None
    assert made.calibration == "streets, 4 frames"
    assert made.validation == "same"
    assert made.method.startswith("nncf ")
    assert made.float_miou is not None
    assert made.miou is not None


def test_the_stored_figures_come_out_again(engine: Path, streets: LabelledImages) -> None:
    from edgeseg.evaluate import evaluate_runtime

    integer, exact = Runtime(engine, precision="int8"), Runtime(engine, precision="float32")
    with open_engine(engine) as file:
        int8 = file.manifest.targets[1]
    assert int8.quantization == integer.quantization
    assert integer.quantization is not None
    assert evaluate_runtime(integer, streets).miou == pytest.approx(integer.quantization.miou)
    assert evaluate_runtime(exact, streets).miou == pytest.approx(integer.quantization.float_miou)
    same = [
        np.mean(integer.predict(frame, "rgb").labels == exact.predict(frame, "rgb").labels)
        for frame in frames_of(streets)
    ]
    assert np.mean(same) == pytest.approx(int8.agreement[0].pixels)


def test_it_computes_in_integers(engine: Path) -> None:
    with open_engine(engine) as file:
        graph = bytes(file.part(INT8[0]))
    convolutions = graph.count(b'type="Convolution"')
    assert graph.count(b'type="FakeQuantize"') > convolutions > 30
    assert str(Path.cwd()).encode() not in graph
    assert b"/tmp/" not in graph


def test_every_weight_is_an_integer_those_of_depthwise_convolutions_too(engine: Path) -> None:
    with open_engine(engine) as file:
        weights = ov.Tensor(np.frombuffer(file.part(INT8[1]), np.uint8))
        model = ov.Core().read_model(bytes(file.part(INT8[0])), weights)

    def stored(node: ov.Node) -> str:
        while node.get_type_name() != "Constant":
            node = node.input_value(0).get_node()
        return str(node.get_element_type().to_string())

    kinds = ("Convolution", "GroupConvolution")
    convolutions = [node for node in model.get_ops() if node.get_type_name() in kinds]
    assert {node.get_type_name() for node in convolutions} == set(kinds)
    for node in convolutions:
        assert stored(node.input_value(1).get_node()) == "i8", node.get_friendly_name()


def test_the_float_target_stays_and_its_bytes_too(float_engine: Path, engine: Path) -> None:
    with open_engine(float_engine) as before, open_engine(engine) as after:
        for name in before.manifest.parts:
            assert bytes(before.part(name)) == bytes(after.part(name))
        assert before.manifest.targets[0] == after.manifest.targets[0]


@pytest.mark.parametrize(
    ("drop", "expected"),
    [(-0.01, "int8"), (0.004, "int8"), (0.006, "float"), (None, "float")],
    ids=["better", "harmless", "too much", "not measured"],
)
def test_auto_takes_int8_only_where_it_is_known_to_be_harmless(
    engine: Path, tmp_path: Path, drop: float | None, expected: str
) -> None:
    path = with_cost(engine, tmp_path / "x.edgeseg", drop)
    auto = Runtime(path, strict=True)
    assert (auto.precision == "int8") == (expected == "int8")
    assert auto.precision in repr(auto)
    assert auto.target == ("openvino" if expected == "int8" else "onnx")
    assert (auto.quantization is None) == (expected == "float")


def test_a_precision_that_is_named_is_taken(engine: Path, tmp_path: Path) -> None:
    costly = with_cost(engine, tmp_path / "costly.edgeseg", 0.5)
    assert Runtime(costly, precision="int8").precision == "int8"
    free = with_cost(engine, tmp_path / "free.edgeseg", 0.0)
    assert Runtime(free, precision="float32").precision == "float32"
    assert Runtime(free, precision="float32").target == "onnx"


def test_the_limit_is_half_a_point() -> None:
    def cost(drop: float) -> Quantization:
        return Quantization(
            method="m", calibration="c", golden=1.0, golden_tolerance=0.0, float_miou=0.5,
            miou=0.5 - drop,
        )  # fmt: skip

    assert MAX_MIOU_DROP == 0.005
    assert cost(0.0049).harmless
    assert not cost(0.0051).harmless


def test_a_float_openvino_target_and_the_int8_one_live_together(
    engine: Path, tmp_path: Path
) -> None:
    path = with_cost(engine, tmp_path / "three.edgeseg", None)
    names = ("openvino/model.xml", "openvino/model.bin")
    for _ in range(2):  # the second one replaces the first, not INT8
        add_target(
            path,
            Target(kind="openvino", parts=names, weights="float16"),
            dict.fromkeys(names, b"bad"),
        )
    with open_engine(path) as file:
        assert [t.weights for t in file.manifest.targets] == ["float16", "int8", "float16"]
    assert Runtime(path, precision="int8").precision == "int8"


def test_an_int8_target_that_cannot_run_is_passed_over(
    engine: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = with_cost(engine, tmp_path / "bad.edgeseg", 0.0)
    with open_engine(path) as file:
        target = file.manifest.targets[1]
    add_target(path, target, dict.fromkeys(INT8, b"<net>"))
    assert Runtime(path).target == "onnx"
    assert "falling back from the openvino target" in caplog.text
    for arguments in ({"strict": True}, {"precision": "int8"}):
        with pytest.raises(EngineError, match="openvino target"):
            Runtime(path, **arguments)  # type: ignore[arg-type]


def test_an_engine_without_int8_says_how_to_get_it(float_engine: Path) -> None:
    with pytest.raises(EngineError, match="no INT8 target; make one with 'edgeseg quantize'"):
        Runtime(float_engine, precision="int8")


def test_verify_expects_what_int8_gave_when_it_was_made(engine: Path, tmp_path: Path) -> None:
    verification = verify(engine, precision="int8")
    with open_engine(engine) as file:
        target = file.manifest.targets[1]
        parts = {name: bytes(file.part(name)) for name in target.parts}
    made = target.quantization
    assert made is not None
    assert verification.ok
    assert verification.agreement == pytest.approx(made.golden, abs=made.golden_tolerance)
    assert "int8" in verification.runtime

    promised = made.model_copy(update={"golden": 1.0, "golden_tolerance": 0.0})
    shutil.copyfile(engine, tmp_path / "x.edgeseg")
    add_target(tmp_path / "x.edgeseg", target.model_copy(update={"quantization": promised}), parts)
    assert not verify(tmp_path / "x.edgeseg", precision="int8").ok


def test_without_frames_nothing_changes(float_engine: Path) -> None:
    before = float_engine.read_bytes()
    with pytest.raises(InputError, match="no frames to calibrate on"):
        quantize_engine(float_engine, [], calibration="none")
    assert float_engine.read_bytes() == before


def test_without_nncf_the_extra_is_named(
    float_engine: Path, streets: LabelledImages, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "nncf", None)
    with pytest.raises(MissingDependencyError, match=r"edgeseg\[export\]"):
        quantize_engine(float_engine, frames_of(streets), calibration="streets")


def test_validation_of_other_classes_leaves_the_file(
    write_tiny_engine, streets: LabelledImages, tmp_path: Path
) -> None:
    path = write_tiny_engine(tmp_path / "tiny.edgeseg")
    before = path.read_bytes()
    with pytest.raises(InputError, match="the engine knows"):
        quantize_engine(path, frames_of(streets), calibration="streets", validation=streets)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["tiny.edgeseg"]


def test_a_model_that_is_none(write_tiny_engine, streets: LabelledImages, tmp_path: Path) -> None:
    path = write_tiny_engine(tmp_path / "bad.edgeseg", model=b"\x08\x01 no model")
    with pytest.raises(EngineError, match="cannot run the ONNX target"):
        quantize_engine(path, frames_of(streets), calibration="streets")


def test_the_command(float_engine: Path, tmp_path: Path) -> None:
    import cv2

    engine, data = tmp_path / "cli.edgeseg", tmp_path / "streets"
    shutil.copyfile(float_engine, engine)
    for split, seeds in (("train", range(6)), ("val", range(6, 8))):
        drawn = load_synthetic(seeds, (90, 160))
        for kind in ("images", "labels"):
            (data / split / kind).mkdir(parents=True)
        for name, image, labels in zip(drawn.names, frames_of(drawn), drawn.labels, strict=True):
            cv2.imwrite(str(data / split / "images" / f"{name}.png"), image[..., ::-1])
            cv2.imwrite(str(data / split / "labels" / f"{name}.png"), labels.numpy())

    told = run("quantize", str(engine), "--data", str(data), "--frames", "3", "--threads", "1")
    assert "int8 weights" in told
    assert "(streets, val)" in told
    with open_engine(engine) as file:
        made = file.manifest.targets[1].quantization
    assert made is not None
    assert made.calibration == "streets, train, 3 frames"

    told = run(
        "quantize", str(engine), "--data", str(data), "--target", "onnx", "--frames", "1",
        "--validation", "none", "--threads", "1",
    )  # fmt: skip
    assert "mIoU not measured: 'edgeseg build --precision int8' makes plans of it" in told
    with open_engine(engine) as file:
        kinds = [(t.kind, t.weights) for t in file.manifest.targets]
    assert kinds == [("onnx", "float16"), ("openvino", "int8"), ("onnx", "int8")]

    scored = run(
        "evaluate", str(data), "--engine", str(engine), "--precision", "int8", "--threads", "1"
    )
    assert "in int8 on CPU" in scored


def test_a_checkpoint_has_no_precision_to_choose() -> None:
    with pytest.raises(InputError, match="--trust are for an engine"):
        run("evaluate", "data", "--checkpoint", "x.pt", "--precision", "int8")


def portable_graph(portable: Path) -> onnx.GraphProto:
    with open_engine(portable) as file:
        return onnx.load_from_string(bytes(file.part("onnx/int8.onnx"))).graph


def test_the_portable_form_is_recorded_like_the_other(engine: Path, portable: Path) -> None:
    with open_engine(engine) as file:
        expected = file.manifest.targets[1].quantization
    with open_engine(portable) as file:
        _, int8 = file.manifest.targets
        sizes = {name: part.size for name, part in file.manifest.parts.items()}
    assert (int8.kind, int8.weights, int8.parts) == ("onnx", "int8", ("onnx/int8.onnx",))
    assert sizes["onnx/int8.onnx"] < 0.6 * sizes["onnx/model.onnx"]
    [agreement] = int8.agreement
    assert 0.5 < agreement.pixels < 1.0
    made = int8.quantization
    assert expected is not None
    assert made is not None
    assert (made.method, made.calibration) == (expected.method, expected.calibration)
    assert made.float_miou == pytest.approx(expected.float_miou)
    assert made.miou is not None
    assert verify(portable, precision="int8").ok


def test_its_integers_are_signed_and_symmetric_as_tensorrt_wants_them(portable: Path) -> None:
    graph = portable_graph(portable)
    constants = {c.name: numpy_helper.to_array(c) for c in graph.initializer}
    weights = 0
    for node in graph.node:
        if node.op_type not in ("QuantizeLinear", "DequantizeLinear"):
            continue
        what, scale, zero_point = node.input
        assert constants[scale].dtype == np.float32
        assert (constants[scale] > 0).all()
        assert constants[zero_point].dtype == np.int8
        assert not constants[zero_point].any()
        if what in constants:
            assert node.op_type == "DequantizeLinear"  # the weights themselves are integers
            stored = constants[what]
            assert stored.dtype == np.int8
            assert constants[scale].shape == (stored.shape[0],)
            assert [a.i for a in node.attribute if a.name == "axis"] == [0]
            assert np.abs(stored.astype(int)).max() >= 126  # of each channel the whole range
            weights += 1
        else:
            assert constants[scale].shape == ()
    assert weights > 30
    assert b"/tmp/" not in graph.SerializeToString()


def test_every_convolution_takes_integers_but_the_score_map(portable: Path) -> None:
    graph = portable_graph(portable)
    made_by = {name: node for node in graph.node for name in node.output}

    def from_integers(name: str) -> bool:
        node = made_by.get(name)
        if node is None:
            return False
        if node.op_type == "Concat":  # a DequantizeLinear of one scale passes it
            return all(from_integers(part) for part in node.input)
        return node.op_type == "DequantizeLinear"

    in_floats = [
        node
        for node in graph.node
        if node.op_type == "Conv" and not all(from_integers(name) for name in node.input[:2])
    ]
    divided = {n.input[0] for n in graph.node if n.op_type == "Div"}
    of_cosines = [n for n in in_floats if n.output[0] in divided]
    assert len(of_cosines) == 1
    # The gate of the fusion works on one pixel.
    assert all("gate" in n.input[1] for n in in_floats if n not in of_cosines)
    concats = [n for n in graph.node if n.op_type == "Concat"]
    scales = {c.name: numpy_helper.to_array(c) for c in graph.initializer}
    for concat in concats:
        of_parts = {
            float(scales[made_by[name].input[1]])
            for name in concat.input
            if made_by[name].op_type == "DequantizeLinear"
        }
        assert len(of_parts) <= 1
    for node in graph.node:
        if node.op_type in ("ReduceL2", "Div", "Where"):
            assert not any(from_integers(name) for name in node.input), node.name


def test_a_second_reader_computes_the_same(portable: Path, streets: LabelledImages) -> None:
    import onnxruntime

    from edgeseg.export.quantize import _tensor
    from edgeseg.runtime.openvino import OpenVINOBackend

    with open_engine(portable) as file:
        target = file.manifest.targets[1]
        backend = OpenVINOBackend(file, target, threads=1, precision=None)
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.intra_op_num_threads = 1
        session = onnxruntime.InferenceSession(
            bytes(file.part(target.parts[0])), options, providers=["CPUExecutionProvider"]
        )
        image = _tensor(frames_of(streets)[0], file.manifest.input)
    [theirs] = session.run(["logits"], {"image": image})
    with backend.request() as request:
        request.input[:] = image[0]
        ours = request.run().copy()
    assert np.mean(theirs.argmax(1) == ours.argmax(1)) > 0.9  # random weights: many near ties
    assert np.corrcoef(theirs.ravel(), ours.ravel())[0, 1] > 0.99


def test_the_portable_form_runs_only_where_int8_is_asked_for(
    engine: Path, portable: Path, tmp_path: Path, streets: LabelledImages
) -> None:
    assert Runtime(portable, strict=True).precision != "int8"
    asked = Runtime(portable, strict=True, precision="int8")
    assert (asked.target, asked.precision) == ("onnx", "int8")
    with open_engine(portable) as file:
        [_, target] = file.manifest.targets
        parts = {name: bytes(file.part(name)) for name in target.parts}
    assert asked.quantization == target.quantization

    both = with_cost(engine, tmp_path / "both.edgeseg", 0.0)
    for _ in range(2):  # the second one replaces the first, not the others
        add_target(both, target, parts)
    with open_engine(both) as file:
        kinds = [(t.kind, t.weights) for t in file.manifest.targets]
    assert kinds == [("onnx", "float16"), ("openvino", "int8"), ("onnx", "int8")]
    for precision in ("auto", "int8"):
        assert Runtime(both, precision=precision).target == "openvino"  # type: ignore[arg-type]


@pytest.mark.tensorrt_rtx
@pytest.mark.parametrize("float16", [True, False], ids=["float16", "float32"])
def test_tensorrt_keeps_the_integers_in_its_plan(portable: Path, float16: bool) -> None:
    from edgeseg.export.tensorrt import build_plan
    from edgeseg.tensorrt_library import load_library

    with open_engine(portable) as file:
        plan = build_plan(
            load_library("tensorrt-rtx"),
            bytes(file.part("onnx/int8.onnx")),
            file.manifest,
            float16=float16,
            capabilities=("8.6",),
        )
    # Of these shapes its integer kernels take weights as they are, channels last.
    weights = {
        c.name: numpy_helper.to_array(c)
        for c in portable_graph(portable).initializer
        if c.data_type == onnx.TensorProto.INT8 and len(c.dims) == 4 and c.dims[1] % 32 == 0
    }
    assert len(weights) > 20
    of_floats = [
        name for name, w in weights.items() if w.transpose(0, 2, 3, 1).tobytes() not in plan
    ]
    assert of_floats == []


def test_a_target_that_nobody_quantizes(float_engine: Path, streets: LabelledImages) -> None:
    with pytest.raises(InputError, match="target 'aoti' is unknown; use 'openvino' or 'onnx'"):
        quantize_engine(
            float_engine,
            frames_of(streets),
            calibration="streets",
            target="aoti",  # type: ignore[arg-type]
        )


def test_without_onnx_runtime_the_extra_is_named(
    float_engine: Path, streets: LabelledImages, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingDependencyError, match=r"ONNX Runtime .*edgeseg\[export\]"):
        quantize_engine(float_engine, frames_of(streets), calibration="streets", target="onnx")


@pytest.mark.parametrize(
    ("drop", "words"),
    [
        (0.004, "mIoU 74.60%, in float32 75.00% (same): taken where it runs"),
        (0.2, "mIoU 55.00%, in float32 75.00% (same): too much less"),
        (None, "mIoU not measured: it runs only with --precision int8"),
    ],
)
def test_info_tells_the_cost(engine: Path, tmp_path: Path, drop: float | None, words: str) -> None:
    path = with_cost(engine, tmp_path / "x.edgeseg", drop)
    assert words in run("info", str(path))
