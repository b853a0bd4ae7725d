"""Learned prompts, with the encoders' weights frozen: CoOp, P-tuning and prefix tuning.

CoOp learns vectors in place of "a photo of a", the same for all classes: [start] v_1 ... v_M [class name] [end]. The
text encoder is given ids with M place-holders, whose embeddings are replaced by v on the way. P-tuning's v come from an
LSTM, so that they depend on each other. Prefix tuning learns keys and values in every layer of the text encoder, where
each attention sees K' = [P_k; K] and V' = [P_v; V] and the causal mask hides no prefix; and tokens in every image layer
(VPT, deep), which reads them beside its own and drops them after.

Source: Zhou et al. 2022, "Learning to Prompt for Vision-Language Models" (unified context, class name at the end);
Liu et al. 2021, "GPT Understands, Too": a bidirectional LSTM of two layers, then an MLP of two; Li and Liang 2021
(prefix tuning, without its re-parameterizing MLP); Jia et al. 2022 (visual prompt tuning).
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any

import torch
from open_clip.transformer import TextTransformer, VisionTransformer
from torch import Tensor, nn
from torch.nn import functional as F

from radapter_lite.backbone import Backbone
from radapter_lite.backbone.sites import TOWERS, Attachment, frozen
from radapter_lite.encoding import image_features, predict, text_features
from radapter_lite.methods.objectives import cosine_cross_entropy, encode_batch, frozen_features, wordings
from radapter_lite.methods.registry import ADAPTERS_ELSEWHERE, PROMPTS_ELSEWHERE, LossConfig, Train, register
from radapter_lite.seeding import seeded
from radapter_lite.settings import Bound, Count, Whole
from radapter_lite.tasks import Batch, Task
from radapter_lite.tuned import Tuned

WORDS = "an icon of a"  # one of PictoCLIP's prompts


class Context(nn.Module):
    """The learned vectors [M, width], begun as `start`, or at random."""

    def __init__(self, count: int, width: int, start: Tensor | None = None) -> None:
        super().__init__()
        self.vectors = nn.Parameter(0.02 * torch.randn(count, width) if start is None else start.float())

    def forward(self) -> Tensor:
        return self.vectors


@dataclass(frozen=True)
class CoOpConfig(LossConfig):
    """CoOp's settings: M, how many vectors, and M tokens whose embeddings they begin as; None for N(0, 0.02²).

    With M = 0 it is zero-shot classification with the bare class name.
    """

    context_length: Whole = 4
    init_text: str | None = None


@dataclass(frozen=True)
class PTuningConfig(CoOpConfig):
    """CoOp's settings, with one vector or more; without `init_text` they begin anywhere, the published form."""

    context_length: Count = 4


