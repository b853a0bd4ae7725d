"""Texts are encoded up to the longest of a batch, not up to the context length.

Under a causal mask no token sees what follows it, and CLIP reads a text's features at its end token. So the padding
behind the longest text changes nothing, and is most of the work: 77 tokens, of which a class name in a prompt has 8.
"""

from typing import Any

from open_clip.model import CLIP, CustomTextCLIP
from open_clip.transformer import TextTransformer, text_global_pool
from torch import Tensor, nn
from torch.nn import functional as F


def encode_text(model: Any, tokens: Tensor) -> Tensor:
    """Unit features [B, D] of token ids [B, L], as the model's own `encode_text` gives them.

    Towers whose features depend on padding (no causal mask, CoCa's class token, SigLIP's last token, Hugging Face's)
    are given all of it. Nothing of the model is swapped meanwhile: threads may share it.
    """
    tower: Any = getattr(model, "text", model)
    device, length = next(model.parameters()).device, _needed(model, tower, tokens)
    if length == tokens.shape[1]:
        return model.encode_text(tokens.to(device), normalize=True)
    tokens, dtype = tokens[:, :length].to(device), tower.transformer.get_cast_dtype()
    x = tower.token_embedding(tokens).to(dtype) + tower.positional_embedding[:length].to(dtype)  # (B, length, width)
    x = tower.ln_final(tower.transformer(x, attn_mask=tower.attn_mask[:length, :length]))
    x, projection = text_global_pool(x, tokens, *_pooling(tower)), tower.text_projection
    if projection is not None:
        x = projection(x) if isinstance(projection, nn.Linear) else x @ projection
    return F.normalize(x, dim=-1)


def _needed(model: Any, tower: Any, tokens: Tensor) -> int:
    """How many tokens, from the first on, decide the features; all of them where fewer are not known to do."""
    known = type(model) in (CLIP, CustomTextCLIP) and isinstance(tower, CLIP | TextTransformer)
    if not known or tower.attn_mask is None or getattr(tower, "cls_emb", None) is not None:
        return tokens.shape[1]
    pool, end_token = _pooling(tower)
    if pool not in ("argmax", "eos"):
        return tokens.shape[1]
    ends = (tokens if pool == "argmax" else (tokens == end_token).int()).argmax(-1)
    return int(ends.max()) + 1


def _pooling(tower: Any) -> tuple[str, int]:
    """Where the features are read, in open_clip's words, and the id of the end token."""
    prefix = "text_" if isinstance(tower, CLIP) else ""
    return getattr(tower, f"{prefix}pool_type"), getattr(tower, f"{prefix}eos_id")
