import math
from dataclasses import replace

import pytest
import torch
from torch import Generator, Tensor

from edgeseg.data import IMAGENET_MEAN, IMAGENET_STD, Augmentation, normalise
from edgeseg.data.augment import colour_matrix, distort_colours

CPU = torch.device("cpu")
PLAIN = Augmentation(base=(48, 64), crop=(32, 40), scales=(1.0, 1.0), photometric=False)


def generator(seed: int = 0) -> Generator:
    return Generator().manual_seed(seed)


def generators(count: int, seed: int = 0) -> list[Generator]:
    return [generator(seed * 1000 + i) for i in range(count)]


def undo_normalise(images: Tensor) -> Tensor:
    mean, std = (torch.tensor(v)[:, None, None] for v in (IMAGENET_MEAN, IMAGENET_STD))
    return images * std + mean


def chart(height: int, width: int) -> tuple[Tensor, Tensor]:
    """Image whose red is 4·x and green 4·y; label 2·(y ≥ h/2) + (x ≥ w/2)."""
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    image = torch.stack([4 * x, 4 * y, torch.zeros_like(x)]).to(torch.uint8)
    return image, (2 * (y >= height // 2) + (x >= width // 2)).to(torch.uint8)


def test_crop_at_scale_one_is_a_window_of_the_image() -> None:
    image, label = chart(48, 64)
    images, labels = PLAIN([image] * 8, [label] * 8, generators(8), CPU)
    assert images.shape == (8, 3, 32, 40)
    assert images.dtype == torch.float32
    assert labels.dtype == torch.int64
    corners = set()
    for got, got_label in zip(undo_normalise(images), labels, strict=True):
        x = got[0] / 4
        flipped = bool(x[0, 0] > x[0, -1])
        got, got_label = (got.flip(-1), got_label.flip(-1)) if flipped else (got, got_label)
        left, top = round(float(got[0, 0, 0]) / 4), round(float(got[1, 0, 0]) / 4)
        window = image[:, top : top + 32, left : left + 40].float()
        torch.testing.assert_close(got, window, atol=1e-3, rtol=0)
        assert torch.equal(got_label, label[top : top + 32, left : left + 40].long())
        corners.add((left, top, flipped))
    assert len(corners) > 4  # random


@pytest.mark.parametrize("size", [(24, 32), (48, 64), (96, 128)])
def test_scale_is_relative_to_the_base_not_to_the_image(size: tuple[int, int]) -> None:
    # Whatever its own size, at scale 0.5 the image is 24×32 in the 32×40 crop.
    _, label = chart(*size)
    image = torch.full((3, *size), 255, dtype=torch.uint8)
    images, labels = replace(PLAIN, scales=(0.5, 0.5))([image], [label], generators(1, 3), CPU)
    inside = labels[0] != 255
    assert int(inside.sum()) == 24 * 32
    rows, columns = inside.any(1).nonzero(), inside.any(0).nonzero()
    assert (rows.max() - rows.min() + 1, columns.max() - columns.min() + 1) == (24, 32)
    assert (images[0][:, ~inside] == 0).all()
    torch.testing.assert_close(
        undo_normalise(images)[0][:, inside], torch.full((3, 24 * 32), 255.0)
    )


def test_enlarged_image_and_labels_stay_aligned() -> None:
    image, label = chart(48, 64)
    grow = replace(PLAIN, scales=(2.0, 2.0), max_class_share=1.0)
    images, labels = grow([image] * 6, [label] * 6, generators(6), CPU)
    pixels = undo_normalise(images)
    right, lower = pixels[:, 0] / 4 + 0.5 >= 32, pixels[:, 1] / 4 + 0.5 >= 24
    agree = (2 * lower.long() + right.long()) == labels
    assert agree.float().mean() > 0.97


def test_scales_come_in_steps() -> None:
    steps = replace(PLAIN, scales=(0.5, 2.5), scale_step=0.25)
    random = generator()
    drawn = {steps._draw_scale(random) for _ in range(300)}
    assert drawn == {0.5 + 0.25 * i for i in range(9)}
    drawn = {replace(PLAIN, scales=(0.5, 2.0))._draw_scale(random) for _ in range(50)}
    assert len(drawn) == 50
    assert min(drawn) >= 0.5
    assert max(drawn) < 2.0


def test_crops_of_a_single_class_are_avoided() -> None:
    image = torch.zeros(3, 200, 200, dtype=torch.uint8)
    label = torch.zeros(200, 200, dtype=torch.uint8)
    label[:, 150:] = 1
    cut = Augmentation((200, 200), (50, 50), (1.0, 1.0), photometric=False)

    def monotone(augmentation: Augmentation) -> int:
        _, labels = augmentation([image] * 60, [label] * 60, generators(60), CPU)
        shares = torch.stack([(labels == c).float().mean((1, 2)) for c in (0, 1)]).amax(0)
        return int((shares > 0.75).sum())

    assert monotone(replace(cut, max_class_share=1.0)) > 30
    assert monotone(cut) < 20


def test_a_batch_follows_from_its_generators() -> None:
    image, label = chart(48, 64)
    full = replace(PLAIN, scales=(0.5, 2.0), photometric=True)
    first, again, other = (full([image] * 2, [label] * 2, generators(2, s), CPU) for s in (5, 5, 6))
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])
    assert not torch.equal(first[0], other[0])
    # ... and a crop from its own one, whatever the batch.
    alone = full([image], [label], generators(2, 5)[1:], CPU)
    assert torch.equal(alone[0][0], first[0][1])
    assert torch.equal(alone[1][0], first[1][1])


def matrix(contrast: float = 1, saturation: float = 1, hue: float = 0) -> Tensor:
    values = (torch.tensor([v], dtype=torch.float32) for v in (contrast, saturation, hue))
    return colour_matrix(*values)[0]


def test_colour_changes_by_hand() -> None:
    colour = torch.tensor([10.0, 60.0, 200.0])
    close = torch.testing.assert_close
    close(matrix() @ colour, colour)
    close(matrix(contrast=1.5) @ colour, 1.5 * colour)
    luma = 0.299 * 10 + 0.587 * 60 + 0.114 * 200
    close(matrix(saturation=0) @ colour, torch.full((3,), luma))
    close(matrix(hue=2 * math.pi / 3) @ colour, torch.tensor([200.0, 10.0, 60.0]))
    grey = torch.full((3,), 90.0)
    close(matrix(saturation=1.4, hue=0.3) @ grey, grey)


def test_distortion_stays_in_range_and_spares_some_images() -> None:
    images = 255 * torch.rand(64, 3, 4, 4, generator=generator())
    distorted = distort_colours(images, generators(64, 1))
    assert distorted.min() >= 0
    assert distorted.max() <= 255
    same = (distorted - images).abs().amax((1, 2, 3)) < 1e-2
    assert 0 < same.sum() < 16  # 1 in 16 is expected


def test_normalise() -> None:
    image = torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1)
    assert normalise(image).abs().max() < 1e-6
    white = normalise(torch.full((1, 3, 1, 1), 255, dtype=torch.uint8))
    assert white[0, 0].item() == pytest.approx((255 - 123.675) / 58.395)
