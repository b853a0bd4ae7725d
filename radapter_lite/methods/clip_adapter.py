"""CLIP-Adapter: a small network on the image features, mixed with them, before the zero-shot head.

f' = ρ ReLU(W2 ReLU(W1 f)) + (1 - ρ) f, normalized. Without biases the network scales with its input, so unit
features and features of any other length give the same f'.

Source: Gao et al. 2021, "CLIP-Adapter: Better Vision-Language Models with Feature Adapters".
"""

import os
from dataclasses import asdict, dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from radapter_lite.backbone import Backbone
from radapter_lite.data import ImageSet
from radapter_lite.delta import require_untouched
from radapter_lite.evaluation import encode_images, text_head
from radapter_lite.methods.classification import check_temperature, cosine_cross_entropy
from radapter_lite.training import TrainingConfig, TunedPoint, train


@dataclass(frozen=True)
class ClipAdapterConfig:
    """CLIP-Adapter's settings.

    Attributes:
        training: of the loop.
        reduction: the features' width over the bottleneck's.
        residual_ratio: ρ, the adapted features' share in the mixture; this is no α: the network is not linear,
            and at 0 nothing would be learned.
        temperature: of the cross-entropy.
    """

    training: TrainingConfig = field(default_factory=TrainingConfig)
    reduction: int = 4
    residual_ratio: float = 0.2
    temperature: float = 0.01

    def __post_init__(self) -> None:
        check_temperature(self.temperature)
        if self.reduction < 1:
            raise ValueError(f"reduction must be 1 or more, not {self.reduction}")
        if not 0 < self.residual_ratio <= 1:
            raise ValueError(f"residual_ratio must lie in (0, 1], not {self.residual_ratio}")


class FeatureAdapter(nn.Module):
    """Unit features [N, D] to adapted unit features [N, D]."""

    def __init__(self, width: int, reduction: int, residual_ratio: float) -> None:
        super().__init__()
        hidden = max(1, width // reduction)
        self.down = nn.Linear(width, hidden, bias=False)
        self.up = nn.Linear(hidden, width, bias=False)
        self.residual_ratio = residual_ratio

    def forward(self, features: Tensor) -> Tensor:
        adapted = F.relu(self.up(F.relu(self.down(features))))
        return F.normalize(self.residual_ratio * adapted + (1 - self.residual_ratio) * features, dim=-1)


def clip_adapter(
    backbone: Backbone,
    images: ImageSet,
    config: ClipAdapterConfig,
    *,
    checkpoint: str | os.PathLike[str] | None = None,
) -> TunedPoint:
    """Train the feature adapter by cross-entropy, both encoders frozen; similarities are cosines [N, C].

    It begins near the zero-shot model, not at it: its weights begin at random. Raises what `train` raises.
    """
    require_untouched(backbone.model)
    head = text_head(backbone, images.classes)  # (C, D)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.training.seed)
        adapter = FeatureAdapter(head.shape[1], config.reduction, config.residual_ratio).to(head.device)

    def loss(images: Tensor, labels: Tensor) -> Tensor:
        with torch.no_grad():
            features = backbone.model.encode_image(images, normalize=True)  # type: ignore[operator]
        with torch.autocast(images.device.type, enabled=False):
            return cosine_cross_entropy(adapter(features.float()), head, labels, config.temperature)

    history = train(
        backbone,
        images,
        loss,
        adapter.parameters(),
        config.training,
        state={"adapter": adapter},
        settings=asdict(config),
        checkpoint=checkpoint,
        description="CLIP-Adapter",
    )
    adapter.requires_grad_(False)

    def similarities(images: ImageSet) -> Tensor:
        return adapter(encode_images(backbone, images)) @ text_head(backbone, images.classes).T

    count = sum(parameter.numel() for parameter in adapter.parameters())
    return TunedPoint("CLIP-Adapter", similarities, history, count)
