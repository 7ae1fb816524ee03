"""Text towers of random weights, small enough to be tested and built by the real libraries."""

from __future__ import annotations

import open_clip
import torch
from open_clip.transformer import QuickGELU, TextTransformer
from transformers import BertConfig, BertModel

from edgeseg.text_encoder import ClipTextEncoder, SentenceEncoder, Tokenizer

CLIP_TEXT = {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 3}
BERT_WORDS = ("[PAD]", "[CLS]", "[SEP]", "[UNK]", "road", "tree", "traffic", "light", "sign")


def random_clip(dimensions: int = 64) -> open_clip.CLIP:
    """CLIP with a small image tower; float32, QuickGELU as OpenAI's."""
    torch.manual_seed(0)
    vision = open_clip.CLIPVisionCfg(layers=1, width=64, patch_size=16, image_size=16)
    text = open_clip.CLIPTextCfg(**CLIP_TEXT)
    return open_clip.CLIP(dimensions, vision, text, quick_gelu=True).eval()


def clip_encoder(clip: open_clip.CLIP) -> ClipTextEncoder:
    """The text tower of `clip`, as edgeseg uses it."""
    dimensions = clip.text_projection.shape[1]
    tower = TextTransformer(**CLIP_TEXT, output_dim=dimensions, act_layer=QuickGELU)
    tower.load_state_dict({name: clip.state_dict()[name] for name in tower.state_dict()})
    words = open_clip.tokenizer._tokenizer  # made on import; making one takes half a second
    tokenizer = Tokenizer(words.encode, words.sot_token_id, words.eot_token_id)
    return ClipTextEncoder(tower, tokenizer, "random CLIP")


def random_bert() -> BertModel:
    torch.manual_seed(0)
    return BertModel(
        BertConfig(
            vocab_size=len(BERT_WORDS),
            hidden_size=24,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=48,
            max_position_embeddings=32,
        )
    ).eval()


def sentence_encoder(bert: BertModel) -> SentenceEncoder:
    tokenizer = Tokenizer(lambda name: [BERT_WORDS.index(w) for w in name.split()], 1, 2)
    return SentenceEncoder(bert, tokenizer, "random BERT")
