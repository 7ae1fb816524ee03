import itertools
import json
import math
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from edgeseg.classes import IGNORE, ClassTable
from edgeseg.data import LabelledImages
from edgeseg.errors import InputError, OutputError
from edgeseg.evaluate import (
    Scores,
    Views,
    Window,
    boundary_f,
    confusion_matrix,
    evaluate_network,
    evaluate_runtime,
)
from edgeseg.evaluate.picture import write_confusion
from edgeseg.evaluate.views import predict_labels
from edgeseg.runtime import Runtime

NAMES = ("a", "b", "c")


def ids(*values: int) -> np.ndarray:
    return np.array(values, np.uint8)


def test_confusion_by_hand() -> None:
    matrix = confusion_matrix(ids(0, 0, 1, 2, 2), ids(0, 1, 1, 255, 0), 3)
    assert matrix.tolist() == [[1, 0, 1], [1, 1, 0], [0, 0, 0]]
    assert matrix.dtype == np.int64


def test_scores_by_hand() -> None:
    scores = Scores(NAMES, np.array([[3, 1, 0], [0, 4, 0], [0, 0, 0]], np.int64))
    assert scores.iou[:2].tolist() == [3 / 4, 4 / 5]
    assert np.isnan(scores.iou[2])  # neither labelled nor predicted: not part of the mean
    assert scores.miou == pytest.approx((3 / 4 + 4 / 5) / 2)
    assert scores.pixel_accuracy == 7 / 8


def test_accuracies_and_weighted_iou_by_hand() -> None:
    # "b" is never labelled but predicted once; "c" does not occur.
    scores = Scores(NAMES, np.array([[3, 1, 0], [0, 0, 0], [0, 0, 0]], np.int64))
    assert scores.class_accuracy[0] == 3 / 4
    assert np.isnan(scores.class_accuracy[1:]).all()
    assert scores.mean_class_accuracy == 3 / 4
    assert scores.frequency_weighted_iou == 3 / 4
    scores = Scores(NAMES, np.array([[3, 1, 0], [0, 4, 0], [2, 0, 0]], np.int64))
    assert scores.class_accuracy.tolist() == [3 / 4, 1, 0]
    assert scores.frequency_weighted_iou == pytest.approx((4 * 3 / 6 + 4 * 4 / 5 + 2 * 0) / 10)


def test_categories_by_hand() -> None:
    # Confusing "a" with "c" is no error of their category.
    confusion = np.array([[5, 1, 2], [3, 7, 0], [4, 0, 6]], np.int64)
    groups = Scores(NAMES, confusion, ("thing", "stuff", "thing")).by_category()
    assert groups is not None
    assert groups.classes == ("thing", "stuff")
    assert groups.confusion.tolist() == [[5 + 2 + 4 + 6, 1], [3, 7]]
    assert groups.iou.tolist() == [17 / 21, 7 / 11]
    assert Scores(NAMES, confusion).by_category() is None


def test_boundary_means_leave_out_images_without_the_class() -> None:
    nan = math.nan
    boundary = np.array([[1.0, nan, nan], [0.5, nan, 0.2]])
    scores = Scores(NAMES, np.eye(3, dtype=np.int64), boundary=boundary)
    assert scores.boundary_f is not None
    np.testing.assert_array_equal(scores.boundary_f, [0.75, nan, 0.2])
    assert scores.mean_boundary_f == pytest.approx((0.75 + 0.2) / 2)


def test_summary_is_json_without_nan() -> None:
    confusion = np.array([[3, 1, 0], [0, 4, 0], [0, 0, 0]], np.int64)
    summary = json.loads(json.dumps(Scores(NAMES, confusion).summary(), allow_nan=False))
    assert summary["iou"] == {"a": 3 / 4, "b": 4 / 5, "c": None}
    assert summary["confusion"] == confusion.tolist()
    assert summary["category_iou"] is None
    assert summary["boundary_f"] is None
    empty = Scores(NAMES, np.zeros((3, 3), np.int64), boundary=np.empty((0, 3))).summary()
    assert empty["miou"] is empty["mean_boundary_f"] is empty["frequency_weighted_iou"] is None


