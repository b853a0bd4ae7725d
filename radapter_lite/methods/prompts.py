"""Learned vectors in place of a prompt's words: what CoOp and P-tuning share.

A class's prompt is [start] v_1 ... v_M [class name] [end]. The text encoder is given ids with M place-holders, whose
embeddings are replaced by v on the way; everything after the embedding is open_clip's own.
"""

from collections.abc import Sequence

import torch
from open_clip.transformer import TextTransformer
from torch import Tensor, nn

from radapter_lite.backbone import Backbone
from radapter_lite.backbone.attaching import Attachment


def token_embedding(model: nn.Module) -> nn.Embedding:
    """The text encoder's table of token embeddings.

    Raises:
        ValueError: if the text tower is not open_clip's own.
    """
    tower = getattr(model, "text", model)
    found = getattr(tower, "token_embedding", None)
    if isinstance(found, nn.Embedding) and (tower is model or isinstance(tower, TextTransformer)):
        return found
    raise ValueError(
        f"the text tower is a {type(tower).__name__}, whose token embeddings cannot be replaced here: choose a "
        f"model with open_clip's own text tower, such as ViT-B-32"
    )


def embed_words(backbone: Backbone, text: str, context_length: int) -> Tensor:
    """Token embeddings [M, width] of a text, without the tokens that mark start and end.

    Raises:
        ValueError: for a text whose number of tokens is not `context_length`.
    """
    ids, empty = backbone.tokenizer([text, ""])
    padding = int(empty[-1])
    start = _start(backbone)
    count = _length(ids, padding) - _length(empty, padding)
    if count != context_length:
        raise ValueError(
            f"init_text {text!r} is {count} tokens where context_length is {context_length}: make the two equal"
        )
    table = token_embedding(backbone.model).weight
    return table.detach()[ids[start : start + count].to(table.device)].clone()


def prompt_tokens(backbone: Backbone, classes: Sequence[str], count: int) -> Tensor:
    """Ids [C, L] of the class names with `count` place-holders before each.

    Raises:
        ValueError: for a name that leaves no room for so many.
    """
    ids = backbone.tokenizer(list(classes))
    length = ids.shape[1]
    padding = int(backbone.tokenizer([""])[0, -1])
    for name, row in zip(classes, ids, strict=True):
        if (room := length - _length(row, padding)) < count:
            raise ValueError(
                f"the text encoder takes {length} tokens, and the class name {name!r} leaves room for {room} learned "
                f"vectors, not {count}: set context_length to {room} or shorten the name"
            )
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


def _length(ids: Tensor, padding: int) -> int:
    """Tokens of a text up to its last that is no padding."""
    others = (ids != padding).nonzero()
    return int(others.max()) + 1 if len(others) else 0
