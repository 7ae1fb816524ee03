"""Labelled images in memory, and the batches that a training run draws from them."""

from edgeseg.data.augment import IMAGENET_MEAN, IMAGENET_STD, Augmentation, normalise, resize_image
from edgeseg.data.batches import Batches
from edgeseg.data.dataset import LabelledImages, load_images, load_synthetic

__all__ = [
    "IMAGENET_MEAN",
    "IMAGENET_STD",
    "Augmentation",
    "Batches",
    "LabelledImages",
    "load_images",
    "load_synthetic",
    "normalise",
    "resize_image",
]