def test_class_predicted_but_never_labelled_counts_as_zero() -> None:
    scores = Scores(NAMES, confusion_matrix(ids(0, 2), ids(0, 0), 3))
    assert scores.iou[2] == 0
    assert scores.miou == pytest.approx(0.25)


def test_nothing_labelled_gives_nan() -> None:
    scores = Scores(NAMES, confusion_matrix(ids(0, 1), ids(255, 255), 3))
    assert np.isnan(scores.miou)
    assert np.isnan(scores.pixel_accuracy)


def test_torchmetrics_agrees() -> None:
    from torchmetrics.functional.segmentation import mean_iou

    random = np.random.default_rng(0)
    predictions, labels = (random.integers(0, 3, (1, 40, 50), dtype=np.uint8) for _ in range(2))
    ours = Scores(NAMES, confusion_matrix(predictions, labels, 3)).miou
    theirs = mean_iou(
        *(torch.from_numpy(a).long() for a in (predictions, labels)), 3, input_format="index"
    )
    assert ours == pytest.approx(float(theirs))


def test_bad_inputs_are_refused() -> None:
    with pytest.raises(InputError, match="compare at the labels' size"):
        confusion_matrix(ids(0), ids(0, 1), 3)
    with pytest.raises(InputError, match="label 3"):
        confusion_matrix(ids(0), ids(3), 3)
    with pytest.raises(InputError, match="prediction 255"):
        confusion_matrix(ids(255), ids(0), 3)


# ---------------------------------------------------------------------------------- boundary F


def slow_boundary_f(
    predictions: np.ndarray, labels: np.ndarray, class_id: int, tolerance: float
) -> float:
    """The definition, pixel by pixel."""
    height, width = labels.shape
    radius = tolerance * math.sqrt(height**2 + width**2)
    pixels = list(itertools.product(range(height), range(width)))

    def beside(y: int, x: int) -> list[tuple[int, int]]:
        four = [(y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)]
        return [n for n in four if 0 <= n[0] < height and 0 <= n[1] < width]

    def boundary(ids: np.ndarray) -> list[tuple[int, int]]:
        own = [p for p in pixels if ids[p] == class_id]
        return [p for p in own if any(ids[n] not in (class_id, IGNORE) for n in beside(*p))]

    def near(pixel: tuple[int, int], others: list[tuple[int, int]]) -> bool:
        return any(math.dist(pixel, other) < radius for other in others)

    unknown = [p for p in pixels if any(labels[n] == IGNORE for n in [p, *beside(*p)])]
    predicted, labelled = boundary(predictions), boundary(labels)
    counted_predicted = [p for p in predicted if not near(p, unknown)]
    counted_labelled = [p for p in labelled if not near(p, unknown)]
    if not counted_predicted and not counted_labelled:
        return math.nan
    precision, recall = (
        sum(near(p, others) for p in counted) / len(counted) if counted else 1.0
        for counted, others in ((counted_predicted, labelled), (counted_labelled, predicted))
    )
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


@pytest.mark.parametrize("seed", range(25))
def test_boundary_f_equals_its_slow_twin(seed: int) -> None:
    random = np.random.default_rng(seed)
    height, width = random.integers(1, 15, 2)
    tolerance = random.choice([0.0075, 0.06, 0.11, 0.2, 0.3])

    def blobs() -> np.ndarray:
        coarse = random.integers(0, 3, (4, 4), dtype=np.uint8)
        return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_NEAREST)

    labels, predictions = blobs(), blobs()
    predictions = np.where(random.random(labels.shape) < 0.7, labels, predictions)
    for _ in range(seed % 3):
        y, x = random.integers(0, (height, width))
        labels[y : y + 2, x : x + 3] = IGNORE
    expected = [slow_boundary_f(predictions, labels, k, tolerance) for k in range(4)]
    np.testing.assert_allclose(boundary_f(predictions, labels, 4, tolerance), expected)


