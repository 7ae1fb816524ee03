"""Plans for GPUs from an engine file's ONNX part, built without a GPU by TensorRT-RTX."""

from __future__ import annotations

import json
import logging
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from typer.testing import CliRunner

import edgeseg
from edgeseg import _core, tensorrt_library, trust
from edgeseg.cli import app
from edgeseg.engine_file import Manifest, Quantization, Target, add_target, open_engine
from edgeseg.errors import EngineError, InputError, MissingDependencyError
from edgeseg.export import tensorrt as builder
from edgeseg.export.float16 import to_float16
from edgeseg.export.tensorrt import build_engine, build_plan
from edgeseg.machine import Gpu, mismatch, this_platform
from edgeseg.runtime import packaged_engine, verify
from edgeseg.runtime.verification import Verification
from edgeseg.synthetic import street
from edgeseg.tensorrt_library import load_library

AMPERE_ON = ("8.0", "8.6", "8.9", "12.0", "12.1")
ADA = Gpu(0, "RTX 4000", "8.9", 8 << 30, "12.6")
ORIN = Gpu(0, "Orin", "8.7", 8 << 30, "12.6")
needs_rtx = pytest.mark.tensorrt_rtx


@pytest.fixture(autouse=True)
def own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Even where there is one: what is tested is the builder."""
    monkeypatch.setattr(builder, "gpus", lambda: ())


@pytest.fixture
def engine(tmp_path: Path) -> Path:
    return Path(shutil.copy(packaged_engine(), tmp_path / "camvid.edgeseg"))


def run(*arguments: str) -> Any:
    result = CliRunner().invoke(app, list(arguments), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def header(plan: bytes | memoryview) -> tuple[bytes, tuple[int, ...]]:
    """Magic bytes and version of a TensorRT-RTX plan, as seen in plans of 1.7."""
    content = bytes(plan[:32])
    return content[:4], tuple(content[24:28])


# ----------------------------------------------------------------------- the packaged engine


@needs_rtx
@pytest.mark.usefixtures("no_gpu")
def test_a_plan_of_the_packaged_engine(engine: Path) -> None:
    library = load_library("tensorrt-rtx")
    before = open_engine(engine).manifest
    manifest = build_engine(engine, "tensorrt-rtx", capabilities=AMPERE_ON)
    made = manifest.targets[-1]
    assert manifest.targets[:-1] == before.targets
    assert made == Target(
        kind="tensorrt-rtx",
        parts=("tensorrt-rtx/sm80-sm86-sm89-sm120-sm121-float16.plan",),
        weights="float16",
        precision="float16",
        requires={
            "library": "tensorrt-rtx",
            "version": library.version,
            "compute_capability": "8.0 8.6 8.9 12.0 12.1",
            "platform": this_platform(),
            "classes": "11",
        },
    )
    with open_engine(engine) as file:
        plan = file.part(made.parts[0])
        assert header(plan) == (b"vtrt", tuple(map(int, library.version.split("."))))
        # All weights are in it, once, as float16: no less than the ONNX part, and not twice as big.
        weights = len(file.part("onnx/model.onnx"))
        assert weights < len(plan) < 2 * weights
    assert trust.built_here(manifest.parts[made.parts[0]].sha256)
    assert mismatch(made, ADA, 11, library.version) is None
    assert "edgeseg build FILE --target tensorrt-rtx" in str(
        mismatch(made, ORIN, 11, library.version)
    )
    # The rest of the file works as before.
    frame = street(3, 120, 160).frame
    here, there = (edgeseg.Runtime(path, device="cpu") for path in (engine, packaged_engine()))
    assert np.array_equal(here.predict(frame).labels, there.predict(frame).labels)
    assert verify(engine).parts == verify().parts + 1


@needs_rtx
@pytest.mark.usefixtures("no_gpu")
def test_the_command_line_builds_and_tells(engine: Path) -> None:
    said = " ".join(run("build", str(engine), "--target", "tensorrt-rtx", "--for", "8.6").split())
    assert "the plan was not run" in said
    told = " ".join(run("info", str(engine)).split())
    version = load_library("tensorrt-rtx").version
    assert f"computes in float16, needs tensorrt-rtx {version}, compute capability 8.6" in told
    assert run("verify", str(engine)).startswith("ok")
    manifest = json.loads(
        run("build", str(engine), "--target", "tensorrt-rtx", "--for", "8.6", "--json")
    )
    assert [target["kind"] for target in manifest["targets"]] == [
        "onnx",
        "openvino",
        "tensorrt-rtx",
    ]
    assert manifest["targets"][-1]["agreement"] == []


@needs_rtx
@pytest.mark.usefixtures("no_gpu")
def test_the_network_that_is_built_has_the_manifests_inputs_and_outputs() -> None:
    library = load_library("tensorrt-rtx")
    with open_engine(packaged_engine()) as file:
        network, manifest = bytes(file.part("onnx/model.onnx")), file.manifest
    trt = library.module
    for float16, kind in ((True, trt.DataType.HALF), (False, trt.DataType.FLOAT)):
        seen = []

        def look(definition: Any, _: Manifest, seen: list[Any] = seen) -> None:
            for tensor in (definition.get_input(0), definition.get_output(0)):
                seen.append((tensor.name, tuple(tensor.shape), tensor.dtype))

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(builder, "_check_network", look)
            build_plan(library, network, manifest, float16=float16, capabilities=("8.6",))
        assert seen == [
            ("image", (1, 3, 480, 640), kind),
            ("logits", (1, 11, 60, 80), kind),
        ]


@needs_rtx
@pytest.mark.usefixtures("no_gpu")
def test_without_a_gpu_a_plan_is_for_all_that_the_library_knows(
    write_tiny_engine: Callable[..., Path], tmp_path: Path
) -> None:
    path = write_tiny_engine(tmp_path / "tiny.edgeseg")
    made = build_engine(path, "tensorrt-rtx").targets[-1]
    listed = made.requires["compute_capability"].split()
    assert {"7.5", "8.0", "8.6", "8.9", "12.0"} <= set(listed)
    assert made.precision == "float16"
    exact = build_engine(path, "tensorrt-rtx", precision="float32").targets
    # One for the same GPUs takes its place.
    assert [(t.kind, t.precision) for t in exact] == [("onnx", None), ("tensorrt-rtx", "float32")]


@needs_rtx
@pytest.mark.usefixtures("no_gpu")
def test_progress_is_told(write_tiny_engine: Callable[..., Path], tmp_path: Path) -> None:
    steps: list[tuple[int, int | None]] = []
    path = write_tiny_engine(tmp_path / "tiny.edgeseg")
    build_engine(
        path, "tensorrt-rtx", capabilities=("8.6",), progress=lambda *step: steps.append(step)
    )
    assert steps[0][0] == 0
    assert all(total is not None and done <= total for done, total in steps)
    assert any(done == total for done, total in steps)


@needs_rtx
def test_ctrl_c_ends_the_build_and_leaves_the_file(
    write_tiny_engine: Callable[..., Path], tmp_path: Path
) -> None:
    """In a process of its own, where nothing else holds what the library leaves behind."""
    path = write_tiny_engine(tmp_path / "tiny.edgeseg")
    before = path.read_bytes()
    code = (
        "import signal\n"
        "from edgeseg.export import tensorrt\n"
        "tensorrt.gpus = lambda: ()\n"
        "handler = signal.getsignal(signal.SIGINT)\n"
        "def interrupt(done, steps):\n"
        "    if done > 0:\n"
        "        signal.raise_signal(signal.SIGINT)\n"
        "try:\n"
        f"    tensorrt.build_engine({str(path)!r}, 'tensorrt-rtx', progress=interrupt)\n"
        "except KeyboardInterrupt:\n"
        "    assert signal.getsignal(signal.SIGINT) is handler\n"
        "    print('interrupted')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "interrupted\n", done.stderr
    assert path.read_bytes() == before


# -------------------------------------------------------------------------------------- float16


def in_onnxruntime(
    model: bytes, images: NDArray[np.generic], folder: Path, *, optimized: bool = True
) -> NDArray[np.generic]:
    """Outputs of a valid network for images one by one, stacked; in a process of its own.

    Pytest's own process, with many libraries in it, was seen to crash in float16 networks here.
    """
    (folder / "model.onnx").write_bytes(model)
    np.save(folder / "images.npy", images)
    code = (
        "import numpy as np, onnx, onnxruntime as ort\n"
        "onnx.checker.check_model('model.onnx', full_check=True)\n"
        "options = ort.SessionOptions()\n"
        "options.intra_op_num_threads = 1\n"
        f"if not {optimized}:\n"
        "    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL\n"
        "session = ort.InferenceSession('model.onnx', options)\n"
        "images = np.load('images.npy')\n"
        "outputs = [session.run(None, {'image': image[None]})[0] for image in images]\n"
        "np.save('outputs.npy', np.concatenate(outputs))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=folder, check=False
    )
    assert done.returncode == 0, f"{done.returncode}: {done.stderr}"
    outputs: NDArray[np.generic] = np.load(folder / "outputs.npy")
    return outputs


def test_the_packaged_network_in_float16_gives_the_same_labels(tmp_path: Path) -> None:
    """What a plan computes in, run on the CPU: 99.9 % of labels are those of float32."""
    with open_engine(packaged_engine()) as file:
        network, manifest = bytes(file.part("onnx/model.onnx")), file.manifest
    narrow = to_float16(onnx.load_from_string(network))
    floats = {t.name for t in narrow.graph.initializer if t.data_type == TensorProto.FLOAT}
    assert floats == set()
    size = manifest.input
    images = np.empty((3, 3, size.height, size.width), np.float32)
    for seed, image in enumerate(images):
        frame = street(seed, 240, 320).frame
        _core.preprocess(frame, image, mean=size.mean, std=size.std)
    labels = []
    for model, dtype in ((network, np.float32), (narrow.SerializeToString(), np.float16)):
        logits = in_onnxruntime(model, images.astype(dtype), tmp_path)
        assert logits.dtype == dtype
        of_frames = np.empty((3, 240, 320), np.uint8)
        corners = manifest.architecture.align_corners
        _core.upsample_argmax(logits, of_frames, align_corners=corners)
        labels.append(of_frames)
    assert np.mean(labels[0] == labels[1], axis=(1, 2)).min() > 0.999


def test_sums_over_an_image_are_float32(tmp_path: Path) -> None:
    """480×640 values of 100 are beyond float16, their mean is not."""
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 1, 480, 640])
    mean = helper.make_tensor_value_info("mean", TensorProto.FLOAT, [1, 1, 1, 1])
    node = helper.make_node("ReduceMean", ["image", "axes"], ["mean"], keepdims=1)
    axes = numpy_helper.from_array(np.array([2, 3]), "axes")
    graph = helper.make_graph([node], "mean", [image], [mean], [axes])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    narrow = to_float16(model)
    types = [
        node.attribute[0].i if node.op_type == "Cast" else node.op_type
        for node in narrow.graph.node
    ]
    assert types == [TensorProto.FLOAT, "ReduceMean", TensorProto.FLOAT16]
    hundreds = np.full((1, 1, 480, 640), 100, np.float16)
    found = in_onnxruntime(narrow.SerializeToString(), hundreds, tmp_path)
    assert found.item() == 100


def test_a_weight_beyond_float16_is_refused(tiny_onnx: bytes) -> None:
    model = onnx.load_from_string(tiny_onnx)
    model.graph.initializer.append(numpy_helper.from_array(np.array([7e4], np.float32), "scale"))
    with pytest.raises(EngineError, match=r"scale reaches 70000.*--precision float32"):
        to_float16(model)


# ----------------------------------------------------------------------------------------- INT8


def quantized_onnx() -> bytes:
    """The tiny network behind a quantized 1×1 convolution that changes nothing: Q, DQ, DQ."""
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, 64, 96])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, 3, 8, 12])
    constants = {
        "scale": np.array(2.0, np.float32),  # grey levels reach 127
        "zero": np.array(0, np.int8),
        "weight": (127 * np.eye(3, dtype=np.int8)).reshape(3, 3, 1, 1),
        "scales": np.full(3, 1 / 127, np.float32),
        "zeros": np.zeros(3, np.int8),
    }
    nodes = [
        helper.make_node("QuantizeLinear", ["image", "scale", "zero"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["x"]),
        helper.make_node("DequantizeLinear", ["weight", "scales", "zeros"], ["w"], axis=0),
        helper.make_node("Conv", ["x", "w"], ["y"]),
        helper.make_node("AveragePool", ["y"], ["logits"], kernel_shape=[8, 8], strides=[8, 8]),
    ]
    initializers = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "quantized", [image], [logits], initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString())


def add_quantized(path: Path, drop: float | None) -> Quantization:
    """Add a Q/DQ form whose mIoU was measured to fall by so much, or was not measured."""
    measured = {} if drop is None else {"float_miou": 0.7, "miou": 0.7 - drop}
    made = Quantization(
        method="by hand", calibration="none", golden=1.0, golden_tolerance=0.02, **measured
    )
    parts = {"onnx/int8.onnx": quantized_onnx()}
    target = Target(kind="onnx", parts=tuple(parts), weights="int8", quantization=made)
    add_target(path, target, parts)
    return made


def test_the_quantized_form_keeps_its_integers_in_float16(tmp_path: Path) -> None:
    model = onnx.load_from_string(quantized_onnx())
    # Scales below float16's smallest number would be zero, and the weights lost.
    tiny = next(t for t in model.graph.initializer if t.name == "scales")
    tiny.CopyFrom(numpy_helper.from_array(np.array([1 / 127, 1 / 127, 1e-9], np.float32), "scales"))
    narrow = to_float16(model)
    stored = {t.name: numpy_helper.to_array(t) for t in narrow.graph.initializer}
    assert stored["weight"].dtype == np.int8
    assert stored["scales"].dtype == np.float16
    assert stored["scales"].min() > 0
    image = np.random.default_rng(0).uniform(-250, 250, (1, 3, 64, 96)).astype(np.float16)
    # Its optimizer would multiply scales in float16 to make biases integers, and lose them.
    exact = in_onnxruntime(
        model.SerializeToString(), image.astype(np.float32), tmp_path, optimized=False
    )
    found = in_onnxruntime(narrow.SerializeToString(), image, tmp_path, optimized=False)
    assert found.dtype == np.float16
    np.testing.assert_allclose(found, exact, atol=0.3, rtol=2e-3)  # of means of 64 values of 250
    assert np.abs(exact[0, :2]).max() > 10


@needs_rtx
@pytest.mark.usefixtures("no_gpu")
def test_int8_is_built_of_the_quantized_form(
    write_tiny_engine: Callable[..., Path], tmp_path: Path
) -> None:
    path = write_tiny_engine(tmp_path / "tiny.edgeseg")
    with pytest.raises(EngineError, match=r"edgeseg quantize .* --data MINE --target onnx"):
        build_engine(path, "tensorrt-rtx", precision="int8")
    made = add_quantized(path, drop=None)
    plan = build_engine(path, "tensorrt-rtx", precision="int8", capabilities=("8.6",)).targets[-1]
    assert (plan.weights, plan.precision, plan.quantized) == ("int8", "int8", True)
    assert plan.quantization == made
    assert plan.parts == ("tensorrt-rtx/sm86-int8.plan",)


@needs_rtx
@pytest.mark.parametrize(
    ("drop", "precision"), [(0.001, "int8"), (0.02, "float16"), (None, "float16")]
)
@pytest.mark.usefixtures("no_gpu")
def test_auto_is_int8_only_where_it_was_measured_to_be_harmless(
    write_tiny_engine: Callable[..., Path], tmp_path: Path, drop: float | None, precision: str
) -> None:
    path = write_tiny_engine(tmp_path / "tiny.edgeseg")
    add_quantized(path, drop)
    made = build_engine(path, "tensorrt-rtx", capabilities=("8.6",)).targets[-1]
    assert made.precision == precision


# ------------------------------------------------------------------------------- what is refused


@needs_rtx
@pytest.mark.usefixtures("no_gpu")
def test_a_network_that_is_not_the_manifests_is_refused(
    write_tiny_engine: Callable[..., Path], tmp_path: Path
) -> None:
    two = {"classes": ("red", "green"), "palette": ((255, 0, 0), (0, 255, 0))}
    path = write_tiny_engine(tmp_path / "tiny.edgeseg", **two)
    before = path.read_bytes()
    with pytest.raises(
        EngineError, match=r"gives logits \[1, 3, 8, 12\], the manifest's 2 classes"
    ):
        build_engine(path, "tensorrt-rtx")
    assert path.read_bytes() == before


@needs_rtx
@pytest.mark.usefixtures("no_gpu")
def test_an_operator_that_the_library_does_not_know_is_named(
    write_tiny_engine: Callable[..., Path], tmp_path: Path, tiny_onnx: bytes
) -> None:
    model = onnx.load_from_string(tiny_onnx)
    model.graph.node[0].op_type = "Unheard\nOf"
    model.graph.node[0].name = "the pool"
    path = write_tiny_engine(tmp_path / "tiny.edgeseg", model=model.SerializeToString())
    with pytest.raises(
        EngineError, match=r"cannot take node the pool .*of the ONNX part"
    ) as raised:
        build_engine(path, "tensorrt-rtx", precision="float32")
    assert str(raised.value).isprintable()


@needs_rtx
@pytest.mark.usefixtures("no_gpu")
@pytest.mark.parametrize("place", ["initializer", "attribute"])
def test_weights_in_another_file_are_never_read(
    write_tiny_engine: Callable[..., Path], tmp_path: Path, tiny_onnx: bytes, place: str
) -> None:
    outside = numpy_helper.from_array(np.zeros(3, np.float32), "outside")
    outside.ClearField("raw_data")
    outside.data_location = TensorProto.EXTERNAL
    outside.external_data.add(key="location", value="/etc/hostname")
    model = onnx.load_from_string(tiny_onnx)
    if place == "initializer":
        model.graph.initializer.append(outside)
    else:
        model.graph.node.append(helper.make_node("Constant", [], ["unused"], value=outside))
    path = write_tiny_engine(tmp_path / "tiny.edgeseg", model=model.SerializeToString())
    with pytest.raises(EngineError, match="never read"):
        build_engine(path, "tensorrt-rtx")


@needs_rtx
@pytest.mark.usefixtures("no_gpu")
def test_what_is_no_onnx_is_refused(write_tiny_engine: Callable[..., Path], tmp_path: Path) -> None:
    path = write_tiny_engine(tmp_path / "tiny.edgeseg", model=b"no network")
    with pytest.raises(EngineError, match="is no ONNX"):
        build_engine(path, "tensorrt-rtx")


@needs_rtx
@pytest.mark.usefixtures("no_gpu")
@pytest.mark.parametrize(
    ("arguments", "error", "told"),
    [
        ({"capabilities": ("9.0",)}, EngineError, r"not for 9\.0.*--target tensorrt"),
        ({"capabilities": ("8.6", "x")}, EngineError, "not for x"),
        ({"timing_cache": "some.cache"}, InputError, "times nothing"),
        ({"precision": "bfloat16"}, InputError, "precision"),
        ({"optimization_level": 6}, InputError, r"0\.\.5"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(
    tiny_engine: Path, arguments: dict[str, Any], error: type[Exception], told: str
) -> None:
    before = tiny_engine.read_bytes()
    with pytest.raises(error, match=told):
        build_engine(tiny_engine, "tensorrt-rtx", **arguments)
    assert tiny_engine.read_bytes() == before


def test_tensorrt_without_a_gpu_says_what_works_instead(
    tiny_engine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(builder, "gpus", lambda: ())
    monkeypatch.setattr(builder, "driver_installed", lambda: False)
    with pytest.raises(EngineError, match=r"no NVIDIA driver.*--target tensorrt-rtx"):
        build_engine(tiny_engine, "tensorrt")
    monkeypatch.setattr(builder, "driver_installed", lambda: True)
    monkeypatch.setattr(builder, "find_spec", lambda name: object())
    with pytest.raises(EngineError, match=r"finds no GPU.*edgeseg doctor"):
        build_engine(tiny_engine, "tensorrt")
    monkeypatch.setattr(builder, "find_spec", lambda name: None)
    with pytest.raises(MissingDependencyError, match=r"cuda-bindings.*edgeseg\[gpu\]"):
        build_engine(tiny_engine, "tensorrt")


@pytest.mark.parametrize(("kind", "extra"), [("tensorrt", "gpu"), ("tensorrt-rtx", "gpu-rtx")])
def test_a_missing_library_names_the_extra(
    tiny_engine: Path, monkeypatch: pytest.MonkeyPatch, kind: Any, extra: str
) -> None:
    monkeypatch.setattr(builder, "gpus", lambda: (ADA,))
    monkeypatch.setitem(sys.modules, kind.replace("-", "_"), None)  # import finds no module
    with pytest.raises(MissingDependencyError, match=rf"edgeseg\[{extra}\]"):
        build_engine(tiny_engine, kind)


@needs_rtx
def test_the_library_has_one_logger_however_often_it_is_used(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It keeps the first one that it is given, and warns of every other."""
    with caplog.at_level(logging.DEBUG, "edgeseg"):
        libraries = [load_library("tensorrt-rtx") for _ in range(2)]
        users = [library.module.Runtime(library.messages) for library in libraries]
        users.append(libraries[0].module.Builder(libraries[0].messages))
    assert "differs from" not in caplog.text


