"""Prefix tuning: learned keys and values in every layer of the text encoder, learned tokens in every image layer.

Text: each attention sees K' = [P_k; K] and V' = [P_v; V]; the causal mask hides no prefix from any position.
Image (VPT, deep): each layer reads its tokens with the learned ones beside them, and theirs are dropped after it.

Source: Li and Liang 2021 (prefix tuning, without its re-parameterizing MLP), Jia et al. 2022 (visual prompt tuning).
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, Any

import torch
from open_clip.transformer import VisionTransformer
from torch import Tensor, nn
from torch.nn import functional as F

from radapter_lite.backbone import Backbone
from radapter_lite.backbone.attaching import Attachment, frozen
from radapter_lite.backbone.sites import TOWERS
from radapter_lite.encoding import predict, text_features
from radapter_lite.methods.coop import token_embedding
from radapter_lite.methods.objectives import cosine_cross_entropy, encode_batch, wordings
from radapter_lite.methods.registry import ADAPTERS_ELSEWHERE, LossConfig, register
from radapter_lite.methods.trainer import Train, count
from radapter_lite.seeding import seeded
from radapter_lite.settings import Bound, Count
from radapter_lite.tasks import Batch, Task
from radapter_lite.tuned import Tuned

Towers = Annotated[tuple[str, ...], Bound("be 'image', 'text' or both", lambda own: {*own} and {*own} <= {*TOWERS})]


@dataclass(frozen=True)
class PrefixConfig(LossConfig):
    """Prefix tuning's settings: how many tokens a layer learns, and whether "image", "text" or both do."""

    length: Count = 4
    towers: Towers = TOWERS


class Prefixes(nn.Module):
    """What is learned, begun at N(0, 0.02²).

    `text` [layers, 2, length, width] are keys and values, and `image` [layers, length, width] tokens. Raises ValueError
    for a tower that is not open_clip's own, or whose attention has more to it than projections.
    """

    def __init__(self, model: nn.Module, length: int, towers: tuple[str, ...]) -> None:
        super().__init__()
        self.length, device = length, next(model.parameters()).device
        for tower in (tower for tower in TOWERS if tower in towers):
            blocks = _blocks(model, tower)
            width = blocks[0].ln_1.weight.shape[0]
            shape = (len(blocks), 2, length, width) if tower == "text" else (len(blocks), length, width)
            self.register_parameter(tower, nn.Parameter(0.02 * torch.randn(shape).to(device)))

    @contextmanager
    def installed(self, model: nn.Module) -> Iterator[None]:
        """The model reads the prefixes for the length of a with block."""
        tokens = enumerate(getattr(self, "image", ()))
        appends = {f"visual.transformer.resblocks.{layer}": _appending(own) for layer, own in tokens}
        drops = dict.fromkeys(appends, lambda _, output: output[:, : -self.length])
        with Attachment(model, drops, appends) as stack:
            if (text := getattr(self, "text", None)) is not None:
                for block, (keys, values) in zip(_blocks(model, "text"), text, strict=True):
                    block.attn.forward = _prefixed(block.attn, keys, values)
                    stack.callback(delattr, block.attn, "forward")  # the class's own again
            yield


def attend(attention: nn.MultiheadAttention, x: Tensor, mask: Tensor | None, keys: Tensor, values: Tensor) -> Tensor:
    """Self-attention over [prefix; x]: the output of nn.MultiheadAttention with P more keys and values [B, L, D].

    The mask [L, L] or [B * heads, L, L] is added to the scores; keys and values [P, D] are projected, and seen by all.
    """
    batch, heads = len(x), attention.num_heads
    q, k, v = F.linear(x, attention.in_proj_weight, attention.in_proj_bias).chunk(3, dim=-1)
    k = torch.cat([keys.to(k.dtype).expand(batch, -1, -1), k], dim=1)  # (B, P + L, D)
    v = torch.cat([values.to(v.dtype).expand(batch, -1, -1), v], dim=1)
    # (B, ., D) -> (B, heads, ., D / heads)
    q, k, v = (part.unflatten(-1, (heads, -1)).transpose(1, 2) for part in (q, k, v))
    if mask is not None:
        mask = F.pad(mask.to(q.dtype), (len(keys), 0))  # 0 in front: seen by all
        if mask.ndim == 3:
            mask = mask.unflatten(0, (batch, heads))
    mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    return attention.out_proj(mixed.transpose(1, 2).flatten(2))


def _answer(backbone: Backbone, task: Task, tuned: Tuned) -> Tensor:
    prefixes = Prefixes(backbone.model, tuned.config.length, tuned.config.towers)
    prefixes.load_state_dict(tuned.tensors)
    with prefixes.installed(backbone.model):
        return predict(backbone, task)


@register("prefix tuning", PrefixConfig(), grid=(3e-3, 1e-2, 3e-2), elsewhere=ADAPTERS_ELSEWHERE, answer=_answer)
def prefix_tuning(backbone: Backbone, task: Task, config: PrefixConfig, train: Train) -> Tuned:
    """Train the prefixes by cross-entropy, the weights frozen; similarities are cosines [N, C].

    Each step puts every class name into a prompt drawn anew; afterwards a class is the mean of its prompts. Prefixes
    take a share of every attention, so that it begins near zero-shot, not at it. Raises what `Prefixes` and `train` do.
    """
    model = backbone.model
    with seeded(config.training.seed):
        prefixes = Prefixes(model, config.length, config.towers)
    draw, every = wordings(backbone, task), torch.arange(len(task.names))
    head = None if "text" in config.towers else text_features(backbone, task.texts(backbone))  # (T, D)

    def loss(batch: Batch) -> Tensor:
        with prefixes.installed(model):
            with torch.set_grad_enabled("image" in config.towers):
                features = encode_batch(backbone, batch)
            texts = backbone.encode_texts(draw(every)) if head is None else head
            return cosine_cross_entropy(features, texts, batch.labels, config.temperature)

    with frozen(model):
        history = train(loss, prefixes.parameters(), prefixes=prefixes)
    return Tuned(dict(prefixes.state_dict()), history, count(prefixes.parameters()))


def _blocks(model: nn.Module, tower: str) -> list[Any]:
    if tower == "image":
        if isinstance(model.visual, VisionTransformer):
            return list(model.visual.transformer.resblocks)
        found = f"the image tower is a {type(model.visual).__name__}, whose layers take no learned tokens here"
        advice = "choose a model with open_clip's own VisionTransformer, such as ViT-B-32, or towers=('text',)"
        raise ValueError(f"{found}: {advice}")
    token_embedding(model)  # which refuses a text tower of another library
    blocks = list(getattr(model, "text", model).transformer.resblocks)  # type: ignore[union-attr, arg-type]
    if not isinstance(blocks[0].attn, nn.MultiheadAttention):
        found = f"the text tower's attention ({type(blocks[0].attn).__name__}) normalizes or scales more than"
        advice = "choose a model with plain attention, or towers=('image',)"
        raise ValueError(f"{found} nn.MultiheadAttention does: {advice}")
    return blocks


def _prefixed(attention: nn.MultiheadAttention, keys: Tensor, values: Tensor) -> Callable[..., Any]:
    """The attention's forward pass as `attend` computes it; its weights and hooks stay as they are."""
    return lambda x, *_, attn_mask=None, **__: (attend(attention, x, attn_mask, keys, values), None)


def _appending(tokens: Tensor) -> Callable[[Tensor], Tensor]:
    """A block's input [B, L, D] with the learned tokens [P, D] behind its own."""
    return lambda x: torch.cat([x, tokens.to(x.dtype).expand(len(x), -1, -1)], dim=1)
