import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from edgeseg import losses as losses_module
from edgeseg.losses import (
    Ohem,
    cross_entropy,
    detail_loss,
    detail_target,
    dice_loss,
    segmentation_loss,
)
from edgeseg.models import SegmentationOutput

VOID = 255


def random_labels(*shape: int, classes: int = 5, void: float = 0.2, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, classes, shape, generator=generator)
    labels[torch.rand(shape, generator=generator) < void] = VOID
    return labels


def slow_cross_entropy(logits: Tensor, labels: Tensor, align_corners: bool, ohem: Ohem) -> float:
    """Every pixel on its own, in double precision; the hardest are found by sorting."""
    up = F.interpolate(
        logits.double(), labels.shape[1:], mode="bilinear", align_corners=align_corners
    ).numpy()
    losses = []
    for n, y, x in np.ndindex(*labels.shape):
        label = int(labels[n, y, x])
        if label != VOID:
            scores = up[n, :, y, x]
            losses.append(np.log(np.exp(scores).sum()) - scores[label])
    if ohem == "reference":
        return sum(losses) / labels.numel()
    losses.sort(reverse=True)
    least = labels.numel() // 16
    hard = [loss for loss in losses if loss > -math.log(0.7)]
    kept = hard if len(hard) >= least else losses[:least]
    return sum(kept) / len(kept)


@pytest.mark.parametrize("align_corners", [True, False])
@pytest.mark.parametrize("ohem", ["stdc", "reference"])
@pytest.mark.parametrize("sharpness", [1.0, 40.0], ids=["many hard pixels", "few hard pixels"])
def test_cross_entropy_equals_its_slow_twin(
    align_corners: bool, ohem: Ohem, sharpness: float
) -> None:
    logits = torch.randn(2, 5, 3, 4, generator=torch.Generator().manual_seed(1))
    labels = random_labels(2, 24, 32)
    if sharpness > 1:  # right nearly everywhere
        up = F.interpolate(logits, (24, 32), mode="bilinear", align_corners=align_corners)
        labels = torch.where(labels == VOID, VOID, up.argmax(1))
    logits *= sharpness
    loss = cross_entropy(logits, labels, align_corners=align_corners, ohem=ohem)
    assert loss.item() == pytest.approx(
        slow_cross_entropy(logits, labels, align_corners, ohem), rel=1e-4
    )


