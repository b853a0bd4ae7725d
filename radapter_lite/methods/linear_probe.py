"""A linear probe, logistic regression on the frozen image encoder's features; and LP-FT, which goes on from there.

LP-FT fine-tunes the image encoder and the head, which fits the features before they move, so that they move, and
forget, less. At α < 1 both are WiSE-FT: the head is mixed with zero-shot's, the texts' features over τ.

Source: Radford et al. 2021 (CLIP), section 3.2, scikit-learn's LogisticRegression; Kumar et al. 2022, "Fine-Tuning can
Distort Pretrained Features and Underperform Out-of-Distribution".
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from radapter_lite.backbone import Backbone
from radapter_lite.delta import Delta
from radapter_lite.encoding import image_features, text_features
from radapter_lite.methods.objectives import encode_batch, labels_of, no_steps, require_texts
from radapter_lite.methods.registry import LOOP, WEIGHTS_ELSEWHERE, register
from radapter_lite.methods.trainer import Train, count, restored
from radapter_lite.methods.whitening import inverse_root
from radapter_lite.settings import Above0, Count, Settings
from radapter_lite.tasks import Batch, Task
from radapter_lite.training import TrainingConfig
from radapter_lite.tuned import Tuned

HEAD = "head."  # what the names of the head's tensors begin with; the others are changes of CLIP's weights


@dataclass(frozen=True)
class LinearProbeConfig(Settings):
    """The linear probe's settings.

    Attributes:
        C: the loss is C times the cross-entropy summed over images, plus half the squared norm of the weights.
        max_iter: the most steps of the solver (L-BFGS).
        whitening: a damping λ fits the features made equally loud in every direction, as `whiten` makes an adapter's
            inputs, so that the penalty weighs all directions alike.
    """

    C: Above0 = 100.0
    max_iter: Count = 2000
    whitening: Above0 | None = None


@dataclass(frozen=True)
class LpFtConfig(LinearProbeConfig):
    """LP-FT's settings: of the first stage those of the linear probe, of the second those of the loop."""

    training: TrainingConfig = LOOP


def _answer(backbone: Backbone, task: Task, tuned: Tuned, alpha: float) -> Tensor:
    """Cosine-like similarities [N, C]: logits times the backbone's τ, as zero-shot's are."""
    require_texts(tuned.method, tuned.meta["texts"], task)
    changes = {name: tensor for name, tensor in tuned.tensors.items() if not name.startswith(HEAD)}
    with Delta("difference", changes).applied(backbone.model, alpha):
        features = image_features(backbone, task.images)
    weight, bias = (backbone.temperature * tuned.tensors[HEAD + name].to(features) for name in ("weight", "bias"))
    return F.linear(features, text_features(backbone, task.texts(backbone)).lerp(weight, alpha), alpha * bias)


@register("LP-FT", LpFtConfig(), grid=(2.5e-4, 5e-4, 1e-3), elsewhere=WEIGHTS_ELSEWHERE, answer=_answer, slides=True)
def lp_ft(backbone: Backbone, task: Task, config: LpFtConfig, train: Train) -> Tuned:
    """Fit a head, then train it with the image encoder by cross-entropy.

    A class without training images has the similarity -inf. Raises what `linear_probe` and `train` raise.
    """
    model, (weight, bias) = backbone.model, fit_head(backbone, task, config, "LP-FT")
    head = nn.utils.skip_init(nn.Linear, weight.shape[1], len(weight), device=weight.device)
    head.load_state_dict({"weight": weight, "bias": bias})
    visual = [p for name, p in model.named_parameters() if name.startswith("visual.") and p.requires_grad]

    def loss(batch: Batch) -> Tensor:
        features = encode_batch(backbone, batch)
        with torch.autocast(batch.images.device.type, enabled=False):
            return F.cross_entropy(head(features.float()), batch.labels)

    with restored(model) as before:
        history = train(loss, [*visual, *head.parameters()], visual=model.get_submodule("visual"), head=head)
        change = Delta.from_difference(before, model)
    learned = change.tensors | {HEAD + name: tensor.cpu() for name, tensor in head.state_dict().items()}
    return Tuned(learned, history, count(visual) + count_head(weight, bias))


@register("linear probe", LinearProbeConfig(), searched="C", grid=(1.0, 10.0, 100.0), answer=_answer, slides=True)
def linear_probe(backbone: Backbone, task: Task, config: LinearProbeConfig, train: Train) -> Tuned:
    """Fit the probe on unit features of un-augmented images.

    A class without training images has the similarity -inf. There is no checkpoint to write. Raises ValueError for
    images of a single class, or a task without classes.
    """
    weight, bias = fit_head(backbone, task, config, "a linear probe")
    return Tuned({HEAD + "weight": weight, HEAD + "bias": bias}, no_steps(), count_head(weight, bias))


def count_head(weight: Tensor, bias: Tensor) -> int:
    """How many numbers of a head were fitted: those of the classes that had images."""
    return int(torch.isfinite(bias).sum()) * (weight.shape[1] + 1)


def fit_head(backbone: Backbone, task: Task, config: LinearProbeConfig, method: str) -> tuple[Tensor, Tensor]:
    """Weights [C, D] and biases [C] of a logistic regression on the features of a task's images.

    The bias of a class without images is -inf. Raises ValueError if all images are of one class.
    """
    labels, features = labels_of(method, task), image_features(backbone, task.images)
    seen = labels.unique().tolist()
    if len(seen) < 2:
        found = f"these {len(labels)} are all of one"
        raise ValueError(f"a linear probe needs training images of two classes or more; {found}")
    from sklearn.linear_model import LogisticRegression

    inputs = features.detach().cpu().double()
    basis = torch.eye(inputs.shape[1], dtype=inputs.dtype)
    if config.whitening is not None:
        basis = inverse_root(inputs.T @ inputs / len(inputs), config.whitening)  # symmetric
    regression = LogisticRegression(C=config.C, max_iter=config.max_iter)
    regression.fit((inputs @ basis).numpy(), labels.cpu().numpy())
    weight, bias = features.new_zeros(len(task.names), len(basis)), features.new_full((len(task.names),), -torch.inf)
    if len(seen) == 2:  # scikit-learn keeps one row for two classes, the second's logit against the first's 0
        bias[seen.pop(0)] = 0
    weight[seen] = (torch.from_numpy(regression.coef_) @ basis).to(weight)
    bias[seen] = torch.from_numpy(regression.intercept_).to(bias)
    return weight, bias
