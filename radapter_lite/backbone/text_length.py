"""Texts are encoded up to the longest of a batch, not up to the context length.

Under a causal mask no token sees what follows it, and CLIP reads a text's features at its end token. So the padding
behind the longest text changes nothing, and is most of the work: 77 tokens, of which a class name in a prompt has 8.
"""

from typing import Any

from open_clip.model import CLIP, CustomTextCLIP
from open_clip.transformer import text_global_pool
from torch import Tensor, nn
from torch.nn import functional as F


def encode_text(model: Any, tokens: Tensor) -> Tensor:
    """Unit features [B, D] of token ids [B, L], as the model's own `encode_text` gives them.

    Towers whose features depend on padding (no causal mask, CoCa's class token, SigLIP's last token, Hugging Face's)
    are given all of it. Nothing of the model is swapped meanwhile: threads may share it.
    """
    tower, device = getattr(model, "text", model), next(model.parameters()).device
    own = "text_" if isinstance(tower, CLIP) else ""
    pool, end = getattr(tower, f"{own}pool_type", ""), getattr(tower, f"{own}eos_id", -1)
    mask, class_token = getattr(tower, "attn_mask", None), getattr(tower, "cls_emb", None)
    known = type(model) in (CLIP, CustomTextCLIP) and pool in ("argmax", "eos")
    if not known or mask is None or class_token is not None:
        return model.encode_text(tokens.to(device), normalize=True)
    length = int((tokens if pool == "argmax" else (tokens == end).int()).argmax(-1).max()) + 1
    tokens, dtype = tokens[:, :length].to(device), tower.transformer.get_cast_dtype()
    x = tower.token_embedding(tokens).to(dtype) + tower.positional_embedding[:length].to(dtype)  # (B, length, width)
    x = tower.ln_final(tower.transformer(x, attn_mask=mask[:length, :length]))
    x, projection = text_global_pool(x, tokens, pool, end), tower.text_projection
    if projection is not None:
        x = projection(x) if isinstance(projection, nn.Linear) else x @ projection
    return F.normalize(x, dim=-1)
