"""CoOp: learned vectors before the class name, the same for all classes, in place of "a photo of a".

A class's prompt is [start] v_1 ... v_M [class name] [end]. The text encoder is given ids with M place-holders, whose
embeddings are replaced by v on the way. P-tuning's v come from an LSTM, so that they depend on each other.

Source: Zhou et al. 2022, "Learning to Prompt for Vision-Language Models" (unified context, class name at the end);
Liu et al. 2021, "GPT Understands, Too": a bidirectional LSTM of two layers, then an MLP of two.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from open_clip.transformer import TextTransformer
from torch import Tensor, nn

from radapter_lite.backbone import Backbone
from radapter_lite.backbone.attaching import Attachment, frozen
from radapter_lite.encoding import image_features
from radapter_lite.methods.objectives import cosine_cross_entropy, frozen_features
from radapter_lite.methods.registry import PROMPTS_ELSEWHERE, LossConfig, register
from radapter_lite.methods.trainer import Train, count
from radapter_lite.seeding import seeded
from radapter_lite.settings import Count, Whole
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
    """CoOp's settings.

    Attributes:
        context_length: M, how many vectors; with 0 it is zero-shot classification with the bare class name.
        init_text: M tokens whose embeddings the vectors begin as, as "a photo of a"; None for N(0, 0.02²).
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


def answer(backbone: Backbone, task: Task, tuned: Tuned) -> Tensor:
    """Cosines [N, T] of a task's images with its names behind the learned vectors, whatever names they are."""
    vectors = tuned.tensors["vectors"].to(backbone.device)
    head = encode_prompts(backbone, prompt_tokens(backbone, task.names, len(vectors)), vectors)
    return image_features(backbone, task.images) @ head.T


@register("CoOp", CoOpConfig(init_text=WORDS), grid=(3e-4, 1e-3, 3e-3), elsewhere=PROMPTS_ELSEWHERE, answer=answer)
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
    return Tuned({"vectors": prompt().detach()}, history, count(prompt.parameters()))


p_tuning = register(
    "P-tuning", PTuningConfig(init_text=WORDS), grid=(1e-4, 3e-4, 1e-3), elsewhere=PROMPTS_ELSEWHERE, answer=answer
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
    """Token embeddings [M, width] of a text, without the tokens that mark start and end.

    Raises ValueError for a text whose number of tokens is not `context_length`.
    """
    ids, start = backbone.tokenizer([text, ""]), _start(backbone)
    own, empty = _lengths(backbone, ids)
    if (count := own - empty) != context_length:
        found = f"init_text {text!r} is {count} tokens"
        raise ValueError(f"{found} where context_length is {context_length}: make the two equal")
    table = token_embedding(backbone.model).weight
    return table.detach()[ids[0, start : start + count].to(table.device)]


def prompt_tokens(backbone: Backbone, classes: Sequence[str], count: int) -> Tensor:
    """Ids [C, L] of the class names with `count` place-holders before each.

    Raises ValueError for a name that leaves no room for so many.
    """
    ids = backbone.tokenizer(list(classes))
    length = ids.shape[1]
    for name, used in zip(classes, _lengths(backbone, ids), strict=True):
        if (room := length - used) < count:
            found = f"the text encoder takes {length} tokens, and the class name {name!r} leaves room for {room}"
            advice = f"set context_length to {room} or shorten the name"
            raise ValueError(f"{found} learned vectors, not {count}: {advice}")
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
