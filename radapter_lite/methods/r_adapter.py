"""R-Adapter: adapters in both encoders, dropped and averaged while they learn, merged into the weights after.

Source: Kim et al. 2024 (arXiv 2408.05749).
"""

import os
from collections.abc import Callable
from dataclasses import asdict, dataclass, field

import pandas as pd
import torch
from torch import Tensor

from radapter_lite.adapter import AdapterConfig, AdapterSet
from radapter_lite.backbone import Backbone
from radapter_lite.data import ImageSet
from radapter_lite.losses import mpm_nce
from radapter_lite.methods.pairs import pair_loss
from radapter_lite.methods.whitening import whiten
from radapter_lite.training import TrainingConfig, Tuned, train


@dataclass(frozen=True)
class RAdapterConfig:
    """R-Adapter's settings.

    Attributes:
        adapter: rank, dropping, averaging and towers.
        training: of the loop.
        margin, smoothing, temperature: δ, ε and τ of MPM-NCE.
        multi_positive: whether images of one class are positives of each other's texts; with False, margin 0
            and smoothing 0 the loss is InfoNCE.
    """

    adapter: AdapterConfig = field(default_factory=AdapterConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    margin: float = 0.05
    smoothing: float = 0.02
    temperature: float = 0.01
    multi_positive: bool = True

    def criterion(self, image_features: Tensor, text_features: Tensor, positives: Tensor) -> Tensor:
        """The loss of a batch: unit features [B, D] twice, pairs of one class [B, B] bool."""
        if not self.multi_positive:
            positives = torch.eye(len(positives), dtype=torch.bool, device=positives.device)
        return mpm_nce(
            image_features,
            text_features,
            positives,
            temperature=self.temperature,
            margin=self.margin,
            smoothing=self.smoothing,
        )


def attach(backbone: Backbone, images: ImageSet, config: RAdapterConfig) -> AdapterSet:
    """Adapters on the backbone's model, in training mode, at the start of their training on the images."""
    with torch.random.fork_rng(devices=[]):  # low-rank adapters begin at random
        torch.manual_seed(config.training.seed)
        adapters = AdapterSet(backbone.model, config.adapter).train()
    if config.adapter.whitening is not None:
        try:
            whiten(adapters, backbone, images, config.training.seed)
        except BaseException:
            adapters.remove()
            raise
    return adapters


def tune_r_adapter(
    backbone: Backbone,
    images: ImageSet,
    config: RAdapterConfig,
    *,
    checkpoint: str | os.PathLike[str] | None = None,
) -> Tuned:
    """Tune adapters on the images; the delta holds their running averages.

    The backbone's weights stay as they are. Raises what `AdapterSet` and `train` raise.
    """
    adapters = attach(backbone, images, config)
    history = train_adapters(adapters, backbone, images, config, adapters.accumulate, checkpoint)
    delta = adapters.delta(backbone=backbone, settings=asdict(config))
    return Tuned(delta, history, adapters.num_parameters)


def train_adapters(
    adapters: AdapterSet,
    backbone: Backbone,
    images: ImageSet,
    config: RAdapterConfig,
    after_step: Callable[[], None],
    checkpoint: str | os.PathLike[str] | None = None,
) -> pd.DataFrame:
    """Train adapters that `attach` gave, then remove them from the model; the history is `train`'s.

    Args:
        after_step: called after each step, to accumulate averages.
    """
    try:
        return train(
            backbone,
            images,
            pair_loss(backbone, images.classes, config.criterion),
            adapters.parameters(),
            config.training,
            after_step=after_step,
            state={"adapters": adapters},
            settings=asdict(config),
            checkpoint=checkpoint,
            description="R-Adapter",
        )
    finally:
        adapters.remove()
