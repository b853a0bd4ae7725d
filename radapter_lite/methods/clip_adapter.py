"""CLIP-Adapter: a small network on the image features, mixed with them, before the zero-shot head.

f' = ρ ReLU(W2 ReLU(W1 f)) + (1 - ρ) f, normalized. Without biases the network scales with its input, so unit
features and features of any other length give the same f'.

Source: Gao et al. 2021, "CLIP-Adapter: Better Vision-Language Models with Feature Adapters".
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from radapter_lite.backbone import Backbone
from radapter_lite.encoding import image_features, text_features
from radapter_lite.methods.objectives import cosine_cross_entropy, frozen_features
from radapter_lite.methods.registry import ADAPTERS_ELSEWHERE, LossConfig, register
from radapter_lite.methods.trainer import Train, count
from radapter_lite.seeding import seeded
from radapter_lite.settings import Count, Part
from radapter_lite.tasks import Batch, Task
from radapter_lite.tuned import Tuned


@dataclass(frozen=True)
class ClipAdapterConfig(LossConfig):
    """CLIP-Adapter's settings.

    Attributes:
        reduction: the features' width over the bottleneck's.
        residual_ratio: ρ, the adapted features' share in the mixture; this is no α: the network is not linear,
            and at 0 nothing would be learned.
    """

    reduction: Count = 4
    residual_ratio: Part = 0.2


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


def _answer(backbone: Backbone, task: Task, tuned: Tuned) -> Tensor:
    features, head = image_features(backbone, task.images), text_features(backbone, task.texts(backbone))
    adapter = FeatureAdapter(head.shape[1], tuned.config.reduction, tuned.config.residual_ratio)
    adapter.load_state_dict(tuned.tensors)
    return adapter.to(head.device)(features) @ head.T


@register("CLIP-Adapter", ClipAdapterConfig(), grid=(1e-2, 3e-2, 9e-2), elsewhere=ADAPTERS_ELSEWHERE, answer=_answer)
def clip_adapter(backbone: Backbone, task: Task, config: ClipAdapterConfig, train: Train) -> Tuned:
    """Train the feature adapter by cross-entropy, both encoders frozen; similarities are cosines [N, C].

    It begins near the zero-shot model, not at it: its weights begin at random. Raises what `train` raises.
    """
    head = text_features(backbone, task.texts(backbone))  # (C, D)
    with seeded(config.training.seed):
        adapter = FeatureAdapter(head.shape[1], config.reduction, config.residual_ratio).to(head.device)

    def loss(batch: Batch) -> Tensor:
        features = frozen_features(backbone, batch)
        with torch.autocast(features.device.type, enabled=False):
            return cosine_cross_entropy(adapter(features), head, batch.labels, config.temperature)

    history = train(loss, adapter.parameters(), adapter=adapter)
    return Tuned(dict(adapter.state_dict()), history, count(adapter.parameters()))
