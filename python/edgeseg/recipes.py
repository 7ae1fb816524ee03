"""Training recipes: everything that decides what a run computes, and the ones that have names.

A recipe names no file and no machine, and travels in every checkpoint.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError

from edgeseg.data import Augmentation
from edgeseg.errors import ConfigError
from edgeseg.losses import SCORE_TEMPERATURE, Dice, Ohem
from edgeseg.models import MIN_IMAGE_SIZE, BackboneName, TextGuidance
from edgeseg.prompts import Preparation

Prompt = Literal["fixed", "embedding", "context"]

_AT_LEAST_0 = (
    *("synthetic", "class_balance", "seed"),
    *("lr", "min_lr", "poly_power", "momentum", "weight_decay"),
    *("backbone_lr_scale", "prompt_lr_scale", "prompt_weight_decay"),
)


@dataclass(frozen=True)
class TrainConfig:
    """A training recipe.

    Attributes:
        dataset: Name of a known set, "folder" for one that describes itself, or "synthetic" for
            streets that need no files.
        augmentation: How training crops are made.
        eval_size: Height and width of the network's input in validation.
        iterations: Length of the run.
        synthetic: How many synthetic streets are among the training images; they have CamVid's
            classes.
        batch_size: Crops per iteration, over all processes.
        backbone: "stdc1" or "stdc2".
        text_guidance: "encoder", "decoder", or None for plain STDC-Seg.
        align_corners: How the network's logits are upsampled; stays with the model.
        prompt: What of the text embeddings is learned. "fixed": nothing (stage 1). "context":
            vectors before the class names, through a frozen text encoder (the paper's stage 2).
            "embedding": the embeddings themselves, which needs no encoder.
        contexts: M, the number of context vectors.
        unified_contexts: One set of contexts for all classes instead of one for each.
        prompt_lr_scale: The prompts' learning rate, as a multiple of ``lr``.
        prompt_weight_decay: Of the prompts.
        text_preparation: What happens to the embeddings before they guide, see
            :func:`edgeseg.prompts.prepare`.
        temperature: By which the score map's cosines are divided in their loss.
        learn_temperature: Whether that is a starting value only.
        ohem: Which pixels the cross-entropy counts, see :func:`edgeseg.losses.cross_entropy`.
        dice: Form of the Dice loss.
        class_balance: Weight of rare classes in the cross-entropies, an exponent from 0 (the
            paper: all pixels alike) to 1, see :func:`edgeseg.losses.class_weights`.
        lr: Peak learning rate of SGD.
        backbone_lr_scale: The backbone's learning rate, as a multiple of ``lr``; 0 freezes it.
        frozen_statistics: Whether a frozen backbone's BatchNorm statistics stay, too. In the
            published runs they moved.
        momentum: Of SGD.
        weight_decay: Of SGD; not applied to the BatchNorm of layers outside the backbone.
        warmup: Iterations of linear warm-up.
        poly_power: Of the polynomial decay that follows from the first iteration on.
        min_lr: Where the decay ends, before a group's factor.
        ema_decay: Of the moving average of the weights, which is then what is evaluated and
            exported; 0 keeps none.
        seed: Of initialisation, order, augmentation and dropout.
        precision: Lightning Fabric's name; "auto" is "bf16-mixed" on a device that computes in
            bfloat16, else "32-true".
        channels_last: Memory format of images and weights.
        eval_every: Iterations between validations.
        save_every: Iterations between writes of ``last.pt``.
        log_every: Iterations between lines of the log.

    Raises:
        ConfigError: Values that contradict each other.
    """

    dataset: str
    augmentation: Augmentation
    eval_size: tuple[int, int]
    iterations: int
    synthetic: int = 0
    batch_size: int = 16
    backbone: BackboneName = "stdc1"
    text_guidance: TextGuidance | None = "encoder"
    align_corners: bool = True
    prompt: Prompt = "fixed"
    contexts: int = 11
    unified_contexts: bool = False
    prompt_lr_scale: float = 0.1
    prompt_weight_decay: float = 0.0
    text_preparation: Preparation = "none"
    temperature: float = SCORE_TEMPERATURE
    learn_temperature: bool = False
    ohem: Ohem = "stdc"
    dice: Dice = "squared"
    class_balance: float = 0.0
    lr: float = 0.1
    backbone_lr_scale: float = 0.1
    frozen_statistics: bool = False
    momentum: float = 0.9
    weight_decay: float = 5e-4
    warmup: int = 200
    poly_power: float = 0.9
    min_lr: float = 1e-6
    ema_decay: float = 0.0
    seed: int = 0
    precision: Literal["auto", "32-true", "bf16-mixed"] = "32-true"
    channels_last: bool = True
    eval_every: int = 1000
    save_every: int = 1000
    log_every: int = 50

    def __post_init__(self) -> None:
        for name in _AT_LEAST_0:
            if not getattr(self, name) >= 0:
                raise ConfigError(f"{name} is {getattr(self, name)}; expected 0 or more")
        if self.batch_size < 2:
            raise ConfigError("batch_size must be at least 2: BatchNorm sees one value per image")
        if self.iterations < 1:
            raise ConfigError(f"iterations is {self.iterations}; expected at least 1")
        if min(*self.augmentation.crop, *self.eval_size) < MIN_IMAGE_SIZE:
            raise ConfigError(
                f"crops are {self.augmentation.crop} and eval_size is {self.eval_size} (height, "
                f"width); the network needs at least {MIN_IMAGE_SIZE} pixels each way"
            )
        if not 0 <= self.warmup < self.iterations:
            raise ConfigError(
                f"warmup ({self.warmup}) must be shorter than the run ({self.iterations})"
            )
        if not 0 <= self.ema_decay < 1:
            raise ConfigError(f"ema_decay is {self.ema_decay}; expected 0 (none) up to below 1")
        if min(self.eval_every, self.save_every, self.log_every) < 1:
            raise ConfigError("eval_every, save_every and log_every must be at least 1")
        if not self.temperature > 0:
            raise ConfigError(f"temperature is {self.temperature}; expected a positive number")
        if self.text_guidance is None and (self.prompt != "fixed" or self.learn_temperature):
            raise ConfigError(
                f"prompt is {self.prompt!r} but text_guidance is null: a network without text "
                "guidance has no text embeddings to learn; use text_guidance=encoder"
            )

    def updated(self, assignments: Sequence[str]) -> TrainConfig:
        """This recipe with some fields changed, as given on a command line.

        Args:
            assignments: ``FIELD=VALUE`` each; VALUE is JSON or a bare word, a field of the
                augmentation is ``augmentation.FIELD``.

        Raises:
            ConfigError: An unknown field, or a value that does not fit it.
        """
        values: dict[str, Any] = asdict(self)
        for assignment in assignments:
            path, equals, text = assignment.partition("=")
            *parents, field = path.strip().split(".")
            target: Any = values
            for parent in parents:
                target = target.get(parent) if isinstance(target, dict) else None
            if not equals or not isinstance(target, dict) or field not in target:
                raise ConfigError(
                    f"{assignment!r} changes no field of the recipe; expected FIELD=VALUE with "
                    f"FIELD one of {', '.join(_field_names(asdict(self)))}"
                )
            target[field] = _value(text)
        try:
            return TypeAdapter(TrainConfig).validate_python(values)
        except ValidationError as error:
            first = error.errors()[0]
            if isinstance(own := first.get("ctx", {}).get("error"), ConfigError):
                raise own from error
            field = ".".join(map(str, first["loc"]))
            raise ConfigError(
                f"{field} is {first['input']!r}, which does not fit: {first['msg']}"
            ) from error


def _field_names(values: Mapping[str, Any], prefix: str = "") -> list[str]:
    names = []
    for name, value in values.items():
        names += _field_names(value, f"{name}.") if isinstance(value, dict) else [prefix + name]
    return names


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text.strip()


# The paper's, stage 1. Stage 2 starts from stage 1's best checkpoint (``--init``).
_CAMVID = TrainConfig(
    dataset="camvid",
    augmentation=Augmentation(base=(720, 960), crop=(720, 960), scales=(0.5, 2.5), scale_step=0.25),
    eval_size=(720, 960),
    iterations=10_000,
)
_CITYSCAPES = TrainConfig(
    dataset="cityscapes",
    augmentation=Augmentation(
        base=(1024, 2048), crop=(512, 1024), scales=(0.125, 1.5), scale_step=0.125
    ),
    eval_size=(512, 1024),  # "-50": half of the frame; 768×1536 is "-75"
    iterations=160_000,
    batch_size=24,
    lr=0.05,
    warmup=1000,
    eval_every=16_000,
    save_every=2000,
)
# Streets from seeds: no data needed.
_SYNTHETIC = replace(
    _CAMVID,
    dataset="synthetic",
    augmentation=replace(_CAMVID.augmentation, base=(360, 480), crop=(352, 480)),
    eval_size=(360, 480),
    synthetic=2000,
)

# The CPU recipes make a network from nothing on one or two cores in a few hours: a short look at
# other streets ("idd-lite-cpu"), then CamVid. Scale 1 is a 480×360 frame, scale 2 a 960×720 one.
_CAMVID_CPU = TrainConfig(
    dataset="camvid",
    augmentation=Augmentation(base=(360, 480), crop=(352, 480), scales=(0.5, 2.0)),
    eval_size=(360, 480),
    iterations=1500,
    batch_size=8,
    lr=0.05,
    backbone_lr_scale=1.0,
    warmup=50,
    ema_decay=0.99,
    precision="auto",
    eval_every=100,
    save_every=50,
    log_every=20,
)


def _stage2(recipe: TrainConfig, prompt: Prompt = "context") -> TrainConfig:
    return replace(recipe, prompt=prompt, backbone_lr_scale=0.0)


PRESETS: Mapping[str, TrainConfig] = {
    "camvid": _CAMVID,
    "camvid-stage2": _stage2(_CAMVID),
    "cityscapes": _CITYSCAPES,
    "cityscapes-stage2": _stage2(_CITYSCAPES),
    "synthetic": _SYNTHETIC,
    "synthetic-stage2": _stage2(_SYNTHETIC),
    # A user's own images, whatever their size: adapt with ``--set``.
    "folder": replace(_CAMVID, dataset="folder", lr=0.05, ema_decay=0.99, eval_every=500),
    "idd-lite-cpu": replace(
        _CAMVID_CPU,
        dataset="idd_lite",
        augmentation=Augmentation(base=(227, 320), crop=(224, 320), scales=(0.75, 2.0)),
        eval_size=(227, 320),
        iterations=800,
        text_guidance=None,
    ),
    "camvid-cpu": _CAMVID_CPU,
    # From what "camvid-cpu" gave, with synthetic streets: small classes are frequent there.
    "camvid-finetune-cpu": replace(_CAMVID_CPU, synthetic=300, iterations=1000, lr=0.03, warmup=20),
    # The packaged engine's last leg: long, thin and rare things weighted up, larger pictures.
    "camvid-balanced-cpu": replace(
        _CAMVID_CPU,
        augmentation=Augmentation(base=(360, 480), crop=(352, 480), scales=(0.67, 2.0)),
        eval_size=(480, 640),
        synthetic=300,
        iterations=2500,
        lr=0.03,
        class_balance=0.5,
        ema_decay=0.995,
        eval_every=250,
        log_every=25,
    ),
    "synthetic-cpu": replace(
        _CAMVID_CPU, dataset="synthetic", synthetic=400, iterations=600, text_guidance=None
    ),
    "folder-cpu": replace(_CAMVID_CPU, dataset="folder", text_guidance=None),
}
"""Recipes by name. Those with "cpu" fit one or two cores, the others a GPU."""
