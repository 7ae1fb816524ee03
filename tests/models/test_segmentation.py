"""The network: exact sizes, shapes, guidance, gradients, errors."""

import pytest
import torch
import torch.nn.functional as F

from edgeseg.models import STDCSeg, STDCSegConfig

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


def build(backbone="stdc1", classes=11, guidance="encoder", **options):
    torch.manual_seed(0)
    text = None if guidance is None else F.normalize(torch.randn(classes, 1024))
    return STDCSeg(STDCSegConfig(backbone, classes, guidance, **options), text)


@pytest.mark.parametrize(("backbone", "classes", "guidance"), PARAMETERS)
def test_parameter_count_is_the_papers(backbone, classes, guidance):
    model = build(backbone, classes, guidance)
    assert sum(p.numel() for p in model.parameters()) == PARAMETERS[backbone, classes, guidance]