@needs_rtx
def test_building_never_imports_torch(tiny_engine: Path, tmp_path: Path) -> None:
    path = shutil.copy(tiny_engine, tmp_path / "copy.edgeseg")
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from edgeseg.cli import app\n"
        f"app(['build', {str(path)!r}, '--target', 'tensorrt-rtx', '--for', '8.6'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


# --------------------------------------------------------------------------------- with a GPU


@needs_rtx
@pytest.mark.parametrize("good", [True, False])
def test_where_there_is_a_gpu_the_plan_proves_itself_before_it_is_stored(
    write_tiny_engine: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    good: bool,
) -> None:
    """With a GPU that is only said to be there: the Runtime's answer is given."""
    path = write_tiny_engine(tmp_path / "tiny.edgeseg")
    before = path.read_bytes()

    def answer(draft: Path, **_: Any) -> Verification:
        with open_engine(draft) as file:
            (plan,) = file.manifest.targets  # alone: the Runtime has no choice
            assert trust.built_here(file.manifest.parts[plan.parts[0]].sha256)
        return Verification("RTX", 3, 0.999 if good else 0.5, good)

    monkeypatch.setattr(builder, "gpus", lambda: (ADA,))
    monkeypatch.setattr(builder, "find_gpu", lambda _: ADA)
    monkeypatch.setattr(builder, "verify", answer)
    if good:
        made = build_engine(path, "tensorrt-rtx").targets[-1]
        assert made.requires["compute_capability"] == "8.9"
        (agreement,) = made.agreement
        assert (agreement.device, agreement.precision) == ("RTX 4000", "float16")
        assert agreement.pixels == 0.999
    else:
        with pytest.raises(EngineError, match=r"only 50\.00%.*stays as it was"):
            build_engine(path, "tensorrt-rtx")
        assert path.read_bytes() == before
    assert [file.name for file in tmp_path.glob("*.edgeseg")] == ["tiny.edgeseg"]


