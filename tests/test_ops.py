"""The operators: against double precision, under autograd, autocast, tracing and export."""

import numpy as np
import onnxruntime
import openvino
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from edgeseg import ops
from edgeseg.errors import InputError
from edgeseg.models import STDCSeg, STDCSegConfig

DTYPES = [torch.float32, torch.float16, torch.bfloat16, torch.float64]
FORMATS = [torch.contiguous_format, torch.channels_last]


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def random(*shape, dtype=torch.float32, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)


def unit_rows(classes, channels, dtype=torch.float32):
    return F.normalize(random(classes, channels, dtype=torch.float64, seed=1)).to(dtype)


def awkward_features(dtype, channels=64):
    """Ordinary pixels, and each kind that a careless formula gets wrong."""
    features = random(2, channels, 4, 5, dtype=dtype)
    features[0, :, 1, 1] = 0
    features[0, :, 1, 2] = max(torch.finfo(dtype).tiny, 1e-15)  # float16: squares underflow
    features[0, :, 1, 3] = min(torch.finfo(dtype).max, 65504.0)
    features[1, :, 0, 0] = 0
    features[1, 3, 0, 0] = -2
    return features


def cosines(features, text):
    """Double precision, pixel by pixel, 0 for zero features."""
    features, text = features.double(), text.double()
    out = torch.zeros(features.shape[0], len(text), *features.shape[2:], dtype=torch.double)
    for n in range(features.shape[0]):
        for y in range(features.shape[2]):
            for x in range(features.shape[3]):
                f = features[n, :, y, x]
                if f.any():
                    out[n, :, y, x] = text @ (f / f.abs().max() / (f / f.abs().max()).norm())
    return out


