"""Weights that others trained: STDC-Seg's own checkpoints and mmsegmentation's.

A converted network gives the original's outputs to float rounding. What is left out is listed
here; any other key that is unknown or missing is an error.

Both expect RGB images normalised by ImageNet's mean and standard deviation.
"""

import pickle
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from edgeseg.errors import CheckpointError
from edgeseg.files import reason
from edgeseg.models.segmentation import STDCSeg, STDCSegConfig
from edgeseg.models.stdc import STAGE_DEPTHS, BackboneName, STDCNet

UNREADABLE = (
    *(RuntimeError, ValueError, TypeError, AttributeError, KeyError, IndexError, EOFError),
    pickle.UnpicklingError,
)
"""What `torch.load` raises over a file that is cut off, or is none of its own."""

StateDict = dict[str, Tensor]
Names = tuple[str, ...]

# STDC-Seg keeps each backbone layer twice, as features.* and as x2.* to x32.*, and the ImageNet
# classifier beside them.
_STDCSEG_BACKBONE_IGNORED: Names = (
    "x2",
    "x4",
    "x8",
    "x16",
    "x32",
    "conv_last",
    "fc",
    "bn",
    "linear",
)
# STDC-Seg has a detail head at every stride and trains the one on F2 (sp8).
_STDCSEG_HEADS_IGNORED: Names = ("conv_out_sp2", "conv_out_sp4", "conv_out_sp16")
_MMSEG_BACKBONE_IGNORED: Names = ("final_conv",)
# Constants of the detail loss.
_MMSEG_HEADS_IGNORED: Names = (
    "auxiliary_head.2.laplacian_kernel",
    "auxiliary_head.2.fusion_kernel",
)

# Our modules and theirs, for everything outside the backbone.
_STDCSEG_DECODER = {
    "context_path.conv_avg": "cp.conv_avg",
    "context_path.arm32.conv": "cp.arm32.conv",
    "context_path.arm32.gate.1": "cp.arm32.conv_atten",
    "context_path.arm32.gate.2": "cp.arm32.bn_atten",
    "context_path.arm16.conv": "cp.arm16.conv",
    "context_path.arm16.gate.1": "cp.arm16.conv_atten",
    "context_path.arm16.gate.2": "cp.arm16.bn_atten",
    "context_path.conv_head32": "cp.conv_head32",
    "context_path.conv_head16": "cp.conv_head16",
    "fusion.conv": "ffm.convblk",
    "fusion.gate.1": "ffm.conv1",
    "fusion.gate.3": "ffm.conv2",
    "head.conv": "conv_out.conv",
    "head.classify": "conv_out.conv_out",
    "auxiliary_head8.conv": "conv_out16.conv",
    "auxiliary_head8.classify": "conv_out16.conv_out",
    "auxiliary_head16.conv": "conv_out32.conv",
    "auxiliary_head16.classify": "conv_out32.conv_out",
    "detail_head.conv": "conv_out_sp8.conv",
    "detail_head.classify": "conv_out_sp8.conv_out",
}
_MMSEG_DECODER = {
    "context_path.conv_avg": "backbone.conv_avg",
    "context_path.arm32.conv": "backbone.arms.0.conv_layer",
    "context_path.arm32.gate.1": "backbone.arms.0.atten_conv_layer.1.conv",
    "context_path.arm32.gate.2": "backbone.arms.0.atten_conv_layer.1.bn",
    "context_path.arm16.conv": "backbone.arms.1.conv_layer",
    "context_path.arm16.gate.1": "backbone.arms.1.atten_conv_layer.1.conv",
    "context_path.arm16.gate.2": "backbone.arms.1.atten_conv_layer.1.bn",
    "context_path.conv_head32": "backbone.convs.0",
    "context_path.conv_head16": "backbone.convs.1",
    "fusion.conv": "backbone.ffm.conv0",
    "fusion.gate.1": "backbone.ffm.attention.1.conv",
    "fusion.gate.3": "backbone.ffm.attention.2.conv",
    "head.conv": "decode_head.convs.0",
    "head.classify": "decode_head.conv_seg",
    "auxiliary_head8.conv": "auxiliary_head.0.convs.0",
    "auxiliary_head8.classify": "auxiliary_head.0.conv_seg",
    "auxiliary_head16.conv": "auxiliary_head.1.convs.0",
    "auxiliary_head16.classify": "auxiliary_head.1.conv_seg",
    "detail_head.conv": "auxiliary_head.2.convs.0",
    "detail_head.classify": "auxiliary_head.2.conv_seg",
}


