"""The order in which a run sees its images."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from edgeseg.data.augment import Augmentation
from edgeseg.data.dataset import LabelledImages
from edgeseg.errors import InputError


@dataclass(frozen=True)
class Batches:
    """Batches as a function of the iteration: nothing to save, nothing to restore.

    Images come in a new random order each epoch. Everything random about a crop follows from
    ``seed`` and its number, counted from the run's first: a resumed run sees what an uninterrupted
    one would have seen, and several processes together what one would have.

    Attributes:
        data: Training images.
        augmentation: How crops are made.
        batch_size: Crops per iteration, of all processes together.
        seed: Of order and augmentation.
        device: Where batches are made.
        rank: This process's number; it gets its share of each batch.
        processes: How many there are; they divide ``batch_size``.

    Raises:
        InputError: There are no images.
    """

    data: LabelledImages
    augmentation: Augmentation
    batch_size: int
    seed: int
    device: torch.device
    rank: int = 0
    processes: int = 1

    def __post_init__(self) -> None:
        if not len(self.data):
            raise InputError("a training set without images gives no batch")

    def __getitem__(self, iteration: int) -> tuple[Tensor, Tensor]:
        """This process's share of an iteration, on ``device``.

        Returns:
            Images n×3×h×w float32 and labels n×h×w int64, n = ``batch_size / processes``.
        """
        share = self.batch_size // self.processes
        first = iteration * self.batch_size + self.rank * share
        samples = range(first, first + share)
        chosen = [self._order(i // len(self.data))[i % len(self.data)] for i in samples]
        return self.augmentation(
            [self.data.images[c] for c in chosen],
            [self.data.labels[c] for c in chosen],
            [torch.Generator().manual_seed(_mix(self.seed, 1, i)) for i in samples],
            self.device,
        )

    def _order(self, epoch: int) -> list[int]:
        generator = torch.Generator().manual_seed(_mix(self.seed, 2, epoch))
        return torch.randperm(len(self.data), generator=generator).tolist()


def _mix(seed: int, stream: int, index: int) -> int:
    """Hash three numbers into one seed: PyTorch's generator looks at its lowest 32 bits only."""
    return int(np.random.SeedSequence((seed, stream, index)).generate_state(1)[0])
