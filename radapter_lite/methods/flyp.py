"""FLYP: fine-tune both encoders with the contrastive loss CLIP was pretrained with, prompts as captions.

Source: Goyal et al. 2023 (arXiv 2212.00638).
"""

import os
from dataclasses import asdict, dataclass, field

from radapter_lite.backbone import Backbone
from radapter_lite.data import ImageSet
from radapter_lite.delta import Delta, require_untouched
from radapter_lite.methods.pairs import contrastive_loss
from radapter_lite.methods.unchanged import restored
from radapter_lite.training import TrainingConfig, Tuned, train


@dataclass(frozen=True)
class FLYPConfig:
    """FLYP's settings: the loop, and the fixed temperature of the loss."""

    training: TrainingConfig = field(
        default_factory=lambda: TrainingConfig(epochs=10, batch_size=64, lr=5e-4, warmup_steps=20)
    )
    temperature: float = 0.01


def flyp(
    backbone: Backbone,
    images: ImageSet,
    config: FLYPConfig,
    *,
    checkpoint: str | os.PathLike[str] | None = None,
) -> Tuned:
    """Train every weight of both encoders on images and prompts of their classes; the delta is the difference.

    At α < 1 the delta is WiSE-FT over FLYP. Pairs of one class are positives of each other here. The published
    loss takes each image's own prompt as its only positive and pushes it away from the prompts of its own
    class that stand beside other images; with few classes most batches hold such pairs, and a loss that
    contradicts itself would measure the size of the batch rather than the method.

    The backbone has its original weights again afterwards. Batch statistics stay frozen. Raises what `train`
    raises.
    """
    require_untouched(backbone.model)
    trained = [
        p
        for name, p in backbone.model.named_parameters()
        if p.requires_grad and not name.startswith("logit_")
    ]
    with restored(backbone.model) as before:
        history = train(
            backbone,
            images,
            contrastive_loss(backbone, images.classes, config.temperature),
            trained,
            config.training,
            state={"model": backbone.model},
            settings=asdict(config),
            checkpoint=checkpoint,
            description="FLYP",
        )
        delta = Delta.from_difference(
            before, backbone.model, backbone=backbone, method="flyp", settings=asdict(config)
        )
    return Tuned(delta, history, sum(parameter.numel() for parameter in trained))
