import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tests.towers import BERT_WORDS, random_bert, sentence_encoder

import edgeseg.train
from edgeseg.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from edgeseg.classes import ClassTable
from edgeseg.data import Augmentation, LabelledImages
from edgeseg.errors import CheckpointError, ConfigError, OutputError, TrainingError
from edgeseg.models import STDCSeg, STDCSegConfig
from edgeseg.optimization import learning_rate, parameter_groups, transfer_weights
from edgeseg.prompts import LearnedContexts, prepare
from edgeseg.recipes import PRESETS, TrainConfig
from edgeseg.text import TextEmbeddings
from edgeseg.train import TrainResult, git_revision, train

TABLE = ClassTable(("red", "green", "blue"), ((255, 0, 0), (0, 255, 0), (0, 0, 255)))
TEXT = TextEmbeddings.random(("blue", "green", "grey", "red"), seed=0)
CONFIG = TrainConfig(
    dataset="folder",
    augmentation=Augmentation((64, 64), (64, 64), (1.0, 1.5)),
    eval_size=(64, 64),
    iterations=18,
    batch_size=6,
    ohem="reference",  # the mean over a varying share of pixels need not fall
    lr=0.02,
    backbone_lr_scale=1.0,
    warmup=3,
    ema_decay=0.5,
    eval_every=6,
    save_every=12,
    log_every=3,
)


def blocks(count: int, seed: int) -> LabelledImages:
    """Images of 16×16 blocks, each noisy red, green or blue and labelled so; the rim is void."""
    random = np.random.default_rng(seed)
    images, labels = [], []
    for _ in range(count):
        label = random.integers(0, 3, (2, 2), dtype=np.uint8).repeat(32, 0).repeat(32, 1)
        image = 150.0 * np.eye(3)[label] + random.normal(50, 10, (64, 64, 3))
        label[0] = 255
        images.append(torch.from_numpy(image.clip(0, 255).astype(np.uint8)).permute(2, 0, 1))
        labels.append(torch.from_numpy(label))
    return LabelledImages(TABLE, tuple(map(str, range(count))), tuple(images), tuple(labels))


def run(
    output: Path,
    config: TrainConfig = CONFIG,
    text: TextEmbeddings | None = TEXT,
    data: LabelledImages | None = None,
    **options: object,
) -> TrainResult:
    return train(
        config,
        data=blocks(8, 0) if data is None else data,
        validation=blocks(4, 1),
        text=text,
        output=output,
        console=Console(quiet=True),
        **{"accelerator": "cpu"} | options,  # type: ignore[arg-type]
    )


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    """Tiny tensors: threads only get into each other's way."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, TrainResult]:
    """A whole run, and in ``half`` what ``last.pt`` was after 12 of 18 iterations."""
    output = tmp_path_factory.mktemp("run")

    def keep(path: Path, checkpoint: Checkpoint) -> None:
        save_checkpoint(path, checkpoint)
        if checkpoint.training["iteration"] == 12 and path.name == "last.pt":
            (output / "half").mkdir()
            shutil.copy(path, output / "half" / "last.pt")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(edgeseg.train, "save_checkpoint", keep)
        result = run(output)
    return output, result


@pytest.mark.parametrize(("native", "precision"), [(True, "bf16-mixed"), (False, "32-true")])
def test_bfloat16_is_taken_where_the_cpu_has_it(
    native: bool, precision: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Imitated, it makes training ten times slower; the recipes for CPUs leave it to the CPU."""
    assert {PRESETS[name].precision for name in PRESETS if name.endswith("-cpu")} == {"auto"}
    monkeypatch.setattr(edgeseg.train, "cpu_computes_in_bfloat16", lambda: native)
    config = replace(CONFIG, precision="auto", iterations=1, warmup=0)
    run(tmp_path, config)
    assert load_checkpoint(tmp_path / "last.pt").training["config"]["precision"] == precision


def test_a_plain_network_has_no_loss_of_a_score_map(tmp_path: Path) -> None:
    run(tmp_path, replace(CONFIG, text_guidance=None, iterations=1, warmup=0), text=None)
    events = EventAccumulator(str(tmp_path / "curves"))
    events.Reload()
    terms = {tag for tag in events.Tags()["scalars"] if tag.startswith("train/")}
    assert "train/score" not in terms
    assert {"train/head", "train/auxiliary", "train/detail"} <= terms