def halves(column: int, height: int = 30, width: int = 40) -> np.ndarray:
    """Class 0 left of a column, class 1 from there on."""
    labels = np.zeros((height, width), np.uint8)
    labels[:, column:] = 1
    return labels


def test_boundary_f_tolerates_what_is_near() -> None:
    # The diagonal is 50 pixels long: 0.05 of it is 2.5.
    assert boundary_f(halves(20), halves(20), 2).tolist() == [1, 1]
    assert boundary_f(halves(22), halves(20), 2, 0.05).tolist() == [1, 1]
    assert boundary_f(halves(23), halves(20), 2, 0.05).tolist() == [0, 0]
    assert boundary_f(halves(22), halves(20), 2, 0.04).tolist() == [0, 0]  # 2 is not below 2


def test_boundary_f_where_there_is_no_boundary() -> None:
    plain = np.zeros((30, 40), np.uint8)
    assert np.isnan(boundary_f(plain, plain, 2)).all()
    assert np.isnan(boundary_f(plain + 1, plain, 2)).all()  # all wrong, yet without an outline
    assert boundary_f(halves(20), plain, 2).tolist() == [0, 0]
    assert boundary_f(plain, halves(20), 2).tolist() == [0, 0]
    one = np.zeros((1, 1), np.uint8)
    assert np.isnan(boundary_f(one, one, 2)).all()
    assert np.isnan(boundary_f(one, one + 255, 2)).all()


def test_void_hides_boundaries() -> None:
    labels = halves(20)
    labels[:, 17:23] = IGNORE  # the outline lies in it
    assert np.isnan(boundary_f(halves(20), labels, 2, 0.05)).all()
    assert np.isnan(boundary_f(halves(25), labels, 2, 0.05)).all()  # it may reach that far
    assert boundary_f(halves(26), labels, 2, 0.05)[1] == 0  # not so far
    labels = halves(20)
    labels[:15] = IGNORE  # the outline leaves it
    predictions = np.where(np.arange(30)[:, None] < 15, halves(5), halves(20))
    assert boundary_f(predictions, labels, 2, 0.05).tolist() == [1, 1]


def test_boundary_f_is_fast() -> None:
    coarse = np.random.default_rng(0).integers(0, 11, (24, 32), dtype=np.uint8)
    labels = cv2.resize(coarse, (480, 360), interpolation=cv2.INTER_NEAREST)
    times = []
    for _ in range(5):
        started = time.perf_counter()
        boundary_f(np.roll(labels, 2), labels, 11)
        times.append(time.perf_counter() - started)
    assert min(times) < 0.05  # some 5 ms; a busy machine gets its share


def test_boundary_f_refuses_other_shapes() -> None:
    with pytest.raises(InputError, match="compare at the labels' size"):
        boundary_f(halves(3), halves(3).T, 2)


# ------------------------------------------------------------------------------------ networks


