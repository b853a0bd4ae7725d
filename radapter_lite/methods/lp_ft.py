"""LP-FT: a linear probe first, then fine-tuning of the image encoder and the probe's head together.

The head fits the features before they move, so that they move, and forget, less.

Source: Kumar et al. 2022, "Fine-Tuning can Distort Pretrained Features and Underperform Out-of-Distribution".
"""

import os
from dataclasses import asdict, dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from radapter_lite.backbone import Backbone
from radapter_lite.data import ImageSet
from radapter_lite.delta import Delta, require_untouched
from radapter_lite.evaluation import encode_images
from radapter_lite.methods.classification import require_classes
from radapter_lite.methods.linear_probe import LinearProbeConfig, fit_head
from radapter_lite.methods.unchanged import restored
from radapter_lite.training import TrainingConfig, TunedPoint, train


@dataclass(frozen=True)
class LpFtConfig:
    """LP-FT's settings.

    Attributes:
        training: of the second stage.
        C, max_iter: of the first, as in `LinearProbeConfig`.
    """

    training: TrainingConfig = field(default_factory=lambda: TrainingConfig(epochs=12, lr=3e-4))
    C: float = LinearProbeConfig.C
    max_iter: int = LinearProbeConfig.max_iter

    def __post_init__(self) -> None:
        LinearProbeConfig(self.C, self.max_iter)  # which checks them


def lp_ft(
    backbone: Backbone,
    images: ImageSet,
    config: LpFtConfig,
    *,
    checkpoint: str | os.PathLike[str] | None = None,
) -> TunedPoint:
    """Fit a head, then train it with the image encoder by cross-entropy; similarities are logits [N, C].

    A class without training images has the logit -inf. The tuned image encoder is put into the backbone for
    the length of a call of `similarities`, and taken out again. Raises what `linear_probe` and `train` raise.
    """
    model = backbone.model
    require_untouched(model)
    weight, bias = fit_head(
        encode_images(backbone, images), images.labels, len(images.classes), config.C, config.max_iter
    )
    head = nn.utils.skip_init(nn.Linear, weight.shape[1], len(weight), device=weight.device)
    head.load_state_dict({"weight": weight, "bias": bias})
    visual = [p for name, p in model.named_parameters() if name.startswith("visual.") and p.requires_grad]
    trained = [*visual, *head.parameters()]

    def loss(images: Tensor, labels: Tensor) -> Tensor:
        features = model.encode_image(images, normalize=True)  # type: ignore[operator]
        with torch.autocast(images.device.type, enabled=False):
            return F.cross_entropy(head(features.float()), labels)

    with restored(model) as before:
        history = train(
            backbone,
            images,
            loss,
            trained,
            config.training,
            state={"visual": model.visual, "head": head},  # type: ignore[dict-item]
            settings=asdict(config),
            checkpoint=checkpoint,
            description="LP-FT",
        )
        change = Delta.from_difference(
            before, model, backbone=backbone, method="lp_ft", settings=asdict(config)
        )
    head.requires_grad_(False)
    classes = list(images.classes)

    def similarities(images: ImageSet) -> Tensor:
        require_classes("LP-FT", classes, images)
        with change.applied(model, 1.0):
            return head(encode_images(backbone, images))

    seen = int(torch.isfinite(bias).sum())
    count = sum(p.numel() for p in visual) + seen * (weight.shape[1] + 1)
    return TunedPoint("LP-FT", similarities, history, count)