@needs_rtx
@pytest.mark.filterwarnings("ignore:.*Timing cache operations are no-ops:DeprecationWarning")
def test_the_way_through_tensorrt(
    write_tiny_engine: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TensorRT needs a GPU even to be tried; its sister's module, of the same API, stands in."""
    path = write_tiny_engine(tmp_path / "tiny.edgeseg")
    monkeypatch.setitem(tensorrt_library._MODULES, "tensorrt", "tensorrt_rtx")
    monkeypatch.setattr(builder, "gpus", lambda: (ORIN,))
    monkeypatch.setattr(builder, "find_gpu", lambda _: ORIN)
    monkeypatch.setattr(builder, "verify", lambda *_, **__: Verification("Orin", 3, 1.0, True))
    timings = tmp_path / "timings"
    for _ in ("written", "read"):
        made = build_engine(path, "tensorrt", timing_cache=timings).targets[-1]
        assert timings.stat().st_size > 0
    assert made.parts == ("tensorrt/sm87-float16.plan",)
    assert made.requires["compute_capability"] == "8.7"
    assert made.agreement[0].pixels == 1.0
    assert mismatch(made, ORIN, 3, made.requires["version"]) is None


@needs_rtx
def test_a_gpu_that_the_runtime_cannot_use_is_told_before_the_build(
    tiny_engine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def build(*_: object, **__: object) -> bytes:
        raise AssertionError("minutes are spent")

    def no_kernels(_: int) -> Gpu:
        raise EngineError("edgeseg was built without CUDA")

    monkeypatch.setattr(builder, "gpus", lambda: (ADA,))
    monkeypatch.setattr(builder, "find_gpu", no_kernels)
    monkeypatch.setattr(builder, "build_plan", build)
    with pytest.raises(EngineError, match="without CUDA"):
        build_engine(tiny_engine, "tensorrt-rtx")


@needs_rtx
def test_a_gpu_that_tensorrt_rtx_does_not_know_is_named(
    tiny_engine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(builder, "gpus", lambda: (ORIN,))
    with pytest.raises(EngineError, match=r"not for 8\.7 \(Orin has 8\.7\).*--target tensorrt"):
        build_engine(tiny_engine, "tensorrt-rtx")


class FakeTimings:
    """As much of `IBuilderConfig` as the timing cache needs; b"bad" is of another GPU."""

    def __init__(self) -> None:
        self.attached: bytes | None = None

    def create_timing_cache(self, content: bytes) -> bytes | None:
        return content

    def set_timing_cache(self, cache: bytes, ignore_mismatch: bool) -> bool:
        assert not ignore_mismatch
        if cache == b"bad":
            return False
        self.attached = cache
        return True

    def get_timing_cache(self) -> Any:
        return SimpleNamespace(serialize=lambda: (self.attached or b"") + b"+")


def test_timings_are_kept_by_version_and_gpu(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    library = builder.Library("tensorrt", None, "10.15.1.29")
    path = builder._timing_cache(library, ADA, None)
    assert path == tmp_path / "cache" / "edgeseg" / "tensorrt-10.15.1.29-RTX-4000-8.9.timings"
    assert builder._timing_cache(library, ADA, tmp_path / "mine") == tmp_path / "mine"
    config = FakeTimings()
    for before in (b"", b"+"):
        builder._read_timings(config, path)
        assert config.attached == before
        builder._write_timings(config, path)
    assert path.read_bytes() == b"++"
    path.write_bytes(b"bad")
    with caplog.at_level(logging.WARNING, "edgeseg"):
        builder._read_timings(config, path)
    assert config.attached == b""
    assert "another GPU or version" in caplog.text


def test_a_timing_cache_that_cannot_be_written_costs_no_build(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    with caplog.at_level(logging.WARNING, "edgeseg"):
        builder._read_timings(FakeTimings(), tmp_path / "file" / "x")
        builder._write_timings(FakeTimings(), tmp_path / "file" / "x")
    assert "cannot write the timing cache" in caplog.text


def test_a_tensorrt_plan_is_for_the_gpu_that_builds_it() -> None:
    library = builder.Library("tensorrt", None, "10.15.1.29")
    assert builder._capabilities(library, ORIN, ()) == ("8.7",)
    with pytest.raises(InputError, match=r"for the GPU that builds it \(Orin, 8\.7\)"):
        builder._capabilities(library, ORIN, ("8.9",))
