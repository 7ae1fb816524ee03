"""Augmentation: random resize, crop, flip and photometric distortion, on the training device.

Random numbers are drawn on the CPU, from one generator per image that the caller owns: a crop is
the same on every device, and in whatever batch it is made. "Resize, then crop" is done as "crop,
then resize": only the pixels of the crop are ever resized.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from edgeseg.classes import IGNORE
from edgeseg.errors import ConfigError

IMAGENET_MEAN = (123.675, 116.28, 103.53)
"""Mean of R, G, B in 0..255, which the network's input is free of."""
IMAGENET_STD = (58.395, 57.12, 57.375)
"""Standard deviation of R, G, B in 0..255, which the network's input is divided by."""

_CROP_ATTEMPTS = 10


@dataclass(frozen=True)
class Augmentation:
    """How a training crop is made.

    Attributes:
        base: Height and width to which every image is resized at scale 1, whatever its own size.
        crop: Height and width of the crop.
        scales: Least and greatest scale.
        scale_step: Scales are multiples of this above the least; 0 draws them continuously.
        max_class_share: A crop in which one class has a greater share is drawn again.
        photometric: Distort brightness, contrast, saturation and hue.

    Raises:
        ConfigError: Sizes or scales that no crop can have.
    """

    base: tuple[int, int]
    crop: tuple[int, int]
    scales: tuple[float, float]
    scale_step: float = 0.0
    max_class_share: float = 0.75
    photometric: bool = True

    def __post_init__(self) -> None:
        if min(*self.base, *self.crop) < 1:
            raise ConfigError(f"base {self.base} and crop {self.crop} must be at least 1 pixel")
        if not 0 < self.scales[0] <= self.scales[1] or self.scale_step < 0:
            raise ConfigError(
                f"scales are {self.scales} in steps of {self.scale_step}; expected the least "
                "above 0, then the greatest, and a step of 0 (any scale between) or more"
            )

    def __call__(
        self,
        images: Sequence[Tensor],
        labels: Sequence[Tensor],
        generators: Sequence[Generator],
        device: torch.device,
    ) -> tuple[Tensor, Tensor]:
        """Make one batch.

        Args:
            images: N RGB uint8 images, 3×H×W each.
            labels: N uint8 label maps, H×W each.
            generators: N CPU generators; all random numbers of an image come from its own.
            device: Where the batch is made and left.

        Returns:
            Images N×3×h×w float32, normalised; padding is 0. Labels N×h×w int64; padding is 255.
        """
        crops = [
            self._crop(image, label, generator, device)
            for image, label, generator in zip(images, labels, generators, strict=True)
        ]
        pixels = torch.stack([image for image, _, _ in crops])
        target = torch.stack([label for _, label, _ in crops]).long()
        inside = torch.stack([inside for _, _, inside in crops])
        if self.photometric:
            pixels = distort_colours(pixels, generators)
        pixels = normalise(pixels) * inside[:, None]
        flip = (_uniform(1, generators)[0] < 0.5).to(device)
        pixels = torch.where(flip[:, None, None, None], pixels.flip(-1), pixels)
        target = torch.where(flip[:, None, None], target.flip(-1), target)
        return pixels, target

    def _crop(
        self, image: Tensor, label: Tensor, generator: Generator, device: torch.device
    ) -> tuple[Tensor, Tensor, Tensor]:
        """One crop: image 3×h×w float32 in 0..255, label h×w uint8, mask h×w of the image."""
        scale = self._draw_scale(generator)
        for attempt in range(_CROP_ATTEMPTS):
            rows = _Span.draw(label.shape[0], self.base[0] * scale, self.crop[0], generator)
            columns = _Span.draw(label.shape[1], self.base[1] * scale, self.crop[1], generator)
            piece = label[rows.source, columns.source].to(device)
            resized = resize_labels(piece, (rows.length, columns.length))
            if attempt == _CROP_ATTEMPTS - 1 or self._is_diverse(resized):
                break
        pixels = torch.zeros(3, *self.crop, device=device)
        target = torch.full(self.crop, IGNORE, dtype=torch.uint8, device=device)
        inside = torch.zeros(self.crop, device=device)
        pixels[:, rows.target, columns.target] = resize_image(
            image[:, rows.source, columns.source].to(device), (rows.length, columns.length)
        )
        target[rows.target, columns.target] = resized
        inside[rows.target, columns.target] = 1
        return pixels, target, inside

    def _draw_scale(self, generator: Generator) -> float:
        low, high = self.scales
        u = float(torch.rand((), generator=generator))
        if self.scale_step == 0:
            return low + u * (high - low)
        steps = math.floor((high - low) / self.scale_step + 1e-6) + 1
        return low + math.floor(u * steps) * self.scale_step

    def _is_diverse(self, label: Tensor) -> bool:
        counts = torch.bincount(label.flatten(), minlength=256)[:IGNORE]
        return bool(counts.max() <= self.max_class_share * counts.sum())