def test_loss_falls_and_the_network_learns(finished: tuple[Path, TrainResult]) -> None:
    output, result = finished
    events = EventAccumulator(str(output / "curves"))
    events.Reload()
    for term in ("head", "auxiliary", "score", "detail"):
        values = [event.value for event in events.Scalars(f"train/{term}")]
        assert len(values) == 6
        assert values[-1] < values[0], term
    assert 0 <= events.Scalars("train/data_share")[0].value < 1
    assert result.best.miou > 0.3  # a single class everywhere reaches 0.17
    assert [event.step for event in events.Scalars("val/miou")] == [6, 12, 18]


def test_resumed_run_is_bit_exact(finished: tuple[Path, TrainResult]) -> None:
    output, result = finished
    resumed = run(output / "half", resume=True)
    whole, again = (load_checkpoint(p / "last.pt") for p in (output, output / "half"))
    for name, value in whole.state_dict.items():
        assert torch.equal(value, again.state_dict[name]), name
    assert whole.ema is not None
    assert again.ema is not None
    for name, value in whole.ema.items():
        assert torch.equal(value, again.ema[name]), name
    np.testing.assert_array_equal(result.last.confusion, resumed.last.confusion)
    assert result.best.miou == resumed.best.miou


def test_checkpoint_tells_where_it_comes_from(finished: tuple[Path, TrainResult]) -> None:
    output, result = finished
    last, best = load_checkpoint(output / "last.pt"), load_checkpoint(output / "best.pt")
    assert last.classes == TABLE
    assert last.text_provenance == TEXT.provenance
    assert last.model_config == STDCSegConfig("stdc1", 3, "encoder")
    assert last.training["miou_last"] == result.last.miou
    assert best.training["miou_best"] == result.best.miou
    assert best.training["iteration"] == result.best_iteration
    assert best.resume is None
    assert last.training["config"]["ohem"] == "reference"
    assert last.training["train_images"] == 8
    assert str(output) not in repr(last.training)
    # The table's rows are put into the order of the data's classes.
    rows = torch.from_numpy(TEXT.vectors[[3, 1, 0]])
    torch.testing.assert_close(last.state_dict["text_embeddings"], rows)


def test_checkpoint_gives_the_network(finished: tuple[Path, TrainResult]) -> None:
    checkpoint = load_checkpoint(finished[0] / "last.pt")
    network = checkpoint.model()
    assert not network.training
    assert checkpoint.ema is not None
    name = "head.classify.weight"
    assert torch.equal(network.state_dict()[name], checkpoint.ema[name])
    assert not torch.equal(checkpoint.ema[name], checkpoint.state_dict[name])
    without = replace(checkpoint, ema=None).model()
    assert torch.equal(without.state_dict()[name], checkpoint.state_dict[name])
    with pytest.raises(CheckpointError, match="do not fit"):
        replace(checkpoint, model_config=STDCSegConfig("stdc2", 3, "encoder")).model()


def test_saved_checkpoint_is_read_back(tmp_path: Path) -> None:
    network = STDCSeg(STDCSegConfig("stdc2", 3))
    saved = Checkpoint(
        network.config, network.state_dict(), TABLE, None, (1, 2, 3), (4, 5, 6), {"miou": 0.5}
    )
    save_checkpoint(tmp_path / "a.pt", saved)
    loaded = load_checkpoint(tmp_path / "a.pt")
    assert replace(loaded, state_dict={}) == replace(saved, state_dict={})
    assert all(torch.equal(v, loaded.state_dict[k]) for k, v in saved.state_dict.items())
    assert [p.name for p in tmp_path.iterdir()] == ["a.pt"]


def test_bad_checkpoints_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "bad.pt"
    with pytest.raises(CheckpointError, match="does not exist"):
        load_checkpoint(path)
    path.write_bytes(b"PK\x03\x04 not really")
    with pytest.raises(CheckpointError, match="damaged"):
        load_checkpoint(path)
    torch.save({"state_dict": {}}, path)
    with pytest.raises(CheckpointError, match="format None"):
        load_checkpoint(path)
    torch.save({"format": "edgeseg-checkpoint-1"}, path)
    with pytest.raises(CheckpointError, match="model_config"):
        load_checkpoint(path)
    torch.save({"format": "edgeseg-checkpoint-1", "code": print}, path)
    with pytest.raises(CheckpointError, match="damaged"):  # weights_only refuses a callable
        load_checkpoint(path)


