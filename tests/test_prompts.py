"""What is learned of the text guidance, and the preparation of embeddings."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from tests.towers import clip_encoder, random_bert, random_clip, sentence_encoder
from torch import Tensor, nn

from edgeseg.classes import CAMVID
from edgeseg.errors import ConfigError
from edgeseg.prompts import LearnedContexts, LearnedEmbeddings, prepare
from edgeseg.text_encoder import ClipTextEncoder, TextEncoder

K = len(CAMVID)


@pytest.fixture(scope="module")
def encoder() -> ClipTextEncoder:
    return clip_encoder(random_clip())


@pytest.fixture(params=["clip", "sentence"])
def any_encoder(
    request: pytest.FixtureRequest, encoder: ClipTextEncoder
) -> tuple[TextEncoder, tuple[str, ...]]:
    if request.param == "clip":
        return encoder, CAMVID.names
    return sentence_encoder(random_bert()), ("road", "tree", "traffic light")


def directions(seed: int, rows: int = K, columns: int = 64) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(rows, columns, generator=generator), dim=1)


def learn(prompt: nn.Module, target: Tensor, lr: float, steps: int = 20) -> tuple[float, float]:
    """First and last loss of turning the prompt's rows to target."""
    optimizer = torch.optim.SGD(prompt.parameters(), lr=lr, momentum=0.9)
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = (1 - (prompt() * target).sum(dim=1)).mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses[0], losses[-1]


# -------------------------------------------------------------------------------------- contexts


@pytest.mark.parametrize("unified", [False, True])
@pytest.mark.parametrize("contexts", [8, 11, 14, 17])
def test_contexts_stand_before_every_name(
    encoder: ClipTextEncoder, contexts: int, unified: bool
) -> None:
    prompt = LearnedContexts(encoder, CAMVID.names, contexts, unified)
    assert prompt.contexts.shape == (1 if unified else K, contexts, 32)
    expected = encoder(CAMVID.names, prompt.contexts.expand(K, -1, -1))
    torch.testing.assert_close(prompt(), expected)
    assert prompt.contexts.mean().abs() < 0.002
    assert prompt.contexts.std().item() == pytest.approx(0.02, rel=0.15)


def test_unified_contexts_learn_from_all_classes(encoder: ClipTextEncoder) -> None:
    prompt = LearnedContexts(encoder, CAMVID.names, 8, unified=True)
    grads = []
    for row in range(K):
        (grad,) = torch.autograd.grad(prompt()[row].sum(), prompt.contexts)
        grads.append(grad)
    (total,) = torch.autograd.grad(prompt().sum(), prompt.contexts)
    torch.testing.assert_close(total, torch.stack(grads).sum(dim=0), rtol=1e-4, atol=1e-5)
    assert all(grad.any() for grad in grads)


def test_learning_moves_the_loss_and_nothing_else(
    any_encoder: tuple[TextEncoder, tuple[str, ...]],
) -> None:
    encoder, names = any_encoder
    before = copy.deepcopy(encoder.state_dict())
    prompt = LearnedContexts(encoder, names)
    assert [name for name, _ in prompt.named_parameters()] == ["contexts"]
    start = prompt.contexts.detach().clone()
    first, last = learn(prompt, directions(1, len(names), prompt().shape[1]), lr=0.1)
    assert last < first - 0.02
    assert (prompt.contexts - start).abs().amin(dim=(1, 2)).max() > 0
    for name, value in encoder.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_state_holds_what_is_learned(encoder: ClipTextEncoder) -> None:
    learned = LearnedContexts(encoder, CAMVID.names, seed=1)
    assert list(learned.state_dict()) == ["contexts"]
    other = LearnedContexts(encoder, CAMVID.names, seed=2)
    assert not torch.equal(other(), learned())
    other.load_state_dict(learned.state_dict())
    assert torch.equal(other(), learned())
    assert torch.equal(LearnedContexts(encoder, CAMVID.names, seed=1)(), learned())


def test_the_encoder_moves_along() -> None:
    encoder = clip_encoder(random_clip())
    prompt = LearnedContexts(encoder, CAMVID.names).to("meta")
    assert prompt.contexts.is_meta
    assert {tensor.device.type for tensor in (*encoder.parameters(), *encoder.buffers())} == {
        "meta"
    }
    assert prompt.train().training
    assert not encoder.training


