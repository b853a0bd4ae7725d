"""Full fine-tuning of both encoders with the contrastive loss (FLYP); at α < 1 its delta is WiSE-FT.

Source: Goyal et al. 2023 (FLYP), Wortsman et al. 2022 (WiSE-FT).
"""

import copy
import os
from dataclasses import asdict, dataclass, field
from functools import partial

from radapter_lite.backbones import Backbone
from radapter_lite.data import ImageSet
from radapter_lite.delta import Delta
from radapter_lite.losses import mpm_nce
from radapter_lite.methods.pairs import pair_loss
from radapter_lite.training import TrainingConfig, Tuned, train


@dataclass(frozen=True)
class FineTuningConfig:
    """Full fine-tuning's settings: the loop, and the fixed temperature of the loss."""

    training: TrainingConfig = field(default_factory=lambda: TrainingConfig(epochs=12, lr=1e-3))
    temperature: float = 0.01


def fine_tune(
    backbone: Backbone,
    images: ImageSet,
    config: FineTuningConfig,
    *,
    checkpoint: str | os.PathLike[str] | None = None,
) -> Tuned:
    """Train every weight of both encoders; the delta is the difference.

    Images of one class are positives of each other, as in MPM-NCE, without margin or smoothing. The backbone
    has its original weights again afterwards. Batch statistics stay frozen. Raises what `train` raises.
    """
    before = copy.deepcopy(backbone.model.state_dict())
    criterion = partial(mpm_nce, temperature=config.temperature, margin=0.0, smoothing=0.0)
    trained = [
        p
        for name, p in backbone.model.named_parameters()
        if p.requires_grad and not name.startswith("logit_")
    ]
    try:
        history = train(
            backbone,
            images,
            pair_loss(backbone, images.classes, criterion),
            trained,
            config.training,
            state={"model": backbone.model},
            settings=asdict(config),
            checkpoint=checkpoint,
            description="fine-tuning",
        )
        delta = Delta.from_difference(
            before, backbone.model, backbone=backbone, method="fine_tuning", settings=asdict(config)
        )
    finally:
        backbone.model.load_state_dict(before)
        backbone.model.zero_grad()
    return Tuned(delta, history, sum(parameter.numel() for parameter in trained))
