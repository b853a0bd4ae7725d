"""Fine-tuning of all weights, whose delta at α < 1 is WiSE-FT: both encoders' by FLYP's loss, or the image encoder's.

Source: Goyal et al. 2023 (FLYP, arXiv 2212.00638); Wortsman et al. 2022 (WiSE-FT, arXiv 2109.01903).
"""

from torch import Tensor

from radapter_lite.backbone import Backbone
from radapter_lite.backbone.attaching import restored
from radapter_lite.delta import Delta
from radapter_lite.encoding import text_features
from radapter_lite.methods.objectives import contrastive_loss, cosine_cross_entropy, encode_batch
from radapter_lite.methods.registry import WEIGHTS_ELSEWHERE, LossConfig, Train, register
from radapter_lite.tasks import Batch, Task
from radapter_lite.tuned import Tuned


@register("FLYP", LossConfig(), grid=(5e-4, 1e-3, 2e-3), elsewhere=WEIGHTS_ELSEWHERE)
def flyp(backbone: Backbone, task: Task, config: LossConfig, train: Train) -> Tuned:
    """Train every weight of both encoders on images and their texts; the delta is the difference.

    Pairs of one class are positives of each other here. The published loss takes each image's own prompt as its only
    positive and pushes it away from the prompts of its own class that stand beside other images; with few classes most
    batches hold such pairs, and a loss that contradicts itself would measure the size of the batch rather than the
    method. Batch statistics stay frozen. Raises what `train` raises.
    """
    model = backbone.model
    trained = [p for name, p in model.named_parameters() if p.requires_grad and not name.startswith("logit_")]
    with restored(model) as before:
        history = train(contrastive_loss(backbone, task, config.temperature), trained, model=model)
        delta = Delta.from_difference(before, model, backbone=backbone)
    return Tuned(delta, history, sum(p.numel() for p in trained))


@register("fine-tuning", LossConfig(), grid=(5e-4, 1e-3, 2e-3), elsewhere=WEIGHTS_ELSEWHERE)
def fine_tuning(backbone: Backbone, task: Task, config: LossConfig, train: Train) -> Tuned:
    """Train every weight of the image encoder with cross-entropy; the delta is the difference.

    The classifier is the text features of the class names, as zero-shot CLIP has them, and stays so: the text encoder
    is not trained. Batch statistics stay frozen. Raises what `train` raises.
    """
    visual = backbone.model.get_submodule("visual")
    trained = [parameter for parameter in visual.parameters() if parameter.requires_grad]
    head = text_features(backbone, task.texts(backbone))  # (C, D)

    def loss(batch: Batch) -> Tensor:
        return cosine_cross_entropy(encode_batch(backbone, batch), head, batch.labels, config.temperature)

    with restored(backbone.model) as before:
        history = train(loss, trained, visual=visual)
        delta = Delta.from_difference(before, backbone.model, backbone=backbone)
    return Tuned(delta, history, sum(p.numel() for p in trained))
