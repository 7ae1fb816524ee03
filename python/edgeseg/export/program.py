"""The trained network as an exported program: what PyTorch's compilers start from."""

from __future__ import annotations

from copy import deepcopy
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.nn.utils.fusion import fuse_conv_bn_eval

from edgeseg.engine_file import FloatType
from edgeseg.models import STDCSeg


def exported_program(
    model: STDCSeg,
    height: int,
    width: int,
    precision: FloatType,
    *,
    device: str = "cpu",
    memory_format: torch.memory_format = torch.contiguous_format,
) -> ExportedProgram:
    """The network in evaluation mode: "image" 1×3×h×w -> logits 1×K×⌈h/8⌉×⌈w/8⌉, NCHW.

    Batch normalisation is folded into the convolutions, in float32, before anything is rounded:
    a variance may not fit into float16. The text embeddings stay float32; the score map's
    operator accumulates in float32 whatever the features are.

    Args:
        model: the network; it is not changed.
        height: rows of the input in pixels.
        width: columns of the input in pixels.
        precision: format of the input, the weights, the activations and the logits.
        device: where the weights and the operators are.
        memory_format: of everything between the input and the logits.
    """
    dtype: torch.dtype = getattr(torch, precision)
    network = fold_batch_norms(model).eval().requires_grad_(False)
    text = network.text_embeddings
    network = network.to(device=device, dtype=dtype).to(memory_format=memory_format)
    if text is not None:
        network.text_embeddings = text.to(device)
    image = torch.zeros(1, 3, height, width, dtype=dtype, device=device)
    with torch.no_grad():
        return torch.export.export(_Engine(network, memory_format).eval(), (image,))


def fold_batch_norms(model: STDCSeg) -> STDCSeg:
    """A copy whose convolutions do the work of the batch normalisation that follows them."""
    folded = deepcopy(model).eval()
    for parent in list(folded.modules()):
        # In this network a module's children stand in the order in which they run.
        for (conv_name, conv), (norm_name, norm) in pairwise(list(parent.named_children())):
            if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                setattr(parent, conv_name, fuse_conv_bn_eval(conv, norm))
                setattr(parent, norm_name, nn.Identity())
    return folded


class _Engine(nn.Module):
    """The network with its input and output as an engine has them."""

    def __init__(self, network: STDCSeg, memory_format: torch.memory_format) -> None:
        super().__init__()
        self.network = network
        self.memory_format = memory_format

    def forward(self, image: Tensor) -> Tensor:
        logits: Tensor = self.network(image.contiguous(memory_format=self.memory_format))
        return logits.contiguous()