def test_baseline_trains_without_text_and_without_average(tmp_path: Path) -> None:
    short = replace(CONFIG, text_guidance=None, ema_decay=0.0, iterations=3, warmup=0)
    run(tmp_path, short, text=None)
    checkpoint = load_checkpoint(tmp_path / "last.pt")
    assert checkpoint.ema is None
    assert checkpoint.text_provenance is None
    assert "text_embeddings" not in checkpoint.state_dict


STAGE2 = replace(CONFIG, prompt="embedding", backbone_lr_scale=0.0, ema_decay=0.0, iterations=4)


def weights_of(output: Path) -> dict[str, torch.Tensor]:
    return dict(load_checkpoint(output / "last.pt").state_dict)


def test_stage_2_learns_embeddings_and_leaves_the_backbone(
    finished: tuple[Path, TrainResult], tmp_path: Path
) -> None:
    init = load_checkpoint(finished[0] / "best.pt")
    for frozen_statistics in (False, True):
        output = tmp_path / str(frozen_statistics)
        config = replace(STAGE2, frozen_statistics=frozen_statistics, warmup=0)
        run(output, config, text=None, init=init)  # the table comes from stage 1
        before, after = init.weights, weights_of(output)
        for name in before:
            if name.startswith("backbone."):
                is_statistic = "running" in name or "num_batches" in name
                moves = is_statistic and not frozen_statistics
                assert torch.equal(before[name], after[name]) != moves, name
        assert not torch.equal(before["head.classify.weight"], after["head.classify.weight"])
        # T moved a little, and is still of unit rows.
        T, T_before = after["text_embeddings"], before["text_embeddings"]
        assert 0.5 < (T * T_before).sum(1).min() < 1 - 1e-7
        torch.testing.assert_close(T.norm(dim=1), torch.ones(3))
        provenance = load_checkpoint(output / "last.pt").text_provenance
        assert provenance is not None
        assert "learned on folder" in provenance


def test_temperature_is_learned_where_the_recipe_says_so(
    finished: tuple[Path, TrainResult], tmp_path: Path
) -> None:
    init = load_checkpoint(finished[0] / "best.pt")
    run(tmp_path / "learned", replace(STAGE2, learn_temperature=True), init=init)
    run(tmp_path / "fixed", replace(STAGE2, temperature=0.1), init=init)
    learned, fixed = (
        load_checkpoint(tmp_path / name / "last.pt").training["temperature"]
        for name in ("learned", "fixed")
    )
    assert learned != pytest.approx(0.07, abs=1e-7)
    assert fixed == pytest.approx(0.1)


class Kill(BaseException):
    """What ends a process, from within."""


def run_killed_at_its_first_save(output: Path, config: TrainConfig, **options: object) -> None:
    def save_and_die(path: Path, checkpoint: Checkpoint) -> None:
        save_checkpoint(path, checkpoint)
        raise Kill

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(edgeseg.train, "save_checkpoint", save_and_die)
        with pytest.raises(Kill):
            run(output, config, **options)  # type: ignore[arg-type]


def assert_same_checkpoint(one: Path, other: Path) -> None:
    first, second = (load_checkpoint(folder / "last.pt") for folder in (one, other))
    assert first.training == second.training
    assert first.text_provenance == second.text_provenance
    for values, others in (
        (first.state_dict, second.state_dict),
        (first.weights, second.weights),
        (first.text_state, second.text_state),
    ):
        assert values.keys() == others.keys()
        assert all(torch.equal(value, others[name]) for name, value in values.items())


def test_resumed_stage_2_is_bit_exact(finished: tuple[Path, TrainResult], tmp_path: Path) -> None:
    init = load_checkpoint(finished[0] / "best.pt")
    config = replace(STAGE2, learn_temperature=True, save_every=2, ema_decay=0.9)
    run(tmp_path / "whole", config, init=init)
    run_killed_at_its_first_save(tmp_path / "killed", config, init=init)
    run(tmp_path / "killed", config, resume=True)  # the start need not be named again
    assert_same_checkpoint(tmp_path / "whole", tmp_path / "killed")
    assert load_checkpoint(tmp_path / "killed" / "last.pt").training["start"] == init.training


