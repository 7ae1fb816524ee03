"""Figures that others published, each with its source. None of them was measured here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

PAPER = "Lin, Chen, Wu 2024, APSIPA Trans. SIP 13, e400, doi 10.1561/116.20240015"

CAMVID_MIOU: Mapping[str, float] = {
    "baseline": 75.3,
    "stage1": 76.6,
    "minilm-stage2-contexts": 78.0,
    "contexts-8": 76.3,
    "contexts-11": 76.4,
    "contexts-14": 75.3,
    "contexts-17": 76.0,
    "contexts-decay": 75.9,
}
"""The paper's mIoU on CamVid by the arm that has its form. With CLIP's encoder, an ImageNet
backbone, 960×720 crops and 10,000 iterations; one seed, the best of some ten evaluations on the
validation images. Stage 2's last checkpoint came to 76.6."""

CAMVID_GAIN: Mapping[tuple[str, str], float] = {
    ("stage1", "baseline"): 1.3,
    # The paper compares with a baseline that had no second schedule.
    ("minilm-stage2-contexts", "baseline-longer"): 2.7,
    ("minilm-stage2-contexts", "minilm-stage1"): 1.4,
    ("contexts-8", "baseline"): 1.0,
    ("contexts-11", "baseline"): 1.1,
    ("contexts-14", "baseline"): 0.0,
    ("contexts-17", "baseline"): 0.7,
    ("contexts-decay", "contexts-11"): -0.4,  # 75.9 against 76.3
}
"""Differences between the paper's figures, by the arms that have their form."""

CITYSCAPES_MIOU: Mapping[str, float] = {
    "baseline": 72.2,
    "stage1": 72.7,
    "minilm-stage2-contexts": 72.9,
}
"""The same on Cityscapes' validation images at half scale."""


@dataclass(frozen=True)
class Point:
    """Speed and accuracy of one network, as published.

    Attributes:
        network: Its name.
        miou: In percent.
        fps: Images per second.
        resolution: Height × width of the network's input, where the source says it.
        hardware: On which the speed was measured.
        split: Of the data set, on which the accuracy was measured.
        source: Where both figures stand.
    """

    network: str
    miou: float
    fps: float
    resolution: str
    hardware: str
    split: str
    source: str


_PP_LITESEG = (
    "PaddlePaddle/models, modelcenter/PP-LiteSeg/benchmark_cn.md, table 1.3 "
    "(the comparison of arXiv 2204.02681)"
)
_DFANET = "Li et al., DFANet, CVPR 2019, abstract"
_PIDNET = "XuJiacong/PIDNet, README, tables of models"
_ICNET = "paperswithcode.com, results of ICNet (Zhao et al., ECCV 2018)"
_PP_LITESEG_CAMVID = "paperswithcode.com, results of PP-LiteSeg (arXiv 2204.02681)"


def _on_1080ti(network: str, miou: float, fps: float, resolution: str) -> Point:
    return Point(network, miou, fps, resolution, "GTX 1080 Ti", "test", _PP_LITESEG)


CITYSCAPES_SPEED = (
    _on_1080ti("BiSeNetV1", 68.4, 105.8, "768×1536"),
    _on_1080ti("BiSeNetV1-L", 74.7, 65.5, "768×1536"),
    _on_1080ti("BiSeNetV2", 72.6, 156, "512×1024"),
    _on_1080ti("BiSeNetV2-L", 75.3, 47.3, "512×1024"),
    _on_1080ti("FasterSeg", 71.5, 163.9, "1024×2048"),
    _on_1080ti("STDC1-Seg50", 71.9, 250.4, "512×1024"),
    _on_1080ti("STDC2-Seg50", 73.4, 188.6, "512×1024"),
    _on_1080ti("STDC1-Seg75", 75.3, 126.7, "768×1536"),
    _on_1080ti("STDC2-Seg75", 76.8, 97.0, "768×1536"),
    _on_1080ti("PP-LiteSeg-T1", 72.0, 273.6, "512×1024"),
    _on_1080ti("PP-LiteSeg-B1", 73.9, 195.3, "512×1024"),
    _on_1080ti("PP-LiteSeg-T2", 74.9, 143.6, "768×1536"),
    _on_1080ti("PP-LiteSeg-B2", 77.5, 102.6, "768×1536"),
    Point("ICNet", 70.6, 30.3, "", "not stated", "test", _ICNET),
    Point("DFANet A′", 70.3, 160, "", "Titan X", "test", _DFANET),
    Point("PIDNet-S", 78.6, 93.2, "1024×2048", "RTX 3090", "test", _PIDNET),
    Point("PIDNet-M", 79.8, 42.2, "1024×2048", "RTX 3090", "test", _PIDNET),
    Point("PIDNet-L", 80.6, 31.1, "1024×2048", "RTX 3090", "test", _PIDNET),
    Point("STDC1-Seg50 (baseline)", 72.2, 250.4, "512×1024", "GTX 1080 Ti", "val", PAPER),
    Point("STDC1-Seg50 + text, stage 2", 72.9, 245.3, "512×1024", "GTX 1080 Ti", "val", PAPER),
)

CAMVID_SPEED = (
    Point("ICNet", 67.1, 27.8, "", "not stated", "test", _ICNET),
    Point("PP-LiteSeg-T", 73.3, 222.3, "720×960", "not stated", "test", _PP_LITESEG_CAMVID),
    Point("PP-LiteSeg-B", 75.0, 154.8, "720×960", "not stated", "test", _PP_LITESEG_CAMVID),
    Point("PIDNet-S", 80.1, 153.7, "", "RTX 3090", "test", _PIDNET),
    Point("STDC1-Seg (baseline)", 75.3, 197.6, "720×960", "GTX 1080 Ti", "val", PAPER),
    Point("STDC1-Seg + text, stage 2", 78.0, 196.8, "720×960", "GTX 1080 Ti", "val", PAPER),
)

NOT_SOURCED = (
    "ESPNetV2: the source at hand gives 66.2 mIoU on Cityscapes' test images, and no speed.",
    "BiSeNet, DFANet, FasterSeg and STDC-Seg on CamVid: no source at hand gives both figures.",
)
"""What the paper's Figure 5 shows and is left out here, and why."""
