"""STDC-Seg with text guidance: the network that edgeseg trains."""

from edgeseg.models.pretrained import load_pretrained_backbone, load_pretrained_stdcseg
from edgeseg.models.segmentation import (
    MIN_IMAGE_SIZE,
    SegmentationOutput,
    STDCSeg,
    STDCSegConfig,
    TextGuidance,
)
from edgeseg.models.stdc import BackboneName

__all__ = [
    "MIN_IMAGE_SIZE",
    "BackboneName",
    "STDCSeg",
    "STDCSegConfig",
    "SegmentationOutput",
    "TextGuidance",
    "load_pretrained_backbone",
    "load_pretrained_stdcseg",
]