def test_contexts_are_learned_through_a_text_encoder(
    finished: tuple[Path, TrainResult], tmp_path: Path
) -> None:
    names = tuple(BERT_WORDS[4:7])
    table = ClassTable(names, TABLE.palette)
    init = replace(load_checkpoint(finished[0] / "best.pt"), classes=table)
    encoder = sentence_encoder(random_bert())
    frozen = {name: value.clone() for name, value in encoder.state_dict().items()}
    config = replace(
        STAGE2, prompt="context", contexts=2, text_preparation="centred", save_every=2, lr=1.0
    )
    options = {
        "data": replace(blocks(8, 0), table=table),
        "text": None,
        "text_encoder": encoder,
        "init": init,
    }
    run(tmp_path / "whole", config, **options)  # type: ignore[arg-type]
    run_killed_at_its_first_save(tmp_path / "killed", config, **options)
    run(tmp_path / "killed", config, resume=True, **options)  # type: ignore[arg-type]
    assert_same_checkpoint(tmp_path / "whole", tmp_path / "killed")

    last = load_checkpoint(tmp_path / "whole" / "last.pt")
    start = LearnedContexts(encoder, names, 2, seed=config.seed)
    assert not torch.equal(last.text_state["prompt.contexts"], start.contexts)
    start.load_state_dict({"contexts": last.text_state["prompt.contexts"]})
    torch.testing.assert_close(last.state_dict["text_embeddings"], prepare(start(), "centred"))
    assert all(torch.equal(value, frozen[name]) for name, value in encoder.state_dict().items())
    assert last.text_provenance == (
        "random BERT; 2 class-specific contexts learned on folder; centred"
    )


def test_another_text_or_other_data_are_not_resumed(
    finished: tuple[Path, TrainResult],
) -> None:
    output = finished[0]
    with pytest.raises(CheckpointError, match=r"text \(was 'random directions, seed 0', is"):
        run(output, text=TextEmbeddings.random(TEXT.classes, seed=1), resume=True)
    with pytest.raises(CheckpointError, match=r"train_images \(was 8, is 9\)"):
        run(output, data=blocks(9, 0), resume=True)
    more = ClassTable(("red", "green", "grey"), TABLE.palette)
    with pytest.raises(CheckpointError, match=r"classes \(was \('red', 'green', 'blue'\)"):
        run(output, data=replace(blocks(8, 0), table=more), resume=True)


def test_a_checkpoint_states_no_score_of_earlier_weights(tmp_path: Path) -> None:
    stated = []

    def note(path: Path, checkpoint: Checkpoint) -> None:
        stated.append((path.name, checkpoint.training["miou_last"] is None))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(edgeseg.train, "save_checkpoint", note)
        run(tmp_path, replace(CONFIG, iterations=4, eval_every=2, save_every=3))
    assert stated[0] == ("best.pt", False)
    assert ("last.pt", True) in stated
    assert stated[-1] == ("last.pt", False)


def test_output_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="choose another one"):
        run(tmp_path / "file" / "run")


def test_infinite_loss_ends_the_run_before_anything_is_overwritten(tmp_path: Path) -> None:
    config = replace(CONFIG, save_every=2, log_every=1, eval_every=100)
    real = edgeseg.train.segmentation_loss
    calls = 0

    def explode_at_the_fourth(*args: object, **options: object) -> object:
        nonlocal calls
        calls += 1
        losses = real(*args, **options)  # type: ignore[arg-type]
        return replace(losses, head=losses.head * torch.nan) if calls == 4 else losses

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(edgeseg.train, "segmentation_loss", explode_at_the_fourth)
        with pytest.raises(TrainingError, match=r"after iteration 4 \(head nan.*last.pt holds"):
            run(tmp_path, config)
    assert load_checkpoint(tmp_path / "last.pt").training["iteration"] == 2


def test_infinite_weights_are_not_saved_either(tmp_path: Path) -> None:
    config = replace(CONFIG, lr=1e38, warmup=0, save_every=1, log_every=100)
    with pytest.raises(TrainingError, match=r"after iteration 1 \(weights .*nothing was saved"):
        run(tmp_path, config)
    assert not (tmp_path / "last.pt").exists()


def test_prompts_may_decay_and_the_temperature_does_not() -> None:
    network = STDCSeg(STDCSegConfig("stdc1", 3))
    prompt, temperature = (torch.nn.Parameter(torch.ones(1)) for _ in range(2))
    config = replace(CONFIG, prompt_weight_decay=0.1, prompt_lr_scale=0.5)
    groups = parameter_groups(network, [prompt], [temperature], config)[-2:]
    assert [group["weight_decay"] for group in groups] == [0.1, 0.0]
    assert [group["lr_scale"] for group in groups] == [0.5, 0.5]


