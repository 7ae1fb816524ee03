"""The network: exact sizes, shapes, guidance, gradients, narrow types, errors."""

from dataclasses import asdict

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from edgeseg import ops
from edgeseg.errors import ConfigError, InputError
from edgeseg.models import SegmentationOutput, STDCSeg, STDCSegConfig, segmentation

# Parameters with all training heads; the paper's table gives 8,573k and 8,597k for stdc1, K = 19.
PARAMETERS = {
    ("stdc1", 19, None): 8_572_896,
    ("stdc1", 19, "encoder"): 8_597_216,
    ("stdc1", 19, "decoder"): 8_616_672,
    ("stdc1", 11, None): 8_569_824,
    ("stdc1", 11, "encoder"): 8_583_904,
    ("stdc1", 11, "decoder"): 8_595_168,
    ("stdc2", 19, None): 12_603_360,
    ("stdc2", 19, "encoder"): 12_627_680,
    ("stdc2", 19, "decoder"): 12_647_136,
    ("stdc2", 11, None): 12_600_288,
    ("stdc2", 11, "encoder"): 12_614_368,
    ("stdc2", 11, "decoder"): 12_625_632,
}
# Multiply-accumulates of stdc1, K = 19, at height × width; the paper gives 16.9 and 22.4 G.
MACS = {
    (512, 1024, None): 16_863_133_696,
    (512, 1024, "encoder"): 16_884_304_256,
    (720, 960, None): 22_305_896_448,
    (720, 960, "encoder"): 22_334_426_240,
}
GUIDANCE = [None, "encoder", "decoder"]


def unit_rows(classes, seed=0):
    return F.normalize(torch.randn(classes, 1024, generator=torch.Generator().manual_seed(seed)))


def build(backbone="stdc1", classes=11, guidance="encoder", **options):
    torch.manual_seed(0)
    text = None if guidance is None else unit_rows(classes)
    return STDCSeg(STDCSegConfig(backbone, classes, guidance, **options), text)


def with_training_heads(model):
    """Training outputs, batch normalisation and dropout as in evaluation."""
    model.eval()
    model.training = True
    return model