def load_pretrained_backbone(backbone: STDCNet, path: str | Path) -> None:
    """Fill a backbone with ImageNet weights.

    Reads STDC-Seg's files (``STDCNet813M_73.91.tar`` for stdc1, ``STDCNet1446_76.47.tar`` for
    stdc2) and the same weights converted for mmsegmentation (keys ``stages.*``).

    Args:
        backbone: The network to fill, in place.
        path: The checkpoint.

    Raises:
        CheckpointError: The file cannot be read, is something else, or has keys that are
            unknown, missing or of another shape.
    """
    source = _read(path)
    if any(key.startswith("features.") for key in source):
        modules = _stdcseg_backbone(backbone.name)
        ignored = _STDCSEG_BACKBONE_IGNORED
    elif any(key.startswith("stages.") for key in source):
        modules = _mmseg_backbone(backbone.name)
        ignored = _MMSEG_BACKBONE_IGNORED
    else:
        raise CheckpointError(
            f"{path} is not an STDC backbone: none of its {len(source)} keys starts with "
            '"features." (STDC-Seg) or "stages." (mmsegmentation). A whole segmentation network '
            "is read by load_pretrained_stdcseg."
        )
    backbone.load_state_dict(_convert(path, source, backbone, modules, ignored))


def load_pretrained_stdcseg(path: str | Path) -> STDCSeg:
    """Build the network that a whole STDC-Seg or mmsegmentation checkpoint holds.

    Backbone and number of classes are read from the file; the result has no text guidance and
    ``align_corners=True``, as both originals upsample the head's logits.

    - STDC-Seg: the batch normalisation outside its backbone is InPlaceABN, which scales by
      ``|γ| + 1e-5``; γ is converted. Checkpoints of the variant with plain batch normalisation,
      told by their ``num_batches_tracked``, keep theirs. Trained without dropout.
    - mmsegmentation: the last convolutions have a bias (``head_bias=True``). Its detail head
      has two sigmoid outputs, no edge and edge; the second becomes our only one.

    Args:
        path: The checkpoint.

    Returns:
        The network in training mode on CPU, float32.

    Raises:
        CheckpointError: As `load_pretrained_backbone`.
    """
    source = _read(path)
    if any(key.startswith("cp.backbone.") for key in source):
        return _from_stdcseg(path, source)
    if any(key.startswith("backbone.backbone.") for key in source):
        return _from_mmseg(path, source)
    raise CheckpointError(
        f"{path} is not an STDC segmentation network: none of its {len(source)} keys starts with "
        '"cp.backbone." (STDC-Seg) or "backbone.backbone." (mmsegmentation). A backbone alone is '
        "read by load_pretrained_backbone."
    )


def _from_stdcseg(path: str | Path, source: StateDict) -> STDCSeg:
    model = STDCSeg(
        STDCSegConfig(
            # Two modules per stage make features.7 the last of stdc1.
            backbone=_depth(source, "cp.backbone.features.8."),
            num_classes=_rows(path, source, "conv_out.conv_out.weight"),
            dropout=0.0,
        )
    )
    modules = _nested(_stdcseg_backbone(model.backbone.name), "cp.backbone") | _STDCSEG_DECODER
    ignored = _STDCSEG_HEADS_IGNORED + tuple(
        f"cp.backbone.{name}" for name in _STDCSEG_BACKBONE_IGNORED
    )
    converted = _convert(path, source, model, modules, ignored)
    if "cp.conv_avg.bn.num_batches_tracked" not in source:
        for name, module in model.named_modules():
            if isinstance(module, nn.BatchNorm2d) and not name.startswith("backbone."):
                converted[f"{name}.weight"] = converted[f"{name}.weight"].abs() + module.eps
    model.load_state_dict(converted)
    return model


def _from_mmseg(path: str | Path, source: StateDict) -> STDCSeg:
    model = STDCSeg(
        STDCSegConfig(
            backbone=_depth(source, "backbone.backbone.stages.2.2."),
            num_classes=_rows(path, source, "decode_head.conv_seg.weight"),
            head_bias=True,
        )
    )
    modules = _nested(_mmseg_backbone(model.backbone.name), "backbone.backbone") | _MMSEG_DECODER
    ignored = _MMSEG_HEADS_IGNORED + tuple(
        f"backbone.backbone.{name}" for name in _MMSEG_BACKBONE_IGNORED
    )
    edge_only = {
        key: value[-1:] if key.startswith("auxiliary_head.2.conv_seg.") else value
        for key, value in source.items()
    }
    model.load_state_dict(_convert(path, edge_only, model, modules, ignored))
    return model