class PromptLSTM(nn.Module):
    """The vectors [M, width]: inputs [M, width], through an LSTM of half the width each way, then an MLP.

    With a `start` [M, width] that is added to them, the last layer begins at zero, and the vectors as the start.
    """

    def __init__(self, count: int, width: int, start: Tensor | None = None) -> None:
        super().__init__()
        self.start = start
        self.inputs = nn.Parameter(torch.randn(count, width))
        self.lstm = nn.LSTM(width, width // 2, num_layers=2, bidirectional=True)
        last = nn.Linear(width, width)
        if start is not None:
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)
        self.mlp = nn.Sequential(nn.Linear(2 * (width // 2), width), nn.ReLU(), last)

    def forward(self) -> Tensor:
        hidden, _ = self.lstm(self.inputs)  # (M, width): a sequence without a batch
        vectors = self.mlp(hidden)
        return vectors if self.start is None else self.start + vectors


def _prompted(backbone: Backbone, task: Task, tuned: Tuned) -> Tensor:
    """Cosines [N, T] of a task's images with its names behind the learned vectors, whatever names they are."""
    vectors = tuned.tensors["vectors"].to(backbone.device)
    head = encode_prompts(backbone, prompt_tokens(backbone, task.names, len(vectors)), vectors)
    return image_features(backbone, task.images) @ head.T


@register("CoOp", CoOpConfig(init_text=WORDS), grid=(3e-4, 1e-3, 3e-3), elsewhere=PROMPTS_ELSEWHERE, answer=_prompted)
def coop(backbone: Backbone, task: Task, config: CoOpConfig, train: Train) -> Tuned:
    """Train what makes the vectors by cross-entropy, both encoders frozen; similarities are cosines [N, C].

    The vectors alone are used afterwards. Raises what `train` raises, and ValueError for a text tower that is not
    open_clip's own, class names that leave no room for the context, or an `init_text` of another length.
    """
    table, length, words = token_embedding(backbone.model).weight, config.context_length, config.init_text
    start = None if words is None else embed_words(backbone, words, length)
    with seeded(config.training.seed):
        kind = PromptLSTM if isinstance(config, PTuningConfig) else Context
        prompt = kind(length, table.shape[1], start).to(table.device)
    tokens = prompt_tokens(backbone, task.names, length)

    def loss(batch: Batch) -> Tensor:
        features = frozen_features(backbone, batch)
        with torch.autocast(features.device.type, enabled=False):  # the vectors, in float32; then the encoder
            vectors = prompt()
        head = encode_prompts(backbone, tokens, vectors)
        return cosine_cross_entropy(features, head, batch.labels, config.temperature)

    with frozen(backbone.model):
        history = train(loss, prompt.parameters(), prompt=prompt)
    return Tuned({"vectors": prompt().detach()}, history, sum(p.numel() for p in prompt.parameters()))


p_tuning = register(
    "P-tuning", PTuningConfig(init_text=WORDS), grid=(1e-4, 3e-4, 1e-3), elsewhere=PROMPTS_ELSEWHERE, answer=_prompted
)(coop)


def token_embedding(model: nn.Module) -> nn.Embedding:
    """The text encoder's table of token embeddings. Raises ValueError if the text tower is not open_clip's own."""
    tower = getattr(model, "text", model)
    found = getattr(tower, "token_embedding", None)
    if isinstance(found, nn.Embedding) and (tower is model or isinstance(tower, TextTransformer)):
        return found
    found = f"the text tower is a {type(tower).__name__}, whose token embeddings cannot be replaced here"
    raise ValueError(f"{found}: choose a model with open_clip's own text tower, such as ViT-B-32")


def embed_words(backbone: Backbone, text: str, context_length: int) -> Tensor:
    """Token embeddings [M, width] of a text, start and end not among them; ValueError if M is not `context_length`."""
    ids, start = backbone.tokenizer([text, ""]), _start(backbone)
    own, empty = _lengths(backbone, ids)
    if (count := own - empty) != context_length:
        found = f"init_text {text!r} is {count} tokens"
        raise ValueError(f"{found} where context_length is {context_length}: make the two equal")
    table = token_embedding(backbone.model).weight
    return table.detach()[ids[0, start : start + count].to(table.device)]


def prompt_tokens(backbone: Backbone, classes: Sequence[str], count: int) -> Tensor:
    """Ids [C, L] of class names, `count` place-holders before each; ValueError for a name that leaves no room."""
    ids = backbone.tokenizer(list(classes))
    length = ids.shape[1]
    for name, used in zip(classes, _lengths(backbone, ids), strict=True):
        if (room := length - used) < count:
            found = f"the text encoder takes {length} tokens, and the class name {name!r} leaves room for {room}"
            raise ValueError(f"{found} learned vectors, not {count}: set context_length to {room} or shorten the name")
    start = _start(backbone)
    place_holder = backbone.tokenizer(["x"])[:, start : start + 1].expand(len(ids), count)
    return torch.cat([ids[:, :start], place_holder, ids[:, start : length - count]], dim=1)


def encode_prompts(backbone: Backbone, tokens: Tensor, vectors: Tensor) -> Tensor:
    """Unit text features [C, D] of `prompt_tokens`, with the vectors [M, width] in the place-holders' stead."""
    start, count = _start(backbone), len(vectors)

    def change(ids: Tensor, embedded: Tensor) -> Tensor:  # (C, L, width)
        own = vectors.to(embedded.dtype).expand(len(embedded), -1, -1)
        return torch.cat([embedded[:, :start], own, embedded[:, start + count :]], dim=1)

    place = "text.token_embedding" if hasattr(backbone.model, "text") else "token_embedding"
    with Attachment(backbone.model, {place: change}):
        return backbone.encode_texts(tokens)


def _start(backbone: Backbone) -> int:
    """How many tokens stand before a text's first word: 1 where a token marks the start, else 0."""
    word, empty = backbone.tokenizer(["x", ""])
    return int((word == empty).int().cumprod(0).sum())


def _lengths(backbone: Backbone, ids: Tensor) -> list[int]:
    """Tokens of each text [C, L] up to its last that is no padding."""
    others = ids != backbone.tokenizer([""])[0, -1]
    return (others * torch.arange(1, ids.shape[1] + 1)).amax(1).tolist()


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
        appends: dict[str, Any] = {  # a block's input [B, L, D] with the learned tokens [P, D] behind its own
            f"visual.transformer.resblocks.{layer}": lambda x, p=p: torch.cat([x, p.to(x).expand(len(x), -1, -1)], 1)
            for layer, p in enumerate(getattr(self, "image", ()))
        }
        drops = dict.fromkeys(appends, lambda _, output: output[:, : -self.length])
        with Attachment(model, drops, appends) as stack:
            if (text := getattr(self, "text", None)) is not None:
                for block, (keys, values) in zip(_blocks(model, "text"), text, strict=True):
                    block.attn.forward = partial(attend, block.attn, keys, values)
                    stack.callback(delattr, block.attn, "forward")  # the class's own again
            yield


def attend(
    attention: nn.MultiheadAttention, keys: Tensor, values: Tensor, x: Tensor, *_: Any, attn_mask: Any = None, **__: Any
) -> tuple[Tensor, None]:
    """Self-attention over [prefix; x]: the output of nn.MultiheadAttention with P more keys and values [B, L, D].

    The mask [L, L] or [B * heads, L, L] is added to the scores; keys and values [P, D] are projected, and seen by all.
    It stands in for the attention's own forward pass; weights and hooks stay as they are.
    """
    batch, heads = len(x), attention.num_heads
    q, k, v = F.linear(x, attention.in_proj_weight, attention.in_proj_bias).chunk(3, dim=-1)
    k = torch.cat([keys.to(k.dtype).expand(batch, -1, -1), k], dim=1)  # (B, P + L, D)
    v = torch.cat([values.to(v.dtype).expand(batch, -1, -1), v], dim=1)
    # (B, ., D) -> (B, heads, ., D / heads)
    q, k, v = (part.unflatten(-1, (heads, -1)).transpose(1, 2) for part in (q, k, v))
    if attn_mask is not None:
        attn_mask = F.pad(attn_mask.to(q.dtype), (len(keys), 0))  # 0 in front: seen by all
        if attn_mask.ndim == 3:
            attn_mask = attn_mask.unflatten(0, (batch, heads))
    mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=attn_mask)
    return attention.out_proj(mixed.transpose(1, 2).flatten(2)), None


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
    return Tuned(dict(prefixes.state_dict()), history, sum(p.numel() for p in prefixes.parameters()))


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
