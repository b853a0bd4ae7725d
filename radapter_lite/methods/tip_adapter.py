"""Tip-Adapter: the training images' features as a cache that votes beside the zero-shot head.

logits = ratio exp(-β (1 - f K^T)) L + f W_text^T / τ, with keys K the training images' features and L their
labels, one-hot. Tip-Adapter trains nothing; Tip-Adapter-F goes on to train the keys.

Source: Zhang et al. 2022, "Tip-Adapter: Training-free Adaption of CLIP for Few-shot Classification".
"""

import os
from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from radapter_lite.backbone import Backbone
from radapter_lite.data import ImageSet
from radapter_lite.delta import require_untouched
from radapter_lite.evaluation import encode_images, text_head
from radapter_lite.methods.classification import check_temperature, no_steps, require_classes
from radapter_lite.training import TrainingConfig, TunedPoint, train


@dataclass(frozen=True)
class TipAdapterConfig:
    """Tip-Adapter's settings.

    Attributes:
        cache_ratio: weight of the cache's votes beside the zero-shot logits, which the paper calls α; it is not
            the α between two sets of weights.
        beta: β, how fast a vote fades with distance.
        temperature: τ of the zero-shot logits.
        training: None for Tip-Adapter; the loop's settings for Tip-Adapter-F.
    """

    cache_ratio: float = 1.0
    beta: float = 5.5
    temperature: float = 0.01
    training: TrainingConfig | None = None

    def __post_init__(self) -> None:
        check_temperature(self.temperature)
        for name in ("cache_ratio", "beta"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be above 0, not {getattr(self, name)}")


class Cache(nn.Module):
    """Votes [B, C] of stored features for unit features [B, D], nearer ones louder."""

    votes: Tensor

    def __init__(self, keys: Tensor, votes: Tensor, beta: float) -> None:
        super().__init__()
        self.keys = nn.Parameter(keys)  # (N, D)
        self.register_buffer("votes", votes)  # (N, C)
        self.beta = beta

    def forward(self, features: Tensor) -> Tensor:
        affinity = torch.exp(-self.beta * (1 - features @ self.keys.T))  # (B, N)
        return affinity @ self.votes


def tip_adapter(
    backbone: Backbone,
    images: ImageSet,
    config: TipAdapterConfig,
    *,
    checkpoint: str | os.PathLike[str] | None = None,
) -> TunedPoint:
    """Fill the cache with un-augmented training images, and train its keys if asked; similarities are logits [N, C].

    Tip-Adapter-F begins as Tip-Adapter and trains by cross-entropy, both encoders frozen.

    Raises:
        ValueError: what `train` raises; later, for images whose classes are not the training ones.
    """
    require_untouched(backbone.model)
    keys = encode_images(backbone, images)
    head = text_head(backbone, images.classes)  # (C, D)
    votes = F.one_hot(images.labels, len(images.classes)).to(keys)
    cache = Cache(keys, votes, config.beta)

    def logits(features: Tensor) -> Tensor:
        return config.cache_ratio * cache(features) + features @ head.T / config.temperature

    def loss(images: Tensor, labels: Tensor) -> Tensor:
        with torch.no_grad():
            features = backbone.model.encode_image(images, normalize=True)  # type: ignore[operator]
        with torch.autocast(images.device.type, enabled=False):
            return F.cross_entropy(logits(features.float()), labels)

    name, history, count = "Tip-Adapter", no_steps(), 0
    if config.training is not None:
        name, count = "Tip-Adapter-F", keys.numel()
        history = train(
            backbone,
            images,
            loss,
            cache.parameters(),
            config.training,
            state={"cache": cache},
            settings=asdict(config),
            checkpoint=checkpoint,
            description=name,
        )
    cache.requires_grad_(False)
    classes = list(images.classes)

    def similarities(images: ImageSet) -> Tensor:
        require_classes(name, classes, images)
        return logits(encode_images(backbone, images))

    return TunedPoint(name, similarities, history, count)