@dataclass(frozen=True)
class _Span:
    """One axis of a crop: ``source`` of the image is resized to ``length`` and put at ``start``."""

    source: slice
    start: int
    length: int

    @property
    def target(self) -> slice:
        """Where the resized piece lies in the crop."""
        return slice(self.start, self.start + self.length)

    @staticmethod
    def draw(size: int, scaled: float, crop: int, generator: Generator) -> _Span:
        """Place a crop of ``crop`` pixels on an axis of ``size``, resized to ``scaled`` pixels."""
        u = float(torch.rand((), generator=generator))
        scaled = max(1, round(scaled))
        if scaled <= crop:  # the whole axis fits: pad around it
            return _Span(slice(0, size), math.floor(u * (crop - scaled + 1)), scaled)
        window = min(size, max(1, round(crop * size / scaled)))
        first = math.floor(u * (size - window + 1))
        return _Span(slice(first, first + window), 0, crop)


def resize_image(image: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize 3×H×W (any real dtype) to 3×h×w float32: bilinear, half-pixel centres, no filter.

    The run-time's ``preprocess`` kernel resizes in the same way.
    """
    return F.interpolate(image[None].float(), size=size, mode="bilinear", align_corners=False)[0]


def resize_labels(label: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize an H×W label map to h×w: the nearest pixel's label."""
    return F.interpolate(label[None, None].float(), size=size, mode="nearest-exact")[0, 0].to(
        torch.uint8
    )


def distort_colours(images: Tensor, generators: Sequence[Generator]) -> Tensor:
    """Change brightness, contrast, saturation and hue of N×3×H×W images in 0..255.

    Each change befalls an image with probability 1/2: brightness ± 32 grey levels, contrast and
    saturation × 0.5..1.5, hue ± 18°. All four are affine in R, G, B, so one matrix and one offset
    per image do them together, without a hue-saturation-value image between.
    """
    numbers = iter(_uniform(8, generators))

    def draw(low: float, high: float, neutral: float) -> Tensor:
        value = low + (high - low) * next(numbers)
        return torch.where(next(numbers) < 0.5, value, neutral)

    brightness = draw(-32, 32, 0)
    contrast = draw(0.5, 1.5, 1)
    saturation = draw(0.5, 1.5, 1)
    hue = draw(-18, 18, 0) * (math.pi / 180)

    matrix = colour_matrix(contrast, saturation, hue).to(images)
    offset = (contrast * brightness)[:, None, None, None].to(images)
    return (torch.einsum("nij,njhw->nihw", matrix, images) + offset).clamp_(0, 255)


def _uniform(count: int, generators: Sequence[Generator]) -> Tensor:
    """``count``×N numbers in 0..1, each column from its own generator."""
    return torch.stack([torch.rand(count, generator=g) for g in generators], dim=1)


def colour_matrix(contrast: Tensor, saturation: Tensor, hue: Tensor) -> Tensor:
    """N×3×3 matrices that change R, G, B.

    Args:
        contrast: N factors of all three channels.
        saturation: N factors of the distance from grey; 0 leaves the luma alone.
        hue: N angles in radians by which colours turn around the grey axis, red towards green.
    """
    luma = torch.tensor([0.299, 0.587, 0.114]).expand(3, 3)
    axis = torch.full((3, 3), 1 / 3)  # projection on the grey axis
    cross = torch.tensor([[0.0, -1, 1], [1, 0, -1], [-1, 1, 0]]) / math.sqrt(3)
    eye = torch.eye(3)
    contrast, saturation, hue = (v[:, None, None] for v in (contrast, saturation, hue))
    turned = axis + hue.cos() * (eye - axis) + hue.sin() * cross
    return contrast * turned @ (luma + saturation * (eye - luma))


def normalise(images: Tensor) -> Tensor:
    """Normalise N×3×H×W RGB images in 0..255 with ImageNet's mean and standard deviation."""
    mean = torch.tensor(IMAGENET_MEAN, device=images.device)[:, None, None]
    std = torch.tensor(IMAGENET_STD, device=images.device)[:, None, None]
    return (images.float() - mean) / std
