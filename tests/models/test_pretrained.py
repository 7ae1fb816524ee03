"""Key maps of foreign checkpoints, against names and shapes written down independently.

Every stored tensor holds a number of its own, so a wrong, swapped or forgotten key shows.
"""

from itertools import chain

import pytest
import torch

from edgeseg.checkpoint import convert_pretrained, load_checkpoint, save_checkpoint
from edgeseg.classes import CAMVID, CITYSCAPES
from edgeseg.errors import CheckpointError
from edgeseg.models.pretrained import load_pretrained_backbone, load_pretrained_stdcseg
from edgeseg.models.stdc import STDCNet

# STDC modules: in channels, out channels, stride.
STDC_MODULES = {
    "stdc1": [
        [(64, 256, 2), (256, 256, 1)],
        [(256, 512, 2), (512, 512, 1)],
        [(512, 1024, 2), (1024, 1024, 1)],
    ],
    "stdc2": [
        [(64, 256, 2), (256, 256, 1), (256, 256, 1), (256, 256, 1)],
        [(256, 512, 2), (512, 512, 1), (512, 512, 1), (512, 512, 1), (512, 512, 1)],
        [(512, 1024, 2), (1024, 1024, 1), (1024, 1024, 1)],
    ],
}


class Writer:
    """Collects tensors of the given names and shapes, each filled with its own number."""

    def __init__(self):
        self.state = {}

    def tensor(self, key, *shape):
        self.state[key] = torch.full(shape, float(len(self.state) + 1))

    def norm(self, key, channels, counted=True):
        for leaf in ("weight", "bias", "running_mean", "running_var"):
            self.tensor(f"{key}.{leaf}", channels)
        if counted:
            self.state[f"{key}.num_batches_tracked"] = torch.tensor(len(self.state) + 1)

    def conv_norm(self, key, shape, conv="conv", norm="bn", counted=True):
        self.tensor(f"{key}.{conv}.weight", *shape)
        self.norm(f"{key}.{norm}", shape[0], counted)


def stdc_convolutions(in_channels, out_channels):
    half, quarter, eighth = out_channels // 2, out_channels // 4, out_channels // 8
    return [
        (half, in_channels, 1, 1),
        (quarter, half, 3, 3),
        (eighth, quarter, 3, 3),
        (eighth, eighth, 3, 3),
    ]


