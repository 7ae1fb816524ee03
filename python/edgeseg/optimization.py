"""What moves the weights: groups, learning rates, the moving average, and where weights start."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from edgeseg.checkpoint import Checkpoint
from edgeseg.errors import CheckpointError
from edgeseg.models import STDCSeg
from edgeseg.recipes import TrainConfig


def learning_rate(config: TrainConfig, iteration: int) -> float:
    """Polynomial decay from ``lr`` to ``min_lr``, times a linear warm-up."""
    decay = math.pow(1 - iteration / config.iterations, config.poly_power)
    warmup = min(1.0, (iteration + 1) / max(1, config.warmup))
    return (config.min_lr + (config.lr - config.min_lr) * decay) * warmup


def parameter_groups(
    network: STDCSeg,
    prompts: list[nn.Parameter],
    temperatures: list[nn.Parameter],
    config: TrainConfig,
) -> list[dict[str, Any]]:
    """Groups for SGD: backbone, new layers, the new layers' BatchNorm, and what guides them.

    Args:
        network: Its backbone has no group where the recipe freezes it.
        prompts: What is learned of the text embeddings; may be empty.
        temperatures: Of the score map's loss; empty where it is fixed.
        config: Weight decays and factors of the learning rate.
    """
    new_layers = [child for child in network.children() if child is not network.backbone]
    norms = [m for child in new_layers for m in child.modules() if isinstance(m, _BatchNorm)]
    norm_parameters = [p for norm in norms for p in norm.parameters()]
    without_decay = {id(p) for p in norm_parameters}
    others = [p for child in new_layers for p in child.parameters() if id(p) not in without_decay]

    def group(parameters: list[nn.Parameter], weight_decay: float, scale: float) -> dict[str, Any]:
        return {"params": parameters, "weight_decay": weight_decay, "lr_scale": scale}

    backbone = list(network.backbone.parameters()) if config.backbone_lr_scale else []
    groups = [
        group(backbone, config.weight_decay, config.backbone_lr_scale),
        group(others, config.weight_decay, 1.0),
        group(norm_parameters, 0.0, 1.0),
        group(prompts, config.prompt_weight_decay, config.prompt_lr_scale),
        group(temperatures, 0.0, config.prompt_lr_scale),  # decay would pull it towards 1
    ]
    return [g for g in groups if g["params"]]


@torch.no_grad()
def update_average(average: STDCSeg, network: STDCSeg, decay: float, iteration: int) -> None:
    """Move the average of weights and BatchNorm statistics towards the network's.

    The first iterations move it faster, so that the initial weights are soon forgotten.
    """
    decay = min(decay, (1 + iteration) / (10 + iteration))
    for mean, value in zip(
        average.state_dict().values(), network.state_dict().values(), strict=True
    ):
        if mean.is_floating_point():
            mean.lerp_(value, 1 - decay)
        else:
            mean.copy_(value)
    if average.text_embeddings is not None:  # a mean of unit rows is shorter
        average.text_embeddings.copy_(F.normalize(average.text_embeddings, dim=1))


@torch.no_grad()
def transfer_weights(network: STDCSeg, start: Checkpoint) -> int:
    """Copy the weights of another network that fit this one, whatever its classes.

    A tensor of the same name and shape is copied. Where a convolution has more input channels in
    one of the two (the score map beside F4), the ones that both have are copied.

    Returns:
        How many tensors were copied.

    Raises:
        CheckpointError: The other network has another backbone, or weights of it are missing.
    """
    backbone = {name for name in network.state_dict() if name.startswith("backbone.")}
    names = (start.model_config.backbone, network.config.backbone)
    if names[0] != names[1] or not backbone <= start.weights.keys():
        raise CheckpointError(
            f"the starting network's {names[0]} does not give this {names[1]} all its weights; "
            "start from a whole network with the same backbone"
        )
    copied = 0
    for name, target in network.state_dict().items():
        source = start.weights.get(name)
        if source is None or name == "text_embeddings":
            continue
        if source.shape == target.shape:
            target.copy_(source)
        elif _differ_in_inputs(source, target):
            shared = min(source.shape[1], target.shape[1])
            target[:, :shared] = source[:, :shared]
        else:
            continue
        copied += 1
    return copied


def _differ_in_inputs(source: Tensor, target: Tensor) -> bool:
    """Whether two tensors are weights of convolutions that differ in input channels only."""
    return (
        source.ndim == target.ndim == 4
        and source.shape[0] == target.shape[0]
        and source.shape[2:] == target.shape[2:]
    )
