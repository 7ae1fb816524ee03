"""The matrix as data: arms, what each differs in, and the budgets they are trained with."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from edgeseg.data import Augmentation
from edgeseg.errors import ConfigError
from edgeseg.recipes import PRESETS, TrainConfig

TextSource = Literal["clip", "random", "minilm"]
"""A stored table of CLIP embeddings, random directions (new ones for each seed), or the encodings
of the bare class names by a small sentence transformer."""


@dataclass(frozen=True)
class Arm:
    """One way of training.

    Attributes:
        name: Of its folder, and on the command line.
        title: In tables and figures.
        group: Which part of the matrix it belongs to.
        text: Where its text embeddings come from; None for plain STDC-Seg.
        parent: Name of the arm whose best checkpoint it starts from, with the second schedule;
            None for the common start and the first schedule.
        changes: Fields of the budget's recipe that it changes.
        controls: Names of the arms it is compared with, seed by seed; the first is the one that
            differs in as little as possible.
    """

    name: str
    title: str
    group: Literal["core", "text", "training", "contexts", "backbone", "ohem"]
    text: TextSource | None
    parent: str | None = None
    changes: Mapping[str, Any] = field(default_factory=dict)
    controls: tuple[str, ...] = ()


CORE = (
    Arm("baseline", "baseline", "core", None),
    Arm(
        "baseline-longer",
        "baseline, second schedule",
        "core",
        None,
        parent="baseline",
        controls=("baseline",),
    ),
    Arm("random", "random T", "core", "random", controls=("baseline",)),
    Arm(
        "random-longer",
        "random T, second schedule",
        "core",
        "random",
        parent="random",
        controls=("baseline-longer",),
    ),
    Arm("stage1", "stage 1 (CLIP table)", "core", "clip", controls=("baseline", "random")),
    Arm(
        "stage2-embedding",
        "stage 2, embedding",
        "core",
        "clip",
        parent="stage1",
        changes={"prompt": "embedding"},
        controls=("baseline-longer", "random-longer", "stage1"),
    ),
    Arm(
        "minilm-stage1",
        "stage 1 (sentence transformer)",
        "core",
        "minilm",
        controls=("baseline", "random"),
    ),
    Arm(
        "minilm-stage2-contexts",
        "stage 2, contexts (sentence transformer)",
        "core",
        "minilm",
        parent="minilm-stage1",
        changes={"prompt": "context"},
        controls=("baseline-longer", "random-longer", "minilm-stage1"),
    ),
)


def _one_stage_contexts(name: str, title: str, *controls: str, **changes: Any) -> Arm:
    return Arm(
        name,
        title,
        "contexts",
        "minilm",
        changes={"prompt": "context"} | changes,
        controls=(*controls, "minilm-stage1", "baseline"),
    )


ABLATIONS = (
    Arm(
        "stage1-longer",
        "stage 1, second schedule, T fixed",
        "text",
        "clip",
        parent="stage1",
        controls=("baseline-longer", "stage1"),
    ),
    Arm(
        "centred",
        "centred T",
        "text",
        "clip",
        changes={"text_preparation": "centred"},
        controls=("stage1", "baseline"),
    ),
    Arm(
        "whitened",
        "whitened T",
        "text",
        "clip",
        changes={"text_preparation": "whitened"},
        controls=("stage1", "baseline"),
    ),
    Arm(
        "temperature",
        "learned temperature",
        "text",
        "clip",
        changes={"learn_temperature": True},
        controls=("stage1", "baseline"),
    ),
    Arm(
        "one-stage",
        "one stage, embedding learned end to end",
        "training",
        "clip",
        changes={"prompt": "embedding"},
        controls=("stage1", "baseline"),
    ),
    Arm(
        "decoder",
        "score map in the decoder",
        "training",
        "clip",
        changes={"text_guidance": "decoder"},
        controls=("stage1", "baseline"),
    ),
    *(
        _one_stage_contexts(f"contexts-{m}", f"one stage, {m} contexts", contexts=m)
        for m in (8, 11, 14, 17)
    ),
    _one_stage_contexts(
        "contexts-decay",
        "one stage, 11 contexts, weight decay on them",
        "contexts-11",
        prompt_weight_decay=5e-4,
    ),
    _one_stage_contexts(
        "contexts-unified",
        "one stage, 11 contexts shared by all classes",
        "contexts-11",
        unified_contexts=True,
    ),
    Arm("stdc2-baseline", "STDC2 baseline", "backbone", None, changes={"backbone": "stdc2"}),
    Arm(
        "stdc2-stage1",
        "STDC2 stage 1",
        "backbone",
        "clip",
        changes={"backbone": "stdc2"},
        controls=("stdc2-baseline",),
    ),
    Arm(
        "ohem-baseline",
        "baseline, every pixel kept",
        "ohem",
        None,
        changes={"ohem": "reference"},
        controls=("baseline",),
    ),
    Arm(
        "ohem-stage1",
        "stage 1, every pixel kept",
        "ohem",
        "clip",
        changes={"ohem": "reference"},
        controls=("ohem-baseline", "stage1"),
    ),
)

ARMS: Mapping[str, Arm] = {arm.name: arm for arm in (*CORE, *ABLATIONS)}
GROUPS: tuple[str, ...] = tuple(dict.fromkeys(arm.group for arm in ARMS.values()))

HEADLINE = ("baseline-longer", "stage2-embedding")
"""The comparison that the issue asks for: control and treatment with equal schedules. Their best
networks of the first seed are kept, for the pictures."""


@dataclass(frozen=True)
class Budget:
    """How much training each run gets.

    Attributes:
        name: On the command line.
        first: Recipe of runs without a parent.
        second: Recipe of runs with one.
        options: What the command line changed, in its words.
    """

    name: str
    first: TrainConfig
    second: TrainConfig
    options: str = ""


_SMALL = TrainConfig(
    dataset="camvid",
    # Half of the 480×360 frames' size: a quarter of the time, and labels are still compared at
    # their full size.
    augmentation=Augmentation(base=(180, 240), crop=(176, 240), scales=(0.75, 1.5)),
    eval_size=(180, 240),
    iterations=200,
    batch_size=8,
    lr=0.03,
    class_balance=0.5,  # or poles, signs and people stay at 0 in so short a run, in every arm
    # The start is no ImageNet backbone but a plain network trained on CamVid and other streets (the
    # report says which), and the prompts' schedule is a hundredth of the paper's: at a tenth of the
    # learning rate neither would move.
    backbone_lr_scale=1.0,
    prompt_lr_scale=1.0,
    warmup=20,
    ema_decay=0.98,
    precision="bf16-mixed",
    eval_every=100,
    save_every=50,
    log_every=20,
)
_SMOKE = replace(
    _SMALL,
    dataset="synthetic",
    synthetic=8,
    augmentation=Augmentation(base=(96, 128), crop=(64, 96), scales=(0.75, 1.25)),
    eval_size=(96, 128),
    iterations=4,
    batch_size=2,
    warmup=1,
    eval_every=2,
    save_every=2,
    log_every=1,
)


def _frozen(first: TrainConfig, iterations: int) -> TrainConfig:
    """The second schedule: the backbone stays as it is, the warm-up keeps its share."""
    warmup = first.warmup * iterations // first.iterations
    return replace(first, iterations=iterations, warmup=warmup, backbone_lr_scale=0.0)


BUDGETS: Mapping[str, Budget] = {
    budget.name: budget
    for budget in (
        # Does everything run? Synthetic streets, seconds per run.
        Budget("smoke", _SMOKE, _frozen(_SMOKE, 4)),
        # Two CPU cores: minutes per run.
        Budget("small", _SMALL, _frozen(_SMALL, 100)),
        # The paper's schedule for CamVid, for a GPU.
        Budget("paper", PRESETS["camvid"], _frozen(PRESETS["camvid"], 10_000)),
    )
}


def adapted(
    budget: Budget,
    *,
    iterations: tuple[int, int] | None = None,
    changes: Sequence[str] = (),
) -> Budget:
    """A budget with other lengths of its two schedules, and other fields in both.

    Args:
        budget: The budget.
        iterations: Of the first and the second schedule.
        changes: ``FIELD=VALUE`` each, see :meth:`TrainConfig.updated`.
    """
    first = budget.first.updated(changes)
    first_length, second_length = iterations or (first.iterations, budget.second.iterations)
    warmup = first.warmup * first_length // first.iterations
    first = replace(first, iterations=first_length, warmup=warmup)
    options = [] if iterations is None else ["--iterations", *map(str, iterations)]
    options += [word for change in changes for word in ("--set", change)]
    return Budget(budget.name, first, _frozen(first, second_length), shlex.join(options))


def recipe(arm: Arm, budget: Budget, seed: int) -> TrainConfig:
    """What one run of an arm computes. Runs of one seed see the same crops in the same order."""
    base = budget.first if arm.parent is None else budget.second
    guidance = None if arm.text is None else "encoder"
    return replace(base, **({"text_guidance": guidance, "seed": seed} | dict(arm.changes)))


def selected(names: Sequence[str]) -> tuple[Arm, ...]:
    """Arms by name or by group ("all" are all), with the parents they need, in the plan's order.

    Raises:
        ConfigError: There is no such arm or group.
    """
    wanted: set[str] = set()
    for name in names:
        members = [arm for arm in ARMS.values() if name in ("all", arm.group, arm.name)]
        if not members:
            raise ConfigError(
                f"no arm or group {name!r}; groups: all, {', '.join(GROUPS)}; "
                f"arms: {', '.join(ARMS)}"
            )
        wanted.update(ancestor.name for arm in members for ancestor in _lineage(arm))
    return tuple(arm for arm in ARMS.values() if arm.name in wanted)


def children(name: str) -> tuple[Arm, ...]:
    """The arms that start from this one's checkpoint."""
    return tuple(arm for arm in ARMS.values() if arm.parent == name)


def _lineage(arm: Arm) -> Iterator[Arm]:
    yield arm
    if arm.parent is not None:
        yield from _lineage(ARMS[arm.parent])