def write_stdcseg_backbone(writer, name, prefix=""):
    writer.conv_norm(f"{prefix}features.0", (32, 3, 3, 3))
    writer.conv_norm(f"{prefix}features.1", (64, 32, 3, 3))
    for i, (c_in, c_out, stride) in enumerate(chain.from_iterable(STDC_MODULES[name]), start=2):
        for j, shape in enumerate(stdc_convolutions(c_in, c_out)):
            writer.conv_norm(f"{prefix}features.{i}.conv_list.{j}", shape)
        if stride == 2:
            shape = (c_out // 2, 1, 3, 3)
            writer.conv_norm(f"{prefix}features.{i}.avd_layer", shape, conv="0", norm="1")
    # What STDC-Seg stores besides: duplicates and the classifier.
    writer.conv_norm(f"{prefix}x2.0.0", (32, 3, 3, 3))
    writer.conv_norm(f"{prefix}x32.0.1.conv_list.0", (512, 1024, 1, 1))
    writer.conv_norm(f"{prefix}conv_last", (1024, 1024, 1, 1))
    writer.tensor(f"{prefix}fc.weight", 1024, 1024)
    writer.norm(f"{prefix}bn", 1024)
    writer.tensor(f"{prefix}linear.weight", 1000, 1024)


def write_stdcseg(name, classes, inplace_abn=True):
    writer = Writer()
    write_stdcseg_backbone(writer, name, "cp.backbone.")
    counted = not inplace_abn
    for arm, channels in (("cp.arm16", 512), ("cp.arm32", 1024)):
        writer.conv_norm(f"{arm}.conv", (128, channels, 3, 3), counted=counted)
        writer.tensor(f"{arm}.conv_atten.weight", 128, 128, 1, 1)
        writer.norm(f"{arm}.bn_atten", 128, counted)
    writer.conv_norm("cp.conv_head32", (128, 128, 3, 3), counted=counted)
    writer.conv_norm("cp.conv_head16", (128, 128, 3, 3), counted=counted)
    writer.conv_norm("cp.conv_avg", (128, 1024, 1, 1), counted=counted)
    writer.conv_norm("ffm.convblk", (256, 384, 1, 1), counted=counted)
    writer.tensor("ffm.conv1.weight", 64, 256, 1, 1)
    writer.tensor("ffm.conv2.weight", 256, 64, 1, 1)
    for head, channels, mid, out in (
        ("conv_out", 256, 256, classes),
        ("conv_out16", 128, 64, classes),
        ("conv_out32", 128, 64, classes),
        ("conv_out_sp16", 512, 64, 1),
        ("conv_out_sp8", 256, 64, 1),
        ("conv_out_sp4", 64, 64, 1),
        ("conv_out_sp2", 32, 64, 1),
    ):
        writer.conv_norm(f"{head}.conv", (mid, channels, 3, 3), counted=counted)
        writer.tensor(f"{head}.conv_out.weight", out, mid, 1, 1)
    return writer.state


def write_mmseg_backbone(writer, name, prefix=""):
    writer.conv_norm(f"{prefix}stages.0", (32, 3, 3, 3))
    writer.conv_norm(f"{prefix}stages.1", (64, 32, 3, 3))
    for s, stage in enumerate(STDC_MODULES[name], start=2):
        for i, (c_in, c_out, stride) in enumerate(stage):
            for j, shape in enumerate(stdc_convolutions(c_in, c_out)):
                writer.conv_norm(f"{prefix}stages.{s}.{i}.layers.{j}", shape)
            if stride == 2:
                writer.conv_norm(f"{prefix}stages.{s}.{i}.downsample", (c_out // 2, 1, 3, 3))


def write_mmseg(name, classes):
    writer = Writer()
    write_mmseg_backbone(writer, name, "backbone.backbone.")
    for i, channels in enumerate((1024, 512)):
        writer.conv_norm(f"backbone.arms.{i}.conv_layer", (128, channels, 3, 3))
        writer.conv_norm(f"backbone.arms.{i}.atten_conv_layer.1", (128, 128, 1, 1))
        writer.conv_norm(f"backbone.convs.{i}", (128, 128, 3, 3))
    writer.conv_norm("backbone.conv_avg", (128, 1024, 1, 1))
    writer.conv_norm("backbone.ffm.conv0", (256, 384, 1, 1))
    writer.tensor("backbone.ffm.attention.1.conv.weight", 64, 256, 1, 1)
    writer.tensor("backbone.ffm.attention.2.conv.weight", 256, 64, 1, 1)
    for head, channels, mid, out in (
        ("decode_head", 256, 256, classes),
        ("auxiliary_head.0", 128, 64, classes),
        ("auxiliary_head.1", 128, 64, classes),
        ("auxiliary_head.2", 256, 64, 2),
    ):
        writer.tensor(f"{head}.conv_seg.weight", out, mid, 1, 1)
        writer.tensor(f"{head}.conv_seg.bias", out)
        writer.conv_norm(f"{head}.convs.0", (mid, channels, 3, 3))
    writer.tensor("auxiliary_head.2.fusion_kernel", 1, 3, 1, 1)
    writer.tensor("auxiliary_head.2.laplacian_kernel", 1, 1, 3, 3)
    return writer.state


@pytest.fixture
def saved(tmp_path):
    def save(content):
        torch.save(content, tmp_path / "foreign.pth")
        return tmp_path / "foreign.pth"

    return save


def assert_same(state, source, pairs):
    for ours, theirs in pairs.items():
        torch.testing.assert_close(state[ours], source[theirs], atol=0, rtol=0, msg=ours)


def assert_each_taken_once(state, source, left_out):
    """Apart from what is left out, the tensors of both sides are the same, one to one."""
    kept = {k: v for k, v in source.items() if not k.startswith(left_out)}
    assert sorted(v.double().mean().item() for v in state.values()) == sorted(
        v.double().mean().item() for v in kept.values()
    )


BACKBONE_LEFT_OUT = ("x2.", "x32.", "conv_last.", "fc.", "bn.", "linear.")


@pytest.mark.parametrize("name", ["stdc1", "stdc2"])
def test_imagenet_backbone(name, saved):
    writer = Writer()
    write_stdcseg_backbone(writer, name)
    backbone = STDCNet(name)
    load_pretrained_backbone(backbone, saved({"state_dict": writer.state, "epoch": 300}))
    state = backbone.state_dict()
    assert_each_taken_once(state, writer.state, BACKBONE_LEFT_OUT)
    first_of_32 = {"stdc1": 6, "stdc2": 11}[name]
    assert_same(
        state,
        writer.state,
        {
            "stem.0.conv.weight": "features.0.conv.weight",
            "stem.1.bn.running_var": "features.1.bn.running_var",
            "stage8.0.blocks.1.conv.weight": "features.2.conv_list.1.conv.weight",
            "stage8.0.downsample.0.weight": "features.2.avd_layer.0.weight",
            "stage8.0.downsample.1.bias": "features.2.avd_layer.1.bias",
            "stage8.1.blocks.3.bn.weight": "features.3.conv_list.3.bn.weight",
            "stage32.0.blocks.0.conv.weight": f"features.{first_of_32}.conv_list.0.conv.weight",
            "stage32.1.blocks.2.bn.bias": f"features.{first_of_32 + 1}.conv_list.2.bn.bias",
        },
    )


@pytest.mark.parametrize("name", ["stdc1", "stdc2"])
def test_imagenet_backbone_as_mmsegmentation_stores_it(name, saved):
    writer = Writer()
    write_mmseg_backbone(writer, name)
    writer.conv_norm("final_conv", (1024, 1024, 1, 1))
    backbone = STDCNet(name)
    load_pretrained_backbone(backbone, saved(writer.state))
    assert_each_taken_once(backbone.state_dict(), writer.state, ("final_conv.",))
    assert_same(
        backbone.state_dict(),
        writer.state,
        {
            "stem.1.conv.weight": "stages.1.conv.weight",
            "stage16.0.downsample.0.weight": "stages.3.0.downsample.conv.weight",
            "stage16.1.blocks.3.bn.running_mean": "stages.3.1.layers.3.bn.running_mean",
        },
    )


STDCSEG_LEFT_OUT = (
    "conv_out_sp2.",
    "conv_out_sp4.",
    "conv_out_sp16.",
    *(f"cp.backbone.{name}" for name in BACKBONE_LEFT_OUT),
)


@pytest.mark.parametrize(("name", "classes"), [("stdc1", 19), ("stdc2", 11)])
def test_stdcseg_with_plain_batch_norm(name, classes, saved):
    source = write_stdcseg(name, classes, inplace_abn=False)
    model = load_pretrained_stdcseg(saved(source))
    config = model.config
    assert (config.backbone, config.num_classes, config.text_guidance) == (name, classes, None)
    assert config.align_corners
    assert not config.head_bias
    state = model.state_dict()
    assert_each_taken_once(state, source, STDCSEG_LEFT_OUT)
    assert_same(
        state,
        source,
        {
            "backbone.stem.0.conv.weight": "cp.backbone.features.0.conv.weight",
            "context_path.arm32.gate.1.weight": "cp.arm32.conv_atten.weight",
            "context_path.arm32.gate.2.bias": "cp.arm32.bn_atten.bias",
            "context_path.arm16.gate.2.bias": "cp.arm16.bn_atten.bias",
            "context_path.conv_head32.conv.weight": "cp.conv_head32.conv.weight",
            "context_path.conv_head16.conv.weight": "cp.conv_head16.conv.weight",
            "fusion.gate.1.weight": "ffm.conv1.weight",
            "head.classify.weight": "conv_out.conv_out.weight",
            "auxiliary_head8.classify.weight": "conv_out16.conv_out.weight",
            "auxiliary_head16.classify.weight": "conv_out32.conv_out.weight",
            "detail_head.conv.conv.weight": "conv_out_sp8.conv.conv.weight",
        },
    )


def test_stdcseg_inplace_abn_scales_by_magnitude_plus_epsilon(saved):
    source = write_stdcseg("stdc1", 19)
    source["ffm.convblk.bn.weight"] = torch.linspace(-1, 1, 256)
    source["cp.backbone.features.1.bn.weight"] = -torch.ones(64)  # an ordinary BatchNorm
    state = load_pretrained_stdcseg(saved(source)).state_dict()
    expected = torch.linspace(-1, 1, 256).abs() + 1e-5
    torch.testing.assert_close(state["fusion.conv.bn.weight"], expected, atol=0, rtol=0)
    torch.testing.assert_close(state["backbone.stem.1.bn.weight"], -torch.ones(64))
    assert state["fusion.conv.bn.num_batches_tracked"] == 0


@pytest.mark.parametrize(("name", "classes"), [("stdc1", 11), ("stdc2", 19)])
def test_mmsegmentation(name, classes, saved):
    source = write_mmseg(name, classes)
    edge = torch.arange(128.0).reshape(2, 64, 1, 1)
    source["auxiliary_head.2.conv_seg.weight"] = edge
    source["auxiliary_head.2.conv_seg.bias"] = torch.tensor([5.0, 7.0])
    model = load_pretrained_stdcseg(saved({"meta": {"epoch": 1}, "state_dict": source}))
    config = model.config
    assert (config.backbone, config.num_classes, config.head_bias) == (name, classes, True)
    assert config.align_corners
    state = model.state_dict()
    torch.testing.assert_close(state["detail_head.classify.weight"], edge[1:])
    torch.testing.assert_close(state["detail_head.classify.bias"], torch.tensor([7.0]))
    detail = ("detail_head.classify.", "auxiliary_head.2.conv_seg.")
    constants = ("auxiliary_head.2.fusion_kernel", "auxiliary_head.2.laplacian_kernel")
    assert_each_taken_once(
        {k: v for k, v in state.items() if not k.startswith(detail)},
        source,
        (*detail, *constants),
    )
    assert_same(
        state,
        source,
        {
            "backbone.stage32.0.blocks.1.conv.weight": (
                "backbone.backbone.stages.4.0.layers.1.conv.weight"
            ),
            "context_path.arm32.conv.bn.bias": "backbone.arms.0.conv_layer.bn.bias",
            "context_path.arm32.gate.1.weight": "backbone.arms.0.atten_conv_layer.1.conv.weight",
            "context_path.arm16.gate.2.bias": "backbone.arms.1.atten_conv_layer.1.bn.bias",
            "context_path.conv_head32.conv.weight": "backbone.convs.0.conv.weight",
            "context_path.conv_head16.conv.weight": "backbone.convs.1.conv.weight",
            "fusion.gate.3.weight": "backbone.ffm.attention.2.conv.weight",
            "head.classify.bias": "decode_head.conv_seg.bias",
            "auxiliary_head8.classify.bias": "auxiliary_head.0.conv_seg.bias",
            "auxiliary_head16.conv.conv.weight": "auxiliary_head.1.convs.0.conv.weight",
        },
    )


def test_unknown_missing_and_misshapen_keys_are_all_listed(saved):
    source = write_stdcseg("stdc1", 19)
    del source["ffm.conv1.weight"], source["cp.conv_head16.bn.running_var"]
    source["cp.extra.weight"] = torch.ones(1)
    source["linear.weight"] = torch.ones(1)  # ignored in the backbone only
    source["conv_out16.conv_out.weight"] = torch.ones(11, 64, 1, 1)
    with pytest.raises(CheckpointError) as error:
        load_pretrained_stdcseg(saved(source))
    message = str(error.value)
    assert "missing: cp.conv_head16.bn.running_var, ffm.conv1.weight." in message
    assert "unknown: cp.extra.weight, linear.weight." in message
    assert "conv_out16.conv_out.weight (11, 64, 1, 1) for (19, 64, 1, 1)" in message


def test_a_backbone_of_the_other_kind_is_refused(saved):
    writer = Writer()
    write_stdcseg_backbone(writer, "stdc2")
    with pytest.raises(CheckpointError, match=r"unknown: features\.8\."):
        load_pretrained_backbone(STDCNet("stdc1"), saved(writer.state))


def test_a_checkpoint_without_its_head_is_refused(saved):
    source = write_mmseg("stdc1", 19)
    del source["decode_head.conv_seg.weight"]
    with pytest.raises(CheckpointError, match=r'no key "decode_head\.conv_seg\.weight"'):
        load_pretrained_stdcseg(saved(source))


class NotATensor:
    pass


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"state_dict": {"layer1.weight": torch.ones(1)}}, "is not an STDC"),
        ({"state_dict": {"a": 1}}, "neither a state dict"),
        ([torch.ones(1)], "neither a state dict"),
        ({"state_dict": NotATensor()}, "pickled code is not run"),
    ],
)
def test_other_files_are_refused(content, message, saved):
    path = saved(content)
    with pytest.raises(CheckpointError, match=message):
        load_pretrained_stdcseg(path)
    with pytest.raises(CheckpointError, match=message):
        load_pretrained_backbone(STDCNet("stdc1"), path)


def test_unreadable_files_are_refused(tmp_path):
    with pytest.raises(CheckpointError, match="does not exist"):
        load_pretrained_stdcseg(tmp_path / "absent.pth")
    (tmp_path / "damaged.pth").write_bytes(b"PK\x03\x04 not really")
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_pretrained_stdcseg(tmp_path / "damaged.pth")


def test_conversion_gives_a_checkpoint_of_the_same_network(saved, tmp_path):
    path = saved({"state_dict": write_stdcseg("stdc1", 19)})
    save_checkpoint(tmp_path / "converted.pt", convert_pretrained(path, CITYSCAPES))
    converted = load_checkpoint(tmp_path / "converted.pt")
    assert converted.classes == CITYSCAPES
    expected = load_pretrained_stdcseg(path).state_dict()
    for name, value in converted.model().state_dict().items():
        torch.testing.assert_close(value, expected[name], rtol=0, atol=0)


def test_conversion_needs_the_right_classes(saved):
    path = saved({"state_dict": write_stdcseg("stdc1", 19)})
    with pytest.raises(CheckpointError, match="19 classes, 11 names"):
        convert_pretrained(path, CAMVID)