def test_rare_classes_can_weigh_more(tmp_path: Path) -> None:
    run(tmp_path / "balanced", replace(CONFIG, class_balance=1.0, iterations=4))
    run(tmp_path / "plain", replace(CONFIG, iterations=4))
    name = "head.classify.weight"
    assert not torch.equal(
        weights_of(tmp_path / "balanced")[name], weights_of(tmp_path / "plain")[name]
    )


def test_contradictions_are_refused(finished: tuple[Path, TrainResult], tmp_path: Path) -> None:
    output, _ = finished
    with pytest.raises(ConfigError, match="no text table is given"):
        run(tmp_path / "new", text=None)
    with pytest.raises(ConfigError, match="takes no text"):
        run(tmp_path / "new", replace(CONFIG, text_guidance=None))
    with pytest.raises(ConfigError, match="go through a text encoder"):
        run(tmp_path / "new", replace(CONFIG, prompt="context"))
    with pytest.raises(ConfigError, match="shared by 4 processes"):
        run(tmp_path / "new", devices=4)
    with pytest.raises(ConfigError, match=r"no text embedding for \['blue'\]"):
        run(tmp_path / "new", text=TEXT.select(("red", "green")))
    with pytest.raises(ConfigError, match="would stay random"):
        run(tmp_path / "new", STAGE2)
    with pytest.raises(ConfigError, match="2 devices of kind 'warp'"):
        run(tmp_path / "new", accelerator="warp", devices=2)
    with pytest.raises(ConfigError, match="exists; resume"):
        run(output)
    with pytest.raises(ConfigError, match="to resume"):
        run(tmp_path / "new", resume=True)
    with pytest.raises(CheckpointError, match=r"lr \(was 0.02, is 0.1\)"):
        run(output, replace(CONFIG, lr=0.1), resume=True)
    with pytest.raises(ConfigError, match="batch_size"):
        replace(CONFIG, batch_size=1)
    with pytest.raises(ConfigError, match="warmup"):
        replace(CONFIG, warmup=18)
    with pytest.raises(ConfigError, match="lr is nan"):
        replace(CONFIG, lr=float("nan"))


def test_learning_rate_by_hand() -> None:
    config = replace(CONFIG, lr=1.0, min_lr=0.1, iterations=10, warmup=4)
    assert learning_rate(config, 0) == pytest.approx(0.25)
    assert learning_rate(config, 1) == pytest.approx(0.5 * (0.1 + 0.9 * 0.9**0.9))
    assert learning_rate(config, 5) == pytest.approx(0.1 + 0.9 * 0.5**0.9)
    assert learning_rate(replace(config, warmup=0), 0) == 1.0


def test_parameter_groups_cover_each_parameter_once() -> None:
    network = STDCSeg(STDCSegConfig("stdc1", 3))
    groups = parameter_groups(network, [], [], replace(CONFIG, backbone_lr_scale=0.1))
    grouped = [id(p) for group in groups for p in group["params"]]
    assert sorted(grouped) == sorted(id(p) for p in network.parameters())
    decay = {id(p): (g["weight_decay"], g["lr_scale"]) for g in groups for p in g["params"]}
    for name, parameter in network.named_parameters():
        in_backbone = name.startswith("backbone.")
        is_norm = parameter.ndim == 1
        assert decay[id(parameter)] == (
            0.0 if is_norm and not in_backbone else 5e-4,
            0.1 if in_backbone else 1.0,
        ), name


