"""Adapters of features, beside the zero-shot head and with both encoders frozen: CLIP-Adapter and Tip-Adapter.

CLIP-Adapter mixes a small network's answer into the image features: f' = ρ ReLU(W2 ReLU(W1 f)) + (1 - ρ) f,
normalized. Tip-Adapter keeps the training images' features as a cache that votes beside the zero-shot head:

    logits = ratio exp(-β (1 - f K^T)) L + f W_text^T / τ

with keys K the training images' features and L their labels, one-hot; Tip-Adapter-F goes on to train the keys.

Source: Gao et al. 2021 (CLIP-Adapter, arXiv 2110.04544); Zhang et al. 2022 (Tip-Adapter, arXiv 2207.09519).
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from radapter_lite.backbone import Backbone
from radapter_lite.encoding import image_features, text_features
from radapter_lite.methods.objectives import cosine_cross_entropy, frozen_features, labels_of, no_steps, require_texts
from radapter_lite.methods.registry import ADAPTERS_ELSEWHERE, LOOP, LossConfig, register
from radapter_lite.methods.trainer import Train, count
from radapter_lite.seeding import seeded
from radapter_lite.settings import Above0, Count, Part, Settings
from radapter_lite.tasks import Batch, Task
from radapter_lite.training import TrainingConfig
from radapter_lite.tuned import Tuned


@dataclass(frozen=True)
class ClipAdapterConfig(LossConfig):
    """CLIP-Adapter's settings: the features' width over the bottleneck's, and ρ, the adapted features' share."""

    reduction: Count = 4
    residual_ratio: Part = 0.2


class FeatureAdapter(nn.Module):
    """Unit features [N, D] to adapted unit features [N, D]."""

    def __init__(self, width: int, reduction: int, residual_ratio: float) -> None:
        super().__init__()
        hidden = max(1, width // reduction)
        self.down, self.up = nn.Linear(width, hidden, bias=False), nn.Linear(hidden, width, bias=False)
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


@dataclass(frozen=True)
class TipAdapterConfig(Settings):
    """Tip-Adapter's settings.

    Attributes:
        cache_ratio: weight of the cache's votes beside the zero-shot logits; the paper's α, and not the kit's.
        beta: β, how fast a vote fades with distance.
        temperature: τ of the zero-shot logits.
        training: None for Tip-Adapter; the loop's settings for Tip-Adapter-F.
    """

    cache_ratio: Above0 = 1.0
    beta: Above0 = 5.5
    temperature: Above0 = 0.01
    training: TrainingConfig | None = None


def vote(config: TipAdapterConfig, keys: Tensor, votes: Tensor, features: Tensor, head: Tensor) -> Tensor:
    """Logits [B, C] of unit features [B, D]: the zero-shot head's, and the votes [N, C] of keys [N, D] nearby."""
    affinity = torch.exp(-config.beta * (1 - features @ keys.T))  # (B, N)
    return config.cache_ratio * (affinity @ votes) + features @ head.T / config.temperature


def _vote(backbone: Backbone, task: Task, tuned: Tuned) -> Tensor:
    require_texts(tuned.method, tuned.meta["texts"], task)
    keys, votes = (tuned.tensors[name].to(backbone.device) for name in ("keys", "votes"))
    head = text_features(backbone, task.texts(backbone))
    return backbone.temperature * vote(tuned.config, keys, votes, image_features(backbone, task.images), head)


@register(
    "Tip-Adapter",
    TipAdapterConfig(beta=10.0),
    searched="cache_ratio",
    grid=(5.0, 10.0, 20.0),
    elsewhere={"cache_ratio": 1.0, "beta": 5.5},
    answer=_vote,
)
def tip_adapter(backbone: Backbone, task: Task, config: TipAdapterConfig, train: Train) -> Tuned:
    """Fill the cache with un-augmented training images, and train its keys if asked.

    Tip-Adapter-F begins as Tip-Adapter and trains by cross-entropy. Raises ValueError for a task without classes.
    """
    labels = labels_of("Tip-Adapter", task)
    keys = nn.Parameter(image_features(backbone, task.images))  # (N, D)
    head = text_features(backbone, task.texts(backbone))  # (C, D)
    votes = F.one_hot(labels, len(head)).to(head)  # (N, C)

    def loss(batch: Batch) -> Tensor:
        features = frozen_features(backbone, batch)
        with torch.autocast(features.device.type, enabled=False):
            return F.cross_entropy(vote(config, keys, votes, features, head), batch.labels)

    trained = 0 if config.training is None else keys.numel()
    history = train(loss, [keys], cache=nn.ParameterList([keys])) if trained else no_steps()
    return Tuned({"keys": keys.detach(), "votes": votes}, history, trained)


register(
    "Tip-Adapter-F",
    TipAdapterConfig(cache_ratio=10.0, beta=10.0, training=LOOP),
    grid=(3e-4, 1e-3, 3e-3),
    elsewhere=ADAPTERS_ELSEWHERE | {"cache_ratio": 1.0, "beta": 5.5},
    answer=_vote,
)(tip_adapter)
