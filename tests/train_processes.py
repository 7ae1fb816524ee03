"""Script of test_train_processes: train on colour blocks, with as many processes as told.

    python -m tests.train_processes PROCESSES OUTPUT

Writes OUTPUT/free, a run as a user's, and OUTPUT/pinned, one whose BatchNorm uses its stored
statistics and which drops nothing out: then processes must give what one gives.
"""

import sys
from dataclasses import replace
from pathlib import Path

import torch
from tests.test_train import CONFIG, TEXT, blocks
from torch import nn

from edgeseg.train import Trainee, train

RECIPE = replace(
    CONFIG, iterations=6, batch_size=8, save_every=6, eval_every=3, log_every=1, prompt="embedding"
)


class PinnedTrainee(Trainee):
    def train(self, mode: bool = True) -> Trainee:
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d | nn.Dropout2d | nn.Dropout):
                module.eval()
        return self


def main(processes: int, output: Path) -> None:
    torch.set_num_threads(1)
    for name, trainee in (("free", Trainee), ("pinned", PinnedTrainee)):
        sys.modules[train.__module__].Trainee = trainee  # type: ignore[attr-defined]
        train(
            RECIPE,
            data=blocks(12, 0),
            validation=blocks(5, 1),
            output=output / name,
            text=TEXT,
            accelerator="cpu",
            devices=processes,
        )


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
