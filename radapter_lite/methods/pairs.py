"""Images paired with prompts of their classes, as the contrastive methods train on them."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from radapter_lite.backbone import Backbone
from radapter_lite.evaluation import templates
from radapter_lite.losses import mpm_nce
from radapter_lite.training import BatchLoss

# image features [B, D], text features [B, D], positives [B, B] -> scalar
PairLoss = Callable[[Tensor, Tensor, Tensor], Tensor]


def contrastive_loss(backbone: Backbone, classes: list[str], temperature: float) -> BatchLoss:
    """FLYP's loss, without margin or smoothing, which the neighbours of R-Adapter that tune both encoders share."""
    return pair_loss(backbone, classes, partial(mpm_nce, temperature=temperature, margin=0.0, smoothing=0.0))


def pair_loss(backbone: Backbone, classes: list[str], criterion: PairLoss) -> BatchLoss:
    """The loss of a batch of images, each paired with its class's name in a random prompt.

    Pairs of one class are positives of each other.
    """
    prompts = templates(backbone)
    tokens = backbone.tokenizer([prompt.format(name) for name in classes for prompt in prompts])
    tokens = tokens.view(len(classes), len(prompts), -1)  # (C, T, L)

    def loss(images: Tensor, labels: Tensor) -> Tensor:
        prompt = torch.randint(len(prompts), (len(labels),))
        # The same prompt of the same class stands several times in a batch and is encoded once.
        texts, place = torch.unique(tokens[labels.cpu(), prompt], dim=0, return_inverse=True)
        image_features = backbone.model.encode_image(images, normalize=True)  # type: ignore[operator]
        text_features = backbone.model.encode_text(texts.to(images.device), normalize=True)  # type: ignore[operator]
        positives = labels[:, None] == labels[None, :]
        return criterion(image_features, text_features.index_select(0, place.to(images.device)), positives)

    return loss