@pytest.mark.parametrize("memory_format", FORMATS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("function", [ops.score_map_concat, ops.score_map_concat_reference])
def test_score_map_concat_equals_double_precision(function, dtype, memory_format):
    features = awkward_features(dtype).contiguous(memory_format=memory_format)
    text = unit_rows(7, 64, torch.promote_types(dtype, torch.float32))
    out = function(features, text)
    assert out.dtype is dtype
    torch.testing.assert_close(out[:, :64], features, atol=0, rtol=0)
    expected = cosines(features, text)
    rounding = torch.finfo(dtype).eps / 2 * expected.abs()  # of the score, once
    accumulation = 1e-14 if dtype is torch.float64 else 1e-6
    assert ((out[:, 64:] - expected).abs() <= rounding + accumulation).all()
    assert (out[0, 64:, 1, 1] == 0).all()


@pytest.mark.parametrize("memory_format", FORMATS)
def test_score_map_concat_keeps_the_memory_format(memory_format):
    features = random(2, 8, 3, 4).contiguous(memory_format=memory_format)
    assert ops.score_map_concat(features, unit_rows(3, 8)).is_contiguous(
        memory_format=memory_format
    )


@pytest.mark.parametrize("memory_format", FORMATS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_kernels_work_on_the_tensors_own_memory(dtype, memory_format, monkeypatch):
    seen = []
    native = ops._core.score_map_concat

    def spy(features, text, out, **options):
        seen.extend((features.ctypes.data, text.ctypes.data, out.ctypes.data))
        native(features, text, out, **options)

    monkeypatch.setattr(ops._core, "score_map_concat", spy)
    features = random(2, 8, 3, 4, dtype=dtype).contiguous(memory_format=memory_format)
    text = unit_rows(3, 8)
    out = ops.score_map_concat(features, text)
    assert seen == [features.data_ptr(), text.data_ptr(), out.data_ptr()]


@pytest.mark.parametrize("function", [ops.score_map_concat, ops.score_map_concat_reference])
def test_score_map_concat_gradients(function):
    features = random(2, 5, 2, 3, dtype=torch.float64).requires_grad_()
    text = unit_rows(4, 5, torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(function, (features, text))
    assert torch.autograd.gradgradcheck(function, (features, text))


@pytest.mark.parametrize("dtype", DTYPES)
def test_gradients_of_operator_and_twin_agree_and_are_finite_at_zero(dtype):
    weights = random(2, 64 + 7, 4, 5, seed=2, dtype=dtype)
    gradients = []
    for function in (ops.score_map_concat, ops.score_map_concat_reference):
        # Without the tiny pixel: the gradient there is larger than float16 or float32 can hold.
        features = awkward_features(dtype)
        features[0, :, 1, 2] = 1
        features.requires_grad_()
        text = unit_rows(7, 64).requires_grad_()
        (function(features, text) * weights).sum().backward()
        assert (features.grad[0, :, 1, 1] == weights[0, :64, 1, 1]).all()  # nothing from scores
        gradients.append((features.grad, text.grad))
    (features, text), (features_twin, text_twin) = gradients
    tolerance = 4 * torch.finfo(dtype).eps
    torch.testing.assert_close(features, features_twin, rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(text, text_twin, rtol=max(tolerance, 1e-5), atol=1e-2)
    assert torch.isfinite(features).all()
    assert torch.isfinite(text).all()


def test_only_the_gradient_that_is_wanted_is_computed():
    text = unit_rows(3, 8).requires_grad_()
    ops.score_map_concat(random(1, 8, 2, 2), text).sum().backward()
    assert text.grad.shape == text.shape
    features = random(1, 8, 2, 2).requires_grad_()
    ops.score_map_concat(features, unit_rows(3, 8)).sum().backward()
    assert features.grad.shape == features.shape


def test_autocast_leaves_scores_in_float32():
    features, text = random(1, 512, 4, 4), unit_rows(5, 512).requires_grad_()
    expected = ops.score_map_concat(features, text)
    (expected_grad,) = torch.autograd.grad(expected.square().sum(), text)
    with torch.autocast("cpu", torch.bfloat16):
        out = ops.score_map_concat(features, text)
        (grad,) = torch.autograd.grad(out.square().sum(), text)
    assert out.dtype is torch.float32
    torch.testing.assert_close(out, expected, atol=0, rtol=0)
    torch.testing.assert_close(grad, expected_grad)


@pytest.mark.parametrize("memory_format", FORMATS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_operators_are_well_formed(dtype, memory_format):
    features = random(2, 8, 3, 4, dtype=dtype).contiguous(memory_format=memory_format)
    text = unit_rows(3, 8)
    torch.library.opcheck(
        torch.ops.edgeseg.score_map_concat.default,
        (features.clone().requires_grad_(), text.requires_grad_()),
    )
    for align_corners in (False, True):
        torch.library.opcheck(
            torch.ops.edgeseg.upsample_argmax.default, (features, 7, 9, align_corners)
        )


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", [(1, 1), (3, 4), (24, 32), (17, 29), (2, 2)])
def test_upsample_argmax_equals_double_precision(size, dtype, align_corners):
    logits = random(2, 11, 3, 4, dtype=dtype).contiguous(memory_format=torch.channels_last)
    labels = ops.upsample_argmax(logits, *size, align_corners)
    assert labels.dtype is torch.uint8
    resized = F.interpolate(logits.double(), size, mode="bilinear", align_corners=align_corners)
    best = resized.amax(dim=1)
    chosen = resized.gather(1, labels[:, None].long())[:, 0]
    assert (best - chosen <= 1e-5).all()
    torch.testing.assert_close(
        ops.upsample_argmax_reference(logits.double(), *size, align_corners),
        resized.argmax(dim=1).to(torch.uint8),
    )


def test_equal_logits_give_the_lowest_id():
    logits = torch.zeros(1, 5, 2, 3)
    logits[:, 2:4] = 1
    assert (ops.upsample_argmax(logits, 8, 8, True) == 2).all()
    assert (ops.upsample_argmax_reference(logits, 8, 8, True) == 2).all()


@pytest.mark.parametrize(
    ("features", "text"), [((2, 8, 3), (3, 8)), ((2, 8, 3, 4), (3, 7)), ((2, 8, 3, 4), (8,))]
)
@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_shapes_that_do_not_fit_are_refused(features, text, device):
    with pytest.raises(InputError, match="features have shape"):
        ops.score_map_concat(torch.ones(features, device=device), torch.ones(text, device=device))


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_unusable_label_maps_are_refused(device):
    with pytest.raises(InputError, match="K from 1 to 254"):
        ops.upsample_argmax(torch.ones(1, 255, 2, 2, device=device), 4, 4, True)
    with pytest.raises(InputError, match="label map is 0×4"):
        ops.upsample_argmax(torch.ones(1, 3, 2, 2, device=device), 0, 4, True)


# Export: standard operators, and the same numbers from the engines.


class ScoreMap(nn.Module):
    def __init__(self, text):
        super().__init__()
        self.register_buffer("text", text)

    def forward(self, features):
        return ops.score_map_concat(features, self.text)


class UpsampleArgmax(nn.Module):
    def forward(self, logits):
        return ops.upsample_argmax(logits, 17, 29, True)


def export(module, *inputs):
    program = torch.export.export(module.eval(), inputs)
    program = program.run_decompositions(ops.decomposition_table())
    proto = torch.onnx.export(program, dynamo=True, verbose=False).model_proto
    assert {node.domain for node in proto.graph.node} == {""}
    assert not proto.functions
    return proto.SerializeToString()


def run_onnxruntime(onnx, x):
    session = onnxruntime.InferenceSession(onnx, providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: x.numpy()})[0]


def run_openvino(onnx, x, precision="f32"):
    core = openvino.Core()
    options = {"INFERENCE_PRECISION_HINT": precision, "INFERENCE_NUM_THREADS": 1}
    return core.compile_model(core.read_model(onnx), "CPU", options)([x.numpy()])[0]


@pytest.mark.parametrize("guidance", ["encoder", "decoder"])
def test_exported_network_gives_the_same_logits(guidance):
    torch.manual_seed(0)
    model = STDCSeg(STDCSegConfig("stdc1", 11, guidance), unit_rows(11, 1024)).eval()
    x = random(1, 3, 75, 107)  # sizes at which every nearest upsampling is 2n - 1
    onnx = export(model, x)
    with torch.inference_mode():
        expected = model(x).numpy()
    np.testing.assert_allclose(run_onnxruntime(onnx, x), expected, atol=5e-6)
    np.testing.assert_allclose(run_openvino(onnx, x), expected, atol=5e-6)
    narrow = run_openvino(onnx, x, "bf16")
    assert np.abs(narrow - expected).max() < 0.05 * np.abs(expected).max()


def test_exported_score_map_survives_awkward_pixels_in_every_precision():
    features = awkward_features(torch.float32, channels=1024)
    features[0, :, 2] *= 100  # squares beyond float16
    text = unit_rows(7, 1024)
    expected = cosines(features, text).numpy()
    onnx = export(ScoreMap(text), features)
    for run, tolerance in (
        (run_onnxruntime, 1e-6),
        (run_openvino, 1e-6),
        (lambda *a: run_openvino(*a, "bf16"), 2e-2),
        (lambda *a: run_openvino(*a, "f16"), 2e-2),
    ):
        out = run(onnx, features)
        np.testing.assert_allclose(out[:, 1024:], expected, atol=tolerance)
        assert (out[0, 1024:, 1, 1] == 0).all()


def test_twin_computed_wholly_in_float16_never_gives_nan():
    """What an engine does that lowers every operator: no sum overflows, no epsilon vanishes."""
    features = awkward_features(torch.float16, channels=1024)
    text = unit_rows(7, 1024)

    class Lowered(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            out = function(*args, **(kwargs or {}))
            narrow = torch.is_tensor(out) and out.dtype is torch.float32
            return out.half().float() if narrow else out

    with Lowered():
        out = ops.score_map_concat_reference(features, text)
    np.testing.assert_allclose(out[:, 1024:], cosines(features, text), atol=5e-3)


def test_exported_upsample_argmax_gives_the_same_labels():
    logits = random(2, 11, 3, 4)
    onnx = export(UpsampleArgmax(), logits)
    expected = ops.upsample_argmax_reference(logits, 17, 29, True)
    assert (run_onnxruntime(onnx, logits) == expected.numpy()).all()