class BrightestChannel(nn.Module):
    """Logits are the channels, at stride 8."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(()))
        self.sizes: list[torch.Size] = []

    def forward(self, images: Tensor) -> Tensor:
        assert not self.training
        self.sizes.append(images.shape)
        return self.gain * nn.functional.avg_pool2d(images, 8)


def test_network_is_scored_at_the_labels_size() -> None:
    # Left half red, right half blue, of two sizes; the network sees both at 32×64.
    images, labels = [], []
    for height, width in ((32, 64), (48, 96)):
        image = torch.zeros(3, height, width, dtype=torch.uint8)
        image[0, :, : width // 2] = 255
        image[2, :, width // 2 :] = 255
        label = torch.zeros(height, width, dtype=torch.uint8)
        label[:, width // 2 :] = 2
        label[0] = 255
        images.append(image)
        labels.append(label)
    table = ClassTable(NAMES, ((0, 0, 0),) * 3)
    data = LabelledImages(table, ("x", "y"), tuple(images), tuple(labels))
    network = BrightestChannel().train()
    scores = evaluate_network(network, data, (32, 64), align_corners=False)
    assert network.training
    assert [tuple(s) for s in network.sizes] == [(1, 3, 32, 64)] * 2
    assert scores.confusion.sum() == 31 * 64 + 47 * 96
    assert scores.confusion[1].sum() == 0
    assert scores.pixel_accuracy == 1


def test_runtime_is_scored_from_frame_to_labels(tiny_engine: Path) -> None:
    table = ClassTable(("red", "green", "blue"), ((255, 0, 0), (0, 255, 0), (0, 0, 255)))
    image = torch.zeros(3, 40, 60, dtype=torch.uint8)
    image[0] = 200
    labels = torch.zeros(40, 60, dtype=torch.uint8)
    labels[:10], labels[10:20] = 2, 255
    scores = evaluate_runtime(
        Runtime(tiny_engine), LabelledImages(table, ("one",), (image,), (labels,))
    )
    assert scores.confusion.tolist() == [[1200, 0, 0], [0, 0, 0], [600, 0, 0]]
    other = LabelledImages(ClassTable(NAMES, table.palette), (), (), ())
    with pytest.raises(InputError, match="the engine knows"):
        evaluate_runtime(Runtime(tiny_engine), other)


def test_bad_sizes_are_refused() -> None:
    data = LabelledImages(ClassTable(NAMES, ((0, 0, 0),) * 3), (), (), ())
    with pytest.raises(InputError, match="height is 0"):
        evaluate_network(BrightestChannel(), data, (0, 64), align_corners=False)


def test_progress_and_boundaries_come_with_the_scores() -> None:
    image = torch.zeros(3, 32, 64, dtype=torch.uint8)
    image[0, :, :32], image[2, :, 32:] = 255, 255
    labels = torch.zeros(32, 64, dtype=torch.uint8)
    labels[:, 32:] = 2
    table = ClassTable(NAMES, ((0, 0, 0),) * 3, ("x", "x", "y"))
    data = LabelledImages(table, ("1", "2"), (image,) * 2, (labels,) * 2)
    seen = []
    scores = evaluate_network(
        BrightestChannel(),
        data,
        (32, 64),
        align_corners=False,
        boundary=True,
        on_image=lambda *progress: seen.append(progress),
    )
    assert seen == [(1, 2), (2, 2)]
    assert scores.categories == table.categories
    assert scores.boundary is not None
    np.testing.assert_array_equal(scores.boundary, [[1, math.nan, 1]] * 2)


# --------------------------------------------------------------------------------------- views


class Answers(nn.Module):
    """Logits at the input's size from a function of how often it was asked and what it sees."""

    def __init__(self, answer: Callable[[int, Tensor], Tensor]) -> None:
        super().__init__()
        self.answer = answer
        self.seen: list[tuple[int, ...]] = []

    def forward(self, images: Tensor) -> Tensor:
        self.seen.append(tuple(images.shape[2:]))
        return self.answer(len(self.seen) - 1, images)


def constant(values: list[list[float]]) -> Answers:
    """The same K logits at every pixel, those of call i from row i."""
    return Answers(
        lambda call, images: torch.tensor(values[call])[None, :, None, None].expand(
            1, -1, *images.shape[2:]
        )
    )


def look(network: nn.Module, image: Tensor, views: Views, **changes: object) -> list[list[int]]:
    options = {"size": tuple(image.shape[1:]), "align_corners": False} | changes
    ids: list[list[int]] = predict_labels(network, image, views=views, **options).tolist()
    return ids


