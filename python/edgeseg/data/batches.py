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

    Images come in a new random order each epoch. Everything random about batch ``i`` follows from
    ``seed`` and ``i``, so a resumed run sees what an uninterrupted one would have seen.
    """

    data: LabelledImages
    augmentation: Augmentation
    batch_size: int
    seed: int
    device: torch.device

    def __post_init__(self) -> None:
        if not len(self.data):
            raise InputError("a training set without images gives no batch")

    def __getitem__(self, iteration: int) -> tuple[Tensor, Tensor]:
        """Images N×3×h×w float32 and labels N×h×w int64 of this iteration, on ``device``."""
        samples = range(iteration * self.batch_size, (iteration + 1) * self.batch_size)
        chosen = [self._order(i // len(self.data))[i % len(self.data)] for i in samples]
        return self.augmentation(
            [self.data.images[c] for c in chosen],
            [self.data.labels[c] for c in chosen],
            torch.Generator().manual_seed(_mix(self.seed, 1, iteration)),
            self.device,
        )

    def _order(self, epoch: int) -> list[int]:
        generator = torch.Generator().manual_seed(_mix(self.seed, 2, epoch))
        return torch.randperm(len(self.data), generator=generator).tolist()


def _mix(seed: int, stream: int, index: int) -> int:
    """Hash three numbers into one seed: PyTorch's generator looks at its lowest 32 bits only."""
    return int(np.random.SeedSequence((seed, stream, index)).generate_state(1)[0])
