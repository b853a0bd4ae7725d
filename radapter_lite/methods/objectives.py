"""What methods minimize over a batch of a task."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, autocast
from torch.nn import functional as F

from radapter_lite.backbone import Backbone
from radapter_lite.losses import mpm_nce
from radapter_lite.processes import asks_for_shards, gathered, own_rows
from radapter_lite.tasks import Batch, Task

BatchLoss = Callable[[Batch], Tensor]  # -> scalar


def contrastive_loss(backbone: Backbone, task: Task, temperature: float) -> BatchLoss:
    """FLYP's loss, without margin or smoothing, which the neighbours of R-Adapter that tune both encoders share."""
    return pair_loss(backbone, task, partial(mpm_nce, temperature=temperature, margin=0.0, smoothing=0.0))


def pair_loss(backbone: Backbone, task: Task, criterion: Callable[[Tensor, Tensor, Tensor], Tensor]) -> BatchLoss:
    """The loss of a batch of images, each paired with its text in a wording drawn at random; see `mpm_nce`."""
    draw = wordings(backbone, task)
    # Processes that share a model's shards encode together: none may know a text that another asks for.
    encode = backbone.encode_texts if asks_for_shards() else text_encoder(backbone, task)

    def loss(batch: Batch) -> Tensor:
        # The same wording of the same text stands several times in a batch and is encoded once.
        texts, place = torch.unique(draw(batch.labels), dim=0, return_inverse=True)
        image_features = encode_batch(backbone, batch)
        text_features = gathered(encode(texts[own_rows(len(texts))]), len(texts))
        return criterion(image_features, text_features.index_select(0, place.to(text_features.device)), batch.positives)

    return loss


def encode_batch(backbone: Backbone, batch: Batch) -> Tensor:
    """Unit features of all of a batch's images [B, D], of which each process encodes its own; gradients flow."""
    return gathered(backbone.encode_images(batch.images), len(batch.labels))


def text_encoder(backbone: Backbone, task: Task) -> Callable[[Tensor], Tensor]:
    """`Backbone.encode_texts` of a task's token ids [B, L]; if no gradient reaches the first, all are encoded once."""
    known: dict[tuple[int, ...], Tensor] | None = None  # empty where they are tuned

    def encode(tokens: Tensor) -> Tensor:
        nonlocal known
        if not known:
            features = backbone.encode_texts(tokens)
            if known is not None or features.requires_grad:
                known = {}
                return features
            # In batches of their own, so that a resumed run has the same bits whatever it asks for first.
            every = torch.unique(backbone.tokenizer([each for own in task.texts(backbone) for each in own]), dim=0)
            parts = torch.cat([backbone.encode_texts(part) for part in every.split(256)])
            known = dict(zip(map(tuple, every.tolist()), parts, strict=True))
        return torch.stack([known[tuple(text)] for text in tokens.tolist()])

    return encode


def wordings(backbone: Backbone, task: Task) -> Callable[[Tensor], Tensor]:
    """A function from texts, by number [B], to token ids [B, L] of a wording of each, drawn at random."""
    texts = task.texts(backbone)
    widest = max(len(own) for own in texts)
    tokens = backbone.tokenizer([own[number % len(own)] for own in texts for number in range(widest)])
    tokens = tokens.view(len(texts), widest, -1)  # (T, W, L)
    return lambda labels: tokens[labels, torch.randint(widest, (len(labels),))]


def frozen_features(backbone: Backbone, batch: Batch) -> Tensor:
    """Unit features of a batch's images [B, D], in float32, without a gradient."""
    with torch.no_grad():
        return encode_batch(backbone, batch).float()


def head_loss(
    backbone: Backbone, logits: Callable[[Tensor], Tensor], encode: Callable[[Backbone, Batch], Tensor] = encode_batch
) -> BatchLoss:
    """Cross-entropy of the logits [B, C] that a head gives for a batch's unit features [B, D], in float32."""

    def loss(batch: Batch) -> Tensor:
        features = encode(backbone, batch)
        with autocast(features.device.type, enabled=False):
            return F.cross_entropy(logits(features.float()), batch.labels.to(features.device))

    return loss


def cosine_cross_entropy(features: Tensor, head: Tensor, labels: Tensor, temperature: float | Tensor) -> Tensor:
    """Cross-entropy of the cosines of unit features [B, D] and classes [C, D], divided by τ, in float32 [scalar]."""
    with autocast(features.device.type, enabled=False):  # τ = 0.01 multiplies rounding by 100
        return F.cross_entropy(features.float() @ head.float().T / temperature, labels.to(features.device))