def noise(height: int, width: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (3, height, width), generator=generator, dtype=torch.uint8)


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize(
    "views", [Views(Window((48, 64), (48, 64))), Views(Window((99, 99), (1, 1))), Views(None, (1,))]
)
def test_a_window_that_covers_the_image_sees_the_whole(views: Views, align_corners: bool) -> None:
    network, image = BrightestChannel().eval(), noise(60, 70)
    options = {"size": (48, 64), "align_corners": align_corners}
    assert look(network, image, views, **options) == look(network, image, Views(), **options)
    assert [tuple(shape) for shape in network.sizes] == [(1, 3, 48, 64)] * 2


def test_windows_cover_everything_and_end_flush() -> None:
    network, image = Answers(lambda _, images: images), noise(7, 10)
    sliding = Views(Window((4, 20), (3, 5)))  # wider than the image: cut to it
    assert look(network, image, sliding) == look(network, image, Views())
    assert network.seen == [(4, 10), (4, 10), (7, 10)]
    network.seen.clear()
    look(network, image, Views(Window((4, 4), (4, 3)), scales=(1, 2)))
    assert network.seen == [(4, 4)] * (2 * 3 + 4 * 7)


def test_logits_of_windows_are_averaged_at_overlaps() -> None:
    # Columns 0..3 and 2..5; where both look, 3 + 0 beats 0 + 1.
    network = constant([[0, 1], [3, 0]])
    assert look(network, noise(4, 6), Views(Window((4, 4), (4, 2)))) == [[1, 1, 0, 0, 0, 0]] * 4


def test_probabilities_of_scales_are_averaged_not_logits() -> None:
    values = [[10.0, 0.0], [0.0, 2.0], [0.0, 2.0]]
    network = constant(values)
    assert look(network, noise(4, 6), Views(scales=(0.5, 1, 1.5))) == [[1] * 6] * 4
    assert network.seen == [(2, 3), (4, 6), (6, 9)]


def test_flip_of_a_symmetric_network_changes_nothing() -> None:
    network, image = BrightestChannel().eval(), noise(48, 64)
    assert look(network, image, Views(flip=True)) == look(network, image, Views())


def test_flip_makes_any_network_symmetric() -> None:
    def left_is_brighter(_: int, images: Tensor) -> Tensor:
        return images + torch.linspace(2, 0, images.shape[-1]) * torch.tensor([1, 0, 0]).reshape(
            3, 1, 1
        )

    image = noise(8, 12)
    views = Views(flip=True)
    plain = np.array(look(Answers(left_is_brighter), image, views))
    mirrored = np.array(look(Answers(left_is_brighter), image.flip(-1), views))
    assert (plain == mirrored[:, ::-1]).all()
    unflipped = np.array(look(Answers(left_is_brighter), image.flip(-1), Views()))
    assert (np.array(look(Answers(left_is_brighter), image, Views())) != unflipped[:, ::-1]).any()


def test_bad_views_are_refused() -> None:
    with pytest.raises(InputError, match="leaves pixels out"):
        Window((8, 8), (4, 9))
    with pytest.raises(InputError, match="stride is 0"):
        Window((8, 8), (0, 4))
    for scales in ((), (0.0,), (1, math.nan), (-1,)):
        with pytest.raises(InputError, match="scale"):
            Views(scales=scales)


# ------------------------------------------------------------------------------------- picture


def test_the_picture_of_a_confusion_matrix(tmp_path: Path) -> None:
    confusion = np.array([[900, 100, 0], [0, 50, 50], [0, 0, 0]], np.int64)
    path = tmp_path / "confusion.png"
    write_confusion(path, Scores(NAMES, confusion))
    picture = cv2.imread(str(path))
    assert min(picture.shape[:2]) > 400
    write_confusion(tmp_path / "confusion.svg", Scores(("été", "<b>", "$x"), confusion))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["confusion.png", "confusion.svg"]
    with pytest.raises(OutputError, match=r"\.png, \.pdf or \.svg"):
        write_confusion(tmp_path / "confusion.txt", Scores(NAMES, confusion))
    with pytest.raises(OutputError, match="does not exist"):
        write_confusion(tmp_path / "nowhere" / "confusion.png", Scores(NAMES, confusion))
