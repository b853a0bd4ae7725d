"""FLYP: fine-tune both encoders with the contrastive loss CLIP was pretrained with, prompts as captions.

Source: Goyal et al. 2023 (arXiv 2212.00638).
"""

from dataclasses import dataclass

from radapter_lite.backbone import Backbone
from radapter_lite.delta import Delta
from radapter_lite.methods.freezing import count, restored
from radapter_lite.methods.objectives import contrastive_loss
from radapter_lite.methods.registry import WEIGHTS_ELSEWHERE, LossConfig, register
from radapter_lite.methods.trainer import Train
from radapter_lite.tasks import Task
from radapter_lite.tuned import Tuned


@dataclass(frozen=True)
class FLYPConfig(LossConfig):
    """FLYP's settings: the loop, and the fixed temperature of the loss."""


@register("FLYP", FLYPConfig(), grid=(5e-4, 1e-3, 2e-3), elsewhere=WEIGHTS_ELSEWHERE)
def flyp(backbone: Backbone, task: Task, config: FLYPConfig, train: Train) -> Tuned:
    """Train every weight of both encoders on images and their texts; the delta is the difference.

    At α < 1 the delta is WiSE-FT over FLYP. Pairs of one class are positives of each other here. The published
    loss takes each image's own prompt as its only positive and pushes it away from the prompts of its own
    class that stand beside other images; with few classes most batches hold such pairs, and a loss that
    contradicts itself would measure the size of the batch rather than the method.

    The backbone has its original weights again afterwards. Batch statistics stay frozen. Raises what `train`
    raises.
    """
    model = backbone.model
    trained = [p for name, p in model.named_parameters() if p.requires_grad and not name.startswith("logit_")]
    with restored(model) as before:
        history = train(contrastive_loss(backbone, task, config.temperature), trained, model=model)
        delta = Delta.from_difference(before, model, backbone=backbone)
    return Tuned(delta, history, count(trained))