def plain_cross_entropy(
    logits: Tensor, labels: Tensor, align_corners: bool, ohem: Ohem, weights: Tensor | None
) -> Tensor:
    """The same by whole upsampled logits and autograd."""
    up = F.interpolate(logits, labels.shape[1:], mode="bilinear", align_corners=align_corners)
    losses = F.cross_entropy(up, labels, ignore_index=VOID, reduction="none").flatten()
    known = labels.flatten() != VOID
    shares = torch.zeros_like(losses)
    classes = labels.flatten()[known]
    shares[known] = 1.0 if weights is None else weights.to(losses)[classes]
    if ohem == "reference":
        return (losses * shares).mean()
    hard = losses > -math.log(0.7)
    least = min(losses.numel() // 16, int(known.sum()))
    if hard.sum() < least:
        hardest = losses.masked_fill(~known, -1).topk(least).indices
        hard = torch.zeros_like(hard).index_fill_(0, hardest, True)
    return (losses * shares * hard).sum() / (shares * hard).sum().clamp(min=1e-12)


def right_nearly_everywhere(logits: Tensor, labels: Tensor, align_corners: bool) -> Tensor:
    size = labels.shape[1:]
    up = F.interpolate(logits, size, mode="bilinear", align_corners=align_corners)
    return torch.where(labels == VOID, VOID, up.argmax(1))


@pytest.fixture(params=[1, 500, 2**18], ids=["band of a row", "band of rows", "band of images"])
def band(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """How many upsampled scores exist at a time."""
    monkeypatch.setattr(losses_module, "_CPU_BAND", request.param)


@pytest.mark.usefixtures("band")
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("ohem", ["stdc", "reference"])
@pytest.mark.parametrize("align_corners", [True, False])
@pytest.mark.parametrize(
    "case", ["random", "few hard", "one class", "extreme", "one labelled", "smaller"]
)
def test_value_and_gradient_equal_autograd(
    case: str, align_corners: bool, ohem: Ohem, weighted: bool
) -> None:
    classes = 1 if case == "one class" else 5
    generator = torch.Generator().manual_seed(2)
    logits = torch.randn(3, classes, 4, 7, generator=generator, dtype=torch.float64)
    labels = random_labels(3, 29, 37, classes=classes)
    if case == "few hard":
        logits *= 40
        labels = right_nearly_everywhere(logits, labels, align_corners)
    elif case == "extreme":
        logits = logits.sign() * 1e4
    elif case == "one labelled":
        labels = torch.where(torch.arange(3 * 29 * 37).view(3, 29, 37) == 1000, 2, VOID)
    elif case == "smaller":  # than the logits
        labels = labels[:, :3, :2]
    weights = torch.rand(classes, generator=generator) if weighted else None

    plain = logits.clone().requires_grad_()
    expected = plain_cross_entropy(plain, labels, align_corners, ohem, weights)
    (expected_gradient,) = torch.autograd.grad(3 * expected, plain)

    ours = logits.clone().requires_grad_()
    loss = cross_entropy(ours, labels, align_corners=align_corners, ohem=ohem, weights=weights)
    (gradient,) = torch.autograd.grad(3 * loss, ours)
    torch.testing.assert_close(loss, expected, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(gradient, expected_gradient, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("ohem", ["stdc", "reference"])
@pytest.mark.parametrize("sharpness", [1.0, 20.0], ids=["many hard pixels", "few hard pixels"])
def test_gradient_equals_finite_differences(ohem: Ohem, sharpness: float) -> None:
    generator = torch.Generator().manual_seed(3)
    logits = torch.randn(2, 3, 2, 3, generator=generator, dtype=torch.float64)
    labels = random_labels(2, 9, 11, classes=3)
    if sharpness > 1:
        labels = right_nearly_everywhere(logits, labels, align_corners=True)
    assert torch.autograd.gradcheck(
        lambda x: cross_entropy(x, labels, align_corners=True, ohem=ohem, weights=None),
        (logits * sharpness).requires_grad_(),
    )


def test_extreme_float32_logits_stay_finite() -> None:
    labels = random_labels(2, 16, 16)
    logits = 1e4 * torch.randn(2, 5, 4, 4).sign()
    logits.requires_grad_()
    loss = cross_entropy(logits, labels, align_corners=True)
    loss.backward()
    assert loss.isfinite()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


def test_a_broken_logit_breaks_the_loss() -> None:
    logits = torch.zeros(1, 2, 4, 4)
    logits[0, 0, 1, 1] = math.nan
    for ohem in ("stdc", "reference"):
        labels = torch.zeros(1, 16, 16, dtype=torch.long)
        assert cross_entropy(logits, labels, align_corners=True, ohem=ohem).isnan()


def test_labels_beyond_the_classes_are_refused() -> None:
    labels = torch.full((1, 8, 8), 2)
    with pytest.raises((IndexError, RuntimeError)):
        cross_entropy(torch.zeros(1, 2, 2, 2), labels, align_corners=True)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_gradient_comes_back_in_the_logits_precision(memory_format: torch.memory_format) -> None:
    labels = random_labels(2, 32, 48)
    logits = torch.randn(2, 5, 4, 6).to(torch.bfloat16, memory_format=memory_format)
    gradients = []
    for _ in range(2):
        leaf = logits.clone().requires_grad_()
        with torch.autocast("cpu", torch.bfloat16):
            loss = cross_entropy(leaf, labels, align_corners=True)
        loss.backward()
        assert leaf.grad is not None
        assert leaf.grad.dtype == torch.bfloat16
        gradients.append(leaf.grad)
    assert torch.equal(*gradients)

    exact = logits.double().requires_grad_()
    plain_cross_entropy(exact, labels, True, "stdc", None).backward()
    assert exact.grad is not None
    torch.testing.assert_close(gradients[0].double(), exact.grad, rtol=2**-8, atol=1e-7)


def test_no_gradient_is_computed_where_none_is_asked_for() -> None:
    logits, labels = torch.randn(2, 5, 4, 4), random_labels(2, 32, 32)
    alone = cross_entropy(logits, labels, align_corners=True)
    assert not alone.requires_grad
    assert alone == cross_entropy(logits.requires_grad_(), labels, align_corners=True)


def test_fewer_labelled_pixels_than_the_minimum() -> None:
    labels = torch.full((1, 16, 16), VOID)
    labels[0, 0, :3] = 1  # 3 pixels, the minimum is 16
    logits = torch.tensor([0.0, 2.0]).view(1, 2, 1, 1)
    loss = cross_entropy(logits, labels, align_corners=False)
    assert loss.item() == pytest.approx(math.log1p(math.exp(-2)), rel=1e-4)


def test_half_precision_logits_are_scored_in_float32() -> None:
    logits = torch.full((1, 2, 1, 1), 0.0, dtype=torch.bfloat16)
    loss = cross_entropy(logits, torch.zeros(1, 8, 8, dtype=torch.long), align_corners=True)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(math.log(2), rel=1e-6)


def slow_detail_target(labels: np.ndarray) -> np.ndarray:
    height, width = labels.shape

    def edges(stride: int) -> np.ndarray:
        out = np.zeros((-(-height // stride), -(-width // stride)))
        for i, j in np.ndindex(*out.shape):
            y, x = i * stride, j * stride
            own, total = int(labels[y, x]), 0
            for dy, dx in np.ndindex(3, 3):
                v, u = y + dy - 1, x + dx - 1
                inside = 0 <= v < height and 0 <= u < width
                other = int(labels[v, u]) if inside else 0
                total += own - (own if other == VOID else other)
            out[i, j] = own != VOID and total > 0.1
        return out

    fused = np.zeros((height, width), np.float32)
    for stride, weight in ((1, 0.6), (2, 0.3), (4, 0.1)):
        coarse = edges(stride)
        for y, x in np.ndindex(height, width):
            i, j = y * coarse.shape[0] // height, x * coarse.shape[1] // width
            fused[y, x] += np.float32(weight * coarse[i, j])
    return (fused > np.float32(0.1)) & (labels != VOID)


@pytest.mark.parametrize("shape", [(16, 24), (13, 19), (4, 4), (1, 7)])
@pytest.mark.parametrize("void", [0.0, 0.3])
def test_detail_target_equals_its_slow_twin(shape: tuple[int, int], void: float) -> None:
    labels = random_labels(1, *shape, classes=19, void=void, seed=shape[0])
    labels[:, shape[0] // 2 :] = labels[:, :1, :1]  # half noise, half flat
    expected = slow_detail_target(labels[0].numpy())
    np.testing.assert_array_equal(detail_target(labels)[0].numpy(), expected)


def test_detail_target_by_hand() -> None:
    # One pixel of class 1 at an odd place: stride 1 sees it, strides 2 and 4 do not.
    labels = torch.zeros(1, 8, 8, dtype=torch.long)
    labels[0, 3, 5] = 1
    assert detail_target(labels)[0].nonzero().tolist() == [[3, 5]]


def test_stride_four_alone_makes_no_edge() -> None:
    # Only the border, beyond which class 0 lies, is an edge. Brought to full size, stride 1 marks
    # row 0, stride 2 rows 0 and 1, stride 4 rows 0 to 3.
    target = detail_target(torch.ones(1, 16, 16, dtype=torch.long))[0]
    assert target[:2].all()
    assert not target[2:4, 2:14].any()


def test_void_makes_no_edges() -> None:
    labels = torch.full((1, 16, 16), 3)
    flat = detail_target(labels)[0]
    labels[0, 5:9, 6:11] = VOID
    holed = detail_target(labels)[0]
    assert holed[labels[0] == VOID].sum() == 0
    assert torch.equal(holed[labels[0] != VOID], flat[labels[0] != VOID])


def test_dice_forms_by_hand() -> None:
    p, t = torch.tensor([[0.5, 1.0]]), torch.tensor([[1.0, 1.0]])
    assert dice_loss(p, t, form="squared").item() == pytest.approx(1 - 4 / (1.25 + 2 + 1))
    assert dice_loss(p, t, form="linear").item() == pytest.approx(1 - 4 / (1.5 + 2 + 1))


def test_dice_is_a_mean_over_images() -> None:
    p, t = torch.rand(3, 4, 4), torch.rand(3, 4, 4).round()
    each = [dice_loss(p[i : i + 1], t[i : i + 1]).item() for i in range(3)]
    assert dice_loss(p, t).item() == pytest.approx(np.mean(each))


def test_detail_loss_ignores_void() -> None:
    labels = random_labels(2, 16, 16, void=0.3)
    detail = torch.zeros(2, 1, 16, 16)
    wrong_at_void = torch.where((labels == VOID)[:, None], 50.0, detail)
    assert detail_loss(detail, labels).item() == detail_loss(wrong_at_void, labels).item()


def output_of(leaves: list[Tensor], score: Tensor | None) -> SegmentationOutput:
    head, aux8, aux16, detail = leaves
    return SegmentationOutput(head, (aux8, aux16), score, detail)


def leaves() -> list[Tensor]:
    shapes = [(2, 5, 4, 4), (2, 5, 4, 4), (2, 5, 2, 2), (2, 1, 4, 4)]
    return [torch.randn(shape, requires_grad=True) for shape in shapes]


@pytest.mark.parametrize("ohem", ["stdc", "reference"])
def test_all_void_batch_gives_zero_loss_and_gradient(ohem: Ohem) -> None:
    tensors = [*leaves(), torch.randn(2, 5, 1, 1, requires_grad=True)]
    labels = torch.full((2, 32, 32), VOID)
    losses = segmentation_loss(
        output_of(tensors[:4], tensors[4]), labels, align_corners=True, ohem=ohem
    )
    losses.total.backward()
    assert losses.total.item() == 0
    for tensor in tensors:
        assert tensor.grad is not None
        assert tensor.grad.abs().max() == 0


def test_terms_are_what_the_design_says() -> None:
    tensors, labels = leaves(), random_labels(2, 32, 32)
    score = torch.rand(2, 5, 1, 1)
    losses = segmentation_loss(output_of(tensors, score), labels, align_corners=True)

    def ce(logits: Tensor) -> float:
        return cross_entropy(logits, labels, align_corners=True).item()

    assert losses.head.item() == ce(tensors[0])
    assert losses.auxiliary.item() == pytest.approx(ce(tensors[1]) + ce(tensors[2]))
    assert losses.score.item() == pytest.approx(ce(score / 0.07))
    assert losses.total.item() == pytest.approx(
        sum(v.item() for v in (losses.head, losses.auxiliary, losses.score, losses.detail))
    )


def test_baseline_has_no_score_loss() -> None:
    losses = segmentation_loss(
        output_of(leaves(), None), random_labels(2, 32, 32), align_corners=True
    )
    assert losses.score.item() == 0


def test_temperature_is_learned() -> None:
    labels = random_labels(2, 32, 32)
    score = F.normalize(torch.randn(2, 5, 2, 2), dim=1)
    temperature = torch.tensor(0.1, requires_grad=True)

    def score_loss(temperature: float | Tensor) -> Tensor:
        return segmentation_loss(
            output_of(leaves(), score),
            labels,
            align_corners=True,
            ohem="reference",  # "stdc" jumps where a pixel becomes hard
            temperature=temperature,
        ).score

    loss = score_loss(temperature)
    (gradient,) = torch.autograd.grad(loss, temperature)
    step = 1e-3
    slope = (score_loss(0.1 + step).item() - score_loss(0.1 - step).item()) / (2 * step)
    assert gradient.item() == pytest.approx(slope, rel=0.01)
    assert loss.item() == pytest.approx(
        cross_entropy(score / 0.1, labels, align_corners=True, ohem="reference").item(), rel=1e-5
    )
