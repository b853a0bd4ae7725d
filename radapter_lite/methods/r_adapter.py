"""R-Adapter: adapters in both encoders, dropped and averaged while they learn, merged into the weights after.

Source: Kim et al. 2024 (arXiv 2408.05749).
"""

import os
from dataclasses import asdict, dataclass, field
from functools import partial

import torch

from radapter_lite.adapter import AdapterConfig, AdapterSet
from radapter_lite.backbones import Backbone
from radapter_lite.data import ImageSet
from radapter_lite.losses import mpm_nce
from radapter_lite.methods.pairs import pair_loss
from radapter_lite.training import TrainingConfig, Tuned, train


@dataclass(frozen=True)
class RAdapterConfig:
    """R-Adapter's settings.

    Attributes:
        adapter: rank, dropping, averaging and towers.
        training: of the loop.
        margin, smoothing, temperature: δ, ε and τ of MPM-NCE.
    """

    adapter: AdapterConfig = field(default_factory=AdapterConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    margin: float = 0.05
    smoothing: float = 0.02
    temperature: float = 0.01


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
    with torch.random.fork_rng(devices=[]):  # low-rank adapters begin at random
        torch.manual_seed(config.training.seed)
        adapters = AdapterSet(backbone.model, config.adapter).train()
    criterion = partial(
        mpm_nce, temperature=config.temperature, margin=config.margin, smoothing=config.smoothing
    )
    try:
        history = train(
            backbone,
            images,
            pair_loss(backbone, images.classes, criterion),
            adapters.parameters(),
            config.training,
            after_step=adapters.accumulate,
            state={"adapters": adapters},
            settings=asdict(config),
            checkpoint=checkpoint,
            description="R-Adapter",
        )
        delta = adapters.delta(backbone=backbone, settings=asdict(config))
    finally:
        adapters.remove()
    return Tuned(delta, history, adapters.num_parameters)
