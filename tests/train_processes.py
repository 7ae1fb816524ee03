"""Script of test_train_processes: train on colour blocks, with as many processes as told.

    python -m tests.train_processes PROCESSES OUTPUT

Writes OUTPUT/free, a run as a user's, and OUTPUT/pinned, one whose BatchNorm uses its stored
statistics and which drops nothing out: then processes must give what one gives. Several processes
also say how each ends when the loss of the last one is NaN, and when the first one's disk is full.
"""

import os
import sys
from dataclasses import replace
from pathlib import Path

import torch
from tests.test_train import CONFIG, TEXT, blocks
from torch import nn

import edgeseg.train
from edgeseg.errors import OutputError, TrainingError
from edgeseg.losses import LossTerms, segmentation_loss
from edgeseg.train import Trainee

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


def run(processes: int, output: Path, iterations: int = RECIPE.iterations) -> None:
    edgeseg.train.train(
        replace(RECIPE, iterations=iterations, warmup=0),
        data=blocks(12, 0),
        validation=blocks(5, 1),
        output=output,
        text=TEXT,
        accelerator="cpu",
        devices=processes,
    )


def nan_loss(*args: object, **options: object) -> LossTerms:
    losses = segmentation_loss(*args, **options)  # type: ignore[arg-type]
    return replace(losses, head=losses.head * torch.nan)


def full_disk(*_: object) -> None:
    raise OutputError("no space left")


def main(processes: int, output: Path) -> None:
    torch.set_num_threads(1)
    for name, trainee in (("free", Trainee), ("pinned", PinnedTrainee)):
        edgeseg.train.Trainee = trainee  # type: ignore[misc]
        run(processes, output / name)
    if processes == 1:
        return
    rank = int(os.environ["LOCAL_RANK"])
    if rank == processes - 1:
        edgeseg.train.segmentation_loss = nan_loss
    try:
        run(processes, output / "nan", iterations=1)
    except TrainingError:
        print(f"process {rank}: NaN told", flush=True)
    edgeseg.train.segmentation_loss = segmentation_loss
    if rank == 0:
        edgeseg.train.save_checkpoint = full_disk
    try:
        run(processes, output / "full", iterations=1)
    except OutputError:
        print(f"process {rank}: full disk told", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