def _stdcseg_backbone(name: BackboneName) -> dict[str, str]:
    """Our modules and STDC-Seg's, which counts stem and STDC modules in one list."""
    modules = {"stem.0": "features.0", "stem.1": "features.1"}
    index = 2
    for stage, depth in zip(("stage8", "stage16", "stage32"), STAGE_DEPTHS[name], strict=True):
        modules[f"{stage}.0.downsample"] = f"features.{index}.avd_layer"
        for i in range(depth):
            for block in range(4):
                modules[f"{stage}.{i}.blocks.{block}"] = f"features.{index}.conv_list.{block}"
            index += 1
    return modules


def _mmseg_backbone(name: BackboneName) -> dict[str, str]:
    """Our modules and mmsegmentation's, which counts the stem's two layers as stages 0 and 1."""
    modules = {"stem.0": "stages.0", "stem.1": "stages.1"}
    stages = zip(("stage8", "stage16", "stage32"), STAGE_DEPTHS[name], strict=True)
    for index, (stage, depth) in enumerate(stages, start=2):
        modules[f"{stage}.0.downsample.0"] = f"stages.{index}.0.downsample.conv"
        modules[f"{stage}.0.downsample.1"] = f"stages.{index}.0.downsample.bn"
        for i in range(depth):
            for block in range(4):
                modules[f"{stage}.{i}.blocks.{block}"] = f"stages.{index}.{i}.layers.{block}"
    return modules


def _nested(modules: Mapping[str, str], theirs: str) -> dict[str, str]:
    return {f"backbone.{ours}": f"{theirs}.{source}" for ours, source in modules.items()}


def _depth(source: StateDict, stdc2_prefix: str) -> BackboneName:
    return "stdc2" if any(key.startswith(stdc2_prefix) for key in source) else "stdc1"


def _rows(path: str | Path, source: StateDict, key: str) -> int:
    if key not in source:
        raise CheckpointError(
            f'{path} has no key "{key}", the last convolution of the head; a complete checkpoint '
            "is needed."
        )
    return source[key].shape[0]


def _read(path: str | Path) -> StateDict:
    """The state dict of a checkpoint, whether stored bare or under "state_dict"."""
    try:
        stored = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise CheckpointError(f"{path} does not exist; check the path") from error
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path} is no checkpoint, or holds more than tensors; pickled code is not run. If you "
            "trust the file, load it with torch.load(..., weights_only=False) and save its state "
            "dict alone."
        ) from error
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {reason(error)}") from error
    except UNREADABLE as error:
        raise CheckpointError(
            f"{path} cannot be read as a PyTorch checkpoint ({type(error).__name__}); it is "
            "damaged or another kind of file"
        ) from error
    state = stored.get("state_dict", stored) if isinstance(stored, dict) else stored
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise CheckpointError(
            f'{path} holds neither a state dict nor one under "state_dict"; expected tensors by '
            "name."
        )
    return dict(state)


def _convert(
    path: str | Path,
    source: StateDict,
    target: nn.Module,
    modules: Mapping[str, str],
    ignored: Names,
) -> StateDict:
    """Rename ``source`` for ``target``, every key of which is found or named in the error."""
    converted: StateDict = {}
    missing, misshapen = [], []
    known = set()
    for ours, theirs in modules.items():
        for leaf, expected in target.get_submodule(ours).state_dict().items():
            key = f"{theirs}.{leaf}"
            known.add(key)
            found = source.get(key)
            if found is None and leaf.endswith("num_batches_tracked"):
                found = torch.zeros_like(expected)  # plays no part; older versions lack it
            if found is None:
                missing.append(key)
            elif found.shape != expected.shape:
                misshapen.append(f"{key} {tuple(found.shape)} for {tuple(expected.shape)}")
            else:
                converted[f"{ours}.{leaf}"] = found
    unknown = [
        key
        for key in source
        if key not in known
        and not any(key == name or key.startswith(f"{name}.") for name in ignored)
    ]
    problems = [
        f"{title}: {', '.join(keys)}."
        for title, keys in (("missing", missing), ("unknown", unknown), ("wrong shape", misshapen))
        if keys
    ]
    if problems:
        raise CheckpointError(
            f"{path} does not fit the network. {' '.join(problems)} Check that the file and the "
            "backbone are of one kind (stdc1 or stdc2)."
        )
    return converted
