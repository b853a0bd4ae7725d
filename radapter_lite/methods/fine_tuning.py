"""Full fine-tuning of the image encoder under the frozen zero-shot text head; at α < 1 its delta is WiSE-FT.

Source: Wortsman et al. 2022 (WiSE-FT, arXiv 2109.01903).
"""

import os
from dataclasses import asdict, dataclass, field

from torch import Tensor

from radapter_lite.backbone import Backbone
from radapter_lite.data import ImageSet
from radapter_lite.delta import Delta, require_untouched
from radapter_lite.evaluation import text_head
from radapter_lite.methods.classification import cosine_cross_entropy
from radapter_lite.methods.unchanged import restored
from radapter_lite.training import TrainingConfig, Tuned, train


@dataclass(frozen=True)
class FineTuningConfig:
    """Full fine-tuning's settings: the loop, and the fixed temperature of the logits."""

    training: TrainingConfig = field(
        default_factory=lambda: TrainingConfig(epochs=10, batch_size=64, lr=5e-4, warmup_steps=20)
    )
    temperature: float = 0.01


def fine_tune(
    backbone: Backbone,
    images: ImageSet,
    config: FineTuningConfig,
    *,
    checkpoint: str | os.PathLike[str] | None = None,
) -> Tuned:
    """Train every weight of the image encoder with cross-entropy; the delta is the difference.

    The classifier is the text features of the class names, as zero-shot CLIP has them, and stays so: the text
    encoder is not trained. WiSE-FT is this delta at α < 1, W_org + α (W_ft - W_org).

    The backbone has its original weights again afterwards. Batch statistics stay frozen. Raises what `train`
    raises.
    """
    require_untouched(backbone.model)
    visual = backbone.model.get_submodule("visual")
    trained = [parameter for parameter in visual.parameters() if parameter.requires_grad]
    head = text_head(backbone, images.classes)  # (C, D)

    def loss(batch: Tensor, labels: Tensor) -> Tensor:
        features = backbone.model.encode_image(batch, normalize=True)  # type: ignore[operator]  # (B, D)
        return cosine_cross_entropy(features, head, labels, config.temperature)

    with restored(backbone.model) as before:
        history = train(
            backbone,
            images,
            loss,
            trained,
            config.training,
            state={"visual": visual},
            settings=asdict(config),
            checkpoint=checkpoint,
            description="fine-tuning",
        )
        delta = Delta.from_difference(
            before, backbone.model, backbone=backbone, method="fine_tuning", settings=asdict(config)
        )
    return Tuned(delta, history, sum(parameter.numel() for parameter in trained))
