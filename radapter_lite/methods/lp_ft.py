"""LP-FT: a linear probe first, then fine-tuning of the image encoder and the probe's head together.

The head fits the features before they move, so that they move, and forget, less.

Source: Kumar et al. 2022, "Fine-Tuning can Distort Pretrained Features and Underperform Out-of-Distribution".
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from radapter_lite.backbone import Backbone
from radapter_lite.delta import Delta
from radapter_lite.encoding import image_features
from radapter_lite.methods.freezing import count, restored
from radapter_lite.methods.linear_probe import LinearProbeConfig, count_head, fit_head
from radapter_lite.methods.objectives import labels_of, require_texts
from radapter_lite.methods.registry import LOOP, WEIGHTS_ELSEWHERE, register
from radapter_lite.methods.trainer import Train
from radapter_lite.tasks import Batch, Task
from radapter_lite.training import TrainingConfig
from radapter_lite.tuned import Tuned

HEAD = "head."  # what the names of the head's tensors begin with; the others are changes of CLIP's weights


@dataclass(frozen=True)
class LpFtConfig(LinearProbeConfig):
    """LP-FT's settings: of the first stage those of the linear probe, of the second those of the loop."""

    training: TrainingConfig = LOOP


def _answer(backbone: Backbone, task: Task, tuned: Tuned) -> Tensor:
    require_texts("LP-FT", tuned.meta["texts"], task)
    changes = {name: tensor for name, tensor in tuned.tensors.items() if not name.startswith(HEAD)}
    with Delta("difference", changes).applied(backbone.model, 1.0):
        features = image_features(backbone, task.images)
    return F.linear(features, *(tuned.tensors[HEAD + name].to(features) for name in ("weight", "bias")))


@register("LP-FT", LpFtConfig(), grid=(2.5e-4, 5e-4, 1e-3), elsewhere=WEIGHTS_ELSEWHERE, answer=_answer)
def lp_ft(backbone: Backbone, task: Task, config: LpFtConfig, train: Train) -> Tuned:
    """Fit a head, then train it with the image encoder by cross-entropy; similarities are logits [N, C].

    A class without training images has the logit -inf. The tuned image encoder is put into the backbone for
    the length of an answer, and taken out again. Raises what `linear_probe` and `train` raise.
    """
    model, labels = backbone.model, labels_of("LP-FT", task)
    features = image_features(backbone, task.images)
    weight, bias = fit_head(features, labels, len(task.names), config.C, config.max_iter)
    head = nn.utils.skip_init(nn.Linear, weight.shape[1], len(weight), device=weight.device)
    head.load_state_dict({"weight": weight, "bias": bias})
    visual = [p for name, p in model.named_parameters() if name.startswith("visual.") and p.requires_grad]

    def loss(batch: Batch) -> Tensor:
        features = backbone.encode_images(batch.images)
        with torch.autocast(batch.images.device.type, enabled=False):
            return F.cross_entropy(head(features.float()), batch.labels)

    with restored(model) as before:
        history = train(loss, [*visual, *head.parameters()], visual=model.get_submodule("visual"), head=head)
        change = Delta.from_difference(before, model)
    learned = change.tensors | {HEAD + name: tensor.cpu() for name, tensor in head.state_dict().items()}
    return Tuned(learned, history, count(visual) + count_head(weight, bias))
