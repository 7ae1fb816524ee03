import pytest
import torch

from edgeseg.classes import ClassTable
from edgeseg.data import Augmentation, Batches, LabelledImages
from edgeseg.errors import InputError

CPU = torch.device("cpu")
TABLE = ClassTable(("a", "b"), ((0, 0, 0), (1, 1, 1)))
AUGMENTATION = Augmentation((8, 8), (8, 8), (1.0, 1.0), photometric=False)


def numbered(count: int) -> LabelledImages:
    """Images that are told apart by their grey level."""
    return LabelledImages(
        TABLE,
        tuple(str(i) for i in range(count)),
        tuple(torch.full((3, 8, 8), 10 * i, dtype=torch.uint8) for i in range(count)),
        tuple(torch.zeros(8, 8, dtype=torch.uint8) for _ in range(count)),
    )


def seen(batches: Batches, iterations: range) -> list[int]:
    """Numbers of the images in these batches."""
    red = torch.cat([batches[i][0][:, 0, 0, 0] for i in iterations])
    return [round(float(v * 58.395 + 123.675) / 10) for v in red]


def test_every_image_comes_once_an_epoch_in_a_new_order() -> None:
    batches = Batches(numbered(9), AUGMENTATION, batch_size=3, seed=0, device=CPU)
    epochs = [seen(batches, range(3 * e, 3 * e + 3)) for e in range(3)]
    assert all(sorted(epoch) == list(range(9)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]


def test_batches_cross_epochs() -> None:
    batches = Batches(numbered(5), AUGMENTATION, batch_size=3, seed=0, device=CPU)
    order = seen(batches, range(5))
    assert len(order) == 15
    assert all(sorted(order[i : i + 5]) == list(range(5)) for i in (0, 5, 10))


def test_a_batch_depends_on_seed_and_iteration_only() -> None:
    first = Batches(numbered(9), AUGMENTATION, batch_size=3, seed=1, device=CPU)
    again = Batches(numbered(9), AUGMENTATION, batch_size=3, seed=1, device=CPU)
    other = Batches(numbered(9), AUGMENTATION, batch_size=3, seed=2, device=CPU)
    seen(first, range(4))  # looking does not change what comes
    assert seen(first, range(4, 8)) == seen(again, range(4, 8))
    assert seen(first, range(4, 8)) != seen(other, range(4, 8))


def test_processes_share_what_one_would_see() -> None:
    def batches(rank: int, processes: int) -> Batches:
        random = Augmentation((16, 16), (8, 8), (0.5, 2.0))
        return Batches(numbered(9), random, 6, seed=3, device=CPU, rank=rank, processes=processes)

    for iteration in range(4):
        whole = batches(0, 1)[iteration]
        shares = [batches(rank, 3)[iteration] for rank in range(3)]
        for part in (0, 1):
            assert torch.equal(torch.cat([share[part] for share in shares]), whole[part])


def test_an_empty_set_gives_no_batch() -> None:
    with pytest.raises(InputError, match="without images"):
        Batches(numbered(0), AUGMENTATION, batch_size=2, seed=0, device=CPU)