def images(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def scalar_of(output):
    tensors = [output.logits, *output.auxiliary, output.detail]
    if output.score_map is not None:
        tensors.append(output.score_map)
    return sum(t.float().square().mean() for t in tensors)


@pytest.mark.parametrize(("backbone", "classes", "guidance"), PARAMETERS)
def test_parameters_are_the_papers_to_the_unit(backbone, classes, guidance):
    model = build(backbone, classes, guidance)
    assert sum(p.numel() for p in model.parameters()) == PARAMETERS[backbone, classes, guidance]


@pytest.mark.parametrize(("height", "width", "guidance"), MACS)
def test_multiply_accumulates(height, width, guidance, monkeypatch):
    # The twin is made of convolutions that the counter knows.
    monkeypatch.setattr(segmentation, "score_map_concat", ops.score_map_concat_reference)
    model = build(classes=19, guidance=guidance).eval().to("meta")
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        model(torch.empty(1, 3, height, width, device="meta"))
    assert counter.get_total_flops() == 2 * MACS[height, width, guidance]


@pytest.mark.parametrize("guidance", GUIDANCE)
def test_shapes_at_any_size(guidance):
    model = build(guidance=guidance)
    for height, width in [(32, 32), (33, 64), (45, 67), (96, 41)]:
        stride8, stride16, stride32 = (
            (2, 11, -(-height // s), -(-width // s)) for s in (8, 16, 32)
        )
        x = images(2, 3, height, width)
        with torch.no_grad():
            out = model.train()(x)
            logits = model.eval()(x)
        assert isinstance(out, SegmentationOutput)
        assert logits.shape == out.logits.shape == out.auxiliary[0].shape == stride8
        assert out.auxiliary[1].shape == stride16
        assert out.detail.shape == (2, 1, *stride8[2:])
        assert (out.score_map is None) if guidance is None else (out.score_map.shape == stride32)


@pytest.mark.parametrize("guidance", ["encoder", "decoder"])
def test_score_map_is_the_cosine_of_f4_and_text(guidance):
    model = with_training_heads(build(guidance=guidance))
    x = images(1, 3, 64, 96)
    with torch.no_grad():
        f4 = model.backbone(x).f4.double()
        scores = model(x).score_map
    pixels = f4[:, None].expand(-1, 11, -1, -1, -1)
    text = model.text_embeddings.double()[None, :, :, None, None]
    expected = F.cosine_similarity(pixels, text.expand_as(pixels), dim=2)
    torch.testing.assert_close(scores.double(), expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("guidance", ["encoder", "decoder"])
def test_text_given_to_forward_takes_the_buffers_place_with_gradient(guidance):
    model = build(guidance=guidance).eval()
    x = images(1, 3, 64, 64)
    same = model.text_embeddings.clone().requires_grad_()
    with torch.no_grad():
        logits = model(x)
        other = model(x, unit_rows(11, seed=5))
    torch.testing.assert_close(model(x, same), logits)
    assert (other - logits).abs().max() > 1e-4
    model(x, same).square().sum().backward()
    assert same.grad.abs().max() > 0


@pytest.mark.parametrize("guidance", GUIDANCE)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_every_parameter_learns(guidance, dtype):
    model = build(guidance=guidance)
    with torch.autocast("cpu", dtype, enabled=dtype is not torch.float32):
        out = model(images(2, 3, 64, 64))
    scalar_of(out).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name


@pytest.mark.parametrize("guidance", ["encoder", "decoder"])
def test_features_that_are_all_zero_give_score_zero_and_finite_gradients(guidance):
    model = build(guidance=guidance)
    for module in model.backbone.stage32[-1].modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.zeros_(module.weight)
    out = model(images(2, 3, 64, 64))
    assert (out.score_map == 0).all()
    scalar_of(out).backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_narrow_types_stay_close(dtype):
    model = build().eval()
    x = images(1, 3, 64, 64)
    with torch.no_grad():
        expected = model(x)
        logits = model.to(dtype)(x.to(dtype))
    assert logits.dtype is dtype
    assert (logits.float() - expected).abs().max() < 0.05 * expected.abs().max()


def test_channels_last_gives_the_same():
    model = build().eval()
    x = images(1, 3, 64, 96)
    with torch.no_grad():
        expected = model(x)
        logits = model.to(memory_format=torch.channels_last)(
            x.to(memory_format=torch.channels_last)
        )
    torch.testing.assert_close(logits, expected, atol=1e-5, rtol=1e-5)


def test_dropout_precedes_the_last_convolution_of_class_heads_only():
    model = build(dropout=0.25)
    heads = (model.head, model.auxiliary_head8, model.auxiliary_head16, model.detail_head)
    assert [head.dropout.p for head in heads] == [0.25, 0.25, 0.25, 0.0]
    dropouts = [m for m in model.modules() if isinstance(m, nn.Dropout2d)]
    assert len(dropouts) == len(heads)


def test_initial_weights_have_the_originals_spread():
    model = build()
    decoder = model.context_path.conv_head16.conv.weight  # kaiming, fan in, a = 1
    backbone = model.backbone.stage32[0].blocks[1].conv.weight  # kaiming, fan out, a = 0
    assert decoder.std().item() == pytest.approx((128 * 9) ** -0.5, rel=0.02)
    assert backbone.std().item() == pytest.approx((2 / (256 * 9)) ** 0.5, rel=0.02)


def test_configuration_and_state_make_the_network_again():
    model = build(guidance="decoder", head_bias=True, align_corners=False).eval()
    again = STDCSeg(STDCSegConfig(**asdict(model.config)), unit_rows(11, seed=9)).eval()
    again.load_state_dict(model.state_dict())
    x = images(1, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(again(x), model(x), atol=0, rtol=0)


def test_baseline_carries_no_text():
    assert not [key for key in build(guidance=None).state_dict() if "text_embeddings" in key]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"backbone": "resnet18", "num_classes": 11}, "backbone is 'resnet18'"),
        ({"backbone": "stdc1", "num_classes": 0}, "num_classes is 0"),
        ({"backbone": "stdc1", "num_classes": 255}, "num_classes is 255"),
        (
            {"backbone": "stdc1", "num_classes": 11, "text_guidance": "both"},
            "text_guidance is 'both'",
        ),
        ({"backbone": "stdc1", "num_classes": 11, "dropout": 1.0}, "dropout is 1.0"),
    ],
)
def test_configuration_errors(options, message):
    with pytest.raises(ConfigError, match=message):
        STDCSegConfig(**options)


@pytest.mark.parametrize(
    ("guidance", "text", "message"),
    [
        (None, unit_rows(11), "text_guidance is None"),
        ("encoder", None, "there are no text_embeddings"),
        ("encoder", unit_rows(19), r"shape \(19, 1024\)"),
        ("encoder", 2 * unit_rows(11), "row norms from 2 to 2"),
        ("encoder", torch.full((11, 1024), torch.nan), "row norms from nan"),
    ],
)
def test_text_embeddings_must_fit(guidance, text, message):
    with pytest.raises(ConfigError, match=message):
        STDCSeg(STDCSegConfig("stdc1", 11, guidance), text)


def test_images_below_32_pixels_are_refused():
    with pytest.raises(InputError, match="64×31"):
        build()(images(2, 3, 64, 31))


def test_text_for_a_baseline_network_is_refused():
    with pytest.raises(InputError, match="no text guidance"):
        build(guidance=None).eval()(images(1, 3, 32, 32), unit_rows(11))