def test_no_contexts_is_no_prompt(encoder: ClipTextEncoder) -> None:
    with pytest.raises(ConfigError, match="contexts is 0"):
        LearnedContexts(encoder, CAMVID.names, 0)
    with pytest.raises(ConfigError, match="use fewer contexts"):
        LearnedContexts(encoder, CAMVID.names, 75)()


# ------------------------------------------------------------------------------------ embeddings


def test_embeddings_are_learned_themselves() -> None:
    start = directions(0)
    prompt = LearnedEmbeddings(2 * start)
    torch.testing.assert_close(prompt(), start)
    assert list(prompt.state_dict()) == ["vectors"]
    first, last = learn(prompt, directions(1), lr=5.0)
    assert last < 0.5 * first
    torch.testing.assert_close(prompt().norm(dim=1), torch.ones(K))


# ----------------------------------------------------------------------------------- preparation


def close_rows(spread: float = 0.5) -> Tensor:
    """Unit rows that share most of their direction, as text embeddings do."""
    return F.normalize(directions(2, 1) + spread * directions(3), dim=1)


def test_none_only_normalises() -> None:
    torch.testing.assert_close(prepare(3 * close_rows(), "none"), close_rows())


def test_centred_rows_have_lost_their_mean() -> None:
    rows = close_rows()
    assert (rows @ rows.T).min() > 0.6
    centred = prepare(rows, "centred")
    expected = F.normalize(rows.double() - rows.double().mean(dim=0), dim=1)
    torch.testing.assert_close(centred.double(), expected, rtol=0, atol=1e-6)
    assert (centred @ centred.T).fill_diagonal_(0).mean() < 0


def test_whitened_rows_are_the_nearest_orthonormal_ones() -> None:
    rows = close_rows()
    u, _, v = torch.linalg.svd(rows.double(), full_matrices=False)
    whitened = prepare(rows, "whitened")
    torch.testing.assert_close(whitened.double(), u @ v, rtol=0, atol=1e-6)
    torch.testing.assert_close(whitened @ whitened.T, torch.eye(K), rtol=0, atol=1e-6)
    assert (whitened * rows).sum(dim=1).min() > 0.4  # each its own class still


@pytest.mark.parametrize("how", ["none", "centred", "whitened"])
@pytest.mark.parametrize("rows", [close_rows()[:4, :6], torch.eye(4, 6)], ids=["close", "equal"])
def test_preparation_passes_gradients(how: str, rows: Tensor) -> None:
    """Also where all eigenvalues are equal and an eigendecomposition's own backward is infinite."""
    rows = F.normalize(rows, dim=1).requires_grad_()
    weights = torch.randn(rows.shape, generator=torch.Generator().manual_seed(5)).double()

    def value(rows: Tensor) -> Tensor:
        return (prepare(rows, how).double() * weights).sum()

    (grad,) = torch.autograd.grad(value(rows), rows)
    step = 1e-2 * torch.randn(rows.shape, generator=torch.Generator().manual_seed(6))
    with torch.no_grad():
        change = value(rows + step) - value(rows - step)
    assert change.item() == pytest.approx(2 * (grad * step).sum().item(), rel=0.02, abs=1e-4)


@pytest.mark.parametrize("how", ["none", "centred", "whitened"])
def test_preparation_is_float32_under_autocast(how: str) -> None:
    with torch.autocast("cpu", torch.bfloat16):
        prepared = prepare(close_rows(), how)
    assert prepared.dtype == torch.float32
    torch.testing.assert_close(prepared, prepare(close_rows(), how))


def test_nearly_equal_rows_are_whitened_still() -> None:
    rows = torch.cat([close_rows(), close_rows()[:1] + 1e-2 * directions(9)[:1]]).requires_grad_()
    whitened = prepare(rows, "whitened")
    torch.testing.assert_close(whitened @ whitened.T, torch.eye(K + 1), rtol=0, atol=1e-5)
    (grad,) = torch.autograd.grad(whitened[0].sum(), rows)
    assert grad.isfinite().all()


def test_where_nothing_is_left_it_says_so() -> None:
    rows = close_rows()
    with pytest.raises(ConfigError, match="text embedding 0 is the mean of all 1"):
        prepare(rows[:1], "centred")
    with pytest.raises(ConfigError, match="is the mean of all 2"):
        prepare(rows[[0, 0]], "centred")
    with pytest.raises(ConfigError, match="the closest are 1 and 11"):
        prepare(torch.cat([rows, rows[1:2]]), "whitened")
    assert torch.allclose(prepare(rows[:1], "whitened"), rows[:1])