def test_weights_transfer_to_other_classes_and_to_text_guidance() -> None:
    start = STDCSeg(STDCSegConfig("stdc1", 7))
    checkpoint = Checkpoint(start.config, start.state_dict(), TABLE, None, (0, 0, 0), (1, 1, 1), {})
    vectors = torch.from_numpy(TEXT.vectors)
    network = STDCSeg(STDCSegConfig("stdc1", 4, "encoder"), vectors)
    assert transfer_weights(network, checkpoint) > 200
    source, target = start.state_dict(), network.state_dict()
    wider = [k for k in source if k in target and source[k].shape != target[k].shape]
    assert any(k.startswith("context_path.") for k in wider)
    for name, value in target.items():
        if name.startswith("backbone."):
            assert torch.equal(value, source[name]), name
        elif name in wider and name.startswith("context_path."):
            assert torch.equal(value[:, :1024], source[name]), name
    assert torch.equal(target["text_embeddings"], vectors)
    with pytest.raises(CheckpointError, match="same backbone"):
        transfer_weights(network, replace(checkpoint, state_dict={}))
    # All of STDC1's names are among STDC2's, with the same shapes.
    with pytest.raises(CheckpointError, match="same backbone"):
        transfer_weights(STDCSeg(STDCSegConfig("stdc2", 4)), checkpoint)


def test_weights_transfer_from_more_classes() -> None:
    vectors = torch.from_numpy(TextEmbeddings.random(tuple("abcdefg"), seed=0).vectors)
    start = STDCSeg(STDCSegConfig("stdc1", 7, "encoder"), vectors)
    checkpoint = Checkpoint(start.config, start.state_dict(), TABLE, None, (0, 0, 0), (1, 1, 1), {})
    for network in (
        STDCSeg(STDCSegConfig("stdc1", 4, "encoder"), vectors[:4]),
        STDCSeg(STDCSegConfig("stdc1", 4)),
    ):
        transfer_weights(network, checkpoint)
        name = "context_path.arm32.conv.conv.weight"
        target, source = network.state_dict()[name], start.state_dict()[name]
        assert target.shape[1] < source.shape[1]
        assert torch.equal(target, source[:, : target.shape[1]])


def test_presets_name_themselves_by_their_data() -> None:
    assert all(name.startswith(c.dataset.replace("_", "-")) for name, c in PRESETS.items())
    stage2 = {name for name, config in PRESETS.items() if config.backbone_lr_scale == 0}
    assert stage2 == {name for name in PRESETS if "stage2" in name}


def test_the_papers_schedules() -> None:
    for name, lr, batch, iterations, warmup in (
        ("camvid", 0.1, 16, 10_000, 200),
        ("cityscapes", 0.05, 24, 160_000, 1000),
    ):
        for recipe in (PRESETS[name], PRESETS[f"{name}-stage2"]):
            assert (recipe.lr, recipe.batch_size) == (lr, batch)
            assert (recipe.iterations, recipe.warmup) == (iterations, warmup)
            assert (recipe.prompt_lr_scale, recipe.prompt_weight_decay) == (0.1, 0)
        assert PRESETS[name].backbone_lr_scale == 0.1


def test_a_recipe_is_changed_by_assignments() -> None:
    changed = CONFIG.updated(
        ["lr=0.5", "text_guidance=null", "augmentation.scales=[1, 2]", "ohem=stdc", "seed=3"]
    )
    assert changed == replace(
        CONFIG,
        lr=0.5,
        text_guidance=None,
        augmentation=replace(CONFIG.augmentation, scales=(1.0, 2.0)),
        ohem="stdc",
        seed=3,
    )
    assert CONFIG.updated([]) == CONFIG
    for wrong, message in (
        ("rate=1", "changes no field.*lr"),
        ("lr", "expected FIELD=VALUE"),
        ("lr=fast", "lr is 'fast'"),
        ("ohem=hard", "ohem is 'hard'"),
        ("augmentation.crop=5", "augmentation.crop"),
        ("prompt=learned", "prompt is 'learned'"),
        ("iterations=2", "^warmup"),
        ("seed=-1", "^seed is -1"),
        ("lr.x=1", "changes no field"),
        ("dataset.a=1", "changes no field"),
        ("augmentation.crop=[0, 64]", "^base .* at least 1 pixel"),
        ("augmentation.scales=[2, 1]", "^scales"),
        ("augmentation.scales=[0, 1]", "^scales"),
    ):
        with pytest.raises(ConfigError, match=message):
            CONFIG.updated([wrong])


def test_an_installed_package_takes_no_revision_from_around_it(tmp_path: Path) -> None:
    """A virtual environment often lies in a user's own repository."""
    package = tmp_path / "venv" / "lib" / "edgeseg"
    package.mkdir(parents=True)
    git = ("git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b.c")
    subprocess.run([*git, "init", "-q"], check=True)
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "theirs"], check=True)
    assert git_revision(package / "train.py") is None
    assert git_revision(tmp_path / "python/edgeseg/train.py") is not None
